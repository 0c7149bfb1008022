"""A student that starts with some of the layers of a deeper model, whatever its architecture."""

import copy

import pytest
import torch
from transformers import AutoModel, BertConfig, MPNetConfig, Qwen3Config, XLMRobertaConfig

from rag_core.base.errors import UsageError
from rag_core.distillation.student import Adapters, LoraSettings, keep_layers, spaced_layers

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 5,
    "max_position_embeddings": 40,
}
LAYOUTS = {
    "bert": BertConfig(**SMALL),
    "xlm-roberta": XLMRobertaConfig(**SMALL),
    "mpnet": MPNetConfig(**SMALL),
    "qwen3": Qwen3Config(
        **SMALL, head_dim=8, num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=3
    ),
}


def make_model(layout):
    torch.manual_seed(3)
    return AutoModel.from_config(copy.deepcopy(LAYOUTS[layout])).eval()


def layers_of(model):
    return model.layers if hasattr(model, "layers") else model.encoder.layer


@pytest.mark.parametrize(
    ("depth", "count", "kept"),
    [(6, 3, [0, 2, 5]), (12, 6, [0, 2, 4, 6, 8, 11]), (24, 3, [0, 11, 23]), (4, 4, [0, 1, 2, 3]), (6, 1, [0])],
)
def test_layers_are_spaced_evenly_with_both_ends(depth, count, kept):
    assert spaced_layers(depth, count) == kept


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layers_kept_are_those_of_the_deep_model_and_are_loaded_again(tmp_path, layout):
    model = make_model(layout)
    deep = [dict(layer.state_dict()) for layer in layers_of(model)]
    keep_layers(model, 3)
    for layer, i in zip(layers_of(model), (0, 2, 4), strict=True):
        for name, value in layer.state_dict().items():
            assert torch.equal(value, deep[i][name]), name
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.num_hidden_layers == len(layers_of(loaded)) == 3
    tokens = torch.arange(3, 15).unsqueeze(0)
    assert torch.equal(loaded(tokens).last_hidden_state, model(tokens).last_hidden_state)


def test_each_layer_keeps_its_kind_of_attention_and_its_place_in_the_cache():
    model = make_model("qwen3")
    keep_layers(model, 3)
    assert model.config.layer_types == ["full_attention", "full_attention", "sliding_attention"]
    tokens = torch.arange(3, 15).unsqueeze(0)
    begun = model(tokens[:, :-1], use_cache=True).past_key_values
    went_on = model(tokens[:, -1:], past_key_values=begun).last_hidden_state
    torch.testing.assert_close(went_on, model(tokens).last_hidden_state[:, -1:])


@pytest.mark.parametrize("count", [0, 6])
def test_a_number_of_layers_that_is_not_there_is_refused(count):
    with pytest.raises(UsageError, match=f"--init_layers is {count}, and the student has 5 layers. Pass 1 to 5"):
        keep_layers(make_model("bert"), count)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_merged_adapters_compute_what_they_did_beside_the_weights(layout):
    pytest.importorskip("peft")
    model = make_model(layout)
    before = set(model.state_dict())
    tokens = torch.arange(3, 15).unsqueeze(0)
    untouched = model(tokens).last_hidden_state
    adapters = Adapters(model, LoraSettings(rank=4, alpha=8.0))
    assert {name.split(".")[-3] for name, value in model.named_parameters() if value.requires_grad} == {
        "lora_A",
        "lora_B",
    }
    torch.testing.assert_close(model(tokens).last_hidden_state, untouched)  # B starts at zero
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    adapted = model(tokens).last_hidden_state
    assert (adapted - untouched).abs().max() > 0.01
    adapters.merge()
    assert set(model.state_dict()) == before
    torch.testing.assert_close(model(tokens).last_hidden_state, adapted, rtol=0, atol=1e-5)
