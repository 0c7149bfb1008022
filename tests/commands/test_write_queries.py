import json

import pytest

from rag_core import write_queries
from rag_core.base.records import Query
from rag_core.engines import loading
from rag_core.engines.generation import Answer
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records
from rag_core.sources import query_prompt
from rag_core.sources.corpus import Corpus
from rag_core.sources.mining import Mining
from rag_core.sources.query_filter import QueryFilter, Written
from tests.conftest import write_model


class Stopped(BaseException):
    """Stands for SIGKILL."""


class Writer:
    """A TextGenerator that asks for the first word; falls silent after some calls, as if killed."""

    def __init__(self, calls, answers):
        self.calls, self.answers = calls, {"mute": ""} | answers
        self.written = []

    def generate(self, prompts, sampling):
        if self.calls == 0:
            raise Stopped
        self.calls -= 1
        self.written += [prompt.text for prompt in prompts]
        self.prompts, self.sampling = prompts, sampling
        texts = [self.answers.get(word := prompt.text.split()[0], f"what is {word}") for prompt in prompts]
        return [[Answer(text, len(text), cut=False)] for text in texts]


@pytest.fixture
def passages(tmp_path):
    rows = [{"text": f"word{i} and more"} for i in range(9)] + [{"text": "mute one"}, {"text": "word3 again"}]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(passages, tmp_path, monkeypatch):
    monkeypatch.setattr(write_queries, "_CHUNK", 4)
    write_model(tmp_path / "m")

    def run(calls=99, *flags, answers=None):
        writer = Writer(calls, answers or {})
        run.writer = writer
        monkeypatch.setattr(loading, "load_generator", lambda engine, options: writer)
        output = tmp_path / "queries.jsonl"
        code = write_queries.main(
            ["--model", f"{tmp_path}/m", "--input", str(passages), "--output", str(output), *flags]
        )
        return code, output, writer.written

    return run


def test_each_passage_has_its_query_once(run):
    code, output, written = run()
    assert code == 0
    assert len(written) == 11
    assert sorted(query.text for query in read_records(output, Query)) == [f"what is word{i}" for i in range(9)]
    manifest = json.loads((output.parent / "queries.jsonl.manifest.json").read_text())
    assert manifest["skipped"]["passages_without_a_query"] == 2
    assert {reason: count for reason, count in manifest["dropped"].items() if count} == {"no_answer": 1, "repeated": 1}
    assert run()[2] == []  # finished already


def test_what_was_written_is_kept(run, tmp_path):
    with pytest.raises(Stopped):
        run(2)
    code, output, written = run()
    assert (code, len(written)) == (0, 3)
    stopped = output.read_bytes()
    run(99, "--overwrite")
    assert output.read_bytes() == stopped


@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_the_size_of_a_chunk_changes_nothing(run, monkeypatch, size):
    with pytest.raises(Stopped):
        run(2)
    monkeypatch.setattr(write_queries, "_CHUNK", size)
    code, output, _ = run()
    assert code == 0
    went_on = output.read_bytes()
    monkeypatch.setattr(write_queries, "_CHUNK", 4)
    run(99, "--overwrite")
    assert output.read_bytes() == went_on


def test_another_chat_template_is_another_recipe(run, tmp_path, capsys):
    run()
    manifest = tmp_path / "queries.jsonl.manifest.json"
    assert "chat_template" not in json.loads(manifest.read_text())["recipe"]["model"]
    template = tmp_path / "m" / "chat_template.jinja"
    for text in ("{{ messages[0].content }}", "{{ messages[0].content }}."):
        template.write_text(text)
        capsys.readouterr()
        code, _, written = run()
        assert (code, written) == (1, [])
        assert "chat_template" in capsys.readouterr().err
        assert run(99, "--overwrite")[0] == 0
        assert run()[2] == []


FAULTS = {
    "word0": "ice",
    "word1": "Gas of apples makes stored potatoes sprout!",
    "word2": "The one search query that the passage answers",
    "word4": "what is word5",  # of another passage
    "word6": "Query: what is word6",  # a label, which is taken off
}


def test_queries_that_teach_nothing_are_dropped_and_counted(run):
    flags = ["--prompt_style", "completion", "--round_trip", "1"]
    code, output, _ = run(99, *flags, answers=FAULTS)
    assert code == 0
    kept = {"what is word3", *(f"what is word{i}" for i in (5, 6, 7, 8))}
    assert {query.text for query in read_records(output, Query)} == kept
    dropped = {
        "no_answer": 1, "too_short": 1, "copies_an_example": 1, "about_the_task": 1, "passage_not_found": 2,
        "repeated": 0,
    }  # fmt: skip
    manifest = json.loads((output.parent / "queries.jsonl.manifest.json").read_text())
    assert manifest["dropped"] == dropped
    assert manifest["skipped"]["passages_without_a_query"] == sum(dropped.values())


def test_another_round_trip_keeps_what_is_written(run, capsys):
    with pytest.raises(Stopped):
        run(2)
    code, _, written = run(99, "--round_trip", "0")
    assert (code, len(written)) == (0, 3)
    assert run(99, "--round_trip", "1")[0] == 1  # which is another output
    assert "--round_trip (was 0, is 1)" in capsys.readouterr().err


def test_round_trips_can_be_left_out(run):
    _, output, _ = run(99, "--round_trip", "0", answers={"word4": "nothing of it"})
    assert "nothing of it" in {query.text for query in read_records(output, Query)}


def test_no_query_is_left(run, passages, capsys):
    answers = dict.fromkeys([f"word{i}" for i in range(9)], "nothing of it")
    assert run(answers=answers)[0] == 1
    assert (
        f"Error: {passages}: leaves no query: of 11 answers, dropped: 1 no answer, 10 passage not found. "
        "Pass --prompt_style completion" in capsys.readouterr().err
    )


def test_examples_are_shown(run, tmp_path, capsys):
    code, _, _ = run()
    (first, *_) = run.writer.prompts
    assert (code, first.style, first.ending, run.writer.sampling.stop) == (0, "chat", "", ())
    assert first.question.startswith("Write the one search query")
    run(99, "--prompt_style", "completion", "--overwrite")
    (first, *_) = run.writer.prompts
    assert (first.style, first.ending, run.writer.sampling.stop) == ("completion", "\nQuery:", ("\n",))
    assert first.question.startswith(f"Passage: {query_prompt.EXAMPLES[0].passage}\nQuery: white vinegar")
    assert first.question.endswith("\n\nPassage: ")
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"passage": "Ice floats\\non water.", "query": "does ice float"}\n')
    run(99, "--examples", str(examples), "--overwrite")
    (first, *_) = run.writer.prompts
    assert first.question == "Passage: Ice floats on water.\nQuery: does ice float\n\nPassage: "
    assert first.style == "completion"
    run(99, "--examples", str(examples), "--prompt_style", "chat", "--overwrite")
    (first, *_) = run.writer.prompts
    assert first.question.startswith("Write the one search query")
    assert first.question.endswith("does ice float\n\nPassage: ")
    examples.write_text('{"passage": "Ice floats."}\n')
    capsys.readouterr()
    assert run(99, "--examples", str(examples), "--overwrite")[0] == 1
    assert f"Error: {examples}:1: a Example needs 'query', which is missing." in capsys.readouterr().err


def test_what_a_passage_says_of_passages_is_no_talk_about_the_task():
    passages = ["the passage of light through ice", "a lake"]
    kept = QueryFilter(passages, (), 10)
    written = [Written(0, "passage of light"), Written(1, "passage of a lake")]
    assert [query.text for query in kept.kept(written)] == ["passage of light"]
    assert kept.dropped["about_the_task"] == 1


@pytest.mark.parametrize(
    ("query", "is_copy"),
    [
        ("Does ice float?", True),
        ("does ice float on a lake", True),  # the example's and more
        ("ice floats on", True),  # a span of its passage
        ("ice floats", False),  # too short to be one
        ("does ice sink", False),
    ],
)
def test_copies_of_an_example(query, is_copy):
    kept = QueryFilter(["a"], [query_prompt.Example("Ice floats on water.", "does ice float")], 0)
    assert list(kept.kept([Written(0, query)])) == ([] if is_copy else [Query(query)])


def test_queries_are_a_log_for_prepare(run, passages, tmp_path):
    _, output, _ = run()
    corpus = Corpus(passages, output, Mining(3, seed=1), query_from="sentence", num_queries=1, fractions={"train": 1.0})
    samples = corpus.read({}, BadRows(skip=False))["train"]
    assert len(samples) == 9
    assert all(sample.candidates for sample in samples)


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ('"what is ice?"\nmore', "what is ice?"),
        ("<think>hm\nhm</think>\n\nSearch query: blue ice", "blue ice"),
        ("", None),
        ("<think>hm\nwhat is ice", None),
        ("<think>hm</think>\n<think>what is ice", None),
        ("what is ice?\n<think>", None),
        ("word " * 41, None),
        ("冰洞怎么形成", "冰洞怎么形成"),
        ("冰洞怎么形成" * 20, None),
    ],
)
def test_an_answer_is_read(answer, query):
    assert query_prompt.read_answer(answer) == query
