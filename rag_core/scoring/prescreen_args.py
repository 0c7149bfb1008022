"""The flags of a stage that lets a cheap model choose what the teacher scores."""

from __future__ import annotations

import dataclasses

from rag_core.base.errors import UsageError
from rag_core.base.flags import default_of, flag, flags_of
from rag_core.base.stage import SeedArgs

PRESCREEN_FLAGS = ("prescreen", "prescreen_keep", "prescreen_random", "seed")


@dataclasses.dataclass(kw_only=True)
class PrescreenArgs(SeedArgs):
    """Flags of a stage that lets a cheap model choose what is scored."""

    prescreen: str | None = flag(
        "a cheap model (embedder or cross-encoder) that ranks the candidates of each query first; the teacher scores "
        "its best and a random few, the others stay unscored (for training files)",
        None,
        decides=False,
    )
    prescreen_keep: int = flag("--prescreen: how many of its best candidates the teacher scores", 12, least=1)
    prescreen_random: int = flag("--prescreen: how many others, drawn with --seed, the teacher scores", 4, least=0)


def check_prescreen(args: PrescreenArgs) -> None:
    """Check that flags of the prescreening are not given without a model for it.

    Raises:
        UsageError: one is.
    """
    if args.prescreen is not None:
        return
    for field in flags_of(PrescreenArgs):
        if field.name in PRESCREEN_FLAGS and getattr(args, field.name) != default_of(field):
            raise UsageError(f"--{field.name} is for --prescreen", "Pass --prescreen as well, or leave it out")
