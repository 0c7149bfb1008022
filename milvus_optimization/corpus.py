"""A corpus with its queries and qrels, and the vectors of models: what `embed_corpus` leaves in a folder.

| file | holds |
|---|---|
| `documents.jsonl` | `Document` records; the place of a row is the document's place in every array of vectors |
| `queries.jsonl` | `Query` records, in the order of their vectors |
| `qrels.tsv` | judgements, where there are any |
| `<model>/documents.npy`, `<model>/queries.npy` | float32, shape (rows, dimensions), each row of length 1 |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError
from rag_core.base.records import Document, Qrels, Query, passage_text
from rag_core.files.jsonl import read_by_id
from rag_core.files.qrels import read_qrels

Floats = npt.NDArray[np.float32]

DOCUMENTS, QUERIES, QRELS = "documents.jsonl", "queries.jsonl", "qrels.tsv"
_LENGTH_TOLERANCE = 1e-3
_CHECKED_AT_ONCE = 2**14  # rows


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Texts by id, and which document answers which query.

    Attributes:
        qrels: empty where nobody judged.
    """

    documents: Mapping[str, Document]
    queries: Mapping[str, str]
    qrels: Qrels

    def texts(self) -> list[str]:
        """Return the documents' texts, title first, in their order."""
        return [passage_text(document.title, document.text) for document in self.documents.values()]


@dataclasses.dataclass(frozen=True)
class Vectors:
    """The vectors of one model, each of length 1, read from disk when they are used; shape (rows, dimensions)."""

    model: str
    documents: Floats
    queries: Floats


def read_corpus(folder: Path) -> Corpus:
    """Read the texts and qrels of a folder.

    Raises:
        DataError: a file is missing or a row is bad.
    """
    documents = read_by_id(folder / DOCUMENTS, Document)
    queries = {key: query.text for key, query in read_by_id(folder / QUERIES, Query).items()}
    judged = folder / QRELS
    qrels = read_qrels(judged, queries=queries, documents=documents) if judged.exists() else {}
    return Corpus(documents, queries, qrels)


def read_vectors(folder: Path, model: str, corpus: Corpus) -> Vectors:
    """Map the vectors of a model into memory, and check every row.

    Raises:
        DataError: an array is missing, of another shape, or has a row that is not finite or not of length 1.
    """
    documents = _read_array(folder / model / "documents.npy", len(corpus.documents))
    queries = _read_array(folder / model / "queries.npy", len(corpus.queries))
    if documents.shape[1] != queries.shape[1]:
        raise DataError(
            f"has {queries.shape[1]} dimensions, and the documents have {documents.shape[1]}",
            "Run embed_corpus again",
            path=folder / model / "queries.npy",
        )
    return Vectors(model, documents, queries)


def model_names(folder: Path) -> list[str]:
    """Return the models whose vectors stand in a folder, by name.

    Raises:
        DataError: there is none.
    """
    names = sorted(path.parent.name for path in folder.glob("*/documents.npy"))
    if not names:
        raise DataError("holds no vectors", "Run embed_corpus, or name its --output_dir", path=folder)
    return names


def choose_model(folder: Path, wanted: str | None) -> str:
    """Return the model that is asked for, or the only one.

    Raises:
        DataError: it is not there, or there are several and none is asked for.
    """
    names = model_names(folder)
    if wanted in names or (wanted is None and len(names) == 1):
        return wanted or names[0]
    what = f"has no vectors of {wanted!r}" if wanted else "has the vectors of several models"
    raise DataError(what, f"Pass --model with one of: {', '.join(names)}", path=folder)


def check_vectors(vectors: Floats, path: Path) -> None:
    """Check that each row is finite and of length 1, since a cosine is taken as an inner product.

    Raises:
        DataError: one is not.
    """
    for start in range(0, len(vectors), _CHECKED_AT_ONCE):
        lengths = np.linalg.norm(vectors[start : start + _CHECKED_AT_ONCE], axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE))  # also where it is NaN
        if len(wrong):
            raise DataError(
                f"row {start + wrong[0]} has length {lengths[wrong[0]]:g}, not 1",
                "Normalise the vectors; a zero or NaN row has no direction: leave its text out",
                path=path,
            )


def _read_array(path: Path, rows: int) -> Floats:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError("no such file", "Run embed_corpus", path=path) from error
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"is no NumPy array ({error})", "Run embed_corpus again", path=path) from error
    if array.ndim != 2 or array.dtype != np.float32 or len(array) != rows:
        what = f"has {array.dtype} values of shape {array.shape}, not float32 of ({rows}, dimensions)"
        raise DataError(what, "Run embed_corpus again", path=path)
    check_vectors(array, path)
    return array


def judged_queries(qrels: Qrels, query_ids: Sequence[str]) -> list[int]:
    """Return the places of the queries that have a relevant document."""
    return [place for place, key in enumerate(query_ids) if max(qrels.get(key, {}).values(), default=0) > 0]
