"""The stage: what it measures of tiny models, what it does once, and what it refuses."""

import json
from pathlib import Path

import pytest

from rag_core.evaluation import latency as measurement
from rag_core.evaluation.latency import measure_latency
from rag_core.files.jsonl import read_samples
from reranker_distillation import evaluate
from tests.conftest import TINY


def test_the_page_of_two_tiny_models(tiny_cross_encoder, tiny_encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measurement, "measure_apart", measure_latency)  # a process each takes its time
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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "few.jsonl: has 2 distinct passages, and --latency needs 10. Pass a larger file first"),
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


def test_a_model_that_is_before_after_and_teacher_scores_once(tiny_data, overlap_teacher):
    test = tiny_data / "test.jsonl"
    command = ["--before", "m", "--after", "m", "--teacher", "m", "--in_domain", str(test)]
    assert evaluate.main([*command, "--output_dir", str(tiny_data / "report")]) == 0
    pairs = [(sample.query, text) for sample in read_samples(test) for text, _ in sample.passages()]
    assert sorted(overlap_teacher.scored) == sorted(set(pairs))
    (file,) = json.loads((tiny_data / "report" / "report.json").read_text())["files"]
    assert file["means"]["before"] == file["means"]["after"] == file["means"]["teacher"]
    assert file["wins"]["MAP"]["same"] == file["measured"]
