"""The choice among ways that was learned: what it looks at, and the way that it takes for a query."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from query_expansion_rl.records import Ranking
from query_expansion_rl.rewards.ndcg import TOP, ndcg
from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.files.inputs import read_json

SELECTION = "selection.json"
FEATURES = ("judged", "overlap", "gap", "drop", "judged_x_length", "overlap_x_length")

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Selector:
    """The learned choice.

    Attributes:
        variants: ways, by the names of their rankings.
        weights: of the features, standardised by `centre` and `scale`; shape (features,).
        bias: of each way, and `by_length` what of it grows with the query's length; shape (ways,).
    """

    variants: list[str]
    weights: list[float]
    bias: list[float]
    by_length: list[float]
    centre: list[float]
    scale: list[float]

    def choose(self, query: str, rankings: Mapping[str, Ranking], gains: Mapping[str, float]) -> str:
        """Return the way to take for a query.

        Args:
            rankings: way -> what it found; all of `variants`.
            gains: passage id -> the judge's gain.
        """
        shown, length = features_of(query, [rankings[name] for name in self.variants], gains)
        standard = (shown - np.array(self.centre)) / np.array(self.scale)
        scores = standard @ np.array(self.weights) + np.array(self.bias) + length * np.array(self.by_length)
        return self.variants[int(np.argmax(scores))]


def read_selection(path: Path) -> Selector:
    """Read a selector from its file, or the folder that `train --method select` made.

    Raises:
        DataError: it is damaged.
    """
    file = path / SELECTION if path.is_dir() else path
    again = "Run train --method select again"
    found = read_json(file, again)
    try:
        selector = Selector(**found)
        of_ways = {len(selector.variants), len(selector.bias), len(selector.by_length)}
        of_features = {len(FEATURES), len(selector.weights), len(selector.centre), len(selector.scale)}
        if len(of_ways) != 1 or len(of_features) != 1:
            raise ValueError("its lists do not fit together")
        of_all = [*selector.weights, *selector.centre, *selector.scale, *selector.bias, *selector.by_length]
        are_texts = all(isinstance(name, str) for name in selector.variants)
        if not (np.isfinite(np.array(of_all, dtype=np.float64)).all() and min(selector.scale) > 0 and are_texts):
            raise ValueError("a number is not finite, a scale not above 0, or a way no text")
    except (TypeError, ValueError) as error:
        raise DataError(f"is no selection ({quoted(str(error))})", again, path=file) from error
    return selector


def features_of(query: str, rankings: Sequence[Ranking], gains: Mapping[str, float]) -> tuple[Floats, float]:
    """Return what a choice looks at, without labels: shape (ways, features), and the length of the query.

    `judged` is nDCG@10 by the judge's gains, `overlap` the mean share of the first ten that another way has among its
    own, `gap` and `drop` how far the first score is above the second and the tenth, as a share of it.
    """
    length = math.log1p(len(query.split()))
    tops = [ranking.passages[:TOP] for ranking in rankings]
    places = {key: place for place, key in enumerate({key: None for top in tops for key in top} | dict.fromkeys(gains))}
    rows = np.array([[places[key] for key in top] + [-1] * (TOP - len(top)) for top in tops], dtype=np.int64)
    mine = {places[key]: gain for key, gain in gains.items()}
    judged = np.nan_to_num(ndcg(rows, [mine] * len(rankings)))
    sets = [set(top) for top in tops]
    shared = np.array([[len(one & other) / TOP for other in sets] for one in sets])
    overlap = (shared.sum(axis=1) - np.diag(shared)) / max(len(sets) - 1, 1)
    gap, drop = (np.array([_fall(ranking.scores, rank) for ranking in rankings]) for rank in (1, TOP - 1))
    columns = [judged, overlap, gap, drop, judged * length, overlap * length]
    return np.stack(columns, axis=1), length


def _fall(scores: Sequence[float], rank: int) -> float:
    if len(scores) <= rank or not scores[0]:
        return 1.0 if len(scores) == 1 else 0.0
    return max(-1e6, min(1e6, (scores[0] - scores[rank]) / abs(scores[0])))  # where it is next to 0
