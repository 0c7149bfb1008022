"""A local folder in the layout of BEIR: `corpus.jsonl`, `queries.jsonl` (or `.gz`), `qrels/<split>.tsv`.

Positives are the documents judged above 0; negatives are the BM25 top of the whole corpus without them,
unjudged for the most part, as is usual for mined candidates. Where too few share a word with the query, the others are
drawn at random.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from rag_core.base.errors import DataError
from rag_core.base.records import Document, Query, RankingSample, passage_text
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_by_id
from rag_core.files.qrels import read_qrels
from rag_core.retrieval.analyser import PLAIN, Analyser
from rag_core.retrieval.bm25 import filled_at_random, nearest_passages, unmatched_note
from rag_core.sources.splits import Splits

logger = logging.getLogger(__name__)


class BeirFolder:
    """One split a qrels file; the corpus is shared."""

    instruction = None

    def __init__(self, folder: Path, num_candidates: int, *, seed: int = 0, analyser: Analyser = PLAIN) -> None:
        self._corpus, self._queries = find_part(folder, "corpus"), find_part(folder, "queries")
        self._qrels = find_qrels(folder)
        self._num_candidates, self._seed, self._analyser = num_candidates, seed, analyser
        self.flags = {"num_candidates": num_candidates, **analyser.recipe}
        if not self._qrels:
            raise DataError("holds no qrels/<split>.tsv", "Pass a folder in the BEIR layout", path=folder)
        self.splits = list(self._qrels)
        self.inputs = [self._corpus, self._queries, *self._qrels.values()]

    def read(self, dropped: Counter[str], bad_rows: BadRows) -> Splits:
        """Read the folder and mine the negatives.

        Raises:
            DataError: a row is bad, an id stands twice, or a judgement names what is not there.
        """
        corpus = read_by_id(self._corpus, Document, bad_rows=bad_rows)
        queries = read_by_id(self._queries, Query, bad_rows=bad_rows)
        passages = {key: passage_text(document.title, document.text) for key, document in corpus.items()}
        judged = {}
        for split, path in self._qrels.items():
            qrels = read_qrels(path, queries=queries, documents=passages, bad_rows=bad_rows)
            relevant = {key: _positives(found, passages) for key, found in qrels.items()}
            judged[split] = {key: texts for key, texts in relevant.items() if texts}
            dropped["queries_without_positives"] += len(relevant) - len(judged[split])
        texts = list(dict.fromkeys(passages.values()))
        asked = {queries[key].text: None for split in judged.values() for key in split}
        most = max(len(positive) for split in judged.values() for positive in split.values())
        # One more for a passage that is the query itself: cleaning takes it out.
        count = self._num_candidates + most + 1
        nearest = nearest_passages(list(asked), texts, count, self._analyser)
        unmatched = nearest.count([])
        if unmatched:
            consequence = "their negatives are drawn at random"
            logger.warning("%s", unmatched_note(unmatched, len(asked), "any passage", consequence))
        generator = random.Random(self._seed)
        filled = [filled_at_random(places, len(texts), count, generator) for places in nearest]
        ranking = dict(zip(asked, filled, strict=True))
        return {
            split: [
                _sample(key, queries[key].text, positive, [texts[i] for i in ranking[queries[key].text]], self)
                for key, positive in found.items()
            ]
            for split, found in judged.items()
        }

    def negatives_beside(self, positives: int) -> int:
        """Return how many negatives make `num_candidates` in all; at least one, or there is nothing to rank."""
        return max(self._num_candidates - positives, 1)


def _positives(judged: Mapping[str, int], passages: Mapping[str, str]) -> list[str]:
    """Return the distinct passages judged above 0, in the order of the judgements."""
    positive = {passages[key] for key, relevance in judged.items() if relevance > 0}
    return [text for text in dict.fromkeys(passages[key] for key in judged) if text in positive]


def _sample(key: str, query: str, positive: list[str], ranked: list[str], folder: BeirFolder) -> RankingSample:
    known = {*positive, query}
    negative = [text for text in ranked if text not in known]
    return RankingSample(
        query_id=key, query=query, positive=positive, negative=negative[: folder.negatives_beside(len(positive))]
    )


def find_qrels(folder: Path) -> dict[str, Path]:
    """Return split -> its file of judgements, by name."""
    return {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}


def find_part(folder: Path, name: str) -> Path:
    """Return where the corpus or the queries of a folder stand, packed or not.

    Raises:
        DataError: nowhere.
    """
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if os.path.lexists(path):
            return path
    raise DataError(f"holds no {name}.jsonl or {name}.jsonl.gz", "Pass a folder in the BEIR layout", path=folder)
