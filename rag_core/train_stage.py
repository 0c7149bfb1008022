"""The flags that both train stages have beside those of the trainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from rag_core.stage import StageArgs, flag


@dataclasses.dataclass(kw_only=True)
class TrainArgs(StageArgs):
    """Flags of the stage; each pipeline adds its own."""

    takes_further_flags: ClassVar[bool] = True

    init_layers: int | None = flag(
        "start with so many of the student's layers, evenly spaced, the first and the last among them (default: all)",
        None,
    )
    dev_files: list[Path] = flag(
        "ScoredPair records of in-domain queries that are not trained on, measured at every --eval_steps: MAP where "
        "there are labels, else agreement with the teacher; --load_best_model_at_end keeps the best checkpoint",
        [],
    )
    early_stopping_patience: int | None = flag(
        "stop after so many evaluations without a new best, and keep that (default: never)", None
    )
    average_checkpoints: int | None = flag("keep the mean of so many of the last checkpoints (default: the last)", None)
