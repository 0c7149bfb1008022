"""Real processes, killed with SIGKILL, and started again."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from rag_core.base.records import Triplet
from rag_core.files.jsonl import write_records
from tests.conftest import TINY, write_model

GOLDEN = TINY.parent.parent / "tests" / "golden"

# generate_logits with a teacher of its own, in chunks of three pairs.
SCORING = """
import os, random, shutil, signal, sys, time
from pathlib import Path
from rag_core.engines.loading import LOADERS
from rag_core.scoring.settings import CHUNK_ROWS
from reranker_distillation import generate_logits
from tests.conftest import OverlapScorer

LOADERS["transformers"] = lambda *_: OverlapScorer()
CHUNK_ROWS["transformers"] = 3
"""

# Runs it again and again in processes of their own, each of which is killed right before or after something that is to
# stay on disk (or vanish), or at any time; says how often each was the moment.
KILLED_SCORING = (
    SCORING
    + """
import collections, json
import ir_measures  # once for all of them
from rag_core.engines.identity import describe_model
describe_model(sys.argv[2])  # what it imports, too
generator = random.Random(5)

def deadly(owner, name, moment):
    call = getattr(owner, name)
    def wrapped(*args, **kwargs):
        for when in ("before", "after"):
            moment["left"] -= 1
            words = f"{when} {name}" + " of the output" * str(args[-1]).endswith("_logits.jsonl")
            if moment["left"] == 0 or words == moment["words"]:
                os.write(moment["pipe"], words.encode())
                os.kill(os.getpid(), signal.SIGKILL)
            if when == "before":
                found = call(*args, **kwargs)
        return found
    setattr(owner, name, wrapped)

def child(pipe, left, words, delay):
    moment = {"left": left, "words": words, "pipe": pipe}
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
        deadly(owner, name, moment)
    slow = OverlapScorer.score
    OverlapScorer.score = lambda self, pairs: (time.sleep(delay), slow(self, pairs))[1]
    os._exit(generate_logits.main(sys.argv[1:]))

killed, finished = collections.Counter(), 0
output = Path(sys.argv[-1].replace(".jsonl", "_logits.jsonl"))
expected = Path(os.environ["EXPECTED"]).read_bytes()
while killed.total() < 50:
    reading, writing = os.pipe()
    kind = generator.choice(["clock", "count", "count", "rename"])
    left = generator.randint(1, 40) if kind == "count" else 0
    words = generator.choice(["before", "after"]) + " replace of the output" if kind == "rename" else ""
    process = os.fork()
    if not process:
        child(writing, left, words, 0.005 if kind == "clock" else 0)
    if kind == "clock":
        time.sleep(generator.uniform(0, 0.2))
        os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    os.close(writing)
    moment = os.read(reading, 100).decode() or "by the clock"
    os.close(reading)
    assert not output.exists() or output.read_bytes() == expected
    if os.WIFSIGNALED(status):
        killed[moment] += 1
    else:
        assert os.waitstatus_to_exitcode(status) == 0
        assert not output.with_name(output.name + ".partial").exists()
        output.unlink()
        finished += 1
print(json.dumps({"killed": killed, "finished": finished}))
"""
)


@pytest.mark.slow
def test_scoring_killed_at_50_moments_ends_in_the_same_bytes(tiny_data, warm_python):
    write_model(tiny_data / "t")
    flags = ["--teacher", f"{tiny_data}/t", "--dtype", "float32", "--log_level", "error"]
    flags += ["--input_files", f"{tiny_data}/train.jsonl"]
    golden = GOLDEN / "train_logits.jsonl"
    environment = os.environ | {"EXPECTED": str(golden)}
    command = [warm_python.executable, "-c", KILLED_SCORING, *flags]
    found = subprocess.run(
        command, cwd=TINY.parent.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr[-3000:]
    result = json.loads(found.stdout.splitlines()[-1])
    assert sum(result["killed"].values()) == 50
    assert result["finished"] >= 3
    assert {"by the clock", "before replace of the output", "after replace of the output"} <= set(result["killed"])
    assert len(result["killed"]) > 4  # which of the other moments it hits depends on how fast the machine is


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_finished(tiny_data):
    write_model(tiny_data / "t")
    disk = tiny_data / "disk"
    disk.mkdir()
    stage = [sys.executable, "-c", SCORING + "sys.exit(generate_logits.main(sys.argv[1:]))"]
    stage += ["--teacher", f"{tiny_data}/t", "--output_dir", str(disk), "--input_files", f"{tiny_data}/train.jsonl"]
    run = shlex.join(stage)
    # A disk of 24 KiB, and later one with room, in a namespace where it may be mounted.
    script = f"""
        mount -t tmpfs -o size=24k tmpfs {disk} || exit 77
        {run}; echo "exit $?, $(ls {disk}/*.partial/*.npy | wc -l)"
        mount -o remount,size=10M {disk}
        {run} > /dev/null || exit 1
        cat {disk}/train_logits.jsonl >&2
    """
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", script]
    found = subprocess.run(namespace, cwd=TINY.parent.parent, capture_output=True, text=True, check=False)
    if found.returncode == 77 or "unshare" in found.stderr:
        pytest.skip("no small disk can be mounted here")
    assert found.returncode == 0, found.stderr
    code, chunks = found.stdout.split(",")
    assert code == "exit 1"
    assert 0 < int(chunks) < 17
    assert "Error: No space left on device. Make room, then run the same command again.\n" in found.stderr
    assert found.stderr.endswith((GOLDEN / "train_logits.jsonl").read_text())


@pytest.fixture
def training(tmp_path, tiny_cross_encoder):
    """The flags of a training of 24 steps."""
    passages = [line for line in (TINY / "train.jsonl").read_text().split('"') if len(line) > 20]
    rows = [Triplet(str(i // 3), f"query {i // 3}", passages[i], passages[i + 1], 0.5 + i / 9) for i in range(48)]
    write_records(tmp_path / "triplets.jsonl", rows)
    flags = ["--train_file", f"{tmp_path}/triplets.jsonl", "--student", tiny_cross_encoder, "--margin_scale", "1"]
    flags += ["--per_device_train_batch_size", "2", "--save_steps", "2", "--num_train_epochs", "3"]
    return ["-m", "reranker_distillation.train", *flags]


def kill_after_a_checkpoint(warm_python, training, output):
    """Start a training and kill it after its fourth step; return the state of that checkpoint."""
    process = warm_python.start(*training, "--output_dir", output)
    state = output.with_name(f"{output.name}.partial") / "checkpoint-4" / "trainer_state.json"
    while process.poll() is None and not (state.exists() and state.read_text().endswith("}\n")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not output.exists()
    return state


@pytest.mark.slow
def test_training_goes_on_with_as_many_processes_as_it_was_begun_with(tmp_path, training, warm_python):
    """Two would see the queries in half the steps, so that those of one, or most of them, would pass for all."""
    output = tmp_path / "m"
    one = [warm_python.executable, *training]
    two = [*warm_python.twice, *training]
    state = kill_after_a_checkpoint(warm_python, training, output)
    before = sorted(state.parent.parent.rglob("*"))
    refused = subprocess.run([*two, "--output_dir", str(output)], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert (
        f"Error: {output}.partial: holds unfinished work made with other settings: the number of processes (was 1, is "
        "2). Use the former settings to go on, or pass --overwrite to start afresh.\n"
    ) in refused.stderr
    assert sorted(state.parent.parent.rglob("*")) == before
    subprocess.run([*one, "--output_dir", str(output)], check=True)
    assert json.loads((tmp_path / "m.manifest.json").read_text())["steps"] == 24


@pytest.mark.slow
def test_training_killed_after_a_checkpoint_ends_in_the_same_model(tmp_path, training, warm_python):
    from safetensors.numpy import load_file

    command = [warm_python.executable, *training]
    killed = tmp_path / "killed"
    state = kill_after_a_checkpoint(warm_python, training, killed)
    before = json.loads(state.read_text())["log_history"][-1]["seconds"]
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
    facts = [json.loads((tmp_path / f"{name}.manifest.json").read_text()) for name in ("killed", "whole")]
    assert [fact["steps"] for fact in facts] == [24, 24]
    log = [entry["seconds"] for entry in json.loads((killed / "training_log.json").read_text())]
    assert log == sorted(log)
    assert facts[0]["seconds"] >= round(log[-1], 1) > before > 0
