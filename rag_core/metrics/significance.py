"""Is a difference more than the luck of the queries? Paired over queries, through scipy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

_RESAMPLES = 9999

# Resamples come in batches of so many values, 32 MB; the size of a batch has no say in what comes out.
_BATCH_VALUES = 2**22


@dataclasses.dataclass(frozen=True)
class Change:
    """How much one model's metric differs from another's on the same queries.

    Attributes:
        difference: mean of the new values minus mean of the old ones.
        relative: `difference` divided by the mean of the old values; `None` where that is 0.
        low, high: 95 % percentile bootstrap interval of `difference`, over queries.
        p_value: two-sided paired randomisation test (Smucker et al. 2007, "A comparison of statistical
            significance tests for information retrieval evaluation").
    """

    difference: float
    relative: float | None
    low: float
    high: float
    p_value: float


@dataclasses.dataclass(frozen=True)
class Wins:
    """On how many queries the new values are higher, lower, and the same."""

    better: int
    worse: int
    same: int


@dataclasses.dataclass(frozen=True)
class GapClosed:
    """The share of the teacher's lead that training closed: (after - before) / (teacher - before), of the means.

    Attributes:
        low, high: 95 % percentile bootstrap interval over queries, all three resampled together; `None` where the
            lead's own interval is not above 0, so that the share has no bounds.
    """

    share: float
    low: float | None
    high: float | None


def mean_interval(values: Values, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean over queries; NaN values left out."""
    from scipy import stats

    values = values[np.isfinite(values)]
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=_batch(len(values)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def count_wins(old: Values, new: Values) -> Wins:
    """Compare query by query; NaN values left out."""
    difference = new - old
    return Wins(int((difference > 0).sum()), int((difference < 0).sum()), int((difference == 0).sum()))


def gap_closed(before: Values, after: Values, teacher: Values, seed: int) -> GapClosed | None:
    """Return the share of the teacher's lead that was closed; `None` where the teacher's mean is not above before's.

    Args:
        before, after, teacher: a metric's values; shape (queries,) each, NaN values left out together.
    """
    usable = np.isfinite(before) & np.isfinite(after) & np.isfinite(teacher)
    gain, lead = (after - before)[usable], (teacher - before)[usable]
    if not len(lead) or lead.mean() <= 0:
        return None
    batches = [(gain[drawn].mean(axis=1), lead[drawn].mean(axis=1)) for drawn in _draws(len(lead), seed)]
    gains, leads = np.concatenate(batches, axis=1)
    low = high = None
    if np.quantile(leads, 0.025) > 0:
        low, high = map(float, np.quantile(gains[leads > 0] / leads[leads > 0], (0.025, 0.975)))
    return GapClosed(float(gain.mean() / lead.mean()), low, high)


def paired_change(old: Values, new: Values, seed: int) -> Change:
    """Compare two metrics' values query by query; shape (queries,) each, NaN values left out in pairs.

    Raises:
        ValueError: fewer than 2 queries were measured.
    """
    from scipy import stats

    usable = np.isfinite(old) & np.isfinite(new)
    old, new = old[usable], new[usable]
    if len(old) < 2:
        raise ValueError(f"a paired comparison needs 2 queries, got {len(old)}")
    differences = new - old
    low, high = mean_interval(differences, seed)
    # In pairs, a permutation swaps old and new, that is, flips the sign of the difference.
    flipped = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        batch=_batch(len(differences)),
        rng=np.random.default_rng(seed),
    )
    return Change(
        difference=float(differences.mean()),
        relative=float(differences.mean() / old.mean()) if old.mean() else None,
        low=low,
        high=high,
        p_value=float(flipped.pvalue),
    )


def _batch(queries: int) -> int:
    return max(1, _BATCH_VALUES // queries)


def _draws(queries: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows of all resamples in batches; shape (resamples, queries) each."""
    generator = np.random.default_rng(seed)
    for start in range(0, _RESAMPLES, _batch(queries)):
        yield generator.integers(queries, size=(min(_batch(queries), _RESAMPLES - start), queries))


def standard_error(values: Values) -> float:
    """Return the standard error of the mean of some queries' values; shape (queries,)."""
    return float(values.std() / np.sqrt(len(values)))


def as_good(shortfall: Values, standard_errors: float = 1.0) -> bool:
    """Tell whether what falls short of the best, paired over queries, may be chance: the rule of one standard error.

    Breiman et al. 1984, "Classification and Regression Trees".
    """
    return bool(shortfall.mean() <= standard_errors * standard_error(shortfall))
