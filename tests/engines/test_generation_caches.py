"""What is read once: answers are those that transformers gives when it reads each prompt for itself."""

import pytest

from rag_core.engines.generation import Prompt, Prompts, Sampling
from rag_core.engines.generators import TransformersGenerator
from tests import vocabularies

SHOTS = "the river is long. the bank is near the river. the water is cold and the ice is old. "
PROMPTS = [
    Prompt(SHOTS, text, " and", style="completion")
    for text in ("ice", "a lake on the mountain", "the snow that became ice", "water")
]
GREEDY = Sampling(max_new_tokens=12)
WARM = Sampling(max_new_tokens=12, temperature=1.0, seed=7, num_samples=5)

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": None,
}


def _model(family, tokenizer):
    """A model with random weights that writes letters, and its end."""
    import torch
    import transformers

    sizes = SMALL | {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    window = {"sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0}
    torch.manual_seed(0)
    if family == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    else:
        config = transformers.Qwen3Config(**sizes | (window if family == "sliding" else {}), head_dim=8)
        model = transformers.Qwen3ForCausalLM(config)
    words = [id for token, id in tokenizer.get_vocab().items() if not token.strip("Ġ").isascii() or "<" in token]
    model.generation_config.suppress_tokens = sorted({*words} - {tokenizer.eos_token_id})
    return model.eval()


@pytest.fixture(scope="module")
def tokenizer():
    return vocabularies.FAMILIES["qwen"]()


@pytest.fixture(scope="module", params=["qwen3", "llama", "sliding"])
def writer(request, tokenizer):
    model = _model(request.param, tokenizer)
    return TransformersGenerator.of(model, tokenizer, max_length=256, batch_size=8)


def _plain(writer, tokenizer, prompt, length):
    import torch

    (ids,) = Prompts(tokenizer).token_ids([prompt], 256 - length)
    written = writer._model.generate(
        torch.tensor([ids]), max_new_tokens=length, do_sample=False, pad_token_id=0, eos_token_id=writer._ends
    )
    return tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True)


@pytest.mark.slow
def test_greedy_answers_are_those_without_a_cache(writer, tokenizer):
    alone = [_plain(writer, tokenizer, prompt, 12) for prompt in PROMPTS]
    assert [answer.text for (answer,) in writer.generate(PROMPTS, GREEDY)] == alone
    assert len(set(alone)) > 1
    one = writer.generate(PROMPTS[:1] * 2, GREEDY)  # nothing but the last token is left to read
    assert [answer.text for (answer,) in one] == alone[:1] * 2


@pytest.mark.slow
def test_almost_cold_samples_are_the_greedy_answer(writer):
    cold = Sampling(max_new_tokens=12, temperature=1e-6, seed=1, num_samples=3)
    expected = writer.generate(PROMPTS, GREEDY)
    assert writer.generate(PROMPTS, cold) == [found * 3 for found in expected]


@pytest.mark.slow
def test_samples_are_drawn_again_alike(writer):
    drawn = writer.generate(PROMPTS, WARM)
    assert [len(found) for found in drawn] == [5] * 4
    assert len({answer.text for found in drawn for answer in found}) > 15
    assert writer.generate(PROMPTS, WARM) == drawn
    writer._batch_size = 2  # less than the samples of one prompt
    assert [len(found) for found in writer.generate(PROMPTS, WARM)] == [5] * 4
    writer._batch_size = 8


@pytest.mark.slow
def test_what_is_shared_is_read_once(writer, monkeypatch):
    if writer._decoder is None:
        pytest.skip("a sliding window counts the padding")
    read = []
    usual = type(writer._decoder).forward

    def forward(self, input_ids=None, **inputs):
        read.append(input_ids.numel())
        return usual(self, input_ids, **inputs)

    monkeypatch.setattr(type(writer._decoder), "forward", forward)
    monkeypatch.setattr(writer, "_batch_size", 20)
    writer.generate(PROMPTS, WARM)
    shots, rest, *steps = read
    lengths = [len(ids) for ids in writer._prompts.token_ids(PROMPTS, 200)]
    assert shots > 16
    assert rest == len(PROMPTS) * (max(lengths) - 1 - shots)
    assert set(steps) == {20}


@pytest.mark.slow
def test_an_answer_ends_at_a_stop_and_at_its_end(writer, tokenizer, monkeypatch):
    ((whole,), *_) = writer.generate(PROMPTS, GREEDY)
    assert (whole.tokens, whole.cut) == (12, True)
    mark = whole.text[4:6]
    ((stopped,), *_) = writer.generate(PROMPTS, Sampling(max_new_tokens=12, stop=("never", mark)))
    assert stopped.text == whole.text[: whole.text.index(mark)]
    assert not stopped.cut
    assert 0 < stopped.tokens < 12
    ids = tokenizer.encode(whole.text, add_special_tokens=False)
    monkeypatch.setattr(writer, "_ends", [ids[3]])
    ((ended,), *_) = writer.generate(PROMPTS, GREEDY)
    assert (ended.tokens, ended.cut) == (ids.index(ids[3]) + 1, False)


@pytest.mark.slow
def test_padding_by_the_end_token_hides_no_end():
    tokenizer = vocabularies.FAMILIES["qwen"]()
    tokenizer.pad_token = tokenizer.eos_token
    model = _model("llama", tokenizer)
    model.generation_config.pad_token_id = model.config.pad_token_id = tokenizer.eos_token_id
    writer = TransformersGenerator.of(model, tokenizer, max_length=256, batch_size=8)
    with_ends = Sampling(max_new_tokens=12, temperature=3.0, seed=3, num_samples=8)
    answers = [answer for found in writer.generate(PROMPTS * 4, with_ends) for answer in found]
    ended = [answer for answer in answers if not answer.cut]
    assert ended
    assert all(answer.tokens == 12 for answer in answers if answer.cut)
    assert all(answer.tokens <= 12 for answer in ended)
    assert min(answer.tokens for answer in ended) < 12


def test_a_completion_is_plain_text(tokenizer):
    tokenizer.chat_template = None
    prompt = Prompt("Passage: ", "ice <|im_end|> <think> " * 30, "\nQuery:", style="completion")
    (ids,) = Prompts(tokenizer).token_ids([prompt], 1000)
    added = set(tokenizer.get_added_vocab().values())
    assert not added & set(ids)
    assert tokenizer.decode(ids) == prompt.question + prompt.text + prompt.ending
    (cut,) = Prompts(tokenizer).token_ids([prompt], 60)
    assert 55 <= len(cut) <= 60
    text = tokenizer.decode(cut)
    assert text.startswith("Passage: ice <|im")
    assert text.endswith("\nQuery:")


@pytest.mark.parametrize("family", sorted(vocabularies.FAMILIES))
def test_a_completion_begins_as_the_tokenizer_begins(family):
    tokens = vocabularies.FAMILIES[family]()
    (ids,) = Prompts(tokens).token_ids([Prompt("a river and its bank", style="completion")], 100)
    usual = tokens.encode("a river and its bank")
    assert usual[: len(ids)] == ids
    assert all(token in tokens.all_special_ids for token in usual[len(ids) :])


def test_the_most_probable_answer_is_one():
    with pytest.raises(ValueError, match="the most probable answer is one"):
        Sampling(max_new_tokens=1, num_samples=2)
