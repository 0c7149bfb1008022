"""Screening: half of the builds are left out by what they do on a part of the documents; figures are of the whole.

On 6,000 of 24,000 documents, the recall of HNSW settings ranks as on all (Spearman .98) but is .016 too high. So
what is measured on a part decides which builds are measured on the whole, and is reported for none of these.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from milvus_optimization.backends.space import BuildSetting
from milvus_optimization.indexes.pareto import WORST_RECALL, hypervolume, recall_and_latency
from milvus_optimization.records import IndexTrial

_REASON = "screened out: other builds are better on a part of the documents"


def choose_builds(settings: Sequence[BuildSetting], screened: Sequence[Sequence[IndexTrial]]) -> list[int]:
    """Return the places of FLAT and of half of the other builds: each adds most to the hypervolume of those before it.

    Args:
        screened: the trials of each on a part of the documents.
    """
    points = {place: recall_and_latency(trials) for place, trials in enumerate(screened)}
    slowest = max((cost for some in points.values() for _, cost in some), default=0.0)
    reference = (WORST_RECALL, slowest)
    kept = [place for place, setting in enumerate(settings) if setting.index == "FLAT"]
    others = [place for place, setting in enumerate(settings) if setting.index != "FLAT" and points.get(place)]
    covered = [point for place in kept for point in points.get(place, [])]
    for _ in range(math.ceil(len(others) / 2)):
        best = max(others, key=lambda place: hypervolume([*covered, *points[place]], reference))  # of equals, the first
        others.remove(best)
        kept.append(best)
        covered += points[best]
    return sorted(kept)


def left_out(
    setting: BuildSetting, trials: Sequence[IndexTrial], skipped: Callable[..., IndexTrial]
) -> list[IndexTrial]:
    """Return the trials of a build that is not measured on the whole, with what became of it on the part.

    Args:
        trials: on the part; those that are not ok there keep their status and reason.
        skipped: makes a trial that is not measured, of setting, search and reason.
    """
    found = []
    for search, trial in zip(setting.searches, trials, strict=True):
        usable = trial.status in ("ok", "skipped")
        made = skipped(setting, search, _REASON if usable else trial.reason)
        status = "skipped" if usable else trial.status
        found.append(dataclasses.replace(made, status=status, screened_rows=trial.screened_rows))
    return found
