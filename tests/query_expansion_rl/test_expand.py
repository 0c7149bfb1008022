"""expand through its command: what is searched for, what the gate lets through, kills, and what is refused."""

import dataclasses
import json

import pytest

from query_expansion_rl import expand
from query_expansion_rl.records import ServedQuery
from rag_core.engines import loading
from rag_core.engines.generation import Answer
from rag_core.files.jsonl import read_records
from tests.conftest import write_model
from tests.query_expansion_rl.alias_workspace import write_workspace
from tests.query_expansion_rl.aliases import ALIASES


class Stopped(BaseException):
    """Stands for SIGKILL."""


class Writer:
    """Knows what an abbreviation stands for; writes of the canteen about what it was told to be wrong on."""

    def __init__(self, wrong=(), calls=99):
        self.wrong, self.calls, self.asked = wrong, calls, 0

    def generate(self, prompts, sampling):
        if self.calls == 0:
            raise Stopped
        self.calls -= 1
        self.asked += len(prompts)
        assert sampling.temperature == 0 and sampling.num_samples == 1
        words = [prompt.question.splitlines()[-2].removeprefix("Query: ") for prompt in prompts]
        texts = ["canteen, clinic" if word in self.wrong else ALIASES.get(word, "") for word in words]
        return [[Answer(f" {text}", 5, False)] for text in texts]


@pytest.fixture
def run(workspace, tmp_path, monkeypatch):
    """Run the stage on queries; return its exit code, the rows and the writer."""
    monkeypatch.setattr("query_expansion_rl.writing.writer._CHUNK", 4)
    write_model(tmp_path / "m", "LlamaForCausalLM")

    def run(queries, *flags, writer=None):
        writer = writer or Writer()
        monkeypatch.setattr(loading, "load_generator", lambda engine, options: writer)
        path, output = tmp_path / "queries.jsonl", tmp_path / "served.jsonl"
        path.write_text("".join(json.dumps(query) + "\n" for query in queries))
        argv = ["--baselines", workspace.folder, "--model", tmp_path / "m", "--input_file", path]
        code = expand.main([str(word) for word in [*argv, "--output_file", output, *flags]])
        return code, list(read_records(output, ServedQuery)) if code == 0 else [], writer

    return run


QUERIES = [{"query": name} for name in [*ALIASES][:9]]


def test_the_query_is_kept_before_its_expansion(run, tmp_path):
    code, rows, writer = run([{"_id": "a", "query": "MI"}, {"text": "weather"}], "--gate", "none")
    assert code == 0 and writer.asked == 2
    assert [dataclasses.astuple(row) for row in rows] == [
        ("a", "MI", "myocardial infarction", ["MI MI MI MI MI myocardial infarction"]),
        ("2", "weather", "", ["weather"]),  # the model had nothing to say
    ]
    facts = json.loads((tmp_path / "served.jsonl.manifest.json").read_text())
    assert facts["counts"] == {"without_an_expansion": 1, "gated_out": 0}


def test_two_searches_for_rank_fusion(run):
    _, rows, _ = run([{"query": "MI"}], "--gate", "none", "--fuse", "rrf", "--query_weight", "2")
    assert rows[0].searches == ["MI", "MI MI myocardial infarction"]


def test_the_gate_keeps_what_the_teacher_likes_better(run, tmp_path, encoders):
    wrong = {"TB", "RA"}
    _, rows, _ = run(QUERIES, writer=Writer(wrong))
    assert {row.query: bool(row.expansion) for row in rows} == {
        query["query"]: query["query"] not in wrong for query in QUERIES
    }
    assert all(row.searches[0].startswith(row.query) for row in rows)
    assert [row.searches for row in rows if row.query in wrong] == [["TB"], ["RA"]]
    facts = json.loads((tmp_path / "served.jsonl.manifest.json").read_text())
    assert facts["counts"] == {"without_an_expansion": 0, "gated_out": 2}


def test_what_is_finished_stays_and_other_flags_are_told(run, capsys):
    _, first, _ = run(QUERIES)
    _, again, writer = run(QUERIES)
    assert again == first and writer.asked == 0
    assert run(QUERIES, "--fuse", "rrf")[0] == 1
    assert "--fuse (was 'concat', is 'rrf')" in capsys.readouterr().err


def test_a_stopped_run_goes_on_with_the_same_bytes(run, tmp_path):
    run(QUERIES)
    whole = (tmp_path / "served.jsonl").read_bytes()
    for path in tmp_path.glob("served.jsonl*"):
        path.unlink()
    with pytest.raises(Stopped):
        run(QUERIES, writer=Writer(calls=2))
    assert not (tmp_path / "served.jsonl").exists()
    _, _, writer = run(QUERIES)
    assert writer.asked == 1  # of nine queries, eight were written in two chunks
    assert (tmp_path / "served.jsonl").read_bytes() == whole
    assert not (tmp_path / "served.jsonl.partial").exists()


def test_an_id_that_stands_twice(run, capsys):
    queries = [{"_id": "a", "query": "MI"}, {"_id": "a", "query": "TB"}]
    assert run(queries)[0] == 1
    assert "queries.jsonl:2: _id 'a' stands in more than one row. Keep one of them" in capsys.readouterr().err
    code, rows, _ = run(queries, "--skip_bad_rows")
    assert code == 0 and [row.query for row in rows] == ["MI"]


def test_a_gate_without_vectors(tmp_path, capsys):
    write_workspace(tmp_path / "v", vectors=False, best="bm25")
    (tmp_path / "queries.jsonl").write_text('{"query": "alias1"}\n')
    write_model(tmp_path / "m", "LlamaForCausalLM")
    argv = ["--baselines", tmp_path / "v", "--model", tmp_path / "m", "--input_file", tmp_path / "queries.jsonl"]
    assert expand.main([str(word) for word in [*argv, "--output_file", tmp_path / "served.jsonl"]]) == 2
    error = capsys.readouterr().err
    assert "the gate asks the hybrid, and the workspace has no vectors. Pass --gate none" in error
    assert not (tmp_path / "served.jsonl.partial").exists()
    write_workspace(tmp_path / "h", retriever="hybrid")
    argv[1] = tmp_path / "h"
    assert expand.main([str(word) for word in [*argv, "--output_file", tmp_path / "served.jsonl"]]) == 2
    assert "the gate asks the hybrid, which is the retriever itself" in capsys.readouterr().err
