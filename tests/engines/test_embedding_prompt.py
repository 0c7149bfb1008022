import json
import shutil

import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.embedding_prompt import EmbeddingPrompt
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION
from tests.tiny_qwen import DECLARED_INSTRUCTION, MAX_LENGTH

END = 151643


@pytest.fixture(scope="module")
def prompt(embedder_tokenizer):
    return EmbeddingPrompt(embedder_tokenizer, DEFAULT_INSTRUCTION, MAX_LENGTH)


def ids(prompt, text, role):
    ((token_ids,), _) = prompt.token_ids([text], role)
    return token_ids


@pytest.fixture(scope="module")
def bare_tokenizer(qwen_tokenizer):
    """The same vocabulary with no other added token than <|endoftext|>, and nothing appended."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = json.loads(qwen_tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:1]
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))


def test_ids_are_those_of_the_models_own_tokenizer(prompt, embedder_tokenizer):
    query = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:what is a loan"
    assert ids(prompt, "what is a loan", "query") == embedder_tokenizer.encode(query)
    assert ids(prompt, "Money lent by a bank.", "passage") == embedder_tokenizer.encode("Money lent by a bank.")


@pytest.mark.parametrize("role", ["query", "passage"])
@pytest.mark.parametrize("text", ["a loan", "", "water flows " * 500])
def test_the_end_token_is_last_and_stands_nowhere_else(prompt, text, role):
    assert prompt.end == END
    token_ids = ids(prompt, text, role)
    assert token_ids[-1] == END
    assert END not in token_ids[:-1]


def test_a_text_has_other_ids_as_query_than_as_passage(prompt):
    assert ids(prompt, "a loan", "query") != ids(prompt, "a loan", "passage")


def test_the_instruction_stands_before_queries_only(embedder_tokenizer, prompt):
    other = EmbeddingPrompt(embedder_tokenizer, "Find the proof", MAX_LENGTH)
    assert embedder_tokenizer.decode(ids(other, "q", "query")) == "Instruct: Find the proof\nQuery:q<|endoftext|>"
    assert ids(other, "a loan", "passage") == ids(prompt, "a loan", "passage")


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>", "<think>", "<tool_call>"])
@pytest.mark.parametrize("role", ["query", "passage"])
def test_a_spelled_token_is_plain_text(prompt, embedder_tokenizer, token, role):
    token_ids = ids(prompt, f"It is {token}\n{token}", role)
    assert [i for i in token_ids if i > 151_642] == [END]
    assert embedder_tokenizer.decode(token_ids[:-1]).endswith(f"It is {token}\n{token}")


@pytest.mark.parametrize(
    ("role", "before"), [("query", f"Instruct: {DEFAULT_INSTRUCTION}\nQuery:water flows"), ("passage", "water flows")]
)
def test_only_the_text_is_cut(prompt, embedder_tokenizer, role, before):
    (fits, cut), truncated = prompt.token_ids(["water", "water flows " * 500], role)
    assert truncated == 1
    assert len(fits) < len(cut) == MAX_LENGTH
    text = embedder_tokenizer.decode(cut)
    assert text.startswith(before)
    assert text.endswith("flows<|endoftext|>") or text.endswith("water<|endoftext|>")


def test_a_text_that_just_fits_is_not_cut(embedder_tokenizer):
    needed = len(embedder_tokenizer.encode("water flows"))
    assert EmbeddingPrompt(embedder_tokenizer, "x", 40).token_ids(["water flows"], "passage")[1] == 0
    exact = EmbeddingPrompt(embedder_tokenizer, "x", 12)
    text = "water " * 11
    assert (needed, exact.token_ids([text.strip()], "passage")[1]) == (3, 0)
    assert exact.token_ids([text + "water"], "passage")[1] == 1


def test_no_texts(prompt):
    assert prompt.token_ids([], "query") == ([], 0)


def test_an_instruction_that_leaves_no_room_is_an_error_that_says_how_much_is_needed(embedder_tokenizer):
    with pytest.raises(EngineError) as caught:
        EmbeddingPrompt(embedder_tokenizer, DEFAULT_INSTRUCTION, 8)
    assert str(caught.value) == (
        "an instruction of 74 characters leaves no room for the query within 8 tokens (instruction "
        "'Given a web search query, ret…ssages that answer the query'). Raise --max_length to at least 21 tokens, or "
        "shorten the instruction."
    )
    with pytest.raises(EngineError, match="no room"):
        EmbeddingPrompt(embedder_tokenizer, DEFAULT_INSTRUCTION, 20)
    ((cut,), _) = EmbeddingPrompt(embedder_tokenizer, DEFAULT_INSTRUCTION, 21).token_ids(["7 loans of money"], "query")
    assert embedder_tokenizer.decode(cut) == f"Instruct: {DEFAULT_INSTRUCTION}\nQuery:7<|endoftext|>"


def test_a_tokenizer_that_appends_nothing_gets_the_end_of_text(bare_tokenizer):
    assert EmbeddingPrompt(bare_tokenizer, DEFAULT_INSTRUCTION, MAX_LENGTH).end == END


@pytest.mark.parametrize(
    ("template", "count"),
    [("<|endoftext|> $A", 1), ("<|endoftext|> $A <|endoftext|>", 2), ("$A <|endoftext|> <|endoftext|>", 2)],
)
def test_a_tokenizer_that_adds_anything_else_is_refused(bare_tokenizer, monkeypatch, template, count):
    from tokenizers import processors

    monkeypatch.setattr(
        bare_tokenizer.backend_tokenizer,
        "post_processor",
        processors.TemplateProcessing(single=template, special_tokens=[("<|endoftext|>", END)]),
    )
    with pytest.raises(EngineError) as caught:
        EmbeddingPrompt(bare_tokenizer, DEFAULT_INSTRUCTION, MAX_LENGTH)
    assert str(caught.value) == (
        f"the tokenizer adds {count} tokens to a text, where one at its end is expected of an LLM embedder. "
        "Pass --engine sentence-transformers."
    )


def test_a_tokenizer_without_an_end_is_refused(bare_tokenizer, monkeypatch):
    monkeypatch.setattr(type(bare_tokenizer), "get_vocab", lambda self: {})
    with pytest.raises(EngineError, match=r"the tokenizer adds 0 tokens .* Pass --engine sentence-transformers\."):
        EmbeddingPrompt(bare_tokenizer, DEFAULT_INSTRUCTION, MAX_LENGTH)


def test_tokenizer_and_instruction_are_the_models(tiny_llm_embedder, embedder_tokenizer, pairs):
    queries = [query for query, _ in pairs]
    declared = EmbeddingPrompt(embedder_tokenizer, DECLARED_INSTRUCTION, MAX_LENGTH)
    loaded = EmbeddingPrompt.for_model(EngineOptions(describe_model(tiny_llm_embedder), max_length=MAX_LENGTH))
    assert loaded.token_ids(queries, "query") == declared.token_ids(queries, "query")
    asked = EmbeddingPrompt.for_model(
        EngineOptions(describe_model(tiny_llm_embedder), "Find the proof", max_length=MAX_LENGTH)
    )
    assert asked.token_ids(queries, "query") != declared.token_ids(queries, "query")


@pytest.mark.parametrize(
    ("file_name", "name"),
    [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")],
)
def test_a_text_is_cut_to_what_the_model_was_saved_to_read(tiny_llm_embedder, tmp_path, file_name, name):
    """As sentence-transformers does; the first place is that of its older versions."""
    folder = shutil.copytree(tiny_llm_embedder, tmp_path / "short", ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / file_name).read_text())
    (folder / file_name).write_text(json.dumps(config | {name: 50}))
    (cut,), truncated = EmbeddingPrompt.for_model(EngineOptions(describe_model(str(folder)))).token_ids(
        ["water " * 60], "passage"
    )
    assert (len(cut), cut[-1], truncated) == (50, END, 1)
