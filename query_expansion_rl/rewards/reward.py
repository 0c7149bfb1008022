"""What an expansion is worth: how much better a judge likes the ranking with it than that of the query alone.

reward = gain + rank_shaping + length + copy + format, clipped to -1 ... 1

| part | is |
|---|---|
| `gain` | the change of nDCG@10 by the judge's gains |
| `rank_shaping` | `--rank_shaping` times the change of how high the judged passages stand among the first 100 |
| `length` | 0, or below: what each word beyond `--free_words` costs |
| `copy`, `format` | 0, or below: what a copied, and a repetitive or cut, text loses of the first two |

The last two are factors of what was gained, so a fault earns nothing: of what was lost it spares nothing.
An empty text leaves the ranking as it is, and is worth 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from query_expansion_rl.retrieval.searching import QUERY_WEIGHT, ExpandedQuery, Searcher
from query_expansion_rl.retrieval.workspace import DEPTH, Workspace
from query_expansion_rl.rewards.copying import longest_span, spaced
from query_expansion_rl.rewards.ndcg import TOP, Gains, log_rank, ndcg
from query_expansion_rl.writing.examples import DOCUMENTS, KEYWORDS
from rag_core.base.flags import flag, setting
from rag_core.base.stage import StageArgs

Judge = Literal["teacher", "qrels"]
# Of 95 samples with which true nDCG@10 changes (scifact, 120 claims, 8 samples), the reward has the sign of the change
# in 66 by the hybrid's first five, graded, in 52 by the same, all alike, in 68 by the first ten, graded, and in 70 with
# --rank_shaping 0.3 besides. Best of eight: 15 wins, 4 losses; by the first ten 16 and 1.

EXAMPLE_TEXTS = tuple(text for _, text in (*KEYWORDS, *DOCUMENTS))
"""What the examples of the prompts say: a weak model copies them."""

_CUT = 0.5  # factor of a text that --max_new_tokens ended: it has no end to learn
_REPETITIVE = 0.5  # share of distinct words below which a text loses


@dataclass(frozen=True, kw_only=True)
class RewardSettings:
    """What a reward counts; see the table above."""

    reward: Judge = setting("teacher")
    query_weight: float = setting(QUERY_WEIGHT)
    rank_shaping: float = setting(0.0)
    length_cost: float = setting(0.002)
    free_words: int = setting(32)
    max_copy: float = setting(0.5)


@dataclass(kw_only=True)
class RewardArgs(StageArgs):
    """Flags of a stage that rewards expansions."""

    reward: Judge = flag("whose gains count: the teacher's, which need no labels, or those of the qrels", "teacher")
    query_weight: float = flag(
        "of the query's terms beside those of the expansion, which have 1", QUERY_WEIGHT, least=0
    )
    rank_shaping: float = flag(
        "weight of the change of rank among the first 100, on a log scale, beside that of nDCG@10", 0.0, least=0
    )
    length_cost: float = flag("what each word beyond --free_words costs", 0.002, least=0)
    free_words: int = flag("words of an expansion that cost nothing", 32, least=0)
    max_copy: float = flag(
        "largest share of an expansion that may stand word for word in a passage or an example", 0.5, least=0, most=1
    )

    dense_model: str | None = flag(
        "embedder of the workspace's vectors, where it is elsewhere than it was", None, decides=False
    )

    @property
    def reward_settings(self) -> RewardSettings:
        """What the flags ask for."""
        return RewardSettings(
            reward=self.reward,
            query_weight=self.query_weight,
            rank_shaping=self.rank_shaping,
            length_cost=self.length_cost,
            free_words=self.free_words,
            max_copy=self.max_copy,
        )


@dataclass(frozen=True)
class Sample:
    """What is rewarded.

    Attributes:
        cut: whether the answer was ended by the cap on its tokens.
    """

    query_id: str
    text: str
    cut: bool = False


@dataclass(frozen=True)
class Worth:
    """A reward and its parts.

    Attributes:
        parts: they sum to `reward` before it is clipped.
        base: nDCG@10 of the query alone, by the same judge.
    """

    reward: float
    parts: Mapping[str, float]
    base: float


@dataclass(frozen=True)
class _Alone:
    ndcg: float
    height: float


class Reward:
    """The reward of a workspace: a pure function of query and text."""

    def __init__(
        self,
        queries: Mapping[str, str],
        passages: Sequence[str],
        searcher: Searcher,
        gains: Mapping[str, Gains],
        *,
        settings: RewardSettings,
        examples: Sequence[str] = (),
    ) -> None:
        """Set it up.

        Args:
            queries: query id -> text.
            passages: texts of the corpus, in the order of the searcher's places.
            gains: query id -> place -> gain; a query without any is not measured.
            examples: texts of the prompt's examples, which are not to be copied either.
        """
        self.settings = settings
        self._queries = queries
        self._passages = passages
        self._searcher = searcher
        self._gains = {key: judged for key, judged in gains.items() if any(gain > 0 for gain in judged.values())}
        self._examples = [spaced(example) for example in examples]
        self._spaced: dict[int, str] = {}
        self._alone: dict[str, _Alone] = {}

    @classmethod
    def of(
        cls, workspace: Workspace, searcher: Searcher, settings: RewardSettings, examples: Sequence[str] = ()
    ) -> Self:
        """Return the reward of a workspace's topics; `settings.reward` chooses the judge."""
        judged: Mapping[str, Mapping[str, float]] = (
            workspace.gains() if settings.reward == "teacher" else workspace.qrels(workspace.topics)
        )
        places = {key: place for place, key in enumerate(workspace.corpus.documents)}
        gains = {
            query_id: {places[key]: float(gain) for key, gain in found.items() if key in places}
            for query_id, found in judged.items()
        }
        queries = {topic.query_id: topic.query for topic in workspace.topics}
        return cls(queries, workspace.corpus.texts(), searcher, gains, settings=settings, examples=examples)

    def measures(self, query_id: str) -> bool:
        """Tell whether the judge has a gain for a query, without which nothing can be said of its rankings."""
        return query_id in self._gains

    def base(self, query_ids: Sequence[str]) -> list[float]:
        """Return nDCG@10 of each query alone."""
        self._search_alone(query_ids)
        return [self._alone[query_id].ndcg for query_id in query_ids]

    def score(self, query_id: str, texts: Sequence[str], cut: Sequence[bool] | None = None) -> list[Worth]:
        """Reward several texts of a query, in their order."""
        flags = [False] * len(texts) if cut is None else cut
        return self.score_all([Sample(query_id, text, was) for text, was in zip(texts, flags, strict=True)])

    def score_all(self, samples: Sequence[Sample]) -> list[Worth]:
        """Reward samples of any queries, in their order; equal ones are searched for once.

        Raises:
            KeyError: a query is unknown, or none that `measures`.
        """
        distinct = list(dict.fromkeys((one.query_id, one.text) for one in samples))
        self._search_alone([query_id for query_id, _ in distinct])
        asked = [ExpandedQuery(self._queries[key], text, self.settings.query_weight) for key, text in distinct]
        gains = [self._gains[query_id] for query_id, _ in distinct]
        places = self._search(asked)
        after = ndcg(places, gains)
        heights = log_rank(places, gains) if self.settings.rank_shaping else np.zeros(len(distinct))
        copied = [self._copied(text, row.tolist()) for (_, text), row in zip(distinct, places, strict=True)]
        rows = {one: place for place, one in enumerate(distinct)}
        return [
            self._worth(one, after[row], heights[row], copied[row])
            for one in samples
            for row in [rows[one.query_id, one.text]]
        ]

    def _worth(self, sample: Sample, after: float, height: float, copied: bool) -> Worth:
        settings, alone = self.settings, self._alone[sample.query_id]
        gain = float(after - alone.ndcg)
        shaping = float(settings.rank_shaping * (height - alone.height))
        gained = max(gain + shaping, 0.0)
        factor = _form_factor(sample)
        copy = -gained if copied else 0.0
        parts = {
            "gain": gain,
            "rank_shaping": shaping,
            "length": -settings.length_cost * max(len(sample.text.split()) - settings.free_words, 0),
            "copy": copy,
            "format": (gained + copy) * (factor - 1),
        }
        parts = {name: round(value, 6) + 0.0 for name, value in parts.items()}  # no -0.0
        return Worth(max(-1.0, min(1.0, round(sum(parts.values()), 6))), parts, round(alone.ndcg, 6))

    def _copied(self, text: str, places: Sequence[int]) -> bool:
        """Tell whether too much of a text stands in a passage that it found, or in an example.

        A copied passage that is not among the found earned nothing.
        """
        own = spaced(text)
        found = [self._words_of(place) for place in places if place >= 0]
        return longest_span(own, [*self._examples, *found]) > self.settings.max_copy * len(own.split())

    def _words_of(self, place: int) -> str:
        if place not in self._spaced:
            self._spaced[place] = spaced(self._passages[place])
        return self._spaced[place]

    def _search(self, queries: Sequence[ExpandedQuery]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        depth = DEPTH if self.settings.rank_shaping else TOP
        return self._searcher.search(queries, depth)[0]

    def _search_alone(self, query_ids: Sequence[str]) -> None:
        missing = [query_id for query_id in dict.fromkeys(query_ids) if query_id not in self._alone]
        if not missing:
            return
        places = self._search([ExpandedQuery(self._queries[query_id]) for query_id in missing])
        gains = [self._gains[query_id] for query_id in missing]
        heights = log_rank(places, gains) if self.settings.rank_shaping else np.zeros(len(missing))
        values = zip(missing, ndcg(places, gains), heights, strict=True)
        self._alone |= {query_id: _Alone(float(value), float(height)) for query_id, value, height in values}


def _form_factor(sample: Sample) -> float:
    """Return what is left of a gain: all of a whole text, half of a cut one, less the more it repeats itself."""
    written = sample.text.lower().split()
    distinct = len(set(written)) / len(written) if written else 1.0
    return (_CUT if sample.cut else 1.0) * min(1.0, distinct / _REPETITIVE)
