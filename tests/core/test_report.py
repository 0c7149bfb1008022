"""What the report says, checked by hand, and that every part of it is there."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from rag_core.errors import DataError
from rag_core.evaluation import FileEvaluation, examples
from rag_core.metrics import measure
from rag_core.records import RankingSample
from rag_core.report import format_table, make_report, warnings, write_report
from rag_core.significance import Wins, count_wins, gap_closed, mean_interval

SAMPLES = [RankingSample(f"query {i}", positive=["good"], negative=["bad", "worse"], query_id=str(i)) for i in range(8)]
RIGHT, SECOND, LAST = [0.9, 0.2, 0.1], [0.5, 0.9, 0.1], [0.1, 0.9, 0.5]


def evaluation(**scores):
    """Six queries whose change is known, and two that stay."""
    given = {
        "BM25": [LAST] * 8,
        "before": [SECOND] * 4 + [LAST] * 2 + [RIGHT] * 2,
        "after": [RIGHT] * 4 + [RIGHT] + [LAST] + [RIGHT, SECOND],
        "teacher": [RIGHT] * 8,
        **scores,
    }
    values = {ranker: measure(SAMPLES, rows) for ranker, rows in given.items()}
    return FileEvaluation(Path("data/test.jsonl"), "in-domain", SAMPLES, values, given)


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "training_log.json").write_text('[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "eval_loss": 1.0}]')
    curves = [
        {"name": "dev", "domain": "in-domain", "measure": "MAP", "queries": 5, "values": [i / 10 for i in range(11)]},
        {"name": "out", "domain": "out-of-domain", "measure": "MAP", "queries": 5, "values": [0.5] * 11},
    ]
    merge = {"alpha": 0.6, "reason": "as asked", "alphas": [i / 10 for i in range(11)], "files": curves}
    (folder / "merge.json").write_text(json.dumps(merge))
    return folder


def report(model, *evaluations, **options):
    return make_report(
        evaluations or [evaluation()], {"before": "b", "after": str(model), "teacher": "t"}, 1, **options
    )


def test_the_share_of_the_gap_by_hand():
    before, teacher = np.zeros(50), np.ones(50)
    gap = gap_closed(before, np.full(50, 0.75), teacher, 1)
    assert (gap.share, gap.low, gap.high) == (0.75, 0.75, 0.75)
    assert gap_closed(before, before, before, 1) is None
    assert gap_closed(teacher, before, before, 1) is None
    after = np.where(np.arange(50) < 25, 1.0, np.nan)  # what cannot be measured is left out of all three
    assert gap_closed(before, after, teacher, 1).share == 1
    uncertain = gap_closed(before, before, np.where(np.arange(50) % 2, 1.1, -1.0), 1)
    assert uncertain.low is uncertain.high is None


def test_the_interval_of_the_share_resamples_all_three_together():
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=400)  # shared by the three: a paired interval does not see it
    gap = gap_closed(difficulty, difficulty + 0.5 + 0.01 * generator.normal(size=400), difficulty + 1.0, 1)
    assert gap.low == pytest.approx(0.5, abs=0.01)
    assert gap.high == pytest.approx(0.5, abs=0.01)


def test_wins_and_mean_intervals():
    assert count_wins(np.array([0, 1, 1, np.nan]), np.array([1, 0, 1, 1])) == Wins(1, 1, 1)
    low, high = mean_interval(np.array([0.0, 1.0] * 50 + [np.nan]), 1)
    assert (low, high) == (pytest.approx(0.4, abs=0.02), pytest.approx(0.6, abs=0.02))


def test_examples_are_the_largest_changes_in_both_directions():
    gains, losses = examples(evaluation(), 3)
    assert [(example.query, round(example.change, 3)) for example in gains] == [
        ("query 4", 0.667),
        ("query 0", 0.5),
        ("query 1", 0.5),
    ]
    (loss,) = losses
    assert (loss.query, loss.change, loss.rank_before, loss.rank_after) == ("query 7", -0.5, 1, 2)
    assert (loss.first_before, loss.was_relevant, loss.first_after, loss.is_relevant) == ("good", True, "bad", False)


def test_the_table(model):
    table = format_table(report(model))
    assert "data/test.jsonl (in-domain, 8 queries)" in table
    assert "5 queries better than before, 1 worse, 2 the same" in table
    assert re.search(r"share of the teacher's lead closed: MAP 65% \[-?\d+%, \d+%\]", table)
    assert re.search(r"\| teacher +\| t +\| 1\.0000", table)
    without = evaluation()
    del without.values["teacher"], without.scores["teacher"]
    assert "share" not in format_table(report(model, without))


def test_a_teacher_without_a_lead_is_said_not_divided_by(model):
    found = report(model, evaluation(teacher=[LAST] * 8))
    assert found["files"][0]["gap_closed"]["MAP"] is None
    assert "MAP - (the teacher has no lead)" in format_table(found)
    assert warnings(found)[0].startswith("WARNING: on data/test.jsonl the teacher ranks worse than the student")


class Outline(HTMLParser):
    """Open and closed tags, and the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br") and tag not in ("path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.text += data


def test_every_part_is_in_the_page_and_in_the_markdown(tmp_path, model):
    found = report(model, trade_off=[model])
    write_report(tmp_path, found, [evaluation()], 1)
    page = (tmp_path / "report.html").read_text()
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert page.count("<svg") == 5  # bars, changes, scatter, training, trade-off
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>|rdf:\w+="[^"]*"|about="[^"]*"', "", page)
    for words in ("The 5 largest gains", "The 1 largest losses", "query 7", "Loss by step", "alpha 0.6, as asked"):
        assert words in outline.text
    markdown = (tmp_path / "report.md").read_text()
    assert format_table(found) in markdown
    assert "1. **query 4** (+0.667; best positive at rank 3, now 1)" in markdown
    assert "   - after, first (relevant): good" in markdown
    assert json.loads((tmp_path / "report.json").read_text())["merges"][0]["alpha"] == 0.6


def test_without_a_teacher_or_what_training_left_the_page_does_without(tmp_path):
    without = evaluation()
    del without.values["teacher"], without.scores["teacher"]
    write_report(tmp_path, make_report([without], {"before": "b", "after": "elsewhere"}, 1), [without], 1)
    assert (tmp_path / "report.html").read_text().count("<svg") == 2


@pytest.mark.parametrize(
    ("name", "content"), [("merge.json", "{"), ("merge.json", "[]"), ("training_log.json", '{"a": 1}')]
)
def test_a_damaged_file_of_the_model_is_named(model, name, content):
    (model / name).write_text(content)
    with pytest.raises(DataError) as error:
        report(model)
    assert str(error.value).startswith(f"{model / name}: is not what train writes (")
    assert str(error.value).endswith("Delete it to leave it out of the report, or train again.")
