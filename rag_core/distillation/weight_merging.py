"""Merge a student's weights before and after training: points between them, or beyond.

Interpolated weights keep what it knew and add what it learned: Wortsman et al. 2022, "Robust fine-tuning of zero-shot
models" (WiSE-FT), arXiv:2109.01903; Xiao et al. 2023, "LM-Cocktail", arXiv:2311.13534. Extrapolated ones go further
than a training that was held back (by anchors, a low rate): Zheng et al. 2024, "Weak-to-Strong Extrapolation Expedites
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

from rag_core.distillation.dev_set import DevSet

if TYPE_CHECKING:
    from torch import Tensor, nn

Domain = Literal["in-domain", "out-of-domain"]
Weights = Mapping[str, "Tensor"]
Values = npt.NDArray[np.float64]

# A dev file of some hundred queries does not tell finer steps apart, and each step embeds it once more.
BETWEEN = (0.0, 0.25, 0.5, 0.75, 1.0)
BEYOND = (1.5, 2.0, 2.5, 3.0)  # only where an out-of-domain file tells what is forgotten
DEFAULT_ALPHA = 0.5  # that of WiSE-FT, where there is no dev file to choose it on

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
    """Set a model's weights to (1 - alpha) before + alpha after; what is not a float is taken from after."""
    model.load_state_dict(
        {name: before[name].lerp(value, alpha) if value.is_floating_point() else value for name, value in after.items()}
    )


def choose_alpha(
    model: Any, before: Weights, after: Weights, dev_sets: Sequence[tuple[Domain, DevSet]], batch_size: int
) -> Merge:
    """Measure the dev files at several alphas, and choose one as `decide` does.

    Alphas above 1 are tried only if there are in-domain and out-of-domain files, and only as long as the last one tried
    is a candidate.
    """
    from tqdm import tqdm

    both = {domain for domain, _ in dev_sets} == {"in-domain", "out-of-domain"}
    measured: list[list[Values]] = [[] for _ in dev_sets]
    alphas: list[float] = []
    for alpha in tqdm(BETWEEN + BEYOND if both else BETWEEN, desc="merge", disable=None):
        if alpha > 1 and len(alphas) - 1 not in _candidates(*_by_domain(dev_sets, measured)):
            break
        interpolate(model, before, after, alpha)
        for rows, (_, dev_set) in zip(measured, dev_sets, strict=True):
            rows.append(dev_set.values(model, batch_size))
        alphas.append(alpha)
    curves = [
        Curve(dev_set.path.name, domain, dev_set.measure, dev_set.queries, [float(row.mean()) for row in rows])
        for (domain, dev_set), rows in zip(dev_sets, measured, strict=True)
    ]
    for curve in curves:
        figures = ", ".join(f"{alpha:g}: {value:.4f}" for alpha, value in zip(alphas, curve.values, strict=True))
        logger.info("%s (%s), %s by alpha: %s", curve.name, curve.domain, curve.measure, figures)
    alpha, reason = decide(alphas, *_by_domain(dev_sets, measured))
    return Merge(alpha, reason, alphas, curves)


def _by_domain(
    dev_sets: Sequence[tuple[Domain, DevSet]], measured: Sequence[Sequence[Values]]
) -> tuple[list[Values], list[Values]]:
    """Return the values of the in-domain and of the out-of-domain files, each of shape (alphas, queries)."""
    pairs = [(domain, np.stack(rows)) for (domain, _), rows in zip(dev_sets, measured, strict=True)]
    inside, outside = ([values for of, values in pairs if of == domain] for domain in ("in-domain", "out-of-domain"))
    return inside, outside


def decide(alphas: Sequence[float], inside: Sequence[Values], outside: Sequence[Values]) -> tuple[float, str]:
    """Return the alpha to take, and the reason.

    A value is worse than another if their mean difference, paired over queries, is more than one standard error
    (Breiman et al. 1984). An alpha is allowed if no out-of-domain file is worse there than at alpha 0. Of the allowed
    ones that are not worse in-domain than the best of them, the one nearest to 1 is taken: the weights stay as they
    were trained, unless a dev file tells otherwise. Without an in-domain file alpha is at most 0.5.

    Args:
        alphas: ascending from 0.
        inside, outside: of each file the values at `alphas`; shape (alphas, queries).
    """
    candidates = _candidates(inside, outside)
    constraint = ""
    if outside:
        among = f"{len(_allowed(outside))} of {len(alphas)}"
        constraint = f", of {among} at which no out-of-domain dev file falls by more than a standard error"
    if not inside:
        chosen = max(i for i in candidates if alphas[i] <= DEFAULT_ALPHA)
        return alphas[chosen], f"nothing in-domain to choose it on: at most {DEFAULT_ALPHA:g}{constraint}"
    chosen = min(candidates, key=lambda i: abs(alphas[i] - 1))
    return alphas[chosen], f"nearest to 1 within a standard error of the best on the in-domain dev files{constraint}"


def _candidates(inside: Sequence[Values], outside: Sequence[Values]) -> list[int]:
    """Return the indices of the alphas that are allowed, and not worse in-domain than the best allowed one."""
    allowed = _allowed(outside) if outside else list(range(len(inside[0])))
    if not inside:
        return allowed
    values = np.concatenate(inside, axis=1)
    best = max(allowed, key=lambda i: (values[i].mean(), -i))
    return [i for i in allowed if i == best or _as_good(values[best] - values[i])]


def _allowed(outside: Sequence[Values]) -> list[int]:
    """Return the indices of the alphas at which no file is worse than at the first."""
    return [i for i in range(len(outside[0])) if all(_as_good(values[0] - values[i]) for values in outside)]


def _as_good(shortfall: Values) -> bool:
    return bool(shortfall.mean() <= shortfall.std() / np.sqrt(len(shortfall)))


def write_merge(folder: Path, merge: Merge) -> None:
    """Write `merge.json` into a model's folder, for the report's trade-off curve."""
    (folder / "merge.json").write_text(json.dumps(asdict(merge), indent=2), encoding="utf-8")
