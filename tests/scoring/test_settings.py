"""What is settled before a run, and what of it determines a score."""

import dataclasses
import json
import logging
import shutil

import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions, ServerOptions, TransformersOptions, VllmOptions
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.scoring.settings import describe_store, scope_of, settle, what_scores
from tests.conftest import write_model


@pytest.fixture
def options(tmp_path):
    write_model(tmp_path / "reranker")
    return EngineOptions(describe_model(f"{tmp_path}/reranker"), dtype="float32")


def test_where_the_instruction_comes_from(options, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert settle("transformers", options, [])[1].instruction == DEFAULT_INSTRUCTION
    assert caplog.messages == [
        "engine: transformers, float32 (as asked)",
        f"instruction: {DEFAULT_INSTRUCTION} (the default)",
    ]
    data = tmp_path / "in.jsonl"
    data.touch()
    write_manifest(data, Recipe("s", {}, {}), instruction="Find the proof")
    assert settle("transformers", options, [data])[1].instruction == "Find the proof"
    asked = dataclasses.replace(options, instruction="Find it")
    assert settle("transformers", asked, [data])[1].instruction == "Find it"


def test_a_model_that_takes_no_instruction(tmp_path, options):
    write_model(tmp_path / "plain", "BertForSequenceClassification")
    plain = dataclasses.replace(options, model=describe_model(f"{tmp_path}/plain"))
    assert settle("auto", plain, [])[1].instruction is None
    with pytest.raises(EngineError, match=r"plain takes no instruction\. Leave out --instruction"):
        settle("auto", dataclasses.replace(plain, instruction="Find it"), [])


def test_only_vllm_quantises_by_a_flag(options):
    fewer_bits = dataclasses.replace(options, vllm=VllmOptions(quantization="fp8"))
    assert settle("vllm", fewer_bits, [])[0] == "vllm"
    with pytest.raises(EngineError, match=r"--quantization is vLLM's, and the engine is transformers \(as asked\)"):
        settle("transformers", fewer_bits, [])


def test_what_has_no_say_in_a_score_is_not_in_its_scope(options, tmp_path):
    scope = scope_of("transformers", options)
    shutil.copytree(tmp_path / "reranker", tmp_path / "elsewhere")
    moved = dataclasses.replace(options, model=describe_model(f"{tmp_path}/elsewhere"))
    faster = dataclasses.replace(options, batch_size=1, transformers=TransformersOptions(1), reference="none")
    assert scope_of("transformers", moved) == scope_of("transformers", faster) == scope
    for name, value in {"dtype": "bfloat16", "max_length": 8, "instruction": "Find it"}.items():
        assert scope_of("transformers", dataclasses.replace(options, **{name: value})) != scope
    assert scope_of("vllm", options) != scope


def test_a_server_has_a_precision_of_its_own(options):
    server = dataclasses.replace(options, server=ServerOptions("http://localhost:1"), instruction="Find it")
    flags, model = what_scores("server", server)
    assert flags == {
        "instruction": "Find it",
        "max_length": 4096,
        "dtype": "the server's",
        "vllm_runner": "generate",
        "quantization": None,
        "engine": "server",
    }
    assert model.keys() == {"name", "sha256", "prompt"}


def test_a_store_says_whose_rows_it_has(options, tmp_path):
    describe_store(tmp_path / "store", "transformers", options)
    about = json.loads((tmp_path / "store" / "model.json").read_text())
    assert about["model"] == dict(options.model.identity)
    assert about["flags"]["engine"] == "transformers"
