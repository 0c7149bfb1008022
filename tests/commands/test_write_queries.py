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
from tests.conftest import write_model


class Stopped(BaseException):
    """Stands for SIGKILL."""


class Writer:
    """A TextGenerator that asks for the first word; falls silent after some calls, as if killed."""

    def __init__(self, calls):
        self.calls = calls
        self.written = []

    def generate(self, prompts, sampling):
        if self.calls == 0:
            raise Stopped
        self.calls -= 1
        self.written += [prompt.text for prompt in prompts]
        texts = ["" if "mute" in prompt.text else f"what is {prompt.text.split()[0]}" for prompt in prompts]
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

    def run(calls=99, *flags):
        writer = Writer(calls)
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


def test_queries_are_a_log_for_prepare(run, passages, tmp_path):
    _, output, _ = run()
    corpus = Corpus(
        passages, output, query_from="sentence", num_queries=1, dense_model=None, vectors=tmp_path, num_candidates=3,
        fractions={"train": 1.0}, seed=1,
    )  # fmt: skip
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
