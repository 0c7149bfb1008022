"""The flags that both train stages have beside those of the trainer."""

from __future__ import annotations

import dataclasses
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
