"""What a prescreening would save: the pairs, minutes and money of a run with it, beside those of a run without."""

from __future__ import annotations

from dataclasses import dataclass

from rag_core.scoring.plan import Plan, duration, make_plan
from rag_core.scoring.prescreen import Prescreen
from rag_core.scoring.scored_files import ScoringRun


@dataclass(frozen=True)
class PrescreenPlan:
    """The work of a run with a prescreening.

    Attributes:
        whole: the teacher's work without it.
        teacher, cheap: that of the teacher and of the cheap model with it.
    """

    prescreen: Prescreen
    whole: Plan
    teacher: Plan
    cheap: Plan

    @property
    def saved(self) -> float:
        """How many seconds less it takes; below 0 it takes more."""
        return self.whole.seconds - self.teacher.seconds - self.cheap.seconds

    def lines(self, price: float | None) -> list[str]:
        """Return it as text; `price` is that of the hardware by the hour."""
        cheap, teacher, whole = self.cheap, self.teacher, self.whole
        share = self.saved / whole.seconds if whole.seconds else 0.0
        name = f"{self.prescreen.options.model.name}, its best {self.prescreen.keep} and {self.prescreen.random} random"
        saved = f"{duration(abs(self.saved))} of {duration(whole.seconds)} ({abs(share):.0%})"
        text = [
            f"prescreened by   {name} candidates of each query",
            f"then scored      {teacher.pairs:,} of {whole.pairs:,} candidates ({teacher.pairs / whole.pairs:.0%})",
            f"cheap model      {cheap.rows - cheap.found:,} {cheap.unit} to compute, {duration(cheap.seconds)}",
            f"teacher          about {teacher.rows - teacher.found:,} {teacher.unit} to compute, instead of "
            f"{whole.rows - whole.found:,}; {duration(teacher.seconds)}",
            f"time saved       {saved}" if self.saved >= 0 else f"time lost        {saved}",
        ]
        if price is not None:
            cost = [f"{seconds / 3600 * price:,.2f}" for seconds in (whole.seconds, whole.seconds - self.saved)]
            text.append(f"estimated cost   {cost[1]} instead of {cost[0]} at {price:g} an hour")
        return text


def plan_prescreening(run: ScoringRun, prescreen: Prescreen, whole: Plan) -> PrescreenPlan:
    """Estimate the work of a run with a prescreening, as `make_plan` does.

    Args:
        whole: the plan of all candidates, on the same hardware.

    Raises:
        EngineError: as `make_plan`.
    """
    outputs = [file.output for file in [*run.todo, *run.finished]]
    folders = prescreen.folders(run.store, outputs)
    teacher = make_plan(run.sources, run.options, run.folders, run.scope, whole.gpu, most=prescreen.most)
    cheap = make_plan(run.sources, prescreen.options, folders, prescreen.scope, whole.gpu)
    return PrescreenPlan(prescreen, whole, teacher, cheap)
