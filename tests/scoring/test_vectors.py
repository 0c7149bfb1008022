"""Texts are embedded once, and found by role and text."""

import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.base.records import RankingSample
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.sentence_transformers_engine import BiEncoder
from rag_core.scoring.chunks import Work
from rag_core.scoring.vectors import TextRows, embed_for_training, embed_samples
from tests.scoring.conftest import OverlapEncoder, scored


def test_a_text_of_two_files_is_embedded_once_and_the_longest_come_first(tmp_path):
    model = OverlapEncoder()
    work = Work(model, "scope", [tmp_path], 100)
    first = RankingSample("q", candidates=["a", "bbb"], query_id="1")
    second = RankingSample("q", candidates=["bbb", "cc", "q"], query_id="1")
    embed_samples([first, second], work)
    assert model.encoded == [("query", "q"), ("passage", "bbb"), ("passage", "cc"), ("passage", "a"), ("passage", "q")]
    scored([second], work)
    assert len(model.encoded) == 5


def test_vectors_come_in_the_order_asked_for_by_role_and_text(tmp_path):
    model = OverlapEncoder()
    samples = [RankingSample("aa", candidates=["aa", "b"], query_id="1")]
    asked = [("passage", "b"), ("query", "aa"), ("passage", "aa")]
    found = embed_samples(samples, Work(model, "scope", [tmp_path], 100)).of(asked)
    np.testing.assert_array_equal(found, np.concatenate([model.encode([text], role) for role, text in asked]))
    assert not np.array_equal(found[1], found[2])


def test_rows_are_read_by_slice_and_by_place(tmp_path):
    model, texts = OverlapEncoder(), ["aa", "b", "c c"]
    vectors = embed_samples([RankingSample("q", candidates=texts, query_id="1")], Work(model, "s", [tmp_path], 100))
    rows, expected = TextRows(vectors, "passage", texts), model.encode(texts, "passage")
    assert len(rows) == 3
    np.testing.assert_array_equal(rows[1:9], expected[1:9])
    places = np.array([[2, 0], [0, -1]])
    np.testing.assert_array_equal(rows[places], expected[places])


def test_embedders_of_different_widths_share_a_folder(tmp_path, tiny_encoder, tiny_wide_encoder):
    texts = {"query": {"a river"}, "passage": {"a bank", "the rate of interest"}}
    for model, width in ((tiny_encoder, 32), (tiny_wide_encoder, 48)) * 2:
        options = EngineOptions(describe_model(model), dtype="float32")
        assert embed_for_training(options, texts, tmp_path).of([("query", "a river")]).shape == (1, width)


def test_vectors_for_training_are_kept_for_the_next_run(tmp_path, tiny_encoder, monkeypatch):
    options = EngineOptions(describe_model(tiny_encoder), dtype="float32")
    texts = {"query": {"a river"}, "passage": {"a bank", "the rate of interest", "water"}}
    asked = [(role, text) for role, found in texts.items() for text in sorted(found)]
    first = embed_for_training(options, texts, tmp_path / "vectors").of(asked)
    assert first.shape == (4, 32)
    encoded = []
    encode = BiEncoder.encode
    monkeypatch.setattr(BiEncoder, "encode", lambda self, rows, role: encoded.append(rows) or encode(self, rows, role))
    texts["passage"].add("a loan")
    again = embed_for_training(options, texts, tmp_path / "vectors")
    np.testing.assert_array_equal(again.of(asked), first)
    assert encoded[-1] == ["a loan"]
    assert len(encoded) == 3  # two calls of the canary before


def test_only_an_embedder_gives_vectors(tmp_path, tiny_cross_encoder):
    options = EngineOptions(describe_model(tiny_cross_encoder), dtype="float32")
    with pytest.raises(EngineError, match=r"gives no vectors\. Pass an embedder"):
        embed_for_training(options, {"query": {"q"}, "passage": {"a", "b"}}, tmp_path / "vectors")
