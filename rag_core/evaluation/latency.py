"""How long a query takes, and what a model weighs: each model in a process of its own, one query after another."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from rag_core.base.processes import peak_bytes
from rag_core.base.records import RankingSample
from rag_core.engines.loading import choose_engine, load_model
from rag_core.engines.options import EngineName, EngineOptions
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.protocols import Floats, Pair, PairScorer, TextEncoder
from rag_core.evaluation.rankers import FileEvaluation, Ranker
from rag_core.evaluation.score_folder import ScoreFolder
from rag_core.metrics.ranking import measure
from rag_core.metrics.significance import mean_interval
from rag_core.scoring.samples import spread_samples
from rag_core.scoring.scored_files import scores_by_sample

DEPTHS = (10, 30, 100)

_WARM_UP = 2  # queries that nobody times
_MOST_PASSAGES = 1000  # that are embedded to be timed

logger = logging.getLogger(__name__)

Requests = dict[int, list[tuple[str, list[str]]]]


@dataclasses.dataclass(frozen=True)
class RerankingTime:
    """How fast queries are reranked at one number of candidates; p50 and p95 are milliseconds of a query."""

    queries_per_second: float
    p50: float
    p95: float


@dataclasses.dataclass(frozen=True)
class Latency:
    """What a model costs.

    Attributes:
        embeds: whether it is an embedder. Its passages are embedded beforehand; timed is embedding the query and
            comparing it with their vectors.
        threads: of a matrix product.
        disk_bytes: of all files of the model.
        peak_bytes: of the process's memory, with the libraries and the texts.
        passages_per_second: how fast an embedder embeds them; `None` of other models.
        reranking: by number of candidates.
    """

    embeds: bool
    threads: int
    disk_bytes: int
    peak_bytes: int
    passages_per_second: float | None
    reranking: dict[int, RerankingTime]


@dataclasses.dataclass(frozen=True)
class LatencyRow:
    """A model, how well it ranks, and what it costs.

    Attributes:
        name: its role, or of a further model the last part of `model`.
        dtype: the precision that it runs in.
        max_length: tokens that its texts are cut to.
        interval: 95 %, of MAP.
    """

    name: str
    model: str
    dtype: str
    max_length: int
    MAP: float
    interval: tuple[float, float]
    cost: Latency


@dataclasses.dataclass(frozen=True)
class LatencyReport:
    """What models cost, measured on one file.

    Attributes:
        queries: how many were timed.
        untimed: rankers of which only the scores were given.
        threads: of a matrix product, at most.
        depths: numbers of candidates that were reranked.
    """

    path: str
    queries: int
    untimed: list[Ranker]
    threads: int
    depths: list[int]
    rows: list[LatencyRow]

    def as_json(self) -> dict[str, Any]:
        """Return it as in `report.json`, where a row and its cost are one object."""
        content = dataclasses.asdict(self)
        for row in content["rows"]:
            row.update(row.pop("cost"))
        return content


def make_requests(samples: Sequence[RankingSample], queries: int) -> Requests:
    """Return queries by number of passages: each of `DEPTHS` for which the samples have enough.

    A query's own candidates come first; where they are too few, other queries' fill up.
    """
    pool = list(dict.fromkeys(text for sample in samples for text, _ in sample.passages()))
    chosen = list(spread_samples(samples, queries))
    return {
        depth: [
            (sample.query, list(islice(dict.fromkeys(chain((text for text, _ in sample.passages()), pool)), depth)))
            for sample in chosen
        ]
        for depth in DEPTHS
        if depth <= len(pool)
    }


def measure_apart(options: EngineOptions, requests: Requests) -> Latency:
    """Measure a model in a process of its own, so that the peak memory is this model's.

    Raises:
        EngineError: as `load_model`.
    """
    engine, _ = choose_engine(options.model, "auto")  # an error here is one of this process
    logger.info("latency: %s (%s)", options.model.name, engine)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure_latency, options, requests).result()


def measure_latency(options: EngineOptions, requests: Requests) -> Latency:
    """Measure a model in this process."""
    engine, _ = choose_engine(options.model, "auto")
    pairs = [(query, text) for query, texts in next(iter(requests.values())) for text in texts]
    model = load_model(engine, options, pairs[:20])
    speed = None
    if isinstance(model, TextEncoder):
        vectors, speed = _embed(model, requests)
        reranking = {depth: _time_embedder(model, rows, vectors) for depth, rows in requests.items()}
    else:
        reranking = {depth: _time_scorer(model, rows) for depth, rows in requests.items()}
    return Latency(
        embeds=speed is not None,
        threads=_threads(engine),
        disk_bytes=_disk_bytes(options.model.name),
        peak_bytes=peak_bytes(),
        passages_per_second=speed,
        reranking=reranking,
    )


def _threads(engine: EngineName) -> int:
    if engine == "exported":  # without torch, whose memory would be counted as the export's
        from rag_core.engines.exported_engine import threads

        return threads() or os.cpu_count() or 1
    import torch

    return torch.get_num_threads()


def _time_scorer(model: PairScorer, rows: Sequence[tuple[str, list[str]]]) -> RerankingTime:
    def rerank(query: str, texts: list[str]) -> None:
        pairs: list[Pair] = [(query, text) for text in texts]
        np.argsort(-model.score(pairs))

    return _time(rerank, rows)


def _time_embedder(
    model: TextEncoder, rows: Sequence[tuple[str, list[str]]], vectors: dict[str, Floats]
) -> RerankingTime:
    stored = {query: np.stack([vectors[text] for text in texts]) for query, texts in rows}

    def rerank(query: str, _: list[str]) -> None:
        np.argsort(-(stored[query] @ model.encode([query], "query")[0]))

    return _time(rerank, rows)


def _embed(model: TextEncoder, requests: Requests) -> tuple[dict[str, Floats], float]:
    """Return the vectors of all passages, and how many are embedded per second."""
    texts = list(dict.fromkeys(text for rows in requests.values() for _, passages in rows for text in passages))
    model.encode(texts[:_WARM_UP], "passage")
    started = time.perf_counter()
    vectors = model.encode(texts[:_MOST_PASSAGES], "passage")
    speed = len(vectors) / (time.perf_counter() - started)
    if len(texts) > _MOST_PASSAGES:
        vectors = np.concatenate([vectors, model.encode(texts[_MOST_PASSAGES:], "passage")])
    return dict(zip(texts, vectors, strict=True)), speed


def _time(rerank: Callable[[str, list[str]], None], rows: Sequence[tuple[str, list[str]]]) -> RerankingTime:
    for query, texts in rows[:_WARM_UP]:
        rerank(query, texts)
    seconds = []
    for query, texts in rows:
        started = time.perf_counter()
        rerank(query, texts)
        seconds.append(time.perf_counter() - started)
    p50, p95 = np.quantile(seconds, (0.5, 0.95)) * 1000
    return RerankingTime(len(seconds) / sum(seconds), float(p50), float(p95))


def _disk_bytes(model: str) -> int:
    folder = Path(model)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(model, local_files_only=True))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def report_latency(
    first: FileEvaluation,
    models: Mapping[Ranker, EngineOptions],
    also: Sequence[EngineOptions],
    scores: ScoreFolder,
    *,
    queries: int,
    seed: int,
) -> LatencyReport:
    """Measure models on the first file.

    Args:
        models: those that were evaluated.
        also: further ones, which are scored on this file.

    Raises:
        EngineError: as `measure_apart`.
    """
    requests = make_requests(first.samples, queries)
    values = {str(role): first.values[role]["MAP"] for role in models}
    options_of = {str(role): options for role, options in models.items()}
    further = scores.score({f"also_{number}": options for number, options in enumerate(also, start=1)}, [first.path])
    for number, (options, outputs) in enumerate(zip(also, further.values(), strict=True), start=1):
        name = Path(options.model.name).name
        name = name if name not in options_of else f"{name} ({number})"
        values[name] = measure(first.samples, scores_by_sample(outputs[first.path], first.samples))["MAP"]
        options_of[name] = options
    costs = _measure_each(options_of, requests)
    return LatencyReport(
        path=str(first.path),
        queries=min(queries, len(first.samples)),
        untimed=sorted(
            ranker
            for ranker, by_metric in first.values.items()
            if ranker not in models and ranker != "mixed" and by_metric is not first.values["BM25"]
        ),
        threads=max(cost.threads for cost in costs.values()),
        depths=list(requests),
        rows=[
            LatencyRow(
                name=name,
                model=options.model.name,
                dtype=options.model.export_precision or resolve_dtype(options.dtype),
                max_length=options.max_length,
                MAP=float(np.nanmean(values[name])),
                interval=mean_interval(values[name], seed),
                cost=costs[name],
            )
            for name, options in options_of.items()
        ],
    )


def _measure_each(models: Mapping[str, EngineOptions], requests: Requests) -> dict[str, Latency]:
    """Measure every model; one that has several names is measured once."""
    costs: dict[str, Latency] = {}
    for name, options in models.items():
        same = next((other for other in costs if models[other] == options), None)
        costs[name] = measure_apart(options, requests) if same is None else costs[same]
    return costs
