"""Does a teacher rank better than a student? Two rankings of the same queries, compared with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rag_core.base.tables import format_difference
from rag_core.metrics.ranking import METRICS, MetricName, PerQuery, means
from rag_core.metrics.significance import Change, paired_change

Verdict = Literal["go", "unclear", "no"]
Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class Comparison:
    """What student and teacher reach, and the teacher's lead."""

    means: Mapping[Role, Mapping[MetricName, float]]
    leads: Mapping[MetricName, Change]

    @property
    def verdict(self) -> Verdict:
        """Whether to train: "go" where the teacher's MAP is higher beyond the interval, "no" where it is lower."""
        lead = self.leads["MAP"]
        if lead.low > 0:
            return "go"
        return "no" if lead.high < 0 else "unclear"

    @property
    def interval(self) -> str:
        """The lead in MAP, in words."""
        lead = self.leads["MAP"]
        return f"{lead.difference:+.4f} of MAP, 95 % interval {lead.low:+.4f} to {lead.high:+.4f}"

    def rows(self) -> Sequence[Sequence[str]]:
        """Return a table."""
        leads = (format_difference(lead.difference, lead.low, lead.high) for lead in self.leads.values())
        reached = [
            [role, *(f"{by_metric[metric]:.4f}" for metric in METRICS)] for role, by_metric in self.means.items()
        ]
        return [["", *METRICS], *reached, ["teacher - student", *leads]]

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        leads = {metric: asdict(lead) for metric, lead in self.leads.items()}
        return {"means": dict(self.means), "teacher_minus_student": leads}


def compare_rankers(values: Mapping[Role, PerQuery], seed: int) -> Comparison:
    """Compare a teacher with a student query by query.

    Args:
        values: of each, by metric, one value per query.
    """
    leads = {metric: paired_change(values["student"][metric], values["teacher"][metric], seed) for metric in METRICS}
    return Comparison({role: means(by_metric) for role, by_metric in values.items()}, leads)
