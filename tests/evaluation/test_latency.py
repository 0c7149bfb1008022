"""What a model costs: the texts that are timed, and the times."""

import time
from dataclasses import replace

import numpy as np

from rag_core.base.records import RankingSample
from rag_core.engines.identity import ModelInfo, describe_model
from rag_core.engines.loading import LOADERS
from rag_core.engines.options import EngineOptions
from rag_core.evaluation import latency
from rag_core.evaluation.latency import (
    Latency,
    RerankingTime,
    make_requests,
    measure_apart,
    measure_latency,
    report_latency,
)
from rag_core.evaluation.score_folder import ScoreFolder
from tests.conftest import TINY
from tests.evaluation.cases import DEEPER_IS_WORSE, LONG_SAMPLES, long_evaluation


def test_requests_have_as_many_passages_as_they_say():
    requests = make_requests(LONG_SAMPLES, 5)
    assert list(requests) == [10, 30]  # 40 distinct passages are no 100
    for depth, rows in requests.items():
        assert len(rows) == 5
        assert all(len(set(texts)) == len(texts) == depth for _, texts in rows)
    short = [RankingSample("a", candidates=["own"], query_id="a"), *LONG_SAMPLES]
    assert make_requests(short, 20)[10][0][1][0] == "own"


class Slow:
    """Takes a millisecond a pair."""

    score_unit = "logit"
    truncated = None

    def score(self, pairs):
        time.sleep(len(pairs) / 1000)
        return np.arange(len(pairs), dtype=np.float32)


def test_the_times_are_those_of_a_query(monkeypatch):
    monkeypatch.setitem(LOADERS, "sentence-transformers", lambda options, pairs: Slow())
    found = measure_latency(
        EngineOptions(ModelInfo(str(TINY), "cross-encoder", "test")), make_requests(LONG_SAMPLES, 4)
    )
    assert list(found.reranking) == [10, 30]
    for depth, row in found.reranking.items():
        assert depth <= row.p50 <= row.p95
        assert row.queries_per_second <= 1000 / depth
    assert found.reranking[10].p50 < found.reranking[30].p50
    assert found.passages_per_second is None
    assert found.disk_bytes == sum(path.stat().st_size for path in TINY.rglob("*"))


def test_a_process_of_its_own(tiny_encoder):
    found = measure_apart(EngineOptions(describe_model(tiny_encoder)), make_requests(LONG_SAMPLES, 2))
    assert found.threads == 1
    assert found.peak_bytes > 50_000_000
    assert found.passages_per_second > 0


def test_a_model_with_two_roles_is_measured_once(monkeypatch, tmp_path):
    measured = []

    def measure(options, requests):
        measured.append((options.model.name, options.dtype))
        return Latency(False, 1, 1, 1, None, dict.fromkeys(requests, RerankingTime(1, 1, 1)))

    monkeypatch.setattr(latency, "measure_apart", measure)
    base = EngineOptions(ModelInfo("base", "cross-encoder", "test"), dtype="float32")
    models = {"before": base, "after": EngineOptions(ModelInfo("base", "cross-encoder", "test"), dtype="float32")}
    scores = ScoreFolder(tmp_path, stage="test", skip_bad_rows=False)

    def report(models):
        return report_latency(long_evaluation(DEEPER_IS_WORSE), models, [], scores, queries=2, seed=1)

    assert [(row.name, row.MAP > 0.5) for row in report(models).rows] == [("before", True), ("after", False)]
    assert measured == [("base", "float32")]
    report(models | {"after": replace(base, dtype="float16")})
    assert measured[1:] == [("base", "float32"), ("base", "float16")]
