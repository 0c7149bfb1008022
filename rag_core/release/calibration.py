"""From scores to probabilities: Platt scaling, how far off the probabilities are, and where the two are kept."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError, EngineError
from rag_core.base.tables import format_rows
from rag_core.engines.identity import ModelInfo
from rag_core.engines.pretrained import load_sentence_transformers
from rag_core.engines.special_tokens import read_texts_literally
from rag_core.release.cut_offs import Threshold, Values, format_thresholds
from rag_core.release.saving import save_model

Method = Literal["platt", "temperature"]
Target = Literal["teacher", "labels"]
Unit = Literal["logit", "cosine"]
When = Literal["before", "after"]

BINS = 15  # of equal width, as in Guo et al. (2017)
SPLIT = "held out: the queries the SHA-256 of whose text has an odd first byte"

_LARGEST_ERROR = 2e-3  # of a probability out of a folded head; bfloat16 in the layers below costs about 1e-3


@dataclasses.dataclass(frozen=True)
class Scaling:
    """probability = sigmoid(slope * score + intercept); a temperature is 1 / slope, with an intercept of 0."""

    slope: float
    intercept: float

    def __call__(self, scores: npt.ArrayLike) -> Values:
        """Return the probabilities of scores; any shape."""
        return sigmoid(self.slope * np.asarray(scores, dtype=np.float64) + self.intercept)


@dataclasses.dataclass(frozen=True)
class Half:
    """The queries that are fitted on, or those that are held out, with the mean target of their pairs."""

    queries: int
    pairs: int
    mean_target: float


@dataclasses.dataclass(frozen=True)
class Bin:
    """Pairs with similar probabilities: how many, their mean probability, and the mean of their targets."""

    pairs: int
    probability: float
    target: float


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The content of `calibration.json`.

    Attributes:
        folded: whether the model's last layer computes the scaling.
        split: how the queries were divided.
        errors: expected calibration error of the held-out pairs, by what it is measured against.
        reliability: the bins of the held-out pairs.
        thresholds: cut-offs that were carried over from the old model.
    """

    method: Method
    slope: float
    intercept: float
    score_unit: Unit
    folded: bool
    target: Target
    split: str
    fitted_on: Half
    held_out: Half
    errors: dict[Target, dict[When, float]]
    reliability: dict[When, list[Bin]]
    thresholds: list[Threshold]

    @property
    def scaling(self) -> Scaling:
        """From scores to probabilities."""
        return Scaling(self.slope, self.intercept)


def sigmoid(scores: npt.ArrayLike) -> Values:
    """Return 1 / (1 + exp(-score)), without overflow."""
    from scipy.special import expit

    values: Values = expit(np.asarray(scores, dtype=np.float64))
    return values


def is_held_out(query: str) -> bool:
    """Tell whether a query is in the half that measures; it depends on the text only, see `SPLIT`."""
    return hashlib.sha256(query.encode()).digest()[0] % 2 == 1


def fit(scores: Values, targets: Values, method: Method) -> Scaling:
    """Minimise the cross-entropy of the probabilities and their targets, by Newton's method.

    Labels (every target 0 or 1) are taken as Platt (1999) does, as (n + 1) / (n + 2) and 1 / (n + 2) with n the number
    of such labels, so that classes which scores separate without error do not lead to an infinite slope.

    Args:
        scores, targets: shape (pairs,); the targets are probabilities.

    Raises:
        DataError: the scores are all the same, or higher ones do not stand for higher probabilities.
    """
    from scipy.optimize import minimize
    from scipy.special import log_expit

    spread = float(scores.std())
    if spread == 0 or targets.std() == 0:
        what = "scores" if spread == 0 else "targets"
        raise DataError(
            f"the {what} of the pairs to fit on are all the same", "Pass other --input_files or another --model"
        )
    shift = float(scores.mean()) if method == "platt" else 0.0
    design = np.stack([(scores - shift) / spread, np.ones_like(scores)], axis=1)[
        :, : 1 if method == "temperature" else 2
    ]
    targets = _smoothed(targets)

    def loss(weights: Values) -> float:
        logits = design @ weights
        return float(-(targets * log_expit(logits) + (1 - targets) * log_expit(-logits)).mean())

    def gradient(weights: Values) -> Values:
        slopes: Values = design.T @ (sigmoid(design @ weights) - targets) / len(targets)
        return slopes

    def hessian(weights: Values) -> Values:
        probabilities = sigmoid(design @ weights)
        curvature: Values = (design * (probabilities * (1 - probabilities))[:, None]).T @ design / len(targets)
        return curvature

    start, options = np.zeros(design.shape[1]), {"gtol": 1e-9}
    weights = minimize(loss, start, method="trust-exact", jac=gradient, hess=hessian, options=options).x
    slope = float(weights[0]) / spread
    if slope <= 0:
        raise DataError(
            "higher scores do not stand for higher probabilities on these pairs",
            "Check that they are of the model's own domain and that their labels or teacher are right",
        )
    return Scaling(slope, float(weights[1]) - slope * shift if method == "platt" else 0.0)


def _smoothed(targets: Values) -> Values:
    if not np.isin(targets, (0, 1)).all():
        return targets
    positives = targets.sum()
    smoothed: Values = np.where(targets == 1, (positives + 1) / (positives + 2), 1 / (len(targets) - positives + 2))
    return smoothed


def reliability(probabilities: Values, targets: Values) -> list[Bin]:
    """Divide the pairs into `BINS` by their probability; return those that are not empty."""
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    return [
        Bin(
            pairs=int((bins == number).sum()),
            probability=float(probabilities[bins == number].mean()),
            target=float(targets[bins == number].mean()),
        )
        for number in np.unique(bins)
    ]


def expected_calibration_error(probabilities: Values, targets: Values) -> float:
    """Return the mean distance between mean probability and mean target of a bin, weighted by its pairs."""
    bins = reliability(probabilities, targets)
    return sum(bin.pairs * abs(bin.probability - bin.target) for bin in bins) / len(targets)


def uncalibrated(scores: Values, unit: Unit) -> Values:
    """Return the probability that an uncalibrated score implies: a logit's sigmoid, a cosine cut to 0 to 1."""
    return np.clip(scores, 0, 1) if unit == "cosine" else sigmoid(scores)


def fold_into_head(model: ModelInfo, scaling: Scaling, folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Save a cross-encoder whose `predict` gives probabilities: its last layer scales, its activation is the sigmoid.

    Args:
        pairs: a few on which the saved model's `predict` is held against the scaled scores.

    Raises:
        EngineError: the model's last layer cannot hold the scaling.
    """
    import torch
    from sentence_transformers import CrossEncoder

    encoder = load_sentence_transformers(model, CrossEncoder, dtype="float32")
    expected = scaling(encoder.predict(list(pairs), activation_fn=torch.nn.Identity(), show_progress_bar=False))
    linear = [
        module for module in encoder.modules() if isinstance(module, torch.nn.Linear) and module.out_features == 1
    ]
    if not linear or (scaling.intercept and linear[-1].bias is None):
        what = "no bias that could take the intercept" if linear else "no linear layer with one output at its end"
        raise EngineError(f"{model.name} has {what}", "Pass --method temperature" if linear else "Pass another --model")
    with torch.no_grad():
        linear[-1].weight.mul_(scaling.slope)
        if linear[-1].bias is not None:
            linear[-1].bias.mul_(scaling.slope).add_(scaling.intercept)
    encoder.activation_fn = torch.nn.Sigmoid()
    save_model(encoder, folder)
    saved = CrossEncoder(str(folder))
    read_texts_literally(saved)
    found = saved.predict(list(pairs), show_progress_bar=False)
    error = float(np.abs(found - expected).max())
    if error > _LARGEST_ERROR:
        raise EngineError(
            f"the probabilities of the saved model differ from the scaled scores by up to {error:.2g}: "
            "its score is not the output of its last linear layer",
            "Pass another --model",
        )


def markdown(calibration: Calibration) -> str:
    """Return a calibration as a section of a model card."""
    errors = [["expected calibration error, held out", "before", "after"]]
    errors += [[f"against {of}", f"{e['before']:.4f}", f"{e['after']:.4f}"] for of, e in calibration.errors.items()]
    fitted_on, held_out = calibration.fitted_on, calibration.held_out
    applied = "`CrossEncoder.predict` gives it"
    if not calibration.folded:
        applied = "A cosine has no layer that could hold it: apply it yourself"
    lines = [
        "## Calibration",
        f"Probability = sigmoid({calibration.slope:.4g} * score {calibration.intercept:+.4g}), fitted to "
        f"{calibration.target} by {calibration.method} scaling on {fitted_on.pairs:,} pairs of "
        f"{fitted_on.queries:,} queries; the figures are of {held_out.pairs:,} other pairs of "
        f"{held_out.queries:,} other queries. {applied}. It holds for candidates like these, of which a share of "
        f"{held_out.mean_target:.3f} is relevant.",
        format_rows(errors),
    ]
    if calibration.thresholds:
        lines += [format_thresholds(calibration.thresholds)]
    return "\n\n".join(lines)
