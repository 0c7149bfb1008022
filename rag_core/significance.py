"""Is a difference more than the luck of the queries? Paired over queries, through scipy."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

_RESAMPLES = 9999


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
    bootstrap = stats.bootstrap(
        (differences,), np.mean, n_resamples=_RESAMPLES, method="percentile", rng=np.random.default_rng(seed)
    )
    # In pairs, a permutation swaps old and new, that is, flips the sign of the difference.
    flipped = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return Change(
        difference=float(differences.mean()),
        relative=float(differences.mean() / old.mean()) if old.mean() else None,
        low=float(bootstrap.confidence_interval.low),
        high=float(bootstrap.confidence_interval.high),
        p_value=float(flipped.pvalue),
    )
