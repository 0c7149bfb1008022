"""BM25 through bm25s: it finds candidates, and it is the baseline row of a report."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag_core.base.records import RankingSample
from rag_core.retrieval.dense import best_places

# The values of Anserini's MS MARCO baseline are tuned to passages; these are the Lucene defaults.
_K1, _B = 1.2, 0.75


class BM25:
    """Okapi BM25 (Lucene's variant) over lower-cased words, without stemming or stop words."""

    def __init__(self, passages: Sequence[str]) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets it to DEBUG
        self._bm25s = bm25s
        self._index = bm25s.BM25(k1=_K1, b=_B, method="lucene")
        self._index.index(self._tokenize(passages), show_progress=False)
        self._size = len(passages)

    def _tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        tokens: list[list[str]] = self._bm25s.tokenize(
            list(texts), token_pattern=r"(?u)\w+", stopwords=None, return_ids=False, show_progress=False
        )
        return tokens

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """Score every passage for a query; shape (passages,), 0 where no word is shared."""
        known = [word for word in self._tokenize([query])[0] if word in self._index.vocab_dict]
        if not known:
            return np.zeros(self._size, dtype=np.float32)
        return np.asarray(self._index.get_scores(known), dtype=np.float32)


def nearest_passages(queries: Sequence[str], passages: Sequence[str], count: int) -> list[list[int]]:
    """Return the positions of the `count` best passages of each query, best first, ties in passage order."""
    index = BM25(passages)
    return [best_places(index.scores(query), count) for query in queries]


def bm25_scores(samples: Sequence[RankingSample]) -> list[list[float]]:
    """Score each sample's `passages()` by BM25, with the statistics of all distinct passages of the samples."""
    index = {text: row for row, text in enumerate(dict.fromkeys(t for s in samples for t, _ in s.passages()))}
    bm25 = BM25(list(index))
    rows = []
    for sample in samples:
        scores = bm25.scores(sample.query)
        rows.append([float(scores[index[passage]]) for passage, _ in sample.passages()])
    return rows
