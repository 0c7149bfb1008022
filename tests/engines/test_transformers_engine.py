import dataclasses

import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.identity import ModelInfo, describe_model
from rag_core.engines.options import EngineOptions, TransformersOptions
from rag_core.engines.protocols import PairScorer
from rag_core.engines.transformers_engine import YesNoScorer
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION, YesNoPrompt
from tests.tiny_qwen import MAX_LENGTH


@pytest.fixture(autouse=True, scope="module")
def _one_tokenizer(qwen_tokenizer):
    """Reading it takes seconds, and test_yes_no_prompt does it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *_, **__: qwen_tokenizer)
        yield


@pytest.fixture(scope="module")
def options(tiny_qwen):
    return EngineOptions(describe_model(tiny_qwen), max_length=MAX_LENGTH, batch_size=8, dtype="float32")


@pytest.fixture(scope="module")
def scorer(options):
    return YesNoScorer(options)


def plain_log_odds(folder, tokenizer, pairs):
    """log p(yes) - log p(no) by the full model, one pair at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    prompts, _ = YesNoPrompt(tokenizer, DEFAULT_INSTRUCTION, MAX_LENGTH).token_ids(pairs)
    scores = []
    for prompt in prompts:
        with torch.inference_mode():
            log_probabilities = model(torch.tensor([prompt])).logits[0, -1].double().log_softmax(dim=0)
        scores.append((log_probabilities[9693] - log_probabilities[2152]).item())
    return np.array(scores)


def test_scores_are_those_of_the_full_model(scorer, tiny_qwen, qwen_tokenizer, pairs):
    scores = scorer.score(pairs)
    expected = plain_log_odds(tiny_qwen, qwen_tokenizer, pairs)
    assert isinstance(scorer, PairScorer)
    assert scores.dtype == np.float32
    assert expected.std() > 0.1
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


def test_a_batch_does_not_change_its_pairs(scorer, options, pairs):
    together = scorer.score(pairs)
    np.testing.assert_allclose(scorer.score(pairs[::-1])[::-1], together, rtol=0, atol=1e-5)
    alone = YesNoScorer(dataclasses.replace(options, batch_size=1))
    np.testing.assert_allclose(alone.score(pairs), together, rtol=0, atol=1e-5)


def test_a_batch_holds_no_more_tokens_than_asked_for(options, pairs, monkeypatch):
    budget = 2 * MAX_LENGTH
    scorer = YesNoScorer(dataclasses.replace(options, batch_size=1000, transformers=TransformersOptions(budget)))
    shapes = []
    read_last = scorer._read_last
    monkeypatch.setattr(
        scorer,
        "_read_last",
        lambda inputs, last: (shapes.append(inputs["input_ids"].shape), read_last(inputs, last))[1],
    )
    scores = scorer.score(pairs)
    assert sum(rows for rows, _ in shapes) == len(pairs)
    assert all(rows * length <= budget for rows, length in shapes)
    assert max(rows for rows, _ in shapes) > min(rows for rows, _ in shapes)
    one_a_batch = YesNoScorer(dataclasses.replace(options, transformers=TransformersOptions(1)))
    np.testing.assert_allclose(one_a_batch.score(pairs), scores, rtol=0, atol=1e-5)


def test_the_next_chunk_is_tokenised_while_one_is_computed(scorer, pairs):
    chunks = [pairs[:3], [], pairs[3:]]
    drawn = []
    numbered = scorer.score_chunks(drawn.append(i) or chunk for i, chunk in enumerate(chunks))
    number, first = next(numbered)
    assert (number, drawn) == (0, [0, 1])
    rest = dict(numbered)
    assert list(rest) == [1, 2]
    expected = scorer.score(pairs)
    np.testing.assert_allclose(np.concatenate([first, rest[1], rest[2]]), expected, rtol=0, atol=1e-5)


def test_cut_passages_are_counted(options, pairs):
    scorer = YesNoScorer(options)
    assert scorer.truncated == 0
    scorer.score(pairs)
    assert scorer.truncated == 1
    scorer.score(pairs[-2:])
    assert scorer.truncated == 2


def test_no_pairs(scorer):
    assert scorer.score([]).shape == (0,)


def test_bfloat16_differs_by_its_rounding_only(scorer, options, pairs):
    half = YesNoScorer(dataclasses.replace(options, dtype="bfloat16")).score(pairs)
    assert 0 < np.abs(half - scorer.score(pairs)).max() < 0.1
    # A head in bfloat16 would give multiples of its step, and so ties.
    assert len(set(half.tolist())) == len(pairs)


@pytest.mark.parametrize("family", ["Gemma2", "Granite", "GPTNeoX"])
def test_what_a_model_does_to_its_logits_is_done(family, qwen_tokenizer, tmp_path, pairs):
    """A soft cap (Gemma 2), a scale (Granite), a head under another name (GPT-NeoX)."""
    import torch
    import transformers

    settings = {"Gemma2": {"final_logit_softcapping": 0.5}, "Granite": {"logits_scaling": 8.0}, "GPTNeoX": {}}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=151936,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **settings[family],
    )
    torch.manual_seed(0)
    getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(tmp_path)
    scorer = YesNoScorer(EngineOptions(describe_model(str(tmp_path)), max_length=MAX_LENGTH, dtype="float32"))
    expected = plain_log_odds(tmp_path, qwen_tokenizer, pairs[:8])
    assert expected.std() > 0.01
    np.testing.assert_allclose(scorer.score(pairs[:8]), expected, rtol=0, atol=1e-5)


def test_a_score_that_is_not_finite_is_an_error(options, pairs):
    import torch

    broken = YesNoScorer(options)
    with torch.no_grad():
        broken._model.get_output_embeddings().weight[0, 0] = float("nan")
    with pytest.raises(EngineError, match="3 of 3 scores of the teacher are not finite"):
        broken.score(pairs[:3])


def test_short_memory_is_an_error(scorer, pairs, monkeypatch):
    import torch

    def full(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(scorer, "_run_batch", full)
    with pytest.raises(EngineError, match=r"8 sequences of up to 256 tokens do not fit .* Lower --batch_tokens"):
        scorer.score(pairs)


def test_a_folder_without_a_model_is_an_error(options, tmp_path):
    with pytest.raises(EngineError, match=r"cannot load the model .* Check the name or folder"):
        YesNoScorer(dataclasses.replace(options, model=ModelInfo(str(tmp_path), "llm-reranker", "test")))


def test_an_adapter_is_merged(options, tiny_qwen, qwen_tokenizer, pairs, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(tiny_qwen)
    adapted = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    qwen_tokenizer.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    qwen_tokenizer.save_pretrained(tmp_path / "merged")
    scores = [
        YesNoScorer(dataclasses.replace(options, model=describe_model(str(tmp_path / name)))).score(pairs[:8])
        for name in ("adapter", "merged")
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-5)
    assert np.abs(YesNoScorer(options).score(pairs[:8]) - scores[0]).max() > 0.01


def test_weights_without_a_head_are_an_error(options, tiny_qwen, tmp_path):
    from transformers import AutoModel

    AutoModel.from_pretrained(tiny_qwen).save_pretrained(tmp_path)
    with pytest.raises(EngineError, match=r"lack 1 tensor \(lm_head.weight\), which would be random"):
        YesNoScorer(dataclasses.replace(options, model=ModelInfo(str(tmp_path), "llm-reranker", "test")))


def test_more_tokens_than_the_model_reads_are_an_error(options):
    with pytest.raises(EngineError, match=r"--max_length 2000 is more than the 1024 tokens that .* can read"):
        YesNoScorer(dataclasses.replace(options, max_length=2000))


def test_what_prompts_share_is_read_once(scorer, pairs, monkeypatch):
    widths = []
    read_last = scorer._read_last
    monkeypatch.setattr(
        scorer,
        "_read_last",
        lambda inputs, last: (widths.append((inputs["input_ids"], inputs["attention_mask"])), read_last(inputs, last))[
            1
        ],
    )
    shared = scorer.score(pairs)
    prefixes = {mask.shape[1] - ids.shape[1] for ids, mask in widths}
    assert len(prefixes) == 1
    assert 50 < prefixes.pop() < 70
    monkeypatch.setattr(scorer, "_read_prefix", lambda prompts: None)
    np.testing.assert_allclose(scorer.score(pairs), shared, rtol=0, atol=1e-5)
    assert widths[-1][0].shape == widths[-1][1].shape
