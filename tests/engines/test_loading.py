"""Which engine runs a model, and why."""

import importlib.util

import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import choose_engine
from rag_core.files.manifest import read_manifest
from reranker_distillation import generate_logits
from tests.engines.conftest import ASKS, BERT, OLD_LAST


def test_auto_says_what_it_picked_and_why(tiny_qwen, tiny_encoder, monkeypatch):
    assert choose_engine(describe_model(tiny_encoder), "auto")[0] == "sentence-transformers"
    reranker = describe_model(str(tiny_qwen))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    engine, reason = choose_engine(reranker, "auto")
    assert engine == "transformers"
    assert reason == "config.json says Qwen3ForCausalLM: an LLM reranker; vLLM is not installed"


QWEN_SAYS = "modules.json has a pooling layer, config.json says Qwen3ForCausalLM"
PROMPTS_DIFFER = f"{QWEN_SAYS}, its prompts are not 'Instruct: ...\\nQuery:' and none for passages"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            {"layers": ["Transformer", "Pooling", "Dense", "Normalize"]},
            "modules.json has a pooling layer and a layer Dense",
        ),
        ({"pooling": {"pooling_mode": "mean"}}, "modules.json has a pooling layer, not of the last token"),
        (
            {"pooling": OLD_LAST | {"pooling_mode_cls_token": True}},
            "modules.json has a pooling layer, not of the last token",
        ),
        ({"pooling": {}}, "modules.json has a pooling layer, not of the last token"),
        ({"config": BERT}, "modules.json has a pooling layer, config.json says BertModel"),
        ({"prompts": {}}, PROMPTS_DIFFER),
        ({"prompts": {"query": "query: "}}, PROMPTS_DIFFER),
        ({"prompts": {"query": "Instruct: Find it\nQuery: "}}, PROMPTS_DIFFER),
        ({"prompts": ASKS | {"document": "passage: "}}, PROMPTS_DIFFER),
    ],
)
def test_what_only_sentence_transformers_can_run(embedder, files, reason):
    model = describe_model(embedder(**files))
    assert (model.is_llm, model.why) == (False, reason)
    assert choose_engine(model, "auto") == ("sentence-transformers", f"{reason}: a bi-encoder")
    for engine in ("vllm", "transformers"):
        with pytest.raises(EngineError) as caught:
            choose_engine(model, engine)
        assert str(caught.value) == (
            f"the engine {engine} cannot run {model.name} ({reason}: it is a bi-encoder). "
            "Pass --engine sentence-transformers, or auto."
        )


@pytest.mark.parametrize("asked", ["vllm", "transformers", "sentence-transformers"])
def test_an_llm_embedder_runs_on_every_engine(embedder, asked):
    assert choose_engine(describe_model(embedder()), asked) == (asked, "as asked")


@pytest.mark.parametrize(
    ("installed", "cuda", "engine", "reason"),
    [
        (False, True, "sentence-transformers", "vLLM is not installed"),
        (True, False, "sentence-transformers", "no CUDA GPU for vLLM"),
        (True, True, "vllm", "vLLM and a CUDA GPU are there"),
    ],
)
def test_auto_takes_vllm_for_an_llm_embedder_where_it_can(embedder, monkeypatch, installed, cuda, engine, reason):
    model = describe_model(embedder())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    assert choose_engine(model, "auto") == (
        engine,
        f"modules.json has a pooling layer, config.json says Qwen3ForCausalLM: an LLM embedder; {reason}",
    )


def test_an_engine_that_cannot_run_the_model(tiny_qwen, tiny_encoder, tiny_cross_encoder):
    with pytest.raises(EngineError, match=r"a pooling layer, not of the last token: it is a bi-encoder\)\. Pass --eng"):
        choose_engine(describe_model(tiny_encoder), "vllm")
    with pytest.raises(EngineError, match=r"the engine transformers cannot run .* CrossEncoder: it is a cross-encoder"):
        choose_engine(describe_model(tiny_cross_encoder), "transformers")
    with pytest.raises(EngineError, match=r"an LLM reranker\)\. Pass --engine vllm or transformers, or auto"):
        choose_engine(describe_model(str(tiny_qwen)), "sentence-transformers")


def test_a_model_that_is_not_there(tiny_data, capsys):
    assert generate_logits.main(["--teacher", "nobody/nothing", "--input_files", f"{tiny_data}/train.jsonl"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: cannot load the model 'nobody/nothing' (")
    assert "Check the name or folder" in error


def test_an_llm_reranker_through_the_stage(tiny_qwen, tiny_data, capsys):
    command = ["--teacher", str(tiny_qwen), "--engine", "transformers", "--input_files", f"{tiny_data}/test.jsonl"]
    assert generate_logits.main([*command, "--dtype", "float32", "--max_length", "256"]) == 0
    manifest = read_manifest(tiny_data / "test_logits.jsonl")
    assert manifest.score_unit == "log-odds"
    assert manifest.rows == 24
    assert manifest.recipe["model"]["prompt"] == "qwen3-yes-no-1"
    assert "its ranking of the 6 labelled queries: MAP" in capsys.readouterr().err
