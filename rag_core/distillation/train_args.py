"""The flags that both train stages have beside those of the trainer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs

if TYPE_CHECKING:
    from rag_core.distillation.student import LoraSettings


@dataclasses.dataclass(kw_only=True)
class TrainArgs(SeedArgs, OverwriteArgs, BadRowsArgs):
    """Flags of the stage; each pipeline adds its own."""

    takes_further_flags: ClassVar[bool] = True

    init_layers: int | None = flag(
        "start with so many of the student's layers, evenly spaced, the first and the last among them (default: all)",
        None,
    )
    lora_rank: int | None = flag(
        "train low-rank adapters of this rank on all linear layers instead of the weights, and merge them before "
        "saving (default: train the weights)",
        None,
    )
    lora_alpha: float | None = flag("the adapters' factor is this over the rank (default: twice the rank)", None)
    dev_files: list[Path] = flag(
        "ScoredPair records of in-domain queries that are not trained on, measured at every --eval_steps: MAP where "
        "there are labels, else agreement with the teacher; --load_best_model_at_end keeps the best checkpoint",
        [],
        decides=False,
    )
    early_stopping_patience: int | None = flag(
        "stop after so many evaluations without a new best, and keep that (default: never)", None
    )
    average_checkpoints: int | None = flag("keep the mean of so many of the last checkpoints (default: the last)", None)

    def lora(self) -> LoraSettings | None:
        """Return the settings of the adapters, `None` where there are to be none.

        Raises:
            UsageError: the flags contradict each other.
        """
        from rag_core.distillation.student import LoraSettings

        if self.lora_rank is None:
            if self.lora_alpha is not None:
                raise UsageError("--lora_alpha is for --lora_rank", "Pass both, or none")
            return None
        if self.lora_rank < 1:
            raise UsageError(f"--lora_rank is {self.lora_rank}", "Pass 1 or more, or leave it out")
        if self.average_checkpoints is not None:
            raise UsageError(
                "the mean of factors is not that of their products", "Pass one of --average_checkpoints and --lora_rank"
            )
        return LoraSettings(self.lora_rank, 2.0 * self.lora_rank if self.lora_alpha is None else self.lora_alpha)
