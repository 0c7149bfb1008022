"""The records that pass between the stages of this pipeline, one JSON object per line.

Quality is nDCG@10 by the qrels. Choices are made on the tune half of the judged queries, figures are of the report half
(`quality/halves.py`). A loss is a difference of two means (negative: worse), with its 95 % paired bootstrap interval
over queries. Times are milliseconds, sizes bytes.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ConfigDict, FiniteFloat
from pydantic.dataclasses import dataclass

from rag_core.metrics.differences import ByQuery, Difference

_CONFIG = ConfigDict(strict=True, extra="ignore")

BackendName = Literal["faiss", "lite", "server"]
Status = Literal["ok", "unsupported", "ignored", "failed", "skipped"]
Fusion = Literal["dense", "bm25", "rrf", "weighted"]
Normalisation = Literal["rank", "minmax", "arctan", "none"]
Verdict = Literal["better", "equal", "worse", "too few queries"]
Setting = dict[str, int | float | str]


@dataclass(frozen=True, config=_CONFIG)
class VectorVariant:
    """Exact search over another form of a model's vectors, against exact search over the vectors as they are.

    Attributes:
        model: folder of the vectors, as `embed_corpus` names it.
        variant: "float32", "float16", "int8", "sq8", "sq4", "binary", "first256" or "pca256" (any number).
        rescore: how many candidates per result asked for are rescored with the full vectors; 0 for none.
        overlap: mean share of the exact top 10 that is kept.
        ndcg, ndcg_tune: mean nDCG@10 of the report and of the tune half.
        loss: against float32 of the same model, on the report half.
        by_query: query id -> nDCG@10, of all judged queries.
    """

    model: str
    variant: str
    rescore: int
    dimensions: int
    bytes_per_vector: int
    overlap: FiniteFloat
    ndcg: FiniteFloat
    ndcg_tune: FiniteFloat
    loss: Difference
    by_query: ByQuery


@dataclass(frozen=True, config=_CONFIG)
class IndexTrial:
    """One search setting of one build of an index, measured against the FLAT index of the same backend.

    Attributes:
        trial_id: hash of all that defines it: SHA-256 of the vectors, backend, index, build, search, k, queries.
        build, build_seen: parameters as asked, and as the backend tells them after the build.
        search: "ef" or "nprobe", and "refine_k" (rescored candidates per result).
        status: "ok"; "unsupported" where the backend has no such index; "ignored" where what was built is not what was
            asked, or no index at all; "failed"; "skipped" where nothing more was to be gained, or no time was left. The
            `reason` says more. Figures are None but for "ok".
        rows: of the corpus; `screened_rows` of the part of it on which the build was left out, so that there are no
            figures: those are always of the whole.
        recall: tie-aware recall@k: the share of results whose exact score reaches the exact k-th score - 1e-5.
        top1_kept: the share of queries whose first result is an exact first one (ties count).
        ndcg, ndcg_tune: mean nDCG@10 of the report and of the tune half.
        loss: against FLAT on the report half.
        cpu_ms_*: CPU time of a query in this process; None on a server. wall_ms_*: on a server; None for Lite, whose
            latency means nothing.
        recall_100: share of the relevant documents among the first 100, on the report half; None where the search
            setting allows fewer results.
        qps: number of clients -> queries per second; on a server.
        filtered: "50 %", "10 %", "1 %" -> recall@k under a filter that keeps so many documents.
        noisy: whether two passes differ in recall, or by 20 % in the median time.
        by_query: query id -> nDCG@10, of all judged queries.
    """

    trial_id: str
    backend: BackendName
    backend_version: str
    model: str
    index: str
    build: Setting
    search: Setting
    status: Status
    rows: int
    dimensions: int
    k: int
    queries: int
    reason: str = ""
    screened_rows: int | None = None
    build_seen: Setting | None = None
    build_cpu_s: FiniteFloat | None = None
    index_bytes: int | None = None
    peak_rss: int | None = None
    recall: FiniteFloat | None = None
    top1_kept: FiniteFloat | None = None
    ndcg: FiniteFloat | None = None
    ndcg_tune: FiniteFloat | None = None
    mrr: FiniteFloat | None = None
    recall_100: FiniteFloat | None = None
    loss: Difference | None = None
    cpu_ms_p50: FiniteFloat | None = None
    cpu_ms_p95: FiniteFloat | None = None
    wall_ms_p50: FiniteFloat | None = None
    wall_ms_p95: FiniteFloat | None = None
    wall_ms_p99: FiniteFloat | None = None
    qps: dict[str, FiniteFloat] | None = None
    filtered: dict[str, FiniteFloat] | None = None
    noisy: bool = False
    by_query: ByQuery | None = None


@dataclass(frozen=True, kw_only=True, config=_CONFIG)
class RetrievalTrial:
    """One way to rank: dense, BM25, or both fused; then, where one is named, reranked.

    Attributes:
        trial_id: hash of what is asked for: model, fusion, parameters, depth, BM25, reranker; not of the qrels, so that
            one way to rank is found again under other judgements.
        normalisation: of the scores before weights: "arctan" and "none" are WeightedRanker's with and without
            norm_score, on Lite as on a server; "minmax" is that of an application which fuses two searches itself;
            "rank" for RRF, "none" for dense and BM25 alone.
        parameter: RRF's k, or the weight of dense; None where there is none.
        depth: candidates of each ranking that are fused; 0 where nothing is.
        bm25: "k1", "b", "analyser", and "stemmer" and "stop_words" where there are any; empty where BM25 has no part.
        reranker, reranker_depth: a model, and how many of the first results it orders; None and 0 without.
        bm25_ms, rerank_ms: mean CPU time of a query in BM25 and in the reranker, in this process.
        ndcg, ndcg_tune: mean nDCG@10 of the report and of the tune half.
        by_query: query id -> nDCG@10, of all judged queries.
    """

    trial_id: str
    model: str
    fusion: Fusion
    normalisation: Normalisation
    parameter: FiniteFloat | None = None
    depth: int
    bm25: Setting
    reranker: str | None = None
    reranker_depth: int = 0
    bm25_ms: FiniteFloat
    rerank_ms: FiniteFloat
    ndcg: FiniteFloat
    ndcg_tune: FiniteFloat
    by_query: ByQuery

    def __post_init__(self) -> None:
        numbers = [self.bm25.get(name) for name in ("k1", "b")] if self.bm25 else []
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError("has a 'bm25' without the numbers 'k1' and 'b'")


@dataclass(frozen=True, config=_CONFIG)
class Recommendation:
    """What was chosen on the tune half, and what it is worth on the report half.

    Attributes:
        constraints: flag -> value, of those that were given.
        target: "lite" or "server": what the choice can be applied to.
        variant: the form of vectors that the index holds, as `VectorVariant` names it; "" where it names none.
        index, retrieval: the chosen trials, without their values by query.
        first_stage: `retrieval` without its reranker, which is what Milvus does; the same where it has none.
        tune_fraction: of the judged queries; which half one is in follows from it.
        against: "dense only", "RRF 60", "equal weights" -> the choice minus that, on the report half.
        verdict: "better" where the interval against the best default (chosen on the tune half) is above 0, "worse"
            where it is below, "equal" else; "too few queries" where the tune half has too few to choose by.
        judged_by: "labels", or the name of the teacher whose scores stand in.
    """

    constraints: dict[str, FiniteFloat]
    target: Literal["lite", "server"]
    model: str
    variant: str
    index: IndexTrial
    retrieval: RetrievalTrial
    first_stage: RetrievalTrial
    tune_fraction: FiniteFloat
    tune_queries: int
    report_queries: int
    against: dict[str, Difference]
    verdict: Verdict
    sentence: str
    judged_by: str


@dataclass(frozen=True, config=_CONFIG)
class Promise:
    """A figure that a recommendation promised, and what the collection was measured at."""

    promised: FiniteFloat
    measured: FiniteFloat


@dataclass(frozen=True, config=_CONFIG)
class Applied:
    """A collection that was made to a recommendation, and measured.

    Attributes:
        collection: its name; where it is not `kept`, that under which it was built.
        version: of Milvus.
        index_seen: parameters as Milvus tells them.
        figures: "recall@10" (of the index, all judged queries) and "nDCG@10" (of all that Milvus does, the report
            half); the former only where vectors are searched.
        kept: whether each figure is within the `tolerance` of what was promised.
    """

    collection: str
    version: str
    rows: int
    index_seen: Setting
    figures: dict[str, Promise]
    tolerance: FiniteFloat
    kept: bool
    sentence: str
