"""A corpus with its queries and qrels, and the vectors of models: what `embed_corpus` leaves in a folder.

| file | holds |
|---|---|
| `documents.jsonl` | `Document` records; the place of a row is the document's place in every array of vectors |
| `queries.jsonl` | `Query` records, in the order of their vectors |
| `qrels.tsv` | judgements, where there are any |
| `<model>/documents.npy`, `<model>/queries.npy` | float32, shape (rows, dimensions), each row of length 1 |

Each has its manifest, by which a file that was changed, or one that belongs to another corpus, is refused.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError, StaleError
from rag_core.base.outside_text import quoted
from rag_core.base.records import Document, Qrels, Query, passage_text
from rag_core.files.bad_rows import BadRows
from rag_core.files.inputs import open_input, sha256
from rag_core.files.jsonl import read_by_id
from rag_core.files.manifest import UNKNOWN, check_inputs, read_manifest
from rag_core.files.qrels import read_qrels

Floats = npt.NDArray[np.float32]

DOCUMENTS, QUERIES, QRELS = "documents.jsonl", "queries.jsonl", "qrels.tsv"
ARRAYS = {"documents.npy": DOCUMENTS, "queries.npy": QUERIES}  # of a model -> the texts that their rows are of
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


def read_corpus(folder: Path, qrels: Path | None = None, *, bad_rows: BadRows | None = None) -> Corpus:
    """Read the texts and qrels of a folder.

    Args:
        qrels: judgements in the place of the folder's own.
        bad_rows: decides what becomes of a bad row of `qrels`.

    Raises:
        DataError: a file is missing or a row is bad.
        StaleError: a file has changed, or is of another run than the others.
    """
    judged = qrels or folder / QRELS
    # Where a link leads nowhere, something is there, and wrong.
    own = [folder / name for name in (DOCUMENTS, QUERIES, QRELS) if name != QRELS or os.path.lexists(folder / QRELS)]
    if not os.path.lexists(own[0]):
        raise DataError(f"holds no {DOCUMENTS}", "Run embed_corpus, or name its --output_dir", path=folder)
    check_inputs(own if qrels is None else [*own[:2], qrels])
    _check_one_run(own[:2] if qrels else own)
    documents = read_by_id(folder / DOCUMENTS, Document)
    queries = {key: query.text for key, query in read_by_id(folder / QUERIES, Query).items()}
    if qrels is None and not judged.exists():
        return Corpus(documents, queries, {})
    return Corpus(documents, queries, read_qrels(judged, queries=queries, documents=documents, bad_rows=bad_rows))


def _check_one_run(paths: Sequence[Path]) -> None:
    manifests = {path: manifest for path in paths if (manifest := read_manifest(path))}
    first = next(iter(manifests.values()), UNKNOWN)
    for path, manifest in manifests.items():
        if manifest.recipe != first.recipe and manifest.recipe.get("stage") == first.recipe.get("stage"):
            remedy = f"Make both again ({first.command} --overwrite)"
            raise StaleError(f"is of another run than the {DOCUMENTS} beside it", remedy, path=path)


def judge_of(qrels: Path) -> str:
    """Return who judged: "labels", or the name of the teacher whose scores stand in."""
    teacher = (read_manifest(qrels) or UNKNOWN).teacher
    return teacher.get("name", "unknown") if teacher else "labels"


def read_vectors(folder: Path, model: str, corpus: Corpus) -> Vectors:
    """Map the vectors of a model into memory, and check every row.

    Raises:
        DataError: an array is missing, of another shape, or has a row that is not finite or not of length 1.
        StaleError: an array has changed, or was made of other texts than those in the folder.
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
    if wanted is None and len(names) > 1:
        what = "has the vectors of several models"
        raise DataError(what, f"Pass --model with one of: {', '.join(names)}", path=folder)
    return choose_models(folder, [wanted] if wanted else None)[0]


def choose_models(folder: Path, wanted: Sequence[str] | None) -> list[str]:
    """Return the models that are asked for, each once, or all.

    Raises:
        DataError: one is not there.
    """
    names = model_names(folder)
    for name in wanted or ():
        if name not in names:
            what = f"has no vectors of {quoted(repr(name))}"
            raise DataError(what, f"Pass --model with one of: {', '.join(names)}", path=folder)
    return list(dict.fromkeys(wanted or names))


def check_vectors(vectors: Floats, path: Path, *, first_row: int = 0) -> None:
    """Check that each row is finite and of length 1, since a cosine is taken as an inner product.

    Args:
        first_row: number of the first one, for the error.

    Raises:
        DataError: one is not.
    """
    for start in range(0, len(vectors), _CHECKED_AT_ONCE):
        with np.errstate(over="ignore"):  # an infinite length is none of 1
            lengths = np.linalg.norm(vectors[start : start + _CHECKED_AT_ONCE], axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE))  # also where it is NaN
        if len(wrong):
            raise DataError(
                f"row {first_row + start + wrong[0]} has length {lengths[wrong[0]]:g}, not 1",
                "Normalise the vectors; a zero or NaN row has no direction: leave its text out",
                path=path,
            )


def _read_array(path: Path, rows: int) -> Floats:
    _check_made_of(path)
    try:
        array: Floats = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of a damaged head NumPy raises whatever Python's own parser does
        raise DataError(f"is no NumPy array ({quoted(str(error))})", "Run embed_corpus again", path=path) from error
    if not isinstance(array, np.memmap):
        raise DataError("is an archive, not one array", "Run embed_corpus again", path=path)
    if array.ndim != 2 or array.dtype != np.float32 or len(array) != rows:
        what = f"has {array.dtype} values of shape {array.shape}, not float32 of ({rows}, dimensions)"
        raise DataError(what, "Run embed_corpus again", path=path)
    check_vectors(array, path)
    return array


def _check_made_of(path: Path) -> None:
    """Check an array, and the texts that it was made of, against its manifest, where it has one."""
    open_input(path).close()  # a pipe would not let itself be mapped
    manifest = read_manifest(path)
    if manifest is None:
        return
    check_inputs([path])
    texts = path.parent.parent / ARRAYS[path.name]
    if sha256(texts) not in (manifest.recipe.get("inputs") or {}).values():
        raise StaleError(
            f"was embedded from another {texts.name} than the one in the folder",
            f"Embed it again ({manifest.command} --overwrite)",
            path=path,
        )
