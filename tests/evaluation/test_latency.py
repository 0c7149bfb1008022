"""What a model costs, and how deep reranking helps: rows of tiny models, and a case in which deeper is worse."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from rag_core.base.records import RankingSample
from rag_core.engines.identity import ModelInfo, describe_model
from rag_core.engines.loading import LOADERS
from rag_core.engines.options import EngineOptions
from rag_core.evaluation.depth import depth_warnings, measure_depths
from rag_core.evaluation.latency import make_requests, measure_apart, measure_latency
from rag_core.evaluation.latency_table import depth_rows, latency_rows
from rag_core.evaluation.rankers import FileEvaluation
from rag_core.metrics.ranking import measure
from reranker_distillation import evaluate
from tests.conftest import TINY

SAMPLES = [
    RankingSample(f"query {i}", positive=["good"], negative=[f"bad {n}" for n in range(39)], query_id=str(i))
    for i in range(12)
]


def evaluation(after):
    """BM25 keeps the order of the file, but for the positive, which is third."""
    first = [[-2.5, *(-float(place) for place in range(39))]] * len(SAMPLES)
    scores = {"BM25": first, "before": [[1.0, *[0.0] * 39]] * len(SAMPLES), "after": [after] * len(SAMPLES)}
    values = {ranker: measure(SAMPLES, rows) for ranker, rows in scores.items()}
    return FileEvaluation(Path("test.jsonl"), "in-domain", SAMPLES, values, scores)


def test_deeper_and_worse_is_warned_about():
    after = [1.0, *[0.0] * 9, *[2.0] * 30]  # it lifts whatever BM25 has from the eleventh on
    depths = measure_depths(evaluation(after), 1)
    rows = depths["after"]
    assert [row.depth for row in rows] == [10, 30, 40]
    assert [row.MAP for row in rows] == pytest.approx([1, 1 / 21, 1 / 31])
    assert rows[2].best_shallower == 10
    assert rows[2].change == pytest.approx((1 / 31 - 1,) * 3)
    found = depth_warnings("test.jsonl", {name: [vars(row) for row in by] for name, by in depths.items()})
    assert [text.split(" (")[0] for text in found] == [
        "WARNING: on test.jsonl after ranks worse where it reranks 30 candidates instead of 10",
        "WARNING: on test.jsonl after ranks worse where it reranks 40 candidates instead of 10",
    ]
    assert [row.MAP for row in depths["before"]] == [1, 1, 1]  # and of this one nothing is said


def test_a_change_within_its_interval_is_no_warning():
    rows = [{"depth": 30, "best_shallower": 10, "change": (-0.01, -0.03, 0.01)}]
    assert depth_warnings("x", {"after": rows}) == []
    assert depth_warnings("x", {"after": [{**rows[0], "change": (-0.01, -0.03, -0.001)}]})


def test_below_the_depth_the_first_order_stays():
    found = measure_depths(evaluation([0.0, *[float(place) for place in range(39)]]), 1)["after"]
    # The positive, fourth by BM25, comes last of those that are reranked.
    assert [row.MAP for row in found] == pytest.approx([1 / 10, 1 / 30, 1 / 40])


def test_requests_have_as_many_passages_as_they_say():
    requests = make_requests(SAMPLES, 5)
    assert list(requests) == [10, 30]  # 40 distinct passages are no 100
    for depth, rows in requests.items():
        assert len(rows) == 5
        assert all(len(set(texts)) == len(texts) == depth for _, texts in rows)
    short = [RankingSample("a", candidates=["own"], query_id="a"), *SAMPLES]
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
    found = measure_latency(EngineOptions(ModelInfo(str(TINY), "cross-encoder", "test")), make_requests(SAMPLES, 4))
    assert list(found.reranking) == [10, 30]
    for depth, row in found.reranking.items():
        assert depth <= row.p50 <= row.p95
        assert row.queries_per_second <= 1000 / depth
    assert found.reranking[10].p50 < found.reranking[30].p50
    assert found.passages_per_second is None
    assert found.disk_bytes == sum(path.stat().st_size for path in TINY.rglob("*"))


def test_a_process_of_its_own(tiny_encoder):
    found = measure_apart(EngineOptions(describe_model(tiny_encoder)), make_requests(SAMPLES, 2))
    assert found.threads == 1
    assert found.peak_bytes > 50_000_000
    assert found.passages_per_second > 0


def test_the_page_of_two_tiny_models(tiny_cross_encoder, tiny_encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rag_core.evaluation.latency.measure_apart", measure_latency)  # a process each takes its time
    test = tmp_path / "test.jsonl"
    test.write_bytes((TINY / "test.jsonl").read_bytes())
    command = ["--before", tiny_encoder, "--after", tiny_cross_encoder, "--in_domain", str(test)]
    command += ["--output_dir", str(tmp_path / "report"), "--latency_queries", "3"]
    assert evaluate.main([*command, "--also", tiny_encoder]) == 2
    assert "Pass --latency, too." in capsys.readouterr().err
    assert evaluate.main([*command, "--latency", "--also", tiny_encoder]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    latency = report["latency"]
    assert [row["name"] for row in latency["rows"]] == ["before", "after", Path(tiny_encoder).name]
    before, after, also = latency["rows"]
    assert before["MAP"] == also["MAP"] == report["files"][0]["means"]["before"]["MAP"]
    assert before["embeds"] and before["passages_per_second"] > 0 and after["passages_per_second"] is None
    for row in latency["rows"]:
        assert row["disk_bytes"] > 50_000
        assert row["peak_bytes"] > 50_000_000
        assert list(row["reranking"]) == [str(depth) for depth in latency["depths"]]
        assert latency["depths"][0] == 10
        assert all(0 < by["p50"] <= by["p95"] for by in row["reranking"].values())
    page = (tmp_path / "report" / "report.html").read_text()
    for words in ("Latency, size and depth", "Quality against latency", "How deep to rerank", "one after another"):
        assert words in page
    assert "passages/s" in (tmp_path / "report" / "report.md").read_text()
    assert latency_rows(latency)[1][0] == "before"
    assert depth_rows(report["files"][0]["depth"])[2][0] == "after"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "few.jsonl: has 2 distinct passages, and latency takes 10. Name a larger file first"),
        (["--in_domain", f"{TINY}/test.jsonl", "--also", "/no/such/model"], "cannot load the model '/no/such/model'"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_scoring(flags, message, tmp_path, capsys):
    rows = tmp_path / "few.jsonl"
    rows.write_text('{"query": "a", "positive": ["b"], "negative": ["c"]}\n' * 2)
    command = ["--after", "no/model", "--in_domain", str(rows), "--latency", "--output_dir", str(tmp_path / "report")]
    assert evaluate.main([*command, *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
