import json

import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.identity import ModelInfo, describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION, PREFIX, SUFFIX, YesNoPrompt
from tests.tiny_qwen import MAX_LENGTH

IM_START, IM_END, THINK, END_THINK = 151644, 151645, 151667, 151668


@pytest.fixture(scope="module")
def prompt(qwen_tokenizer):
    return YesNoPrompt(qwen_tokenizer, DEFAULT_INSTRUCTION, MAX_LENGTH)


def ids(prompt, query, passage):
    ((token_ids,), _) = prompt.token_ids([(query, passage)])
    return token_ids


def test_vocabulary_is_qwens(qwen_tokenizer):
    assert len(qwen_tokenizer) == 151_669
    assert qwen_tokenizer.convert_tokens_to_ids(["yes", "no", "<think>", "</think>"]) == [9693, 2152, THINK, END_THINK]


def test_ids_are_those_of_the_whole_text(prompt, qwen_tokenizer):
    text = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n<Instruct>: Given a '
        "web search query, retrieve relevant passages that answer the query\n<Query>: what is a loan\n<Document>: "
        "Money lent by a bank.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    whole = qwen_tokenizer.encode(text, add_special_tokens=False)
    assert ids(prompt, "what is a loan", "Money lent by a bank.") == whole
    assert (prompt.yes, prompt.no) == (9693, 2152)


def test_one_end_of_turn_after_the_user(prompt):
    token_ids = ids(prompt, "q", "p")
    assert [i for i in token_ids if i in (IM_START, IM_END)] == [IM_START, IM_END, IM_START, IM_END, IM_START]
    assert token_ids[-4:] == [THINK, 271, END_THINK, 271]


@pytest.mark.parametrize("token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>"])
def test_a_spelled_token_is_plain_text(prompt, qwen_tokenizer, token):
    token_ids = ids(prompt, f"what is {token}", f"It is {token}\n{token}")
    assert [i for i in token_ids if i > 151_642] == [i for i in ids(prompt, "q", "p") if i > 151_642]
    assert qwen_tokenizer.decode(token_ids).count(token) == (PREFIX + SUFFIX).count(token) + 3


def test_only_the_passage_is_cut(prompt, qwen_tokenizer):
    (fits, cut), truncated = prompt.token_ids([("a river", "water"), ("a river", "water flows " * 500)])
    assert truncated == 1
    assert len(fits) < len(cut) == MAX_LENGTH
    text = qwen_tokenizer.decode(cut)
    assert text.startswith(PREFIX + f"<Instruct>: {DEFAULT_INSTRUCTION}\n<Query>: a river\n<Document>: water flows")
    assert text.endswith(SUFFIX)


def test_instruction_stands_in_the_prompt(qwen_tokenizer):
    prompt = YesNoPrompt(qwen_tokenizer, "Find the proof", MAX_LENGTH)
    assert "<Instruct>: Find the proof\n<Query>: q\n" in qwen_tokenizer.decode(ids(prompt, "q", "p"))


def test_a_query_that_leaves_no_room_is_an_error_that_says_how_much_is_needed(prompt, qwen_tokenizer):
    pair = ("river bank " * 150, "water flows")
    with pytest.raises(EngineError, match="with a query of 1650 characters no room is left for the passage") as caught:
        prompt.token_ids([("short", "short"), pair])
    needed = int(str(caught.value).split("at least ")[1].split()[0])
    assert needed > MAX_LENGTH
    token_ids, _ = YesNoPrompt(qwen_tokenizer, DEFAULT_INSTRUCTION, needed).token_ids([pair])
    assert len(token_ids[0]) <= needed
    with pytest.raises(EngineError, match="no room"):
        YesNoPrompt(qwen_tokenizer, DEFAULT_INSTRUCTION, needed - 1).token_ids([pair])


def test_no_pairs(prompt):
    assert prompt.token_ids([]) == ([], 0)


def test_a_tokenizer_without_the_turn_tokens_is_refused(qwen_tokenizer):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = json.loads(qwen_tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<|im_start|>"]
    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))
    with pytest.raises(EngineError, match=r"the tokenizer has no token <\|im_start\|>, so the yes/no prompt"):
        YesNoPrompt(other, DEFAULT_INSTRUCTION, MAX_LENGTH)


def test_a_tokenizer_without_the_answers_is_refused():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate("yesno")}, merges=[]))
    with pytest.raises(EngineError, match=r"no single token for 'yes' \(it takes 3\). Choose a reranker of the Qwen3"):
        YesNoPrompt(PreTrainedTokenizerFast(tokenizer_object=letters), DEFAULT_INSTRUCTION, MAX_LENGTH)


def test_the_tokenizer_is_the_models(prompt, tiny_qwen, pairs):
    loaded = YesNoPrompt.for_model(EngineOptions(describe_model(tiny_qwen), max_length=MAX_LENGTH))
    assert loaded.token_ids(pairs) == prompt.token_ids(pairs)


def test_a_missing_tokenizer_is_an_error(tmp_path):
    with pytest.raises(EngineError, match=r"cannot load the tokenizer of .* Check the name or folder"):
        YesNoPrompt.for_model(EngineOptions(ModelInfo(str(tmp_path), "llm-reranker", "test")))
