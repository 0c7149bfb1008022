"""On the line through the student before and after training: between them, or beyond.

Interpolated weights keep what it knew and what it learned: Wortsman et al. 2022, "Robust fine-tuning of zero-shot
models" (WiSE-FT), arXiv:2109.01903; Xiao et al. 2023, "LM-Cocktail", arXiv:2311.13534. Extrapolated ones go on where a
training that was held back (by anchors, a low rate) stopped: Zheng et al. 2024, "Weak-to-Strong Extrapolation Expedites
Alignment" (ExPO), arXiv:2404.16792.
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

# A dev file of some hundred queries does not tell finer steps apart, and each costs its embedding.
BETWEEN = (0.0, 0.25, 0.5, 0.75, 1.0)
BEYOND = (1.5, 2.0, 2.5, 3.0)  # only where a file out of domain can tell what is forgotten
DEFAULT_ALPHA = 0.5  # WiSE-FT's own, for where there is nothing to choose it on

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Curve:
    """A dev file's values along the line through the weights before training (alpha 0) and those after (alpha 1)."""

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
    """Measure the dev files along the line, and choose the point as `decide` does."""
    from tqdm import tqdm

    guarded = any(domain == "out-of-domain" for domain, _ in dev_sets)
    alphas = BETWEEN + BEYOND if guarded else BETWEEN

    def measure(domain: Domain, dev_set: DevSet) -> Values:
        rows = []
        for alpha in tqdm(alphas, desc=f"merge: {dev_set.path.name}", disable=None):
            interpolate(model, before, after, alpha)
            rows.append(dev_set.values(model, batch_size))
        values = np.stack(rows)
        figures = ", ".join(f"{alpha:g}: {mean:.4f}" for alpha, mean in zip(alphas, values.mean(axis=1), strict=True))
        logger.info("%s (%s), %s by alpha: %s", dev_set.path.name, domain, dev_set.measure, figures)
        return values

    measured = [measure(domain, dev_set) for domain, dev_set in dev_sets]
    inside = [values for (domain, _), values in zip(dev_sets, measured, strict=True) if domain == "in-domain"]
    outside = [values for (domain, _), values in zip(dev_sets, measured, strict=True) if domain == "out-of-domain"]
    alpha, reason = decide(alphas, inside, outside)
    curves = [
        Curve(dev_set.path.name, domain, dev_set.measure, len(dev_set.groups), values.mean(axis=1).tolist())
        for (domain, dev_set), values in zip(dev_sets, measured, strict=True)
    ]
    return Merge(alpha, reason, alphas, curves)


def decide(alphas: Sequence[float], inside: Sequence[Values], outside: Sequence[Values]) -> tuple[float, str]:
    """Return alpha and the reason.

    Differences are told by the one-standard-error rule (Breiman et al. 1984), paired over queries: one counts where
    it is more than one standard error. Allowed is every alpha at which no out-of-domain file is worse than at alpha 0.
    Of these, the one nearest to 1 is taken that is not worse in-domain than the best: the weights stay as they were
    trained unless a dev file can tell otherwise. Without an in-domain file alpha is at most 0.5.

    Args:
        alphas: ascending from 0.
        inside, outside: of each file the values at `alphas`; shape (alphas, queries).
    """
    allowed = [i for i in range(len(alphas)) if all(_as_good(values[0] - values[i]) for values in outside)]
    constraint = ""
    if outside:
        among = f"{len(allowed)} of {len(alphas)}"
        constraint = f", of {among} at which no out-of-domain dev file falls by more than a standard error"
    if not inside:
        chosen = max(i for i in allowed if alphas[i] <= DEFAULT_ALPHA)
        return alphas[chosen], f"nothing in-domain to choose it on: at most {DEFAULT_ALPHA:g}{constraint}"
    values = np.concatenate(inside, axis=1)
    best = max(allowed, key=lambda i: (values[i].mean(), -i))
    as_good = [i for i in allowed if i == best or _as_good(values[best] - values[i])]
    chosen = min(as_good, key=lambda i: abs(alphas[i] - 1))
    return alphas[chosen], f"nearest to 1 within a standard error of the best on the in-domain dev files{constraint}"


def _as_good(shortfall: Values) -> bool:
    return bool(shortfall.mean() <= shortfall.std() / np.sqrt(len(shortfall)))


def write_merge(folder: Path, merge: Merge) -> None:
    """Write `merge.json` into a model's folder, for the report's trade-off curve."""
    (folder / "merge.json").write_text(json.dumps(asdict(merge), indent=2), encoding="utf-8")
