"""Real processes, killed with SIGKILL, and started again."""

import json
import os
import random
import subprocess
import sys
import time

import pytest

from rag_core.jsonl import write_records
from rag_core.records import Triplet
from tests.conftest import TINY

GOLDEN = TINY.parent.parent / "tests" / "golden"

# generate_logits with a slow teacher and chunks of three pairs.
SLOW_SCORING = """
import sys, time
import rag_core.scored_files as scored_files
from reranker_distillation import generate_logits
from tests.conftest import OverlapScorer

class Slow(OverlapScorer):
    def score(self, pairs):
        time.sleep(0.02)
        return super().score(pairs)

scored_files.load_model = lambda *_: Slow()
scored_files.choose_engine = lambda *_: ("transformers", "test")
scored_files.model_identity = lambda model: {"name": model}
scored_files.model_kind = lambda *_: ("llm-reranker", "test")
scored_files.takes_instruction = lambda *_: True
scored_files.declared_instruction = lambda *_: None
scored_files._CHUNK_ROWS = {"transformers": 3}
sys.exit(generate_logits.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_scoring_killed_at_any_moment_ends_in_the_same_bytes(tiny_data):
    command = [sys.executable, "-c", SLOW_SCORING, "--teacher", "t", "--input_files", f"{tiny_data}/train.jsonl"]
    output = tiny_data / "train_logits.jsonl"
    chunks = output.with_name(output.name + ".partial")
    generator = random.Random(5)
    kills = 0
    for _ in range(3):
        process = subprocess.Popen(command, cwd=TINY.parent.parent)
        seen = len(list(chunks.glob("pair-*.npy")))
        while process.poll() is None and len(list(chunks.glob("pair-*.npy"))) <= seen:
            time.sleep(0.005)
        time.sleep(generator.uniform(0, 0.15))
        kills += process.poll() is None
        process.kill()
        process.wait()
        assert not output.exists() or output.read_bytes() == (GOLDEN / output.name).read_bytes()
    assert kills
    assert subprocess.run(command, cwd=TINY.parent.parent, check=False).returncode == 0
    assert output.read_bytes() == (GOLDEN / output.name).read_bytes()
    assert not chunks.exists()


@pytest.mark.slow
def test_training_killed_after_a_checkpoint_ends_in_the_same_model(tmp_path, tiny_cross_encoder):
    from safetensors.numpy import load_file

    passages = [line for line in (TINY / "train.jsonl").read_text().split('"') if len(line) > 20]
    rows = [Triplet(str(i // 3), f"query {i // 3}", passages[i], passages[i + 1], 0.5 + i / 9) for i in range(48)]
    write_records(tmp_path / "triplets.jsonl", rows)
    flags = ["--train_file", f"{tmp_path}/triplets.jsonl", "--student", tiny_cross_encoder, "--margin_scale", "1"]
    flags += ["--per_device_train_batch_size", "2", "--save_steps", "2", "--num_train_epochs", "3"]
    command = [sys.executable, "-m", "reranker_distillation.train", *flags]

    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, "--output_dir", str(killed)])
    state = tmp_path / "killed.partial" / "checkpoint-4" / "trainer_state.json"
    while process.poll() is None and not state.exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not killed.exists()
    # A checkpoint that was being written when the power went has no state yet.
    broken = tmp_path / "killed.partial" / "checkpoint-999"
    broken.mkdir()

    again = subprocess.run([*command, "--output_dir", str(killed)], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "going on from checkpoint-" in again.stderr
    assert not (tmp_path / "killed.partial").exists()
    whole = subprocess.run([*command, "--output_dir", f"{tmp_path}/whole"], check=False, env=os.environ)
    assert whole.returncode == 0

    expected = load_file(tmp_path / "whole" / "model.safetensors")
    for name, values in load_file(killed / "model.safetensors").items():
        assert (values == expected[name]).all(), name
    steps = [json.loads((tmp_path / f"{name}.manifest.json").read_text())["steps"] for name in ("killed", "whole")]
    assert steps == [24, 24]
