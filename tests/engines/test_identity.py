"""Which model it is: what kind, what it reads, and which weights."""

import json
import shutil

import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.identity import describe_model
from tests.engines.conftest import ASKS, BERT, LAST, OLD_LAST, QWEN
from tests.tiny_qwen import DECLARED_INSTRUCTION


def test_kinds_of_models(tiny_qwen, tiny_encoder, tiny_cross_encoder):
    assert describe_model(str(tiny_qwen)).kind == "llm-reranker"
    assert describe_model(tiny_encoder).kind == "bi-encoder"
    assert describe_model(tiny_cross_encoder).kind == "cross-encoder"


@pytest.mark.parametrize("pooling", [LAST, {"pooling_mode": ["lasttoken"]}, OLD_LAST])
@pytest.mark.parametrize("architecture", ["Qwen3ForCausalLM", "Qwen3Model"])
@pytest.mark.parametrize("prompts", [ASKS, {"query": ASKS["query"]}])
def test_an_llm_embedder(embedder, pooling, architecture, prompts):
    model = embedder(QWEN | {"architectures": [architecture]}, pooling=pooling, prompts=prompts)
    found = describe_model(model)
    assert (found.kind, found.is_llm) == ("bi-encoder", True)
    assert found.why == f"modules.json has a pooling layer, config.json says {architecture}"


def test_an_llm_embedder_as_it_is_saved(tiny_llm_embedder):
    found = describe_model(tiny_llm_embedder)
    assert (found.is_llm, found.why) == (True, "modules.json has a pooling layer, config.json says Qwen3Model")
    assert found.instruction == DECLARED_INSTRUCTION


def test_other_models_are_no_llm_embedders(tiny_qwen, tiny_cross_encoder):
    assert describe_model(tiny_qwen).kind == "llm-reranker"
    assert not describe_model(tiny_cross_encoder).is_llm


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, True),
        ({"config": BERT, "pooling": {"pooling_mode": "mean"}}, True),
        ({"prompts": {"query": "Instruct: Find it\nQuery: "}}, False),
        ({"prompts": {"query": "query: "}}, False),
        ({"prompts": {"query": None}}, False),
        ({"prompts": {}}, False),
    ],
)
def test_an_embedder_takes_an_instruction_where_it_declares_one(embedder, files, expected):
    model = describe_model(embedder(**files))
    assert model.takes_instruction is expected
    assert model.instruction == ("Find it" if expected else None)


def test_rerankers_take_an_instruction_where_they_are_llms(tiny_qwen, tiny_encoder, tiny_cross_encoder):
    assert describe_model(tiny_qwen).takes_instruction
    assert not describe_model(tiny_encoder).takes_instruction
    assert not describe_model(tiny_cross_encoder).takes_instruction


def test_the_identity_of_a_folder_is_its_content(tiny_encoder, tmp_path):
    copy = shutil.copytree(tiny_encoder, tmp_path / "copy")
    assert describe_model(str(copy)).identity["sha256"] == describe_model(tiny_encoder).identity["sha256"]
    weights = copy / "model.safetensors"
    changed = tmp_path / "changed"
    shutil.copytree(copy, changed)
    (changed / "model.safetensors").write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert describe_model(str(changed)).identity["sha256"] != describe_model(tiny_encoder).identity["sha256"]


def test_a_config_of_no_known_kind(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(EngineError, match=r"its config\.json says BertModel"):
        describe_model(str(tmp_path))
