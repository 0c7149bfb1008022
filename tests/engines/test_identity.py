"""Which model it is: what kind, what it reads, and which weights."""

import json
import shutil

import pytest

from rag_core.base.errors import EngineError
from rag_core.engines import model_files
from rag_core.engines.identity import describe_model, describe_models
from rag_core.engines.model_files import content_hash
from rag_core.engines.role_prompts import PromptNames
from tests.conftest import write_model
from tests.engines.conftest import ASKS, BERT, LAST, OLD_LAST, QWEN
from tests.tiny_qwen import DECLARED_INSTRUCTION
from tests.zoo import encoders as zoo


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


@pytest.mark.slow
@pytest.mark.parametrize("builder", [zoo.dense, zoo.two_dense, zoo.weighted_layers, zoo.old_layout])
def test_the_identity_covers_the_weights_of_all_modules(builder, tmp_path):
    builder(tmp_path / "model")
    identities = [describe_model(str(tmp_path / "model")).identity["sha256"]]
    for path in (tmp_path / "model").rglob("*.safetensors"):
        shutil.copytree(tmp_path / "model", tmp_path / "changed")
        (tmp_path / "changed" / path.relative_to(tmp_path / "model")).write_bytes(path.read_bytes()[:-1] + b"\x01")
        identities.append(describe_model(str(tmp_path / "changed")).identity["sha256"])
        shutil.rmtree(tmp_path / "changed")
    assert len(identities) > 1
    assert len(set(identities)) == len(identities)


def test_the_identity_covers_the_folders_of_a_router(tmp_path):
    (tmp_path / "query_0_StaticEmbedding").mkdir()
    modules = [{"path": "", "type": "sentence_transformers.base.modules.Router"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "router_config.json").write_text(json.dumps({"types": {"query_0_StaticEmbedding": "..."}}))
    weights = tmp_path / "query_0_StaticEmbedding" / "model.safetensors"
    weights.write_bytes(b"one")
    before = content_hash(tmp_path)
    weights.write_bytes(b"two")
    assert content_hash(tmp_path) != before


def test_the_identity_of_a_model_on_a_hub_is_its_commit(tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--some--model"
    write_model(cached / "snapshots" / commit, "BertForSequenceClassification")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert describe_model("some/model").identity == {"name": "some/model", "revision": commit}


@pytest.mark.slow
def test_the_identity_of_an_adapter_covers_its_base(tmp_path):
    zoo.embedder_adapter(tmp_path / "adapter")
    model = describe_model(str(tmp_path / "adapter"))
    base = describe_model(str(tmp_path / "adapter-base"))
    assert model.base == base.name
    assert model.identity["base"] == base.identity


def test_each_file_of_a_model_is_asked_for_once(embedder, monkeypatch):
    """On a hub, each is a request."""
    asked = []
    original = model_files.find_file
    monkeypatch.setattr(model_files, "find_file", lambda name, file: asked.append(file) or original(name, file))
    describe_model(embedder())
    assert len(asked) == len(set(asked))
    assert "modules.json" in asked
    assert "export.json" not in asked  # which only a folder has


def test_an_adapter_needs_peft(tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "nobody/nothing"}))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"is a LoRA adapter, which needs peft\. pip install"):
        describe_model(str(tmp_path))


PROMPTS = {"s2p_query": "Find: ", "passage": "passage: ", "query": ""}


def test_prompts_by_their_names(embedder):
    name = embedder(prompts=PROMPTS)
    usual = describe_model(name)
    assert (usual.prompt("query"), usual.prompt("passage")) == ("", "passage: ")
    asked = describe_model(name, PromptNames("s2p_query", "s2p_query"))
    assert (asked.prompt("query"), asked.prompt("passage")) == ("Find: ", "Find: ")
    assert asked.identity == usual.identity | {"query_prompt": "Find: ", "passage_prompt": "Find: "}
    assert usual.identity["passage_prompt"] == "passage: "  # sentence-transformers, and so we, put "" there once


def test_a_prompt_that_a_model_does_not_have(embedder):
    name = embedder(prompts=PROMPTS)
    with pytest.raises(EngineError, match=r"declares no prompt named 's2s' \(it has s2p_query, passage\)"):
        describe_model(name, PromptNames("s2s"))


def test_of_several_models_each_takes_the_prompt_that_it_has(embedder, tiny_encoder):
    first, second = describe_models([embedder(prompts=PROMPTS), tiny_encoder], PromptNames("s2p_query"))
    assert (first.prompt("query"), second.prompt("query")) == ("Find: ", "")


@pytest.mark.parametrize(
    ("prompts", "unused"),
    [
        ({"s2p_query": "Find: ", "query": ""}, "s2p_query"),
        ({"query": "Find: ", "clustering": "Cluster: "}, None),
        ({"query": "", "document": ""}, None),
    ],
)
def test_prompts_of_which_none_is_used_are_told(embedder, prompts, unused, caplog):
    describe_model(embedder(prompts=prompts)).warn_of_unused_prompts()
    if unused:
        assert f"declares prompts that are not used: {unused}. Pass --query_prompt_name" in caplog.text
    else:
        assert not caplog.text


def test_a_config_of_no_known_kind(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(EngineError, match=r"its config\.json says BertModel"):
        describe_model(str(tmp_path))
