"""What a model is asked for an expansion, and what is taken of its answer."""

import pytest

from query_expansion_rl.writing.examples import DOCUMENTS, KEYWORDS
from query_expansion_rl.writing.forms import FORM_FILE, Form, read_form, untrained_form, write_form
from rag_core.base.errors import DataError

WORDS = untrained_form("keywords", style="completion")
DOCUMENT = untrained_form("document", style="completion")
TRAINED = Form("keywords", 0, "completion", 24)


def test_a_prompt_shows_examples_and_ends_where_the_answer_begins():
    text = WORDS.text("blue  ice\non a lake")
    assert text.endswith("\n\nQuery: blue ice on a lake\nKeywords:")
    assert text.count("Query: ") == 4
    assert all(f"\nKeywords: {answer}\n\n" in text for _, answer in KEYWORDS)
    assert TRAINED.text("blue ice") == "Query: blue ice\nKeywords:"
    prompt = WORDS.prompt("blue ice")
    assert (prompt.question, prompt.text, prompt.style) == (WORDS.text("blue ice"), "", "completion")
    assert WORDS.stop == ("\n",)


def test_a_chat_is_told_the_task():
    form = untrained_form("document", style="chat", shots=0, max_new_tokens=96)
    prompt = form.prompt("blue ice")
    assert prompt.question.startswith("Write a short passage")
    assert prompt.question.endswith("\n\nQuery: blue ice\nPassage:")
    assert (prompt.style, form.stop, form.max_new_tokens) == ("chat", (), 96)


def test_defaults_of_a_form():
    assert (WORDS.shots, WORDS.max_new_tokens) == (3, 24)
    assert (DOCUMENT.shots, DOCUMENT.max_new_tokens) == (2, 64)
    assert untrained_form("keywords", style="chat", shots=9).shots == 3


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (" glacier, frozen water, glacier, Frozen  water", "glacier, frozen water"),
        (" glacier, frozen wat", "glacier, frozen wat"),
        ("\nKeywords: glacier; lake ice\nQuery: more", "glacier, lake ice"),
        ("**Keywords:** *glacier*", "glacier"),
        ("Here are the keywords:\n- glacier, snow", "glacier, snow"),
        ("Blue ice?, glacier", "glacier"),  # the query itself
        ("stain removal, glacier", "glacier"),  # of an example
        ("blue ice", ""),
        ("", ""),
        (" ,, ; ", ""),
        ("<think>hm, hm</think>\nglacier", "glacier"),
        ("<think>hm, hm", ""),
    ],
)
def test_keywords_are_read(answer, read):
    assert WORDS.read(answer, "blue ice") == read


def test_an_answer_without_an_end_loses_what_is_incomplete():
    assert WORDS.read("glacier, frozen wat", "blue ice", cut=True) == "glacier"
    assert WORDS.read("glac", "blue ice", cut=True) == "glac"
    assert DOCUMENT.read("Ice is blue. It absor", "blue ice", cut=True) == "Ice is blue."


def test_a_trained_model_has_no_examples_to_copy():
    assert TRAINED.read("stain removal, glacier", "blue ice") == "stain removal, glacier"


def test_a_document_is_read():
    copied = DOCUMENTS[1][1].split(". ")[0] + "."
    answer = f" Blue ice. {copied} Ice of a glacier is blue. ice of a glacier is blue. It absorbs red light.\n\nQuery:"
    assert DOCUMENT.read(answer, "blue ice") == "Ice of a glacier is blue. It absorbs red light."


def test_a_form_is_kept_beside_its_model(tmp_path):
    assert read_form(tmp_path) is None
    write_form(tmp_path, TRAINED)
    assert read_form(tmp_path) == TRAINED
    (tmp_path / FORM_FILE).write_text('{"output": "poem", "shots": 0, "style": "chat", "max_new_tokens": 3}')
    with pytest.raises(DataError, match=rf"{FORM_FILE}: is not a form \(output: Input should be .*Train the model"):
        read_form(tmp_path)
