"""Exact search by cosine: every passage is compared with every query."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

Places = npt.NDArray[np.int64]

# A block of scores takes 32 MB, and documents that are mapped from disk are gone through once.
_DOCUMENTS_AT_ONCE, _QUERIES_AT_ONCE = 2**15, 256
_VALUES_AT_ONCE = 2**22  # of documents that are fetched by place


class VectorRows(Protocol):
    """Vectors that are read when they are asked for, by slice or by places; shape (rows, dimensions)."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


def nearest(
    queries: Floats, documents: Floats | VectorRows, count: int, *, device: str = "cpu", desc: str | None = None
) -> tuple[Places, Floats]:
    """Return the places of the `count` best documents of each query and their scores, best first, ties by place.

    In memory are the queries, what they have found, and a block of 2^15 documents.

    Args:
        queries: shape (queries, dimensions).
        documents: shape (documents, dimensions), also mapped from disk.
        device: "cpu" for NumPy; another is torch's. Both find the same, but where scores differ by less than float32
            tells apart.
        desc: of a progress bar over documents; `None` for none.

    Returns:
        Shape (queries, count) each; where there are fewer documents, the rest has place -1 and score -inf.
    """
    best: _Best = _BestInNumpy(queries, count) if device == "cpu" else _BestInTorch(queries, count, device)
    from tqdm import tqdm

    with tqdm(total=len(documents), unit="passage", desc=desc, disable=None if desc else True) as bar:
        for first in range(0, len(documents), _DOCUMENTS_AT_ONCE):
            block = np.asarray(documents[first : first + _DOCUMENTS_AT_ONCE])
            best.add(block, first)
            bar.update(len(block))
    return best.found()


class _Best(Protocol):
    def add(self, block: Floats, first: int) -> None: ...

    def found(self) -> tuple[Places, Floats]: ...


class _BestInNumpy:
    def __init__(self, queries: Floats, count: int) -> None:
        self._queries, self._count = queries, count
        self._places = np.full((len(queries), count), -1, dtype=np.int64)
        self._scores = np.full((len(queries), count), -np.inf, dtype=np.float32)

    def add(self, block: Floats, first: int) -> None:
        places, scores, count = self._places, self._scores, self._count
        for start in range(0, len(self._queries), _QUERIES_AT_ONCE):
            for row, found in enumerate(self._queries[start : start + _QUERIES_AT_ONCE] @ block.T, start):
                best = np.array(best_places(found, count), dtype=np.int64)
                # The places before are lower ones, so that a stable order keeps them first among equals.
                both = np.concatenate([places[row], best + first]), np.concatenate([scores[row], found[best]])
                order = np.argsort(-both[1], kind="stable")[:count]
                places[row], scores[row] = both[0][order], both[1][order]

    def found(self) -> tuple[Places, Floats]:
        return self._places, self._scores


class _BestInTorch:
    def __init__(self, queries: Floats, count: int, device: str) -> None:
        import torch

        self._queries, self._count, self._device = torch.tensor(queries, device=device), count, device
        self._places = torch.full((len(queries), count), -1, device=device)
        self._scores = torch.full((len(queries), count), -torch.inf, device=device)

    def add(self, block: Floats, first: int) -> None:
        import torch

        documents = torch.tensor(block, device=self._device)
        for start in range(0, len(self._queries), _QUERIES_AT_ONCE):
            mine = slice(start, start + _QUERIES_AT_ONCE)
            # Of equal ones `topk` takes any, and a stable sort those that stand first.
            found = torch.sort(self._queries[mine] @ documents.T, dim=1, descending=True, stable=True)
            scores = torch.cat([self._scores[mine], found.values[:, : self._count]], dim=1)
            places = torch.cat([self._places[mine], found.indices[:, : self._count] + first], dim=1)
            order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, : self._count]
            self._scores[mine], self._places[mine] = scores.gather(1, order), places.gather(1, order)

    def found(self) -> tuple[Places, Floats]:
        return self._places.cpu().numpy(), self._scores.cpu().numpy()


def scores_at(queries: Floats, documents: Floats | VectorRows, places: Places) -> Floats:
    """Return the score of each query with the documents at its places; shape (queries, results), -inf at place -1."""
    scores = np.empty(places.shape, dtype=np.float32)
    rows = max(1, _VALUES_AT_ONCE // max(1, places.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), rows):
        mine = slice(start, start + rows)
        scores[mine] = np.einsum("qd,qrd->qr", queries[mine], documents[places[mine]])
    return np.where(places >= 0, scores, np.float32(-np.inf))


def best_places(scores: npt.NDArray[np.float32], count: int) -> list[int]:
    """Return the positions of the `count` highest scores, best first, ties in their order."""
    if count < len(scores):
        # Whatever ties with the last place stays in, so that the stable sort decides as it would over all.
        kept = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    else:
        kept = np.arange(len(scores))
    order = np.argsort(-scores[kept], kind="stable")[:count]
    best: list[int] = kept[order].tolist()
    return best
