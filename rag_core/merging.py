"""Between the student before and after training: interpolated weights keep what it knew and what it learned.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT), arXiv:2109.01903; Xiao et al. 2023,
"LM-Cocktail", arXiv:2311.13534.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag_core.dev_set import DevSet

if TYPE_CHECKING:
    from torch import Tensor, nn

Domain = Literal["in-domain", "out-of-domain"]
Weights = Mapping[str, "Tensor"]

ALPHAS = tuple(step / 10 for step in range(11))
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
    """Measure the dev files along the way; the best in-domain point at which no out-of-domain file falls is chosen.

    "Best" is the highest mean over the in-domain files, at equal values the smaller alpha; "falls" is below the value
    at alpha 0. Without an in-domain file alpha is 0.5, or the largest below at which no other file falls.
    """

    def value(alpha: float, dev_set: DevSet) -> float:
        interpolate(model, before, after, alpha)
        return dev_set.value(model, batch_size)

    curves = [_curve(domain, dev_set, value) for domain, dev_set in dev_sets]
    return Merge(*decide(curves), ALPHAS, curves)


def decide(curves: Sequence[Curve]) -> tuple[float, str]:
    """Return alpha and the reason, from the values at `ALPHAS`."""
    inside = [curve.values for curve in curves if curve.domain == "in-domain"]
    outside = [curve.values for curve in curves if curve.domain == "out-of-domain"]
    allowed = [i for i in range(len(ALPHAS)) if all(values[i] >= values[0] for values in outside)]
    constraint = f", of {len(allowed)} of {len(ALPHAS)} at which no out-of-domain dev file falls" if outside else ""
    if not inside:
        chosen = max(i for i in allowed if ALPHAS[i] <= DEFAULT_ALPHA)
        return ALPHAS[chosen], f"nothing in-domain to choose it on: at most {DEFAULT_ALPHA:g}{constraint}"
    chosen = max(allowed, key=lambda i: (sum(values[i] for values in inside), -i))
    return ALPHAS[chosen], f"the best on the in-domain dev file{constraint}"


def write_merge(folder: Path, merge: Merge) -> None:
    """Write `merge.json` into a model's folder, for the report's trade-off curve."""
    (folder / "merge.json").write_text(json.dumps(asdict(merge), indent=2), encoding="utf-8")


def _curve(domain: Domain, dev_set: DevSet, value: Callable[[float, DevSet], float]) -> Curve:
    from tqdm import tqdm

    values = [value(alpha, dev_set) for alpha in tqdm(ALPHAS, desc=f"merge: {dev_set.path.name}", disable=None)]
    figures = ", ".join(f"{alpha:g}: {figure:.4f}" for alpha, figure in zip(ALPHAS, values, strict=True))
    logger.info("%s (%s), %s by alpha: %s", dev_set.path.name, domain, dev_set.measure, figures)
    return Curve(dev_set.path.name, domain, dev_set.measure, len(dev_set.groups), values)
