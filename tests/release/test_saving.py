"""The names in the small JSON files, which servers and older releases of sentence-transformers read."""

import json

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from rag_core.release.saving import save_model

TEXTS = ["how are glacier caves formed", "a cave in ice"]
MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def read(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("mode", "former"), [("mean", "mean_tokens"), ("cls", "cls_token"), ("lasttoken", "lasttoken")]
)
def test_an_embedder_has_the_former_names_and_the_same_vectors(tiny_encoder, tmp_path, mode, former):
    transformer = SentenceTransformer(tiny_encoder)[0]
    model = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=mode), Dense(32, 16), Normalize()])
    model.max_seq_length = 77
    save_model(model, tmp_path)

    kinds = [module["type"] for module in read(tmp_path / "modules.json")]
    assert kinds == [
        f"sentence_transformers.models.{kind}" for kind in ("Transformer", "Pooling", "Dense", "Normalize")
    ]
    assert read(tmp_path / "sentence_bert_config.json") == {"max_seq_length": 77, "do_lower_case": False}
    pooling = {"word_embedding_dimension": 32, "include_prompt": True}
    pooling |= {f"pooling_mode_{name}": name == former for name in MODES}
    assert read(tmp_path / "1_Pooling" / "config.json") == pooling
    dense = {"in_features", "out_features", "bias", "activation_function"}
    assert read(tmp_path / "2_Dense" / "config.json").keys() == dense

    again = SentenceTransformer(str(tmp_path))
    assert again.max_seq_length == 77
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))


def test_two_poolings_keep_their_order(tiny_encoder, tmp_path):
    model = SentenceTransformer(
        modules=[SentenceTransformer(tiny_encoder)[0], Pooling(32, pooling_mode=("mean", "max"))]
    )
    save_model(model, tmp_path)
    np.testing.assert_array_equal(SentenceTransformer(str(tmp_path)).encode(TEXTS), model.encode(TEXTS))


def test_a_grown_cross_encoder_scores_the_same(tiny_encoder, tmp_path):
    transformer = SentenceTransformer(tiny_encoder)[0]
    head = Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    model = CrossEncoder(modules=[transformer, Pooling(32), head], max_length=64)
    save_model(model, tmp_path)
    assert read(tmp_path / "2_Dense" / "config.json")["module_output_name"] == "scores"
    again = CrossEncoder(str(tmp_path))
    np.testing.assert_array_equal(again.predict([TEXTS]), model.predict([TEXTS]))


def test_a_classifier_says_how_much_it_reads(tiny_cross_encoder, tmp_path):
    model = CrossEncoder(tiny_cross_encoder, max_length=64)
    save_model(model, tmp_path)
    config = read(tmp_path / "sentence_bert_config.json")
    assert (config["max_seq_length"], config["transformer_task"]) == (64, "sequence-classification")
    again = CrossEncoder(str(tmp_path))
    assert again.max_seq_length == 64
    np.testing.assert_array_equal(again.predict([TEXTS]), model.predict([TEXTS]))
