"""What training left behind, for the report: how it was done, the loss by step, the merge curves."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NotRequired

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from rag_core.base.errors import DataError
from rag_core.distillation.weight_merging import Merge
from rag_core.files.inputs import read_whole
from rag_core.files.manifest import read_manifest

_LEAVE_OUT = "Delete it to leave it out of the report, or train again"
_SHOWN_FACTS = (
    "queries", "pairs", "triplets", "steps", "best_step", "averaged_steps", "seconds", "alpha",
    "learning_rate", "num_train_epochs",  # those that auto came to
)  # fmt: skip
_SHOWN_SETTINGS = (
    "loss", "init_layers", "lora_rank", "matryoshka_dims", "teacher_temperature", "student_temperature",
    "margin_scale", "score_scaling", "weighting", "mse_weight",
    "learning_rate", "num_train_epochs", "per_device_train_batch_size", "merge",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """How "after" was trained, as far as its folder says.

    Attributes:
        facts: teacher, settings and counts, by name; `None` of a model from elsewhere.
        log: the losses, and the step each was measured at; `None` where there are none.
        merges: by the name of the model, "after" first; without the models that have no curve.
    """

    facts: dict[str, Any] | None = None
    log: list[dict[str, float]] | None = None
    merges: dict[str, Merge] = dataclasses.field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the keys that it has in `report.json`."""
        merges = [{"name": name, **dataclasses.asdict(merge)} for name, merge in self.merges.items()]
        return {"training": self.facts, "training_log": self.log, "merges": merges}


def read_training(after: Path, trade_off: Sequence[Path]) -> TrainingRecord:
    """Read what training left in a model's folder.

    Args:
        after: folder of the trained model; of a name on a hub nothing is known.
        trade_off: folders of further trained models, which must have a merge curve.

    Raises:
        DataError: a file of a model is damaged, or a model of `trade_off` has no merge curve.
    """
    folders = list(dict.fromkeys(path.absolute() for path in (after, *trade_off)))
    merges = {folder: _read_merge(folder) for folder in folders}
    for path in trade_off:
        if merges[path.absolute()] is None:
            raise DataError(
                "has no merge curve",
                "Leave it out of --trade_off, or train it with --merge auto and --dev_files",
                path=path,
            )
    names = [folder.name for folder in folders]
    return TrainingRecord(
        facts=_read_facts(folders[0]),
        log=_read_log(folders[0]),
        merges={
            folder.name if names.count(folder.name) == 1 else str(folder): merge
            for folder, merge in merges.items()
            if merge is not None
        },
    )


def _read_facts(model: Path) -> dict[str, Any] | None:
    """Return how a model was trained, from the manifest beside it; `None` where there is none."""
    manifest = read_manifest(model)
    if manifest is None:
        return None
    flags = manifest.flags
    return {
        "teacher": (manifest.teacher or {}).get("name"),
        **{name: flags[name] for name in _SHOWN_SETTINGS if name in flags},
        **{name: manifest.facts[name] for name in _SHOWN_FACTS if name in manifest.facts},
    }


def _read_merge(folder: Path) -> Merge | None:
    """Return what `merge.json` says, `None` where it has no curve to draw."""
    path = folder / "merge.json"
    merge: Merge | None = _read_json(path, TypeAdapter(Merge))
    if merge is None or not any(curve.domain == "in-domain" for curve in merge.files):
        return None
    if any(len(curve.values) != len(merge.alphas) for curve in merge.files):
        raise _not_of_train(path, "a curve has not one value for each alpha")
    if merge.alpha not in merge.alphas or merge.alphas[0] != 0:
        raise _not_of_train(path, "its alphas are not those from 0 on, with the chosen one among them")
    return merge


class _Logged(TypedDict):
    step: int
    loss: NotRequired[float]
    eval_loss: NotRequired[float]
    eval_dev: NotRequired[float]


def _read_log(folder: Path) -> list[dict[str, float]] | None:
    """Return the losses by step, without those that are not finite; `None` where there are none."""
    log = _read_json(folder / "training_log.json", TypeAdapter(list[_Logged])) or []
    losses = [{name: value for name, value in entry.items() if math.isfinite(value)} for entry in log]
    return [entry for entry in losses if len(entry) > 1] or None


def _read_json(path: Path, adapter: TypeAdapter[Any]) -> Any:
    if not os.path.lexists(path):
        return None
    try:
        return adapter.validate_json(read_whole(path, _LEAVE_OUT))
    except ValidationError as error:
        raise _not_of_train(path, error.errors()[0]["msg"]) from error


def _not_of_train(path: Path, reason: str) -> DataError:
    return DataError(f"is not what train writes ({reason})", _LEAVE_OUT, path=path)
