"""The bash scripts: they parse, and the recipe runs end to end on data/tiny, from another directory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY

SCRIPTS = TINY.parent.parent / "scripts"


@pytest.mark.parametrize("script", sorted(SCRIPTS.rglob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_strict_and_parses(script):
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.slow
def test_the_reranker_recipe(tmp_path, tiny_encoder):
    data = tmp_path / "run" / "data"
    data.mkdir(parents=True)
    for name in ("train", "test"):
        (data / f"{name}.jsonl").write_bytes((TINY / f"{name}.jsonl").read_bytes())
    (data / "out_of_domain.jsonl").write_bytes((TINY / "test.jsonl").read_bytes())
    settings = {
        "PYTHON": sys.executable,
        "RUN_DIR": "run",
        "TEACHER": tiny_encoder,
        "STUDENT": tiny_encoder,
        "BEFORE": tiny_encoder,
        "MAX_LENGTH": "64",
        "BATCH_SIZE": "4",
    }

    def run_all():
        return subprocess.run(
            ["bash", SCRIPTS / "reranker" / "run_all.sh"],
            cwd=tmp_path,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )

    first = run_all()
    assert first.returncode == 0, first.stderr
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    assert [(Path(file["path"]).name, file["domain"]) for file in report["files"]] == [
        ("test.jsonl", "in-domain"),
        ("out_of_domain.jsonl", "out-of-domain"),
    ]
    assert list(report["files"][0]["means"]) == ["BM25", "before", "after", "teacher"]
    for setting in ("RUN_DIR=run", f"TEACHER={tiny_encoder}", "LEARNING_RATE=2e-5", "TOP_K=8"):
        assert setting in first.stderr
    second = run_all()
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("is finished already") >= 6  # three scored files, triplets, model, evaluation scores
