"""Texts that spell special tokens are text, in the vocabularies of BERT, XLM-RoBERTa, Qwen and Gemma."""

import functools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.engines.special_tokens import read_literally, special_tokens
from tests.vocabularies import FAMILIES, OWN

SPELLED = {
    "bert": ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"),
    "xlm-r": ("<s>", "</s>", "<pad>", "<mask>", "<unk>"),
    "qwen": ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    "gemma": ("<bos>", "<eos>", "<pad>", "<mask>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
}
WIDE = {ord(letter): ord(letter) + 0xFEE0 for letter in "<>/[]|_abcdefghijklmnopqrstuvwxyz"}
FRAMES = ("{}", "a river {} bank", "a{}b", "<{}>", "{0}{0}", "{0} {0}", "▁{}", "{} ", "\n{}\n")


@functools.cache
def usual(family):
    return FAMILIES[family]()


@functools.cache
def literal(family):
    tokens = FAMILIES[family]()
    assert read_literally(tokens).pattern == "(?!)"
    return tokens


def special_ids(tokens):
    """Ids that no text may have; what is unknown in it has the unknown token's."""
    return {tokens.convert_tokens_to_ids(token) for token in special_tokens(tokens)} - {tokens.unk_token_id}


def spelled(family):
    texts = [frame.format(token) for token in SPELLED[family] for frame in FRAMES]
    return [*texts, *(text.translate(WIDE) for text in texts), " ".join(SPELLED[family] * 6)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_spells_special_tokens_has_none(family):
    tokens = literal(family)
    texts = spelled(family)
    singles, pairs = tokens(texts)["input_ids"], tokens(texts, texts[::-1])["input_ids"]
    counts = [[sum(id in special_ids(tokens) for id in ids) for ids in rows] for rows in (singles, pairs)]
    assert [set(rows) for rows in counts] == [{OWN[family][0]}, {OWN[family][1]}]


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_nothing_of_it_is_lost(family):
    tokens = literal(family)
    for text in spelled(family):
        kept = tokens.decode(tokens.encode(text, add_special_tokens=False))
        assert kept == (text.replace("▁", " ") if family == "gemma" else text)


def test_an_unknown_token_that_is_spelled_is_known():
    assert literal("xlm-r").tokenize("<unk>") == ["▁<", "u", "n", "k", ">"]


def spells_none(text):
    forms = (text.lower(), unicodedata.normalize("NFKC", text).lower())
    return not any(token.lower() in form for form in forms for row in SPELLED.values() for token in row)


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(["river", " bank ", "<", ">", "</", "/s>", "[", "PAD]", "|", "im_end", "<think>", "▁", "\n\n"]),
    ),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150)
@given(texts=st.lists(TEXTS.filter(spells_none), min_size=1, max_size=4))
def test_other_texts_have_the_ids_that_they_had(family, texts):
    rows = [(texts, texts[::-1]), (texts,)]
    for columns in rows:
        before, after = (
            tokens(*columns, padding=True, truncation="longest_first", max_length=24, return_token_type_ids=True)
            for tokens in (usual(family), literal(family))
        )
        assert dict(before) == dict(after)
