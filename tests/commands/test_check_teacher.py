"""Go, unclear or no, and what becomes of each."""

import json

import numpy as np
import pytest

from rag_core import check_teacher
from rag_core.base.records import RankingSample
from rag_core.engines.loading import LOADERS
from rag_core.files.jsonl import write_records
from tests.conftest import write_model


class Judge:
    """Scores positives (their text starts with p) above negatives in a given share of the queries."""

    score_unit = "logit"
    truncated = None

    def __init__(self, share):
        self._share = share

    def score(self, pairs):
        right = [int(query.removeprefix("q")) < 100 * self._share for query, _ in pairs]
        scores = [(passage[0] == "p") == good for (_, passage), good in zip(pairs, right, strict=True)]
        return np.array(scores, dtype=np.float32)


@pytest.fixture
def check(tmp_path, monkeypatch):
    shares = {"good": 0.9, "fair": 0.55, "similar": 0.5}
    for name in shares:
        write_model(tmp_path / name, "BertForSequenceClassification")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LOADERS, "sentence-transformers", lambda options, _: Judge(shares[options.model.name]))
    dataset = tmp_path / "test.jsonl"
    rows = [RankingSample(f"q{i}", positive=[f"p{i}"], negative=[f"n{i}"], query_id=str(i)) for i in range(100)]
    write_records(dataset, [*rows, RankingSample("unlabelled", candidates=["a"], query_id="u")])

    def run(teacher, student, *flags):
        return check_teacher.main(["--teacher", teacher, "--student", student, "--dataset", str(dataset), *flags])

    return run


def content(tmp_path):
    return json.loads((tmp_path / "test_check" / "check.json").read_text())


def test_a_better_teacher_is_a_go(check, tmp_path, capsys):
    assert check("good", "fair") == 0
    output = capsys.readouterr()
    assert "| teacher - student | +0.17" in output.out
    assert "go: the teacher ranks better than the student (+0.17" in output.err
    found = content(tmp_path)
    assert found["verdict"] == "go"
    assert found["queries"] == 100
    assert found["means"]["teacher"]["MAP"] == pytest.approx(0.95)


def test_too_few_queries_leave_it_unclear(check, tmp_path, capsys):
    assert check("fair", "similar", "--queries", "20") == 0
    assert "WARNING: unclear: 20 queries do not tell" in capsys.readouterr().err
    assert content(tmp_path)["verdict"] == "unclear"


def test_a_worse_teacher_stops_unless_forced(check, tmp_path, capsys):
    assert check("fair", "good") == 1
    error = capsys.readouterr().err
    assert "Error: no: the teacher ranks worse than the student on" in error
    assert "Pass another --teacher or --instruction, or --force to go on nevertheless." in error
    assert content(tmp_path)["verdict"] == "no"
    assert check("fair", "good", "--force") == 0
    assert "going on, as forced" in capsys.readouterr().err


def test_another_sample_replaces_the_former_one(check, tmp_path):
    check("good", "fair", "--queries", "10")
    check("good", "fair", "--queries", "12", "--seed", "7")
    assert content(tmp_path)["queries"] == 12


@pytest.mark.parametrize(("line", "usable"), [('{"query": "a", "candidates": ["b"]}\n', 0)])
def test_a_file_without_labels_is_refused(tmp_path, capsys, line, usable):
    dataset = tmp_path / "x.jsonl"
    dataset.write_text(line * 3)
    assert check_teacher.main(["--teacher", "t", "--student", "s", "--dataset", str(dataset)]) == 1
    assert capsys.readouterr().err == (
        f"Error: {dataset}: has {usable} queries with a positive and a negative, a comparison needs 2. "
        "Pass labelled samples.\n"
    )
    assert check_teacher.main(["--teacher", "t", "--student", "s", "--dataset", "x", "--queries", "1"]) == 2
