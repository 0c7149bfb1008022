"""A choice among the ways that need no training, query by query: a softmax over a linear score of each way's ranking.

The policy gradient is exact, since every way's reward is known: d/dw sum_v p(v) r(v) = sum_v p(v) (r(v) - mean) f(v).
Step 0 always takes the way that is best on the train queries, and the dev queries choose the step.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from query_expansion_rl.learning.selector import FEATURES, SELECTION, Floats, Selector, features_of
from query_expansion_rl.records import Ranking, Split
from query_expansion_rl.retrieval.workspace import Workspace
from query_expansion_rl.rewards.ndcg import TOP, ndcg
from query_expansion_rl.rewards.reward import Judge
from rag_core.base.errors import DataError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.base.tables import format_difference, format_rows
from rag_core.files.unfinished import save_whole
from rag_core.metrics.differences import FEWEST_TO_COMPARE, Difference, difference

_STEPS, _EVERY = 400, 10
_RATE, _DECAY = 0.05, 1e-3  # of Adam, and of the weights towards 0


@dataclasses.dataclass(frozen=True)
class Learned:
    """A selector, and how it compares with always taking the best way.

    Attributes:
        step: that the dev queries chose; at 0 nothing was learned.
        single: the way that is best on the train queries.
        dev: mean reward of the dev queries by step.
        truth: nDCG@10 by qrels on the dev queries, selector minus `single`; `None` without qrels.
    """

    selector: Selector
    step: int
    single: str
    dev: dict[int, float]
    truth: Difference | None

    def save(self, output_dir: Path, unfinished: Path) -> None:
        """Write it into a folder, whole."""

        def write(folder: Path) -> None:
            text = json.dumps(dataclasses.asdict(self.selector), indent=2)
            (folder / SELECTION).write_text(f"{text}\n", encoding="utf-8")

        save_whole(output_dir, unfinished, write)

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        return {
            "best_step": self.step,
            "single": self.single,
            "dev": [{"step": step, "reward": round(value, 6)} for step, value in self.dev.items()],
            "dev_by_qrels": self.truth and dataclasses.asdict(self.truth),
        }

    def table(self) -> str:
        """Return it as text."""
        rows = [
            ["dev queries", "value"],
            [f"always {self.single}", f"{self.dev[0]:.4f}"],
            [f"the choice, step {self.step}", f"{self.dev[self.step]:.4f}"],
        ]
        if self.truth:
            found = self.truth
            shown = format_difference(found.difference, found.low, found.high)
            rows.append(["by qrels, minus always the same", f"{shown}, better {found.better}, worse {found.worse}"])
        advice = f"\nNo gain on the dev queries: use {self.single}." if self.step == 0 else ""
        return format_rows(rows) + advice


@dataclasses.dataclass(frozen=True)
class _Data:
    """Queries of a split: features (queries, ways, features), lengths (queries,), rewards (queries, ways)."""

    query_ids: list[str]
    features: Floats
    lengths: Floats
    rewards: Floats


def learn_selection(
    workspace: Workspace, variants: Sequence[str] | None, judge: Judge, seed: int, *, shuffled: bool = False
) -> Learned:
    """Learn the choice on the train queries.

    Args:
        variants: ways to choose from; `None` for all but the one that is the judge itself.
        judge: whose gains reward: the teacher's, or those of the qrels.
        seed: of the interval, and of what is shuffled.
        shuffled: whether each query's rewards are dealt to its ways at random: a control that learns from noise, from
            the same start.

    Raises:
        UsageError: a way is unknown, or there are fewer than two.
        DataError: no query can be measured.
    """
    rankings = workspace.rankings()
    names = _ways(rankings, variants, workspace.summary.teacher if judge == "teacher" else None)
    gains = workspace.gains()
    qrels = workspace.qrels(workspace.topics)
    rewarded_by: Mapping[str, Mapping[str, float]] = gains if judge == "teacher" else qrels

    def data(split: Split) -> _Data:
        return _read(workspace, split, names=names, rankings=rankings, gains=gains, rewarded_by=rewarded_by)

    train, dev = data("train"), data("dev")
    learned = _learn(train, dev, names, np.random.default_rng(seed) if shuffled else None)
    judged = [query_id for query_id in dev.query_ids if query_id in qrels]
    if len(judged) < FEWEST_TO_COMPARE:
        return learned
    texts = {topic.query_id: topic.query for topic in workspace.topics}
    before, after = {}, {}
    for query_id in judged:
        mine = {name: rankings[name][query_id] for name in names}
        chosen = learned.selector.choose(texts[query_id], mine, gains[query_id])
        values = _ndcg_of([mine[learned.single], mine[chosen]], qrels[query_id])
        before[query_id], after[query_id] = float(values[0]), float(values[1])
    return dataclasses.replace(learned, truth=difference(before, after, judged, seed))


def _ways(rankings: Mapping[str, object], asked: Sequence[str] | None, judge: str | None) -> list[str]:
    names = list(dict.fromkeys(asked)) if asked else [name for name in rankings if name != judge]
    unknown = [name for name in names if name not in rankings]
    if unknown:
        raise UsageError(f"--variants has {quoted(unknown[0])}", f"Pass some of: {', '.join(rankings)}")
    if len(names) < 2:
        raise UsageError(
            "there is nothing to choose from", f"Pass --variants with two or more of: {', '.join(rankings)}"
        )
    return names


def _read(
    workspace: Workspace,
    split: Split,
    *,
    names: Sequence[str],
    rankings: Mapping[str, Mapping[str, Ranking]],
    gains: Mapping[str, Mapping[str, float]],
    rewarded_by: Mapping[str, Mapping[str, float]],
) -> _Data:
    topics = [
        topic
        for topic in workspace.of(split)
        if rewarded_by.get(topic.query_id) and all(topic.query_id in rankings[name] for name in names)
    ]
    if not topics:
        raise DataError(
            f"has no {split} query whose rankings can be rewarded", "Pass another --reward", path=workspace.folder
        )
    features, lengths, rewards = [], [], []
    for topic in topics:
        mine = [rankings[name][topic.query_id] for name in names]
        shown, length = features_of(topic.query, mine, gains[topic.query_id])
        features.append(shown)
        lengths.append(length)
        rewards.append(_ndcg_of(mine, rewarded_by[topic.query_id]))
    ids = [topic.query_id for topic in topics]
    return _Data(ids, np.array(features), np.array(lengths), np.array(rewards))


def _ndcg_of(rankings: Sequence[Ranking], gains: Mapping[str, float]) -> Floats:
    places: dict[str, int] = {}
    rows = np.full((len(rankings), TOP), -1, dtype=np.int64)
    for row, ranking in enumerate(rankings):
        for rank, key in enumerate(ranking.passages[:TOP]):
            rows[row, rank] = places.setdefault(key, len(places))
    mine = {places.setdefault(key, len(places)): float(gain) for key, gain in gains.items()}
    return ndcg(rows, [mine] * len(rankings))


def _learn(train: _Data, dev: _Data, names: Sequence[str], noise: np.random.Generator | None) -> Learned:
    centre = train.features.mean(axis=(0, 1))
    scale = train.features.std(axis=(0, 1))
    scale[scale == 0] = 1.0
    means = train.rewards.mean(axis=0)
    single = int(np.argmax(means))
    columns, ways = len(FEATURES), len(names)
    # Weights of features, then the ways' biases, then what of these grows with the query's length.
    state = np.zeros(columns + 2 * ways)
    spread = means.std() or 1.0
    state[columns : columns + ways] = (means - means[single]) / spread
    if noise:
        train, dev = (dataclasses.replace(data, rewards=noise.permuted(data.rewards, axis=1)) for data in (train, dev))
    moment, squares = np.zeros_like(state), np.zeros_like(state)
    mean_length = train.lengths.mean()

    def inputs(data: _Data) -> Floats:
        standard = (data.features - centre) / scale
        which = np.broadcast_to(np.eye(ways), (len(data.lengths), ways, ways))
        return np.concatenate([standard, which, which * (data.lengths - mean_length)[:, None, None]], axis=2)

    shown, held_out = inputs(train), inputs(dev)

    def value() -> float:
        chosen = np.argmax(held_out @ state, axis=1)
        return float(dev.rewards[np.arange(len(chosen)), chosen].mean())

    values, best, kept = {0: value()}, 0, state.copy()
    for step in range(1, _STEPS + 1):
        scores = shown @ state
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        advantage = train.rewards - (shares * train.rewards).sum(axis=1, keepdims=True)
        gradient = np.einsum("qv,qvf->f", shares * advantage, shown) / len(shown) - _DECAY * state
        moment = 0.9 * moment + 0.1 * gradient
        squares = 0.999 * squares + 0.001 * gradient**2
        state = state + _RATE * (moment / (1 - 0.9**step)) / (np.sqrt(squares / (1 - 0.999**step)) + 1e-8)
        if step % _EVERY == 0:
            values[step] = value()
            if values[step] > values[best]:
                best, kept = step, state.copy()
    bias, by_length = kept[columns : columns + ways], kept[columns + ways :]
    selector = Selector(
        variants=list(names),
        weights=kept[:columns].tolist(),
        bias=(bias - by_length * mean_length).tolist(),
        by_length=by_length.tolist(),
        centre=centre.tolist(),
        scale=scale.tolist(),
    )
    return Learned(selector, best, names[single], values, None)
