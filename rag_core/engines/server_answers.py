"""What a server may answer: strict types, each row once, and no more bytes than such rows can have."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, FailFast, Field, TypeAdapter, ValidationError

from rag_core.base.outside_text import quoted
from rag_core.engines.protocols import Floats

_AROUND_ROWS = 2**16  # bytes of an answer beside its rows
_SCORE_BYTES = 2**12  # of a row with one number, which takes about 60
_CHOICE_BYTES = 2**14  # of a row with one token and its log-probabilities, which takes about 600
_TOKEN_BYTES = 2**10  # of a token that is written; the longest of a vocabulary have a few hundred
_NUMBER_BYTES = 32  # of a dimension, which takes up to 24 with its comma
_MOST_DIMENSIONS = 2**14  # where they are not known yet
_LIST_BYTES = 2**21  # of what a server says about itself; a list of 300 models with descriptions takes a quarter

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)
Count = Annotated[int, Field(gt=0, le=10**9)]


def _writable(text: str) -> str:
    text.encode()  # JSON can spell half a character
    return text


Text = Annotated[str, AfterValidator(_writable)]


@dataclass(frozen=True)
class Endpoint(Generic[Found_co]):
    """A path of a server, and how its answer is read.

    Attributes:
        read: finds the values of so many rows in a body; raises `ValueError` where that has another form.
        row_bytes: of a row, at most.
    """

    path: str
    read: Callable[[bytes, int], Found_co]
    row_bytes: int

    def most_bytes(self, rows: int) -> int:
        """Return the bytes of an answer with so many rows, at most."""
        return _AROUND_ROWS + rows * self.row_bytes


class _Row(BaseModel):
    index: int


class _Scored(_Row):
    score: float


class _Pooled(_Row):
    data: Annotated[list[float], Field(min_length=1, max_length=1)]


class _Logprobs(BaseModel):
    top_logprobs: Annotated[list[dict[str, float]], Field(min_length=1)]


class _Judged(_Row):
    logprobs: _Logprobs


class _Written(_Row):
    text: Text
    finish_reason: Text | None = None


class _Embedded(_Row):
    embedding: str | list[Any]


class _Model(BaseModel):
    id: Text
    max_model_len: Count | None = None


class TeiInfo(BaseModel):
    """What TEI says about itself."""

    model_id: Text
    max_input_length: Count
    max_client_batch_size: Count


Row = TypeVar("Row", bound=_Row)
Value = TypeVar("Value")


def _parse(body: bytes) -> Any:
    """Read JSON; `ValueError` where it is none, is nested too deeply, or has a key twice in an object."""
    try:
        return json.loads(body.decode("utf-8-sig"), object_pairs_hook=_with_keys_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(quoted(body.decode("utf-8", "replace")) or "it is empty") from error


def _with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _below(key: str, body: bytes) -> Any:
    answer = _parse(body)
    if not isinstance(answer, Mapping) or key not in answer:
        raise ValueError(quoted(body.decode()))
    return answer[key]


def _checked(form: TypeAdapter[Found], answer: Any) -> Found:
    try:
        return form.validate_python(answer, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ValueError(quoted(": ".join([*map(str, first["loc"]), first["msg"]]))) from error


def _rows(key: str | None, form: type[Row], value: Callable[[Row], Value]) -> Callable[[bytes, int], list[Value]]:
    """Return what reads the rows below a key, or an answer that is the rows, and gives their values in order."""
    adapter: TypeAdapter[list[Row]] = TypeAdapter(Annotated[list[form], FailFast()])  # type: ignore[valid-type, arg-type]

    def read(body: bytes, count: int) -> list[Value]:
        rows = _checked(adapter, _parse(body) if key is None else _below(key, body))
        by_index = {row.index: row for row in rows}
        if len(rows) != count or by_index.keys() != set(range(count)):
            raise ValueError(f"{len(rows)} rows with {len(by_index)} indices, where 0 to {count - 1} were asked for")
        return [value(by_index[index]) for index in range(count)]

    return read


SCORE = Endpoint("/score", _rows("data", _Scored, lambda row: row.score), _SCORE_BYTES)
POOLING = Endpoint("/pooling", _rows("data", _Pooled, lambda row: row.data[0]), _SCORE_BYTES)
RERANK = Endpoint("/rerank", _rows(None, _Scored, lambda row: row.score), _SCORE_BYTES)
LOGPROBS = Endpoint(
    "/v1/completions", _rows("choices", _Judged, lambda row: row.logprobs.top_logprobs[0]), _CHOICE_BYTES
)


def completions(max_new_tokens: int) -> Endpoint[list[tuple[str, bool]]]:
    """Return the endpoint that writes texts of so many tokens at most, each with whether that number ended it."""
    read = _rows("choices", _Written, lambda row: (row.text, row.finish_reason == "length"))
    return Endpoint("/v1/completions", read, _CHOICE_BYTES + max_new_tokens * _TOKEN_BYTES)


def embeddings(*, of_tei: bool, dimensions: int | None) -> Endpoint[list[Floats]]:
    """Return the endpoint that gives vectors, all of the same number of dimensions, also where that is not known."""
    embedded = _rows("data", _Embedded, lambda row: row.embedding)

    def read(body: bytes, count: int) -> list[Floats]:
        rows = _checked(_LISTS, _parse(body)) if of_tei else embedded(body, count)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which the engine looks for
            vectors = [_vector(row) for row in rows]
        lengths = sorted({dimensions or len(vectors[0]), *map(len, vectors)} if vectors else {})
        if len(vectors) != count or len(lengths) > 1 or 0 in lengths:
            raise ValueError(f"{len(vectors)} vectors of {' or '.join(map(str, lengths))} dimensions for {count} texts")
        return vectors

    row_bytes = _SCORE_BYTES + (dimensions or _MOST_DIMENSIONS) * _NUMBER_BYTES
    return Endpoint("/embed" if of_tei else "/v1/embeddings", read, row_bytes)


_LISTS, _NUMBERS = TypeAdapter(list[list[Any]]), TypeAdapter(Annotated[list[float], FailFast()])
_INFO, _MODELS = TypeAdapter(TeiInfo), TypeAdapter(Annotated[list[_Model], FailFast()])


def _vector(row: str | list[Any]) -> Floats:
    if isinstance(row, str):
        return np.frombuffer(base64.b64decode(row, validate=True), "<f4")
    return np.array(_checked(_NUMBERS, row), dtype=np.float32)


def _tei_info(body: bytes, _: int) -> TeiInfo | None:
    """Read what TEI says about itself; `None` where another server answers."""
    try:
        answer = _parse(body)
    except ValueError:
        return None
    return _checked(_INFO, answer) if isinstance(answer, Mapping) and "model_id" in answer else None


def _models(body: bytes, _: int) -> dict[str, int | None]:
    """Read the models of a server, and how many tokens each reads, where it says so."""
    return {model.id: model.max_model_len for model in _checked(_MODELS, _below("data", body))}


INFO = Endpoint("/info", _tei_info, _LIST_BYTES)
MODELS = Endpoint("/v1/models", _models, _LIST_BYTES)
