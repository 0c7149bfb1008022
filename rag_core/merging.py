"""Between the student before and after training: interpolated weights keep what it knew and what it learned.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), arXiv:2109.01903; Xiao et al. 2023,
"LM-Cocktail", arXiv:2311.13534.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from rag_core.dev_set import DevSet

if TYPE_CHECKING:
    from torch import Tensor, nn

Domain = Literal["in-domain", "out-of-domain"]
Weights = Mapping[str, "Tensor"]
Values = npt.NDArray[np.float64]

# Quarters: a dev file of some hundred queries does not tell finer steps apart, and each costs its embedding.
ALPHAS = tuple(step / 4 for step in range(5))
DEFAULT_ALPHA = 0.5  # WiSE-FT's own, for where there is nothing to choose it on

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curve:
    """A dev file's values along the way from the weights before training (alpha 0) to those after (alpha 1)."""

    name: str
    domain: Domain
    measure: str
    queries: int
    values: list[float]


@dataclass(frozen=True)
class Merge:
    """What was chosen, and why."""

    alpha: float
    reason: str
    alphas: Sequence[float]
    files: list[Curve]


def interpolate(model: nn.Module, before: Weights, after: Weights, alpha: float) -> None:
    """Set a model's weights to (1 - alpha) before + alpha after; what is not a float stays as after."""
    model.load_state_dict(
        {name: before[name].lerp(value, alpha) if value.is_floating_point() else value for name, value in after.items()}
    )


def choose_alpha(
    model: Any, before: Weights, after: Weights, dev_sets: Sequence[tuple[Domain, DevSet]], batch_size: int
) -> Merge:
    """Measure the dev files along the way, and choose the point as `decide` does."""
    measured = [
        _measure(dev_set, model, before, after, batch_size=batch_size, domain=domain) for domain, dev_set in dev_sets
    ]
    inside = [values for (domain, _), values in zip(dev_sets, measured, strict=True) if domain == "in-domain"]
    outside = [values for (domain, _), values in zip(dev_sets, measured, strict=True) if domain == "out-of-domain"]
    alpha, reason = decide(inside, outside)
    curves = [
        Curve(dev_set.path.name, domain, dev_set.measure, len(dev_set.groups), values.mean(axis=1).tolist())
        for (domain, dev_set), values in zip(dev_sets, measured, strict=True)
    ]
    return Merge(alpha, reason, ALPHAS, curves)


def decide(inside: Sequence[Values], outside: Sequence[Values]) -> tuple[float, str]:
    """Return alpha and the reason.

    Differences are told by the one-standard-error rule (Breiman et al. 1984), paired over queries: one counts where
    it is more than one standard error. Allowed is every alpha at which no out-of-domain file is worse than at alpha 0.
    Of these, the smallest is taken that is not worse in-domain than the best: what a dev file cannot tell from the
    best is decided in favour of what the student knew. Without an in-domain file alpha is at most 0.5.

    Args:
        inside, outside: of each file the values at `ALPHAS`; shape (alphas, queries).
    """
    allowed = [i for i in range(len(ALPHAS)) if all(_as_good(values[0] - values[i]) for values in outside)]
    constraint = ""
    if outside:
        among = f"{len(allowed)} of {len(ALPHAS)}"
        constraint = f", of {among} at which no out-of-domain dev file falls by more than a standard error"
    if not inside:
        chosen = max(i for i in allowed if ALPHAS[i] <= DEFAULT_ALPHA)
        return ALPHAS[chosen], f"nothing in-domain to choose it on: at most {DEFAULT_ALPHA:g}{constraint}"
    values = np.concatenate(inside, axis=1)
    best = max(allowed, key=lambda i: (values[i].mean(), -i))
    chosen = next(i for i in allowed if i == best or _as_good(values[best] - values[i]))
    return ALPHAS[chosen], f"the smallest within a standard error of the best on the in-domain dev files{constraint}"


def _as_good(shortfall: Values) -> bool:
    return bool(shortfall.mean() <= shortfall.std() / np.sqrt(len(shortfall)))


def write_merge(folder: Path, merge: Merge) -> None:
    """Write `merge.json` into a model's folder, for the report's trade-off curve."""
    (folder / "merge.json").write_text(json.dumps(asdict(merge), indent=2), encoding="utf-8")


def _measure(
    dev_set: DevSet, model: Any, before: Weights, after: Weights, *, batch_size: int, domain: Domain
) -> Values:
    from tqdm import tqdm

    rows = []
    for alpha in tqdm(ALPHAS, desc=f"merge: {dev_set.path.name}", disable=None):
        interpolate(model, before, after, alpha)
        rows.append(dev_set.values(model, batch_size))
    values = np.stack(rows)
    figures = ", ".join(f"{alpha:g}: {mean:.4f}" for alpha, mean in zip(ALPHAS, values.mean(axis=1), strict=True))
    logger.info("%s (%s), %s by alpha: %s", dev_set.path.name, domain, dev_set.measure, figures)
    return values
