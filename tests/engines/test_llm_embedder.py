"""LLM embedders through transformers and sentence-transformers: one model, one vector."""

import dataclasses

import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.engines import embedding_prompt
from rag_core.engines.embedding_prompt import EmbeddingPrompt
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import TextEncoder
from rag_core.engines.sentence_transformers_engine import BiEncoder
from rag_core.engines.transformers_engine import LastTokenEncoder
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION
from tests.tiny_qwen import MAX_LENGTH


@pytest.fixture(autouse=True, scope="module")
def _one_tokenizer(embedder_tokenizer):
    """Reading it takes seconds, and test_embedding_prompt does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding_prompt, "load_tokenizer", lambda model: embedder_tokenizer)
        yield


@pytest.fixture(scope="module")
def options(tiny_llm_embedder):
    return EngineOptions(
        describe_model(tiny_llm_embedder), DEFAULT_INSTRUCTION, max_length=MAX_LENGTH, batch_size=8, dtype="float32"
    )


@pytest.fixture(scope="module")
def encoder(options):
    return LastTokenEncoder(options)


@pytest.fixture(scope="module")
def bi_encoder(options):
    return BiEncoder(options)


def plain_vectors(options, tokenizer, texts, role):
    """The last hidden state of the last token by the model alone, one text at a time."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(options.model.name, dtype="float32").eval()
    prompts, _ = EmbeddingPrompt(tokenizer, DEFAULT_INSTRUCTION, MAX_LENGTH).token_ids(texts, role)
    with torch.inference_mode():
        vectors = [model(torch.tensor([prompt])).last_hidden_state[0, -1].double().numpy() for prompt in prompts]
    return np.stack([vector / np.linalg.norm(vector) for vector in vectors])


@pytest.mark.parametrize("role", ["query", "passage"])
def test_vectors_are_those_of_the_full_model(encoder, options, embedder_tokenizer, texts, role):
    vectors = encoder.encode(texts, role)
    assert isinstance(encoder, TextEncoder)
    assert (encoder.score_unit, encoder.dimensions) == ("cosine", 64)
    assert (vectors.dtype, vectors.shape) == (np.float32, (len(texts), 64))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=0, atol=1e-6)
    expected = plain_vectors(options, embedder_tokenizer, texts, role)
    assert np.std(expected @ expected.T) > 0.1
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("instruction", [None, DEFAULT_INSTRUCTION, "Find the proof"])
def test_vectors_are_those_of_sentence_transformers(options, plain_texts, role, instruction):
    options = dataclasses.replace(options, instruction=instruction)
    expected = BiEncoder(options).encode(plain_texts, role)
    np.testing.assert_allclose(LastTokenEncoder(options).encode(plain_texts, role), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("engine", [LastTokenEncoder, BiEncoder])
def test_an_instruction_changes_queries_only(options, plain_texts, engine):
    told, default = engine(dataclasses.replace(options, instruction="Find the proof")), engine(options)
    differences = np.abs(told.encode(plain_texts, "query") - default.encode(plain_texts, "query")).max(axis=1)
    assert differences.min() > 1e-2
    np.testing.assert_array_equal(told.encode(plain_texts, "passage"), default.encode(plain_texts, "passage"))


def test_a_text_has_two_vectors(encoder, plain_texts):
    differences = np.abs(encoder.encode(plain_texts, "query") - encoder.encode(plain_texts, "passage")).max(axis=1)
    assert differences.min() > 1e-2


def test_a_prompt_of_another_form_stays(options, plain_texts, bi_encoder):
    """Told nothing, and told a task that it has no place for."""
    other = dataclasses.replace(options.model, prompts={"query": "query: "}, prompt_names={"query": "query"})
    options = dataclasses.replace(options, model=other)
    vectors = []
    for instruction in (None, "Find the proof"):
        encoder = BiEncoder(dataclasses.replace(options, instruction=instruction))
        vectors.append(encoder.encode(plain_texts[:4], "query"))
    np.testing.assert_array_equal(*vectors)
    assert np.abs(vectors[0] - bi_encoder.encode(plain_texts[:4], "query")).max() > 1e-2


def test_a_batch_does_not_change_its_texts(encoder, options, texts):
    together = encoder.encode(texts, "passage")
    np.testing.assert_allclose(encoder.encode(texts[::-1], "passage")[::-1], together, rtol=0, atol=1e-5)
    alone = LastTokenEncoder(dataclasses.replace(options, batch_size=1))
    np.testing.assert_allclose(alone.encode(texts, "passage"), together, rtol=0, atol=1e-5)


def test_cut_texts_are_counted(options, texts):
    encoder = LastTokenEncoder(options)
    assert encoder.truncated == 0
    encoder.encode(texts, "passage")
    assert encoder.truncated == 1
    encoder.encode(texts, "query")
    assert encoder.truncated == 2


def test_no_texts(encoder):
    assert encoder.encode([], "query").shape == (0, 64)


def test_bfloat16_differs_by_its_rounding_only(encoder, options, texts):
    half = LastTokenEncoder(dataclasses.replace(options, dtype="bfloat16")).encode(texts, "passage")
    assert half.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, rtol=0, atol=1e-6)
    assert 0 < np.abs(half - encoder.encode(texts, "passage")).max() < 0.05


def test_short_memory_is_an_error(encoder, texts, monkeypatch):
    import torch

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(encoder, "_run_batch", full)
    with pytest.raises(EngineError, match=r"8 sequences of up to 256 tokens do not fit .* Lower --batch_tokens"):
        encoder.encode(texts, "passage")


@pytest.mark.parametrize(
    ("engine", "expected"), [("transformers", LastTokenEncoder), ("sentence-transformers", BiEncoder)]
)
def test_the_engine_that_is_chosen_is_loaded(options, pairs, engine, expected):
    assert type(load_model(engine, options, pairs[:3])) is expected
