"""Batches of like length in tokens: nearly no padding, and the values of each text alone."""

import numpy as np
import pytest

from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.sentence_transformers_engine import BiEncoder, CrossEncoderScorer

# Many tokens of one character, and few of many: by characters they would be mixed.
TEXTS = ["a " * 8, "freezing temperature", "vinegar", ". " * 9, "- " * 8, "flakes"]


def padding_of(module):
    seen = []
    module.register_forward_pre_hook(lambda _, args: seen.append(int((1 - args[0]["attention_mask"]).sum())))
    return lambda: sum(seen)


def test_a_cross_encoder(tiny_cross_encoder):
    scorer = CrossEncoderScorer(EngineOptions(describe_model(tiny_cross_encoder), batch_size=3, dtype="float32"))
    padding = padding_of(scorer._model[0])
    scores = scorer.score([("white", text) for text in TEXTS])
    assert padding() == 4  # 22 by characters
    assert scores == pytest.approx(np.concatenate([scorer.score([("white", text)]) for text in TEXTS]), abs=1e-6)


def test_a_bi_encoder(tiny_encoder):
    encoder = BiEncoder(EngineOptions(describe_model(tiny_encoder), batch_size=3, dtype="float32"))
    padding = padding_of(encoder._model[0])
    vectors = encoder.encode(TEXTS, "passage")
    assert padding() == 4  # 22 by characters
    alone = np.concatenate([encoder.encode([text], "passage") for text in TEXTS])
    assert vectors == pytest.approx(alone, abs=1e-6)
