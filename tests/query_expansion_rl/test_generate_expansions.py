"""Expansions by a language model, through the stage; the model is a fake."""

import dataclasses
import json

import pytest

from query_expansion_rl import generate_expansions
from query_expansion_rl.records import Expansion, Topic
from query_expansion_rl.writing.forms import Form, write_form
from rag_core.base.errors import EngineError
from rag_core.engines import loading
from rag_core.engines.generation import Answer, token_ids
from rag_core.files.jsonl import read_records, write_records
from tests import vocabularies
from tests.conftest import write_model

TOPICS = [Topic(f"q{i}", f"what is {word}", split, None) for i, (word, split) in enumerate(
    [*((f"ice{i}", "train") for i in range(5)), ("snow", "dev"), ("rain", "test"), ("hail", "test")]
)]  # fmt: skip


class Stopped(BaseException):
    """Stands for SIGKILL."""


class Writer:
    """Writes the last word of the query, the seed and the number of the sample; falls silent after some calls."""

    def __init__(self, calls=99, answer=" {word}, {word} {seed}, cold {seed}", tokens=9):
        self.calls, self.answer, self.tokens = calls, answer, tokens
        self.asked, self.sampling = [], None

    def generate(self, prompts, sampling):
        if self.calls == 0:
            raise Stopped
        self.calls -= 1
        self.asked += prompts
        self.sampling = sampling
        found = []
        for number, prompt in enumerate(prompts):
            word = prompt.question.splitlines()[-2].split()[-1]
            seeds = [sampling.seed_of(number) + sample for sample in range(sampling.num_samples)]
            texts = [self.answer.format(word=word, seed=seed) for seed in seeds]
            found.append([Answer(text, self.tokens, self.tokens == sampling.max_new_tokens) for text in texts])
        return found


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr("query_expansion_rl.writing.writer._CHUNK", 2)
    write_model(tmp_path / "m")
    write_records(tmp_path / "topics.jsonl", TOPICS)

    def run(*flags, writer=None):
        writer = writer or Writer()
        monkeypatch.setattr(loading, "load_generator", lambda engine, options: writer)
        output = tmp_path / "expansions.jsonl"
        model = [] if "--model" in flags else ["--model", str(tmp_path / "m")]
        code = generate_expansions.main(
            ["--baselines", str(tmp_path), *model, "--output_file", str(output), "--num_samples", "3", *flags]
        )
        return code, output, writer

    return run


def facts(output):
    return json.loads(output.with_name(f"{output.name}.manifest.json").read_text())


def test_each_query_of_the_splits_has_its_samples(run):
    code, output, writer = run("--split", "dev", "train", "--seed", "5")
    assert code == 0
    rows = list(read_records(output, Expansion))
    assert [(row.query_id, row.sample) for row in rows] == [
        (query, sample) for query in ["q5", "q0", "q1", "q2", "q3", "q4"] for sample in range(3)
    ]
    first = Expansion(query_id="q5", method="keywords", sample=0, text="snow, snow 5, cold 5", tokens=9, cut=False)
    assert rows[0] == first
    assert len({row.text for row in rows}) == 18  # each answer has a seed of its own
    assert (writer.sampling.stop, writer.sampling.max_new_tokens, writer.sampling.top_p) == (("\n",), 24, 0.95)
    manifest = facts(output)
    assert (manifest["rows"], manifest["queries"]) == (18, 6)
    assert manifest["counts"] == {"rows": 18, "tokens": 162, "cut": 0, "empty": 0, "distinct": 18}
    flags = manifest["recipe"]["flags"]
    assert (flags["prompt"], flags["shots"], flags["prompt_style"]) == ("keywords", 3, "completion")
    assert run("--split", "dev", "train", "--seed", "5")[2].asked == []  # finished already


@pytest.mark.parametrize("calls", [0, 1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(run, calls):
    with pytest.raises(Stopped):
        run(writer=Writer(calls))
    code, output, writer = run()
    assert (code, len(writer.asked)) == (0, 6 - 2 * calls)
    went_on = output.read_bytes()
    run("--overwrite")
    assert output.read_bytes() == went_on


def test_the_size_of_a_chunk_changes_nothing(run, monkeypatch):
    before = run()[1].read_bytes()
    monkeypatch.setattr("query_expansion_rl.writing.writer._CHUNK", 100)
    assert run("--overwrite")[1].read_bytes() == before


def test_greedy_is_one_sample(run):
    _, output, writer = run("--temperature", "0", "--split", "test", "--limit", "1", "--prompt", "document")
    (row,) = read_records(output, Expansion)
    assert (row.method, writer.sampling.num_samples, writer.sampling.max_new_tokens) == ("document", 1, 64)
    assert facts(output)["recipe"]["flags"]["num_samples"] == 1


def test_a_trained_model_is_asked_in_its_own_form(run, tmp_path, capsys):
    folder = tmp_path / "dpo"
    write_model(folder)
    write_form(folder, Form("keywords", 0, "completion", 20))
    _, output, writer = run("--model", str(folder))
    assert {row.method for row in read_records(output, Expansion)} == {"dpo"}
    assert writer.asked[0].question == "Query: what is ice0\nKeywords:"
    assert writer.sampling.max_new_tokens == 20
    capsys.readouterr()
    assert run("--model", str(folder), "--shots", "3", "--overwrite")[0] == 2
    assert f"Error: {folder} was trained with --shots 0, not 3. Leave --shots out." in capsys.readouterr().err


def test_answers_that_are_cut_or_empty_are_told(run, capsys):
    code, output, _ = run("--max_new_tokens", "9")
    assert code == 0
    assert facts(output)["counts"]["cut"] == 18
    told = capsys.readouterr().err
    assert "WARNING: 100% of the answers were cut at 9 tokens" in told
    assert "Pass --max_new_tokens 18" in told
    _, output, _ = run("--overwrite", writer=Writer(answer=" \n{word}"))
    assert facts(output)["counts"] == {"rows": 18, "tokens": 162, "cut": 0, "empty": 0, "distinct": 6}
    _, output, _ = run("--overwrite", writer=Writer(answer=" "))
    assert facts(output)["counts"] == {"rows": 18, "tokens": 162, "cut": 0, "empty": 18, "distinct": 0}
    assert "WARNING: 100% of the answers hold no expansion. Choose another --prompt_style" in capsys.readouterr().err


def test_other_topics_are_another_recipe(run, tmp_path, capsys):
    run()
    write_records(tmp_path / "topics.jsonl", [*TOPICS, dataclasses.replace(TOPICS[0], query_id="new")])
    capsys.readouterr()
    assert run()[0] == 1
    assert "made with other settings: the content of the input" in capsys.readouterr().err


def test_no_queries_of_a_split(run, tmp_path, capsys):
    write_records(tmp_path / "topics.jsonl", TOPICS[:5])
    assert run("--split", "test")[0] == 1
    assert f"Error: {tmp_path}/topics.jsonl: has no queries for test. Pass another --split." in capsys.readouterr().err
    assert run("--split", "train", "train")[0] == 2


def test_a_model_without_chat_template_is_refused_before_it_is_loaded(run, monkeypatch, capsys):
    tokenizer = vocabularies.FAMILIES["qwen"]()
    monkeypatch.setattr("rag_core.engines.tokenizer.load_tokenizer", lambda model: tokenizer)
    code, _, writer = run("--prompt_style", "chat")
    assert (code, writer.asked) == (1, [])
    assert (
        "Error: the model's tokenizer has no chat template. Choose a model that follows instructions, or pass "
        "--prompt_style completion.\n" in capsys.readouterr().err
    )
    with pytest.raises(EngineError, match="no room for a text beside"):
        form = Form("keywords", 3, "completion", 24)
        token_ids(tokenizer, [form.prompt("what is ice")], 100)
