"""Which passages of a corpus a query gets as candidates: the best of BM25 and of embedders, and a share at random.

The rankings take turns (`fusion.take_turns`). Reciprocal rank fusion would prefer what several of them find, which the
student knows already; in turns, what the teacher alone finds gets in as well.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import EngineError
from rag_core.engines.role_prompts import AS_DECLARED, PromptNames
from rag_core.retrieval.analyser import PLAIN, Analyser
from rag_core.retrieval.bm25 import filled_at_random, nearest_passages, unmatched_note
from rag_core.retrieval.dense import Floats, Places, best_places, nearest, scores_at
from rag_core.retrieval.fusion import reciprocal_ranks, take_turns

if TYPE_CHECKING:
    from rag_core.engines.identity import ModelInfo

Candidates = dict[int, str]  # place of a passage -> what found it: "bm25", a model's name, or `RANDOM`
RANDOM = "random"

MAX_LENGTH = 512  # tokens of a text that the dense search reads
_QUERIES_AT_ONCE = 1024  # whose vectors are in memory; the passages are gone through once for each block
_POOL = 4  # times as many as are wanted: those among which disagreement chooses
_TEACHERS_BEST = 2  # candidates that disagreement never leaves out

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Mining:
    """How candidates are found.

    Attributes:
        num_candidates: of each query, its positives among them.
        dense_models: embedders that search beside BM25. With `prefer`: the student, then the teacher.
        max_length: tokens of a text that they read.
        vectors: folder that keeps the embedded texts, for a run that goes on after a kill.
        score_store: folder that keeps them for good.
        random_share: of `num_candidates`, drawn from the whole corpus.
        prefer: which candidates of a larger pool are taken; `None` for its first ones.
    """

    num_candidates: int
    seed: int = 0
    analyser: Analyser = PLAIN
    dense_models: Sequence[str] = ()
    prompt_names: PromptNames = AS_DECLARED
    max_length: int = MAX_LENGTH
    vectors: Path = Path("vectors")
    score_store: Path | None = None
    random_share: float = 0
    prefer: Literal["disagreement"] | None = None

    @property
    def flags(self) -> dict[str, Any]:
        """What decides the candidates; what is at its default has no name in manifests."""
        found: dict[str, Any] = {"num_candidates": self.num_candidates, **self.analyser.recipe}
        if self.dense_models:
            found["dense_model"] = self.dense_models[0] if len(self.dense_models) == 1 else [*self.dense_models]
        if self.max_length != MAX_LENGTH:
            found["dense_max_length"] = self.max_length
        if self.prompt_names != AS_DECLARED:
            found["prompts"] = dataclasses.asdict(self.prompt_names)
        if self.random_share:
            found["random_share"] = self.random_share
        if self.prefer:
            found["prefer"] = self.prefer
        return found

    @property
    def drawn(self) -> int:
        """How many candidates of a query are drawn from the whole corpus."""
        return int(self.random_share * self.num_candidates + 0.5)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A query that wants candidates.

    Attributes:
        wanted: how many at most, those at random among them.
        known: places of passages that are no candidates: what is labelled, or what the query was taken from.
    """

    query: str
    wanted: int
    known: frozenset[int] = frozenset()


def mine_candidates(
    asked: Sequence[Asked],
    passages: Sequence[str],
    mining: Mining,
    *,
    depth: int,
    unmatched: str = "",
    fills: bool = True,
    instruction: str | None = None,
) -> list[Candidates]:
    """Return the candidates of each query, those at random last.

    Args:
        passages: the corpus, each once.
        depth: how many of the first passages of the rankings are enough, whatever of them is known.
        unmatched: what becomes of queries that BM25 finds nothing for and no model searches for; "" says nothing.
        fills: whether these have random passages, or none: what a teacher would say of them teaches nothing.
        instruction: the task, for models that are told it.

    Raises:
        EngineError: a model cannot be loaded, or is no embedder.
    """
    if not asked:
        return []
    queries = list(dict.fromkeys(one.query for one in asked))
    models = _described(mining)  # what is wrong with the last one is told before the first one embeds
    reach = depth * _POOL if mining.prefer else depth
    by_words = nearest_passages(queries, passages, reach, mining.analyser)
    if unmatched and (none := by_words.count([])):
        consequence = "--dense_model alone finds their candidates" if models else unmatched
        logger.warning("%s", unmatched_note(none, len(queries), "any passage", consequence))
    searches = [_Search(model, queries, passages, mining, instruction) for model in models]
    by_vectors = [search.nearest(reach) for search in searches]
    generator = random.Random(mining.seed)
    best = {}
    for block in _blocks(len(queries), "choose candidates"):
        found = [places[block] for places in by_vectors]
        pools = [
            in_turns(_named(mining, ranking, rows), reach)
            for ranking, *rows in zip(by_words[block], *found, strict=True)
        ]
        if mining.prefer:
            pools = _by_disagreement(pools, block, *searches)
        for query, pool in zip(queries[block], pools, strict=True):
            places = [*pool][:depth]
            if places or fills:
                places = filled_at_random(places, len(passages), depth, generator)
            best[query] = {place: pool.get(place, RANDOM) for place in places}
    return [_with_random(best[one.query], one, mining.drawn, len(passages), generator) for one in asked]


def _named(mining: Mining, by_words: Sequence[int], by_vectors: Sequence[Places]) -> dict[str, Sequence[int]]:
    rankings = [by_words, *(places[places >= 0].tolist() for places in by_vectors)]
    return dict(zip(["bm25", *mining.dense_models], rankings, strict=True))


def in_turns(rankings: Mapping[str, Sequence[int]], count: int) -> Candidates:
    """Let rankings take turns until there are `count` places, each with the name of the ranking that has it highest."""
    highest: dict[int, tuple[int, str]] = {}
    for name, ranking in rankings.items():
        for rank, place in enumerate(ranking):
            if place not in highest or rank < highest[place][0]:
                highest[place] = rank, name
    return {place: highest[place][1] for place in take_turns([*rankings.values()], count)}


def disagreement_order(student: npt.ArrayLike, teacher: npt.ArrayLike) -> list[int]:
    """Return the positions of passages in the order in which they are taken, given both models' scores of them.

    Each model ranks all of them; the disagreement on one is the difference between its two rank shares, 1 / (60 + rank)
    (`fusion.reciprocal_ranks`), so that the same number of ranks counts more near the head. The teacher's two best ones
    come first in any case: a list without a good passage teaches little. Ties keep their order.

    Args:
        student, teacher: cosines of the passages with the query; shape (passages,) each.
    """
    teacher = np.asarray(teacher, dtype=np.float32)
    differences = np.abs(reciprocal_ranks(student) - reciprocal_ranks(teacher))
    most = np.argsort(-differences, kind="stable").tolist()
    return [*dict.fromkeys([*best_places(teacher, _TEACHERS_BEST), *most])]


class _Search:
    """Exact search with an embedder: each text is embedded once, and vectors stay on disk but for a block of them."""

    def __init__(
        self, model: ModelInfo, queries: Sequence[str], passages: Sequence[str], mining: Mining, instruction: str | None
    ) -> None:
        from rag_core.engines.options import EngineOptions
        from rag_core.scoring.vectors import TextRows, embed_for_training

        told = instruction if model.takes_instruction else None
        texts: dict[Literal["query", "passage"], set[str]] = {"query": set(queries), "passage": set(passages)}
        vectors = embed_for_training(
            EngineOptions(model, instruction=told, max_length=mining.max_length),
            texts,
            mining.vectors,
            store=mining.score_store,
        )
        self._name = model.name
        self._queries, self._passages = TextRows(vectors, "query", queries), TextRows(vectors, "passage", passages)

    def nearest(self, count: int) -> Places:
        """Return the places of the nearest passages, best first; shape (queries, count), -1 where there are fewer."""
        blocks = _blocks(len(self._queries), f"search {self._name}")
        return np.concatenate([nearest(self._queries[block], self._passages, count)[0] for block in blocks])

    def scores_at(self, block: slice, places: Places) -> Floats:
        """Return the cosine of each query of a block with the passages at its places; -inf at place -1."""
        return scores_at(self._queries[block], self._passages, places)


def _blocks(queries: int, what: str) -> Iterator[slice]:
    """Yield blocks of queries under a progress bar."""
    from tqdm import tqdm

    with tqdm(total=queries, unit="query", desc=what, disable=None) as bar:
        for start in range(0, queries, _QUERIES_AT_ONCE):
            yield slice(start, start + _QUERIES_AT_ONCE)
            bar.update(min(_QUERIES_AT_ONCE, queries - start))


def _described(mining: Mining) -> list[ModelInfo]:
    if not mining.dense_models:
        return []
    from rag_core.engines.identity import describe_models

    models = describe_models(mining.dense_models, mining.prompt_names)
    for model in models:
        if model.kind != "bi-encoder":
            raise EngineError(f"{model.name} gives no vectors ({model.why})", "Pass an embedder")
    return models


def _by_disagreement(pools: Sequence[Candidates], block: slice, student: _Search, teacher: _Search) -> list[Candidates]:
    """Order the pool of each query of a block by `disagreement_order`."""
    places = np.full((len(pools), max(map(len, pools))), -1, dtype=np.int64)
    for row, pool in zip(places, pools, strict=True):
        row[: len(pool)] = [*pool]
    scores = student.scores_at(block, places), teacher.scores_at(block, places)
    ordered = []
    for row, pool, *both in zip(places, pools, *scores, strict=True):
        order = disagreement_order(*(one[: len(pool)] for one in both))
        ordered.append({place: pool[place] for place in row[order].tolist()})
    return ordered


def _with_random(best: Candidates, one: Asked, drawn: int, size: int, generator: random.Random) -> Candidates:
    """Return what a query wants: the first of its best ones that are not known, and `drawn` others at random."""
    found = [place for place in best if place not in one.known]
    drawn = min(drawn, one.wanted - 1) if found else 0
    chosen = {place: best[place] for place in found[: one.wanted - drawn]}
    taken = [*one.known, *chosen]
    others = filled_at_random(taken, size, len(taken) + drawn, generator)[len(taken) :]
    return chosen | dict.fromkeys(others, RANDOM)
