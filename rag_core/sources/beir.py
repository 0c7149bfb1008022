"""A local folder in the layout of BEIR: `corpus.jsonl`, `queries.jsonl` (or `.gz`), `qrels/<split>.tsv`.

Positives are the documents judged above 0; negatives are mined from the whole corpus without them, by BM25 and by
embedders. They are unjudged for the most part, as is usual for mined candidates. Where too few share a word with the
query, and no embedder searches, the others are drawn at random.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rag_core.base.errors import DataError
from rag_core.base.records import Document, Query, RankingSample, passage_text
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_by_id
from rag_core.files.qrels import read_qrels
from rag_core.sources.mining import Asked, Mining, mine_candidates
from rag_core.sources.splits import Splits


class BeirFolder:
    """One split a qrels file; the corpus is shared."""

    instruction = None

    def __init__(self, folder: Path, mining: Mining) -> None:
        self._corpus, self._queries = find_part(folder, "corpus"), find_part(folder, "queries")
        self._qrels = find_qrels(folder)
        self._mining, self.flags = mining, mining.flags
        self.mined: Counter[str] = Counter()
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
        place_of = {text: place for place, text in enumerate(texts)}
        asked = [
            self._asked(queries[key].text, positive, place_of)
            for found in judged.values()
            for key, positive in found.items()
        ]
        most = max(len(positive) for split in judged.values() for positive in split.values())
        mined = mine_candidates(
            asked,
            texts,
            self._mining,
            depth=self._mining.num_candidates + most + 1,
            unmatched="their negatives are drawn at random",
        )
        self.mined.update(origin for found in mined for origin in found.values())
        negatives = iter(mined)
        return {
            split: [
                RankingSample(
                    query_id=key,
                    query=queries[key].text,
                    positive=positive,
                    negative=[texts[place] for place in next(negatives)],
                )
                for key, positive in found.items()
            ]
            for split, found in judged.items()
        }

    def _asked(self, query: str, positive: Sequence[str], place_of: Mapping[str, int]) -> Asked:
        """Ask for what makes `num_candidates` in all; at least one negative, or there is nothing to rank."""
        # A passage that is the query itself is no candidate: cleaning would take it out.
        known = frozenset(place_of[text] for text in (*positive, query) if text in place_of)
        return Asked(query, max(self._mining.num_candidates - len(positive), 1), known)


def _positives(judged: Mapping[str, int], passages: Mapping[str, str]) -> list[str]:
    """Return the distinct passages judged above 0, in the order of the judgements."""
    positive = {passages[key] for key, relevance in judged.items() if relevance > 0}
    return [text for text in dict.fromkeys(passages[key] for key in judged) if text in positive]


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
