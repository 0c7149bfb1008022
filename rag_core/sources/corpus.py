"""Unlabelled passages, with a log of queries or without: candidates are mined, and the teacher judges them.

Without a log, queries are taken out of the passages, with no language model: a sentence that is cut out of its passage
(the inverse cloze task of Lee et al. 2019, "Latent Retrieval for Weakly Supervised Open Domain
Question Answering", arXiv:1906.00300), or its title. Nothing is labelled. The passage that a query was cut
out of is one candidate among others.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import regex

from rag_core.base.errors import DataError
from rag_core.base.records import Passage, Query, RankingSample, passage_text
from rag_core.engines.role_prompts import AS_DECLARED, PromptNames
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records
from rag_core.retrieval.analyser import PLAIN, Analyser, count_words
from rag_core.retrieval.bm25 import filled_at_random, nearest_passages, unmatched_note
from rag_core.retrieval.dense import nearest_vectors
from rag_core.retrieval.fusion import take_turns
from rag_core.sources.splits import Splits, split_samples

QueryFrom = Literal["sentence", "title"]

logger = logging.getLogger(__name__)

_QUERY_WORDS = range(5, 41)
# After a full stop of spaced text, after one that needs no space (with its bracket), and at a space of Thai or Lao,
# which have no full stop.
_SENTENCE_START = regex.compile(
    r"(?<=[.\p{SB=STerm}] )(?=[\p{Lu}\p{Lt}\p{Lo}\p{N}])"
    r"|(?<=[\u3002\uff01\uff1f\uff61\u104b\u17d4]\p{Pe}? ?)(?=[^\s\p{Pe}\p{SB=STerm}])"
    r"|(?<=[\p{Thai}\p{Lao}]\p{M}* )(?=[\p{Thai}\p{Lao}])"
)
_MAX_LENGTH = 512  # tokens of a passage that the dense search reads


@dataclasses.dataclass(frozen=True)
class _Made:
    """A query, the position of its passage, and what is left of that passage."""

    query: str
    place: int
    rest: str


class Corpus:
    """Splits by `fractions`, of queries from a log or from the passages themselves.

    Args:
        vectors: folder that keeps the embedded texts, for a run that goes on after a kill.
    """

    instruction = None

    def __init__(
        self,
        passages: Path,
        queries: Path | None,
        *,
        query_from: QueryFrom,
        num_queries: int,
        dense_model: str | None,
        vectors: Path,
        num_candidates: int,
        fractions: Mapping[str, float],
        seed: int,
        analyser: Analyser = PLAIN,
        prompt_names: PromptNames = AS_DECLARED,
    ) -> None:
        self._passages, self._queries = passages, queries
        self._query_from: QueryFrom = query_from
        self._num_queries, self._num_candidates = num_queries, num_candidates
        self._dense_model, self._vectors = dense_model, vectors
        self._fractions, self._seed, self._analyser = fractions, seed, analyser
        self._prompt_names = prompt_names
        self.splits = list(fractions)
        self.inputs = [path for path in (passages, queries) if path]
        made = {} if queries else {"query_from": query_from, "num_queries": num_queries}
        self.flags = {"splits": dict(fractions), "num_candidates": num_candidates, "dense_model": dense_model}
        named = {} if prompt_names == AS_DECLARED else {"prompts": dataclasses.asdict(prompt_names)}
        self.flags |= made | named | analyser.recipe

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
            made = [_Made(query, -1, "") for query in asked]
        else:
            made = self._make_queries([document for _, document in documents], dropped)
        ranked = self._candidates([one.query for one in made], texts)
        samples = []
        for number, (one, places) in enumerate(zip(made, ranked, strict=True)):
            if not places:
                dropped["queries_without_candidates"] += 1
                continue
            candidates = [one.rest] if one.rest else []
            candidates += [texts[place] for place in places if place != one.place]
            samples.append(
                RankingSample(one.query, candidates=candidates[: self._num_candidates], query_id=str(number))
            )
        if not samples:
            raise DataError(
                "has no word in common with any query", "Pass --dense_model to search by meaning", path=self._passages
            )
        return split_samples(samples, self._fractions, self._seed)

    def _make_queries(self, documents: Sequence[Passage], dropped: Counter[str]) -> list[_Made]:
        generator = random.Random(self._seed)
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

    def _candidates(self, queries: Sequence[str], passages: Sequence[str]) -> list[list[int]]:
        """Return the positions of each query's candidates, one more than asked for: the best by BM25 and by vectors.

        Without vectors, those that BM25 lacks are drawn at random, and a query that it finds nothing for has none: what
        the teacher would say of random passages teaches nothing.
        """
        count = self._num_candidates + 1
        nearest = nearest_passages(queries, passages, count, self._analyser)
        unmatched = nearest.count([])
        if unmatched:
            consequence = "--dense_model alone finds their candidates"
            if not self._dense_model:
                consequence = "they are left out (--dense_model would search by meaning)"
            logger.warning("%s", unmatched_note(unmatched, len(queries), "any passage", consequence))
        if self._dense_model:
            by_vectors = self._nearest_vectors(self._dense_model, queries, passages, count)
            return [take_turns(found, count) for found in zip(nearest, by_vectors, strict=True)]
        generator = random.Random(self._seed)
        return [places and filled_at_random(places, len(passages), count, generator) for places in nearest]

    def _nearest_vectors(
        self, model: str, queries: Sequence[str], passages: Sequence[str], count: int
    ) -> list[list[int]]:
        """Return the places of the passages with the highest cosines; exact, all vectors in memory."""
        from rag_core.engines.identity import describe_model
        from rag_core.engines.options import EngineOptions
        from rag_core.scoring.vectors import embed_for_training

        texts: dict[Literal["query", "passage"], set[str]] = {"query": set(queries), "passage": set(passages)}
        vectors = embed_for_training(
            EngineOptions(describe_model(model, self._prompt_names), max_length=_MAX_LENGTH), texts, self._vectors
        )
        return nearest_vectors(
            queries,
            lambda block: vectors.of([("query", query) for query in block]),
            vectors.of([("passage", passage) for passage in passages]),
            count,
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
