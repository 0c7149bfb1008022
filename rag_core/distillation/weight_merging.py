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

from rag_core.base.processes import is_main_process
from rag_core.distillation.measuring import Measured, measure_all
from rag_core.metrics.significance import as_good

if TYPE_CHECKING:
    from torch import Tensor, nn

Domain = Literal["in-domain", "out-of-domain"]
Weights = Mapping[str, "Tensor"]
Values = npt.NDArray[np.float64]

# A dev file of some hundred queries does not tell finer steps apart, and each step embeds it once more.
BETWEEN = (0.0, 0.25, 0.5, 0.75, 1.0)
FIRST = (0.0, 0.5, 1.0)  # the others only where the decision needs them
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


def keep_weights(model: nn.Module, folder: Path) -> Weights:
    """Return a model's weights as they are now: on disk, in a folder of unfinished work, read when they are used."""
    import torch

    if not is_main_process():  # two would write one file
        return {name: value.detach().clone() for name, value in model.state_dict().items()}
    path = folder / "before.pt"
    torch.save(model.state_dict(), path)
    weights: Weights = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    path.unlink()  # what is mapped stays until this process ends; a training that fails leaves nothing behind
    return weights


def interpolate(model: nn.Module, before: Weights, after: Weights, alpha: float) -> None:
    """Set a model's weights to (1 - alpha) before + alpha after; what is not a float is taken from after."""
    for name, value in model.state_dict().items():  # in place: a third copy of the weights is never in memory
        start, end = before[name].to(value.device), after[name]
        value.copy_(start.lerp(end, alpha) if end.is_floating_point() else end)


def choose_alpha(
    model: Any, before: Weights, after: Weights, dev_sets: Sequence[tuple[Domain, Measured]], batch_size: int
) -> Merge:
    """Measure the dev sets at as few alphas as `next_alpha` asks for, and choose one of them as `decide` does.

    Alphas above 1 are tried only if there are in-domain and out-of-domain files.
    """
    both = {domain for domain, _ in dev_sets} == {"in-domain", "out-of-domain"}
    guarded = "out-of-domain or searched"
    if not any(domain == "in-domain" and dev_set.guards_its_domain for domain, dev_set in dev_sets):
        guarded = "out-of-domain"
    by_alpha: dict[float, list[Values]] = {}
    while True:
        alphas = sorted(by_alpha)
        inside, guards = _by_domain(dev_sets, [by_alpha[alpha] for alpha in alphas])
        alpha = next_alpha(alphas, inside, guards, beyond=both)
        if alpha is None:
            break
        interpolate(model, before, after, alpha)
        measured = measure_all([dev_set for _, dev_set in dev_sets], model, batch_size, f"merge, alpha {alpha:g}")
        by_alpha[alpha] = [found[dev_set.measures[0]] for found, (_, dev_set) in zip(measured, dev_sets, strict=True)]
        figures = (
            f"{dev_set.name} ({domain}) {dev_set.measures[0]} {values.mean():.4f}"
            for values, (domain, dev_set) in zip(by_alpha[alpha], dev_sets, strict=True)
        )
        logger.info("merge, alpha %g: %s", alpha, ", ".join(figures))
    alpha, reason = decide(alphas, inside, guards, guarded)
    curves = [
        Curve(
            dev_set.name,
            domain,
            dev_set.measures[0],
            dev_set.queries,
            [float(by_alpha[alpha][place].mean()) for alpha in alphas],
        )
        for place, (domain, dev_set) in enumerate(dev_sets)
    ]
    return Merge(alpha, reason, alphas, curves)


def _by_domain(
    dev_sets: Sequence[tuple[Domain, Measured]], measured: Sequence[Sequence[Values]]
) -> tuple[list[Values], list[Values]]:
    """Return the values of the in-domain files, and of those that guard, each of shape (alphas, queries).

    Args:
        measured: of each alpha the values of each file.
    """
    inside, guards = [], []
    for place, (domain, dev_set) in enumerate(dev_sets):
        values = np.array([rows[place] for rows in measured])
        if domain == "in-domain":
            inside.append(values)
        if domain == "out-of-domain" or dev_set.guards_its_domain:
            guards.append(values)
    return inside, guards


def next_alpha(
    alphas: Sequence[float], inside: Sequence[Values], guards: Sequence[Values], *, beyond: bool
) -> float | None:
    """Return the alpha that is to be measured next, `None` where those that are measured decide.

    First come 0, 0.5 and 1; without an in-domain file nothing above 0.5, which would not be taken. Then quarters halve
    the way from the chosen alpha to the next one, as far as 1. Beyond 1 it goes on only as long as the last one is
    allowed and the best in-domain.

    Args:
        alphas, inside, guards: as `decide` has them, also empty.
        beyond: whether alphas above 1 may be taken.
    """
    most = 1.0 if inside else DEFAULT_ALPHA
    for alpha in FIRST:
        if alpha not in alphas and alpha <= most:
            return alpha
    chosen, _ = decide(alphas, inside, guards)
    if chosen < 1:
        middle = (chosen + min((alpha for alpha in alphas if alpha > chosen), default=chosen)) / 2
        return middle if middle in BETWEEN and middle not in alphas else None
    if not beyond or _best(inside, guards) != len(alphas) - 1:
        return None
    return next((alpha for alpha in BEYOND if alpha > alphas[-1]), None)


def decide(
    alphas: Sequence[float], inside: Sequence[Values], guards: Sequence[Values], guarded: str = "out-of-domain"
) -> tuple[float, str]:
    """Return the alpha to take, and the reason.

    A value is worse than another if their mean difference, paired over queries, is more than one standard error
    (Breiman et al. 1984). An alpha is allowed if no guarding file is worse there than at alpha 0: those out of domain,
    and searches over a corpus of either domain. Of the allowed ones that are not worse in-domain than the best of them,
    the one nearest to 1 is taken: the weights stay as they were trained, unless a dev file tells otherwise. Without an
    in-domain file alpha is at most 0.5.

    Args:
        alphas: ascending from 0.
        inside, guards: of each file the values at `alphas`; shape (alphas, queries).
        guarded: what the files of `guards` are, for the reason.
    """
    candidates = _candidates(inside, guards)
    constraint = ""
    if guards:
        among = f"{len(_allowed(guards))} of {len(alphas)}"
        constraint = f", of {among} at which no {guarded} dev file falls by more than a standard error"
    if not inside:
        chosen = max(i for i in candidates if alphas[i] <= DEFAULT_ALPHA)
        return alphas[chosen], f"nothing in-domain to choose it on: at most {DEFAULT_ALPHA:g}{constraint}"
    chosen = min(candidates, key=lambda i: abs(alphas[i] - 1))
    return alphas[chosen], f"nearest to 1 within a standard error of the best on the in-domain dev files{constraint}"


def _candidates(inside: Sequence[Values], guards: Sequence[Values]) -> list[int]:
    """Return the indices of the alphas that are allowed, and not worse in-domain than the best allowed one."""
    allowed = _allowed(guards) if guards else list(range(len(inside[0])))
    if not inside:
        return allowed
    values, best = np.concatenate(inside, axis=1), _best(inside, guards)
    return [i for i in allowed if i == best or as_good(values[best] - values[i])]


def _best(inside: Sequence[Values], guards: Sequence[Values]) -> int:
    """Return the index of the allowed alpha with the highest mean in-domain, the lowest of equals."""
    values = np.concatenate(inside, axis=1)
    allowed = _allowed(guards) if guards else range(len(values))
    return max(allowed, key=lambda i: (values[i].mean(), -i))


def _allowed(guards: Sequence[Values]) -> list[int]:
    """Return the indices of the alphas at which no file is worse than at the first."""
    return [i for i in range(len(guards[0])) if all(as_good(values[0] - values[i]) for values in guards)]


def write_merge(folder: Path, merge: Merge) -> None:
    """Write `merge.json` into a model's folder, for the report's trade-off curve."""
    (folder / "merge.json").write_text(json.dumps(asdict(merge), indent=2), encoding="utf-8")
