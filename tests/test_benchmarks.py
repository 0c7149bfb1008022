"""The benchmarks, on the smallest sizes: they run, and where two ways do the same, they have the same result."""

import json
import os
import runpy
import subprocess
import sys

import pytest

from tests.conftest import ROOT, TINY

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def rows_of(tmp_path, tiny_encoder, monkeypatch, capsys):
    def run(name, *flags):
        argv = ["--model", tiny_encoder, "--input_file", f"{TINY}/train.jsonl", "--repeats", "2"]
        monkeypatch.setattr(sys, "argv", [name, *argv, "--output", f"{tmp_path}/{name}.json", *flags])
        monkeypatch.syspath_prepend(BENCHMARKS)
        with pytest.raises(SystemExit, match="0"):
            runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
        rows = json.loads((tmp_path / f"{name}.json").read_text())["rows"]
        printed = capsys.readouterr().out
        for row in rows:
            assert 0 < row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
            assert f"{row['ratio']['median']:.2f} [" in printed
        return rows

    return run


def test_training(rows_of):
    (row,) = rows_of("training", "--queries", "4", "--batch_queries", "2", "--top_k", "2", "--num_negatives", "2")
    assert len(row["losses_ours"]) == 2
    assert row["losses_ours"] == pytest.approx(row["losses_theirs"], rel=2e-5)
    assert row["result"].endswith("32 passes, 16 grouped")


def test_evaluation(rows_of):
    rows = rows_of("evaluation", "--queries", "8")
    assert [row["work"] for row in rows] == ["evaluate, embedder"] * 2 + ["evaluate, reranker"] * 2
    for row in rows:
        tolerance = 1e-3 if row["ours"] == "float32" else 0.2
        assert row["metrics_ours"] == pytest.approx(row["metrics_theirs"], abs=tolerance)


@pytest.mark.filterwarnings("ignore")  # what the exporters warn of is not ours to mend
def test_export(rows_of, tmp_path):
    pytest.importorskip("openvino")
    rows = rows_of("export", "--queries", "4", "--work_dir", str(tmp_path))
    assert [row["ours"] for row in rows][1:] == ["onnx, fp32", "onnx, int8", "openvino, fp32", "openvino, int8"]
    assert "MAP" in rows[1]["result"]


@pytest.mark.slow
def test_peers(tiny_encoder, tiny_wide_encoder, tmp_path):
    flags = ["--data", TINY.parent, "--set", "tiny", "--run_dir", tmp_path, "--seeds", "1", "--rates", "1e-3"]
    models = ["--student", tiny_encoder, "--teacher", tiny_wide_encoder, "--max_length", "32"]
    ways = ["--ways", "embedder_ours", "embedder_kl"]

    command = [sys.executable, BENCHMARKS / "peers.py", *flags, *models, *ways]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    results = tmp_path / "tiny" / "results"
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in results.glob("*.log"))
    before, theirs, ours = (json.loads(path.read_text()) for path in sorted(results.glob("*.json")))
    assert [before["way"], theirs["way"], ours["way"]] == ["before", "embedder_kl", "embedder_ours"]
    rows = (tmp_path / "tiny" / "tiny_train_scores.jsonl").read_text(encoding="utf-8").splitlines()
    lists = [json.loads(row) for row in rows]
    assert len(lists) == 9  # of 10 queries; the last is for choosing the rate
    texts = sum(1 + len(row["passages"]) for row in lists)  # none of them stands twice in this set
    assert theirs["facts"]["passes"] == ours["facts"]["passes"] == 2 * texts  # two epochs
    assert theirs["facts"]["steps"] == 2  # all lists have the same length: one step an epoch
    assert len(before["MAP"]["tiny"]) == len(before["facts"]["teacher"]["tiny"]) == 6
    row = next(line for line in done.stdout.splitlines() if "DistillKLDivLoss" in line)
    assert row.count("| 1.00 ") >= 2  # passes and steps, as ratios to ours


def test_search_memory(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search_memory", "--documents", "300", "--dimensions", "8", "--queries", "5"])
    runpy.run_path(str(BENCHMARKS / "search_memory.py"), run_name="__main__")
    figures = json.loads(capsys.readouterr().out)
    assert figures["found"] == 5 * 100
    assert figures["own_peak_mib"] >= figures["own_mib_before"] > 0
