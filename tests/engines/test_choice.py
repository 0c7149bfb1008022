"""Which engine runs a model, and which model it is."""

import json

import pytest

from rag_core.engines import choose_engine
from rag_core.engines.identity import model_identity, model_kind
from rag_core.errors import EngineError
from rag_core.manifest import read_manifest
from reranker_distillation import generate_logits


def test_kinds_of_models(tiny_qwen, tiny_encoder, tiny_cross_encoder):
    assert model_kind(str(tiny_qwen))[0] == "llm-reranker"
    assert model_kind(tiny_encoder)[0] == "bi-encoder"
    assert model_kind(tiny_cross_encoder)[0] == "cross-encoder"


def test_auto_says_what_it_picked_and_why(tiny_qwen, tiny_encoder, monkeypatch):
    assert choose_engine(tiny_encoder, "auto")[0] == "sentence-transformers"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    engine, reason = choose_engine(str(tiny_qwen), "auto")
    assert engine == "transformers"
    assert reason == "config.json says Qwen3ForCausalLM: an LLM reranker; vLLM is not installed"


def test_an_engine_that_cannot_run_the_model(tiny_qwen, tiny_encoder):
    with pytest.raises(EngineError, match="cannot run"):
        choose_engine(tiny_encoder, "vllm")
    with pytest.raises(EngineError, match="Pass --engine vllm or transformers, or auto"):
        choose_engine(str(tiny_qwen), "sentence-transformers")


def test_the_identity_of_a_folder_is_its_content(tiny_encoder, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_encoder, tmp_path / "copy")
    assert model_identity(str(copy))["sha256"] == model_identity(tiny_encoder)["sha256"]
    weights = copy / "model.safetensors"
    changed = tmp_path / "changed"
    shutil.copytree(copy, changed)
    (changed / "model.safetensors").write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert model_identity(str(changed))["sha256"] != model_identity(tiny_encoder)["sha256"]


def test_a_model_that_is_not_there(tiny_data, capsys):
    assert generate_logits.main(["--teacher", "nobody/nothing", "--input_files", f"{tiny_data}/train.jsonl"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: cannot load the model 'nobody/nothing' (")
    assert "Check the name or folder" in error


def test_a_config_of_no_known_kind(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(EngineError, match=r"its config\.json says BertModel"):
        model_kind(str(tmp_path))


def test_an_llm_reranker_through_the_stage(tiny_qwen, tiny_data, capsys):
    command = ["--teacher", str(tiny_qwen), "--engine", "transformers", "--input_files", f"{tiny_data}/test.jsonl"]
    assert generate_logits.main([*command, "--dtype", "float32", "--max_length", "256"]) == 0
    manifest = read_manifest(tiny_data / "test_logits.jsonl")
    assert manifest["score_unit"] == "log-odds"
    assert manifest["rows"] == 24
    assert manifest["recipe"]["model"]["prompt"] == "qwen3-yes-no-1"
    assert "its ranking of the 6 labelled queries: MAP" in capsys.readouterr().err
