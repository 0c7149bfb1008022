"""Is what was measured an index at all? Some backends take what they do not understand, and search without an index.

A build's trials are looked at together. What is found ignores them all: no figure of theirs is of the index whose name
they carry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

from milvus_optimization.indexes.table import named
from milvus_optimization.records import IndexTrial, Setting

MOST_EXACT_ROWS = 1000  # up to which an index may well find everything

# What recall may fall by from one search setting to the next wider one. A graph is not searched in nested sets, so a
# few queries lose a neighbour that they had.
_SLACK = 0.005
# Codes of a few bits order documents wrongly: those of further lists push true neighbours out. IVF_RABITQ fell from .50
# at nprobe 8 to .44 at 32 on 3,000 vectors of 64 dimensions, and is an index all the same.
_COARSE = ("IVF_RABITQ", "IVF_PQ", "HNSW_PQ", "SCANN", "DISKANN")
_WIDER = 4  # times: from there on, a setting that is read has some effect


def honest(trials: Sequence[IndexTrial]) -> list[IndexTrial]:
    """Return the trials of one build, all that are ok as `ignored` where they cannot be of such an index."""
    reason = fault_of([trial for trial in trials if trial.status == "ok"])
    return [ignored(trial, reason) if reason and trial.status == "ok" else trial for trial in trials]


def ignored(trial: IndexTrial, reason: str) -> IndexTrial:
    """Return a trial without its figures, but for those of the build."""
    return IndexTrial(
        trial_id=trial.trial_id,
        backend=trial.backend,
        backend_version=trial.backend_version,
        model=trial.model,
        index=trial.index,
        build=trial.build,
        search=trial.search,
        status="ignored",
        rows=trial.rows,
        dimensions=trial.dimensions,
        k=trial.k,
        queries=trial.queries,
        reason=reason,
        screened_rows=trial.screened_rows,
        build_seen=trial.build_seen,
        build_cpu_s=trial.build_cpu_s,
        index_bytes=trial.index_bytes,
        peak_rss=trial.peak_rss,
    )


def fault_of(trials: Sequence[IndexTrial]) -> str:
    """Return why measured trials of one build are not of an index, empty where nothing speaks against it."""
    if not trials or not trials[0].search:  # of FLAT; and AUTOINDEX at its default width may well find everything
        return ""
    first = trials[0]
    if (first.screened_rows or first.rows) > MOST_EXACT_ROWS and all(trial.recall == 1 for trial in trials):
        return f"recall is 1.000 at {named(first.search)} already: this is a search through all vectors"
    for chain in (chain for key in ("ef", "nprobe", "search_list") for chain in _chains(trials, key)):
        for narrow, wide in pairwise(chain):
            if first.index not in _COARSE and wide.recall < narrow.recall - _SLACK:
                return f"recall falls from {narrow} to {wide}"
        narrowest, widest = chain[0], chain[-1]
        if narrowest.recall == widest.recall and widest.width >= _WIDER * narrowest.width:
            return f"recall is {narrowest} and at {named(widest.search)} alike"
    return ""


@dataclasses.dataclass(frozen=True)
class _Point:
    search: Setting
    width: float
    recall: float

    def __str__(self) -> str:
        return f"{self.recall:.3f} at {named(self.search)}"


def _chains(trials: Sequence[IndexTrial], key: str) -> list[list[_Point]]:
    """Return the settings that differ in one parameter alone, by its value."""
    chains: dict[str, list[_Point]] = {}
    for trial in trials:
        if key in trial.search and trial.recall is not None:
            others = {name: value for name, value in trial.search.items() if name != key}
            chains.setdefault(named(others), []).append(_Point(trial.search, float(trial.search[key]), trial.recall))
    return [sorted(chain, key=lambda point: point.width) for chain in chains.values()]
