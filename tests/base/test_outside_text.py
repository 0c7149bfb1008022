import pytest

from rag_core.base.outside_text import first_line, is_writable, quoted, reason, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07\x1b[31mred\x1b[0m", "]0;title[31mred[0m"),
        ("\x9b31mred", "31mred"),
        ("abc\u202egnp.exe", "abcgnp.exe"),
        ("a\u200bb\ufeffc\u2066d\U000e0041", "abcd"),
        ("half \ud800 a character", "half  a character"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        ("größer 日本 हिन्दी", "größer 日本 हिन्दी"),
    ],
)
def test_what_steers_a_terminal_is_left_out(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize("name", ["RAG_SERVER_API_KEY", "HF_TOKEN"])
def test_keys_are_masked(name, monkeypatch):
    monkeypatch.setenv(name, "hush-hush")
    assert visible("Bearer hush-hush, said the server") == "Bearer ***, said the server"
    assert visible("hush-\x1b[0mhush") == "hush-[0mhush"  # other text


def test_a_key_cut_by_unseen_characters_is_masked_too(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hush-hush")
    assert visible("hush-\u200bhush") == "***"


def test_a_quotation_is_one_short_line():
    assert quoted("a\nb\x1b[0m  c") == "a b[0m c"
    assert quoted("x" * 100) == "x" * 100
    assert quoted("a" * 60 + "b" * 60) == "a" * 50 + "…" + "b" * 49
    assert len(quoted("a" * 5_000_000)) == 100
    assert quoted(" " * 5_000_000 + "x") == "x"


def test_what_an_error_says():
    assert reason(ValueError("two\nlines\x1b[0m")) == "two lines[0m"
    assert reason(ValueError()) == "ValueError"
    assert first_line(ValueError("two\nlines")) == "two"
    assert first_line(ValueError()) == ""  # where there is no first line


@pytest.mark.parametrize(("text", "can_be"), [("größer 日本", True), ("half \ud800", False), ("\udcff", False)])
def test_what_can_be_written(text, can_be):
    assert is_writable(text) is can_be
