"""Mini-batches that are cut out of a batch equal those that are tokenised by themselves."""

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from rag_core.distillation.minibatches import cut_minibatches, cut_queries

TEXTS = ["a hen", "how do I keep bread fresh in a small kitchen", "the pan", "store a loaf in a linen bag", "a b c d"]


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("prompt", [None, "query : "])
def test_texts(tiny_encoder, side, prompt):
    model = SentenceTransformer(tiny_encoder, device="cpu")
    model.tokenizer.padding_side = side
    features = model.preprocess(TEXTS, prompt=prompt)
    assert ("prompt_length" in features) == (prompt is not None)
    minibatches, order = cut_minibatches(features, 2)
    assert order == [1, 3, 4, 0, 2]  # of like length in their order
    for rows, minibatch in zip(([1, 3], [4, 0], [2]), minibatches, strict=True):
        assert_same(minibatch, dict(model.preprocess([TEXTS[i] for i in rows], prompt=prompt)))


def test_pairs(tiny_cross_encoder):
    model = CrossEncoder(tiny_cross_encoder, device="cpu")
    model.max_seq_length = 12  # some are cut
    pairs = [(text, other) for text in TEXTS for other in TEXTS]
    minibatches, order = cut_minibatches(model.preprocess(pairs), 4)
    assert sorted(order) == list(range(len(pairs)))
    assert "token_type_ids" in minibatches[0]
    for number, minibatch in enumerate(minibatches):
        rows = order[4 * number : 4 * number + 4]
        assert_same(minibatch, dict(model.preprocess([pairs[i] for i in rows])))


def test_an_llm_that_pads_on_the_left(tiny_llm_embedder):
    model = SentenceTransformer(tiny_llm_embedder)
    features = model.preprocess(TEXTS)
    assert features["attention_mask"][:, 0].sum() == 1  # of the longest alone
    minibatches, order = cut_minibatches(features, 2)
    for number, minibatch in enumerate(minibatches):
        rows = order[2 * number : 2 * number + 2]
        assert_same(minibatch, dict(model.preprocess([TEXTS[i] for i in rows])))


@pytest.mark.parametrize(("gpu", "expected"), [(False, ["cd", "ba"]), (True, ["cd", "ba"])])
def test_parts_of_whole_queries_of_like_length(gpu, expected, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    lengths = {"a": (1,), "b": (2, 1, 1), "c": (9, 1, 1), "d": (8, 8, 1)}
    rows = [{"query": name, "passages": ["x" * length for length in of]} for name, of in lengths.items()]
    batch = cut_queries(rows, 2 if gpu else 6, lambda part: {"queries": "".join(row["query"] for row in part)})
    assert len(batch["rows"]) == 4
    assert [part["queries"] for part in batch["parts"]] == expected


def test_values_by_row_follow_their_rows_and_the_others_stay_whole():
    features = {
        "attention_mask": torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0]]),
        "per_row": torch.tensor([10, 11, 12]),
        "per_token": torch.arange(18).reshape(3, 3, 2),
        "per_batch": torch.tensor([7, 8]),
        "prompt_length": 2,
        "modality": "text",
    }
    (first, second), order = cut_minibatches(features, 2)
    assert order == [1, 2, 0]
    assert first["per_row"].tolist() == [11, 12]
    assert second["per_token"].tolist() == [[[0, 1]]]
    for minibatch in (first, second):
        assert minibatch["per_batch"].tolist() == [7, 8]
        assert (minibatch["prompt_length"], minibatch["modality"]) == (2, "text")
