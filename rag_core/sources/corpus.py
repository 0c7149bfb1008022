"""Unlabelled passages, with a log of queries or without: candidates are mined, and the teacher judges them.

Without a log, queries are taken out of the passages, with no language model: a sentence that is cut out of its passage
(the inverse cloze task of Lee et al. 2019, "Latent Retrieval for Weakly Supervised Open Domain
Question Answering", arXiv:1906.00300), or its title. Nothing is labelled. The passage that a query was cut
out of is one candidate among others.
"""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import regex

from rag_core.base.errors import DataError
from rag_core.base.records import Passage, Query, RankingSample, passage_text
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records
from rag_core.retrieval.analyser import count_words
from rag_core.sources.mining import Asked, Candidates, Mining, mine_candidates
from rag_core.sources.splits import Splits, split_samples

QueryFrom = Literal["sentence", "title"]

_QUERY_WORDS = range(5, 41)
_NO_PLACE = -1  # of a query from a log
# After a full stop of spaced text, after one that needs no space (with its bracket), and at a space of Thai or Lao,
# which have no full stop.
_SENTENCE_START = regex.compile(
    r"(?<=[.\p{SB=STerm}] )(?=[\p{Lu}\p{Lt}\p{Lo}\p{N}])"
    r"|(?<=[\u3002\uff01\uff1f\uff61\u104b\u17d4]\p{Pe}? ?)(?=[^\s\p{Pe}\p{SB=STerm}])"
    r"|(?<=[\p{Thai}\p{Lao}]\p{M}* )(?=[\p{Thai}\p{Lao}])"
)


@dataclasses.dataclass(frozen=True)
class _Made:
    """A query, the position of its passage, and what is left of that passage."""

    query: str
    place: int
    rest: str


class Corpus:
    """Splits by `fractions`, of queries from a log or from the passages themselves.

    Args:
        query_from, num_queries: what queries are made of where there is no log, and how many.
        fractions: of the queries, by split.
    """

    instruction = None

    def __init__(
        self,
        passages: Path,
        queries: Path | None,
        mining: Mining,
        *,
        query_from: QueryFrom,
        num_queries: int,
        fractions: Mapping[str, float],
    ) -> None:
        self._passages, self._queries = passages, queries
        self._query_from: QueryFrom = query_from
        self._num_queries, self._fractions, self._mining = num_queries, fractions, mining
        self.splits = list(fractions)
        self.inputs = [path for path in (passages, queries) if path]
        made = {} if queries else {"query_from": query_from, "num_queries": num_queries}
        self.flags = {"splits": dict(fractions), **made, **mining.flags}
        self.mined: Counter[str] = Counter()

    def read(self, dropped: Counter[str], bad_rows: BadRows) -> Splits:
        """Read the passages, make the queries where there are none, and mine their candidates.

        Raises:
            DataError: a row is bad, or no query can be made.
            EngineError: the dense model cannot be loaded, or is no embedder.
        """
        how: dict[str, Any] = {"bad_rows": bad_rows, "tables": True}
        documents = list(
            {passage_text(d.title, d.text): d for d in read_records(self._passages, Passage, **how)}.items()
        )
        texts = [text for text, _ in documents]
        if self._queries:
            asked = dict.fromkeys(query.text for query in read_records(self._queries, Query, **how))
            made = [_Made(query, _NO_PLACE, "") for query in asked]
        else:
            made = self._make_queries([document for _, document in documents], dropped)
        found = self._candidates(made, texts)
        samples = []
        for number, (one, places) in enumerate(zip(made, found, strict=True)):
            if not places:
                dropped["queries_without_candidates"] += 1
                continue
            self.mined.update(places.values())
            candidates = [*filter(None, [one.rest]), *(texts[place] for place in places)]
            samples.append(RankingSample(one.query, candidates=candidates, query_id=str(number)))
        if not samples and not self._queries and len(texts) == 1:
            raise DataError("has one passage, so that no query has candidates", "Add others", path=self._passages)
        if not samples:
            raise DataError(
                "has no word in common with any query", "Pass --dense_model to search by meaning", path=self._passages
            )
        return split_samples(samples, self._fractions, self._mining.seed)

    def _make_queries(self, documents: Sequence[Passage], dropped: Counter[str]) -> list[_Made]:
        generator = random.Random(self._mining.seed)
        made: dict[str, _Made] = {}
        for place in generator.sample(range(len(documents)), len(documents)):
            if len(made) == self._num_queries:
                break
            found = _take_query(documents[place], self._query_from, generator)
            if found is None:
                dropped["passages_without_a_query"] += 1
            else:
                made.setdefault(found[0], _Made(found[0], place, found[1]))
        if not made:
            raise DataError(
                f"has no passage with a {self._query_from} that could be a query",
                "Pass --queries, or another --query_from",
                path=self._passages,
            )
        return list(made.values())

    def _candidates(self, made: Sequence[_Made], passages: Sequence[str]) -> list[Candidates]:
        """Return each query's candidates beside what is left of its passage."""
        count = self._mining.num_candidates
        return mine_candidates(
            [Asked(one.query, count - bool(one.rest), frozenset({one.place} - {_NO_PLACE})) for one in made],
            passages,
            self._mining,
            depth=count + 1,  # one more for its passage
            unmatched="they are left out (--dense_model would search by meaning)",
            fills=False,
        )


def _take_query(document: Passage, query_from: QueryFrom, generator: random.Random) -> tuple[str, str] | None:
    """Return a query and what is left of the passage; `None` where the passage has nothing to be one."""
    if query_from == "title":
        title = (document.title or "").strip()
        return (
            (title, document.text.strip()) if count_words(title) >= _QUERY_WORDS[0] and document.text.strip() else None
        )
    sentences = _SENTENCE_START.split(" ".join(document.text.split()))
    fitting = [i for i, sentence in enumerate(sentences) if count_words(sentence) in _QUERY_WORDS]
    if len(sentences) < 2 or not fitting:
        return None
    chosen = generator.choice(fitting)
    rest = "".join(sentences[:chosen] + sentences[chosen + 1 :])
    return sentences[chosen].strip(), passage_text(document.title, rest)
