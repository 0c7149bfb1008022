"""What the rewards of a file say: whether there is anything to learn from, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from query_expansion_rl.records import Rewarded
from rag_core.base.errors import DataError
from rag_core.base.tables import format_difference, format_rows
from rag_core.metrics.differences import FEWEST_TO_COMPARE, Difference, difference


@dataclass(frozen=True)
class Agreement:
    """Label-free rewards beside what the qrels say, on the queries that have any.

    Attributes:
        queries: that have qrels.
        changed: samples with which the true nDCG@10 is another.
        same_sign: of those, how many whose reward has the sign of the change; a reward of 0 has none.
        unseen: of those, how many have a reward of 0.
        best: the true nDCG@10 with each query's best sample by the reward, minus that of the query alone.
        oracle: the same with the sample that is best in truth.
    """

    queries: int
    changed: int
    same_sign: int
    unseen: int
    best: Difference | None
    oracle: Difference | None

    @property
    def share(self) -> float | None:
        """The share of the samples that change anything whose reward has the sign of the change."""
        return self.same_sign / self.changed if self.changed else None


@dataclass(frozen=True)
class Summary:
    """Counts over groups: a group are the samples of a query.

    Attributes:
        groups: of two samples or more.
        flat: of those, how many whose rewards are all the same.
        changing: samples with which the judge's nDCG@10 is another.
        empty, cut, copied: samples without a text, ended by the cap, taken from a passage or an example.
    """

    samples: int
    queries: int
    groups: int
    flat: int
    changing: int
    empty: int
    cut: int
    copied: int
    mean: float
    agreement: Agreement | None = None

    def table(self) -> str:
        """Return it as text."""
        rows = [
            ["", "value"],
            ["samples of queries", f"{self.samples} of {self.queries}"],
            ["mean reward", f"{self.mean:+.4f}"],
            ["groups without variance", _share(self.flat, self.groups)],
            ["samples that change anything", _share(self.changing, self.samples)],
            ["empty, cut, copied samples", f"{self.empty}, {self.cut}, {self.copied}"],
        ]
        if found := self.agreement:
            rows += [
                ["queries with qrels", f"{found.queries}"],
                ["reward has the sign of the true change", _share(found.same_sign, found.changed)],
                ["reward is 0 where there is a true change", _share(found.unseen, found.changed)],
                ["nDCG@10, best sample by the reward", _difference(found.best)],
                ["nDCG@10, best sample in truth", _difference(found.oracle)],
            ]
        return format_rows(rows)


def summarise(rows: Sequence[Rewarded], truth: Sequence[float | None] | None, seed: int) -> Summary:
    """Count over the rows of a file.

    Args:
        truth: of each row the true change of nDCG@10, `None` where nobody knows; `None` for nowhere.
        seed: of the intervals.
    """
    groups = by_query(rows)
    several = [group for group in groups.values() if len(group) > 1]
    return Summary(
        samples=len(rows),
        queries=len(groups),
        groups=len(several),
        flat=sum(len({row.reward for row in group}) == 1 for group in several),
        changing=sum(row.parts["gain"] != 0 for row in rows),
        empty=sum(not row.text for row in rows),
        cut=sum(row.cut for row in rows),
        copied=sum(row.parts["copy"] < 0 for row in rows),
        mean=sum(row.reward for row in rows) / len(rows),
        agreement=None if truth is None else _agreement(rows, truth, seed),
    )


def by_query(rows: Sequence[Rewarded]) -> dict[str, list[Rewarded]]:
    """Return query id -> its rows, in order."""
    groups: dict[str, list[Rewarded]] = {}
    for row in rows:
        groups.setdefault(row.query_id, []).append(row)
    return groups


def check_variance(found: Summary) -> None:
    """Check that the rewards tell samples apart.

    Raises:
        DataError: those of no query do, so that nothing can be learned.
    """
    if found.groups and found.flat == found.groups:
        raise DataError(
            f"the samples of each of the {found.groups} queries have one reward, so there is nothing to learn from",
            "Write more different ones (generate_expansions --temperature 1.2), let moves below rank 10 count "
            "(--rank_shaping 0.2), or let the expansion weigh more (--query_weight 2)",
        )


def _agreement(rows: Sequence[Rewarded], truth: Sequence[float | None], seed: int) -> Agreement | None:
    judged = [(row, change) for row, change in zip(rows, truth, strict=True) if change is not None]
    if not judged:
        return None
    changed = [(row.reward, change) for row, change in judged if change]
    groups: dict[str, list[tuple[Rewarded, float]]] = {}
    for row, change in judged:
        groups.setdefault(row.query_id, []).append((row, change))
    best = {key: max(group, key=lambda one: one[0].reward)[1] for key, group in groups.items()}
    oracle = {key: max(change for _, change in group) for key, group in groups.items()}
    return Agreement(
        queries=len(groups),
        changed=len(changed),
        same_sign=sum(reward * change > 0 for reward, change in changed),
        unseen=sum(reward == 0 for reward, _ in changed),
        best=_above_nothing(best, seed),
        oracle=_above_nothing(oracle, seed),
    )


def _above_nothing(changes: Mapping[str, float], seed: int) -> Difference | None:
    if len(changes) < FEWEST_TO_COMPARE:
        return None
    return difference(dict.fromkeys(changes, 0.0), changes, list(changes), seed)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f} ({part} of {whole})" if whole else "-"


def _difference(found: Difference | None) -> str:
    if found is None:
        return "-"
    shown = format_difference(found.difference, found.low, found.high)
    return f"{shown}, better {found.better}, worse {found.worse}"
