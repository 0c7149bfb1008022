"""One trial: a search setting of an index that stands in a backend, held against the FLAT index of the same backend.

| figure | of which queries | search |
|---|---|---|
| time, recall, first kept | `--queries`, judged ones first | single queries for k results, two passes in random order |
| nDCG@10, MRR@10, loss | all judged ones | the first of the two passes: what is timed is what is judged |
| recall@100 | judged ones of the report half | for 100 results, where the setting allows them (`ef` of 100 or more) |
| filtered | the first 200 of `--queries` | under filters that keep 50, 10 and 1 % of the documents |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from milvus_optimization.backends.protocol import Backend
from milvus_optimization.indexes.passes import Pass, is_noisy, queries_per_second, search_each, search_together
from milvus_optimization.indexes.workload import Workload
from milvus_optimization.quality.measures import mean
from milvus_optimization.quality.recall import Neighbours, true_scores
from milvus_optimization.records import Setting
from rag_core.base.processes import peak_bytes
from rag_core.metrics.differences import ByQuery, difference
from rag_core.metrics.ranking import RunMetricName, measure_places

Floats = npt.NDArray[np.float32]

DEEP = 100  # results of recall@100

_WARM_UP = 20  # queries that nobody times
_CLIENTS = (1, 2, 4)
_FILTERS = {"50 %": 0.5, "10 %": 0.1, "1 %": 0.01}  # share of the documents that is kept
_FILTERED_QUERIES = 200  # a recall of .9 then has a standard error below .01
_METRICS: tuple[RunMetricName, ...] = ("NDCG@10", "MRR@10")
_ALL = "all"


def filter_numbers(rows: int, seed: int) -> npt.NDArray[np.int64]:
    """Return a number for each document, all different, by which searches are filtered."""
    return np.random.default_rng(seed).permutation(rows)


@dataclasses.dataclass(frozen=True)
class Exact:
    """What FLAT found, which all others are held against.

    Attributes:
        neighbours: of the queries that are timed.
        filtered: as `_FILTERS` -> of the first of them.
        by_query: query id -> nDCG@10.
    """

    neighbours: Neighbours
    filtered: Mapping[str, Neighbours]
    by_query: ByQuery

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return it as arrays by name."""
        found: dict[str, npt.NDArray[Any]] = {"ndcg": np.array(list(self.by_query.values()), dtype=np.float64)}
        for name, one in {_ALL: self.neighbours, **self.filtered}.items():
            found |= {f"{name} {key}": value for key, value in vars(one).items()}
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], workload: Workload) -> Exact:
        """Make it of such arrays.

        Raises:
            KeyError, ValueError, TypeError: they are others.
        """
        neighbours = {}
        for name in (_ALL, *_FILTERS):
            found = [arrays[f"{name} {field.name}"] for field in dataclasses.fields(Neighbours)]
            queries = len(workload.timed) if name == _ALL else min(_FILTERED_QUERIES, len(workload.timed))
            if any(array.shape != (queries,) or array.dtype.kind not in "fi" for array in found):
                raise ValueError("its arrays are of other queries")
            neighbours[name] = Neighbours(*found)
        by_query = dict(zip(workload.judged_ids, arrays["ndcg"].tolist(), strict=True))
        return cls(neighbours.pop(_ALL), neighbours, by_query)


@dataclasses.dataclass(frozen=True)
class Measured:
    """What both passes and the searches beside them found.

    Attributes:
        passes: over the queries that are timed; the first has the results of all others, too.
        scores: true scores of the results of the timed queries, in each pass.
        filtered: as `_FILTERS` -> true scores of the results.
        qps: number of clients -> queries per second; of a server.
        deep: 100 results of each judged query of the report half, where so many may be asked for.
    """

    passes: tuple[Pass, Pass]
    scores: tuple[Floats, Floats]
    filtered: Mapping[str, Floats]
    qps: dict[str, float] | None
    deep: npt.NDArray[np.int64] | None


def measure(backend: Backend, documents: Floats, workload: Workload, search: Setting, *, deep: bool) -> Measured:
    """Search through the index that stands in a backend.

    Args:
        deep: whether 100 results may be asked for.
    """
    k, timed, queries = workload.k, workload.timed, workload.queries
    search_each(backend, queries, k, search, timed[:_WARM_UP])
    random = np.random.default_rng(workload.seed)
    first, second = (search_each(backend, queries, k, search, random.permutation(timed)) for _ in range(2))
    rest = np.setdiff1d(np.arange(len(queries)), timed)
    if rest.size:
        first.places[rest] = search_together(backend, queries[rest], k, search)
    asked = queries[timed]
    filtered = {}
    for name, share in _FILTERS.items():
        some = asked[:_FILTERED_QUERIES]
        places = search_together(backend, some, k, search, below=round(share * len(documents)))
        filtered[name] = true_scores(some, documents, places)
    qps = None
    if backend.tells_wall_time:
        qps = {str(count): queries_per_second(backend, asked, k, search, count) for count in _CLIENTS}
    found = None
    if deep and workload.halves.report:
        found = search_together(backend, queries[workload.reported], DEEP, search)
    scores = true_scores(asked, documents, first.places[timed]), true_scores(asked, documents, second.places[timed])
    return Measured((first, second), scores, filtered, qps, found)


def exact_of(measured: Measured, workload: Workload) -> Exact:
    """Return what is to be held against, of a measured FLAT index."""
    neighbours = {name: Neighbours.of(scores) for name, scores in measured.filtered.items()}
    return Exact(Neighbours.of(measured.scores[0]), neighbours, _quality(measured, workload)["NDCG@10"])


def figures(measured: Measured, exact: Exact, workload: Workload, backend: Backend) -> dict[str, Any]:
    """Return the fields of an `IndexTrial` that is ok."""
    recalls = [exact.neighbours.recall(scores) for scores in measured.scores]
    cpu, wall = ([getattr(one, clock)[workload.timed] * 1000 for one in measured.passes] for clock in ("cpu", "wall"))
    clocks = [clock for clock, told in ((cpu, backend.tells_cpu_time), (wall, backend.tells_wall_time)) if told]
    found: dict[str, Any] = {
        "recall": recalls[0],
        "top1_kept": exact.neighbours.first_kept(measured.scores[0]),
        "noisy": recalls[0] != recalls[1] or any(is_noisy(*clock) for clock in clocks),
        "filtered": {
            name: recall
            for name, scores in measured.filtered.items()
            if math.isfinite(recall := exact.filtered[name].recall(scores))
        },
        "qps": measured.qps,
        "peak_rss": peak_bytes(),
    }
    if backend.tells_cpu_time:
        found |= _percentiles("cpu", np.concatenate(cpu), 50, 95)
    if backend.tells_wall_time:
        found |= _percentiles("wall", np.concatenate(wall), 50, 95, 99)
    return found | (_judgement(measured, exact, workload) if workload.judged_ids else {})


def _percentiles(clock: str, milliseconds: npt.NDArray[np.float64], *wanted: int) -> dict[str, float]:
    values = np.percentile(milliseconds, wanted)
    return {f"{clock}_ms_p{one}": float(value) for one, value in zip(wanted, values, strict=True)}


def _quality(measured: Measured, workload: Workload) -> Mapping[RunMetricName, ByQuery]:
    """Return the metrics of each judged query; a ranking that another setting gave, too, is judged once."""
    places = measured.passes[0].places[workload.judged]
    keys = [(query_id, row.tobytes()) for query_id, row in zip(workload.judged_ids, places, strict=True)]
    new = [row for row, key in enumerate(keys) if key not in workload.known]
    if new:
        ids = [workload.judged_ids[row] for row in new]
        found = measure_places(workload.qrels, ids, workload.document_ids, places[new], _METRICS)
        for row in new:
            workload.known[keys[row]] = [found[metric][keys[row][0]] for metric in _METRICS]
    return {metric: {key[0]: workload.known[key][number] for key in keys} for number, metric in enumerate(_METRICS)}


def _judgement(measured: Measured, exact: Exact, workload: Workload) -> dict[str, Any]:
    quality, report = _quality(measured, workload), workload.halves.report
    by_query = quality["NDCG@10"]
    ndcg, ndcg_tune = workload.halves.means(by_query)
    found: dict[str, Any] = {
        "by_query": by_query,
        "ndcg": ndcg,
        "ndcg_tune": ndcg_tune,
        "mrr": mean(quality["MRR@10"], report),
        "loss": difference(exact.by_query, by_query, report, workload.seed),
    }
    if measured.deep is not None:
        # What is not relevant has no say in it, and is most of what there would be to go through.
        rows = zip(report, measured.deep, strict=True)
        relevant = np.array([np.where(np.isin(row, workload.relevant[query_id]), row, -1) for query_id, row in rows])
        deep = measure_places(workload.qrels, report, workload.document_ids, relevant, ("Recall@100",))
        found["recall_100"] = mean(deep["Recall@100"], report)
    return found
