"""Two workers of a local Ray cluster against no Ray at all, with kills of either side."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embedding_distillation import generate_logits as embed
from rag_core.base.errors import EngineError
from rag_core.engines.identity import ModelInfo, describe_model
from rag_core.engines.options import EngineOptions, RayOptions
from rag_core.files.chunk_store import ChunkStore
from rag_core.files.manifest import read_manifest
from rag_core.scoring import ray_workers, scored_files, settings
from rag_core.scoring.ray_workers import Worker
from reranker_distillation import generate_logits
from tests.conftest import TINY
from tests.tiny_qwen import WORDS

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

ROOT = TINY.parent.parent
SMALL = {"transformers": 16, "sentence-transformers": 16}
QUERIES, CANDIDATES = 60, 10
RAY = ["--engine", "ray", "--num_workers", "2"]

# The stage, with small chunks that take a while to be written.
SLOW_DRIVER = f"""
import sys, time
from rag_core.scoring import settings
from rag_core.files.chunk_store import ChunkStore
from reranker_distillation import generate_logits

write = ChunkStore.write
ChunkStore.write = lambda *chunk: (time.sleep(0.1), write(*chunk))
settings.CHUNK_ROWS |= {SMALL}
sys.exit(generate_logits.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """What the first test starts serves them all."""
    yield
    import ray

    ray.shutdown()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    for engine, rows in SMALL.items():
        monkeypatch.setitem(settings.CHUNK_ROWS, engine, rows)


@pytest.fixture
def samples(tmp_path):
    words = WORDS.split()
    draw = random.Random(0)
    path = tmp_path / "samples.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for query in range(QUERIES):
            texts = [" ".join(draw.choices(words, k=draw.randint(3, 60))) for _ in range(CANDIDATES)]
            file.write(json.dumps({"query": f"{query} {draw.choice(words)}", "candidates": texts}) + "\n")
    return path


@pytest.fixture
def kept_workers(monkeypatch):
    """Collect the models that are loaded, to get at their workers."""
    models = []
    load = scored_files.load
    monkeypatch.setattr(scored_files, "load", lambda *args: models.append(load(*args)) or models[-1])
    return models


def score(samples, teacher, name, *flags, main=generate_logits.main):
    """Return the output, and what its manifest says of how it was made."""
    folder = samples.parent / name
    command = ["--teacher", teacher, "--dtype", "float32", "--max_length", "128", "--input_files", str(samples)]
    assert main([*command, "--output_dir", str(folder), *flags]) == 0
    manifest = read_manifest(folder / "samples_logits.jsonl")
    return (folder / "samples_logits.jsonl").read_bytes(), manifest.recipe, manifest.score_unit


def pids(model):
    import ray

    return ray.get([worker.__ray_call__.remote(lambda _: os.getpid()) for worker in model._workers])


class Echo:
    """A worker without a model."""

    def __init__(self, *_):
        pass

    def describe(self):
        return {"score_unit": "logit", "truncated": 0}

    def compute(self, number, rows, role):
        time.sleep(0.01)
        return number, np.full(len(rows), os.getpid(), dtype=np.float32), 1


@pytest.fixture
def echo(monkeypatch, tiny_cross_encoder):
    """Two workers that score each pair with the number of their process."""
    monkeypatch.setattr(ray_workers, "Worker", Echo)
    monkeypatch.setattr(ray_workers, "_RESTARTS", 1)
    options = EngineOptions(describe_model(tiny_cross_encoder), ray=RayOptions(2, 0))
    model = ray_workers.RayScorer("sentence-transformers", options, options.ray, [])
    yield model
    model.close()


def test_both_workers_work_and_few_chunks_are_out(echo):
    drawn = finished = most = 0

    def chunks():
        nonlocal drawn, most
        for number in range(40):
            drawn += 1
            most = max(most, drawn - finished)
            yield [(f"query {number}", "river")] * 8

    numbers, workers = [], set()
    for number, values in echo.score_chunks(chunks()):
        finished += 1
        numbers.append(number)
        workers |= set(values.tolist())
    assert sorted(numbers) == list(range(40))
    assert len(workers) == 2
    assert most == 2 * ray_workers._CALLS_A_WORKER + 1  # with the one that waits for a place
    assert echo.truncated == 40


class Deadly:
    """A row that ends the process in which it arrives."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_chunk_that_kills_every_worker(echo):
    with pytest.raises(EngineError, match="a worker was lost, after up to 1 new starts"):
        echo.score([Deadly()])


def test_an_embedder(samples, tiny_encoder):
    expected = score(samples, tiny_encoder, "plain", main=embed.main)
    assert score(samples, tiny_encoder, "ray", *RAY, main=embed.main) == expected
    assert expected[1]["flags"]["engine"] == "sentence-transformers"


def test_an_llm_reranker_counts_the_passages_that_were_cut(samples, tiny_qwen, kept_workers):
    expected = score(samples, tiny_qwen, "plain", "--engine", "transformers", "--max_length", "110")
    assert score(samples, tiny_qwen, "ray", "--engine", "ray", "--max_length", "110") == expected
    assert kept_workers[1].truncated == kept_workers[0].truncated > 0


def test_a_worker_killed_in_mid_run(samples, tiny_cross_encoder, kept_workers, monkeypatch, capsys):
    expected = score(samples, tiny_cross_encoder, "plain")
    written = []
    write = ChunkStore.write

    def killing_write(store, keys, values):
        write(store, keys, values)
        written.append(keys)
        if len(written) == 5:
            before.extend(pids(kept_workers[-1]))
            os.kill(before[0], signal.SIGKILL)

    before = []
    monkeypatch.setattr(ChunkStore, "write", killing_write)
    assert score(samples, tiny_cross_encoder, "ray", *RAY) == expected
    after = pids(kept_workers[-1])
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert capsys.readouterr().out.splitlines()[1:] == [f"{samples.parent}/ray/samples_logits.jsonl"]
    assert len(written) == QUERIES * CANDIDATES // 20  # nothing twice


def test_the_driver_killed_in_mid_run_and_started_again(samples, tiny_cross_encoder):
    expected = score(samples, tiny_cross_encoder, "plain")
    flags = ["--teacher", tiny_cross_encoder, "--dtype", "float32", "--max_length", "128", "--input_files"]
    flags += [str(samples), "--output_dir", f"{samples.parent}/killed", *RAY]
    driver = subprocess.Popen([sys.executable, "-c", SLOW_DRIVER, *flags], cwd=ROOT)
    chunks = samples.parent / "killed" / "samples_logits.jsonl.partial"
    while driver.poll() is None and len(list(chunks.glob("pair-*.npy"))) < 3:
        time.sleep(0.01)
    # Ray's two agents look for the others for a minute before they end, too.
    family = {pid: command for pid, command in descendants(driver.pid).items() if b"Agent" not in command}
    driver.kill()
    driver.wait()
    assert 3 <= len(list(chunks.glob("pair-*.npy"))) < 30
    assert any(b"Worker" in command for command in family.values())
    until = time.monotonic() + 30
    while left := [pid for pid, command in family.items() if command_of(pid) == command]:
        assert time.monotonic() < until, [family[pid] for pid in left]
        time.sleep(0.1)
    assert score(samples, tiny_cross_encoder, "killed", *RAY) == expected


def descendants(pid):
    """Return all processes below one, with their commands."""
    found = {}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found |= {child: command_of(child)} | descendants(child)
    return found


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None


def test_an_error_in_a_worker_is_one_sentence(samples, tiny_cross_encoder, tmp_path, capsys):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(tiny_cross_encoder)
    next(model.parameters()).data.fill_(float("nan"))
    model.save_pretrained(f"{tmp_path}/broken", create_model_card=False)
    command = ["--teacher", f"{tmp_path}/broken", "--input_files", str(samples), "--engine", "ray"]
    assert generate_logits.main(command) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.splitlines()[-1] == (
        "Error: 20 of 20 scores of the teacher are not finite (NaN or infinite), or beyond 1e+15. "
        "Pass --dtype float32 (float16 overflows in many models), or try another --engine."
    )


def test_a_worker_without_the_drivers_model(tiny_cross_encoder, tiny_encoder):
    nowhere = ModelInfo("/nowhere", "llm-reranker", "test")
    nowhere.__dict__["identity"] = {"name": "/nowhere", "sha256": "00"}
    with pytest.raises(EngineError, match=r"has no folder /nowhere\. Put the model into the same place on all"):
        Worker("transformers", EngineOptions(nowhere), [], 0).describe()
    other = describe_model(tiny_encoder)
    other.__dict__["identity"] = {"name": tiny_encoder, "sha256": "00"}
    with pytest.raises(EngineError, match=rf"the worker on .* has another version of {tiny_encoder}"):
        Worker("sentence-transformers", EngineOptions(other), [], 0).describe()


def test_a_cluster_that_is_too_small(samples, tiny_cross_encoder, capsys):
    command = ["--teacher", tiny_cross_encoder, "--input_files", str(samples), *RAY]
    assert generate_logits.main([*command, "--gpus_per_worker", "1"]) == 1
    assert "Error: 2 workers need 2 GPUs, and the Ray cluster has 0. Lower --num" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--num_workers", "2"],
            "--num_workers, --gpus_per_worker and --ray_address are for --engine ray. Pass --engine ray as well.",
        ),
        (
            [*RAY, "--gpus_per_worker", "1.5"],
            "--gpus_per_worker is 1.5. Pass a fraction of one GPU, such as 0.5, or a whole number.",
        ),
        ([*RAY, "--num_workers", "0"], "--num_workers is 0. Pass --num_workers 1 or more."),
        (
            [*RAY, "--gpus_per_worker", "1", "--tensor_parallel_size", "2"],
            "--tensor_parallel_size 2 is more than --gpus_per_worker 1. A worker holds a whole copy of the teacher: "
            "pass --gpus_per_worker 2.",
        ),
    ],
)
def test_flags_that_contradict_each_other(samples, flags, message, capsys):
    assert generate_logits.main(["--teacher", "t", "--input_files", str(samples), *flags]) == 2
    assert message in capsys.readouterr().err


def test_without_ray(samples, tiny_cross_encoder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert generate_logits.main(["--teacher", tiny_cross_encoder, "--input_files", str(samples), *RAY]) == 1
    assert 'Error: Ray is not installed. Run: pip install "rag-optimization[ray]".' in capsys.readouterr().err


def test_no_cluster_at_the_address(samples, tiny_cross_encoder):
    command = [sys.executable, "-m", "reranker_distillation.generate_logits", "--teacher", tiny_cross_encoder]
    command += ["--input_files", str(samples), *RAY, "--ray_address", "localhost:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no Ray cluster at localhost:1 (")
