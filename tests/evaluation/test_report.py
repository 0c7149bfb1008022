"""What the report says, checked by hand, and that every part of it is there."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from rag_core.base.records import RankingSample
from rag_core.evaluation.plots import score_scatter, trade_off
from rag_core.evaluation.rankers import FileEvaluation, examples
from rag_core.evaluation.report import format_table, make_report, warnings, write_report
from rag_core.metrics.ranking import METRICS, measure
from rag_core.metrics.significance import Wins, count_wins, gap_closed, mean_interval, paired_change

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


NOTHING = {"training": None, "training_log": None, "merges": []}
CURVES = [
    {"domain": "in-domain", "measure": "MAP", "values": [0.5, 0.6, 0.7]},
    {"domain": "out-of-domain", "measure": "MAP", "values": [0.8, 0.9, 0.6]},
    {"domain": "out-of-domain", "measure": "MAP", "values": [0.4, 0.4, 0.4]},
]
MERGE = {"name": "student", "alpha": 0.5, "reason": "as asked", "alphas": [0, 0.5, 1], "files": CURVES}
TRAINING = {
    "training": {"teacher": "t", "loss": "kl", "steps": 2, "seconds": 3.5},
    "training_log": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "eval_loss": 1.0, "eval_dev": 0.5}],
    "merges": [MERGE, {**MERGE, "name": "with $ and $", "alpha": 1}],
}


SVG = "{http://www.w3.org/2000/svg}"


def parse(page):
    """Read a page as strictly as XML; what HTML may leave out is put in."""
    text = page.read_text().removeprefix("<!doctype html>").replace("<details open>", '<details open="">')
    return ElementTree.fromstring(re.sub(r"<(meta [^>]*|br)>", r"<\1/>", text))


def report(*evaluations, training=NOTHING):
    return make_report(evaluations or [evaluation()], {"before": "b", "after": "m", "teacher": "t"}, training, 1)


def without_teacher():
    found = evaluation()
    del found.values["teacher"], found.scores["teacher"]
    return found


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


def test_intervals_of_two_queries_by_hand():
    # Of the four equally likely resamples one has only the first query, one only the second: 0 and 1 are the bounds.
    zero_or_one = np.array([0.0, 1.0])
    assert mean_interval(zero_or_one, 1) == (0, 1)
    gap = gap_closed(np.zeros(2), zero_or_one, np.full(2, 2.0), 1)
    assert (gap.share, gap.low, gap.high) == (0.25, 0, 0.5)


def test_the_batches_of_resamples_have_no_say_in_the_intervals(monkeypatch):
    before, after, teacher = np.random.default_rng(0).random((3, 40)) + np.array([[0], [0.1], [0.5]])

    def intervals():
        return mean_interval(after, 1), gap_closed(before, after, teacher, 1), paired_change(before, after, 1)

    at_once = intervals()
    monkeypatch.setattr("rag_core.metrics.significance._BATCH_VALUES", 1000)
    assert intervals() == at_once


def test_the_interval_of_the_share_resamples_all_three_together():
    generator = np.random.default_rng(0)
    difficulty = generator.normal(size=400)  # shared by the three: a paired interval does not see it
    gap = gap_closed(difficulty, difficulty + 0.5 + 0.01 * generator.normal(size=400), difficulty + 1.0, 1)
    assert gap.low == pytest.approx(0.5, abs=0.01)
    assert gap.high == pytest.approx(0.5, abs=0.01)
    lead = generator.random(400)  # of each query half is closed, so half of any of them
    half = gap_closed(difficulty, difficulty + lead / 2, difficulty + lead, 1)
    assert (half.low, half.high) == (pytest.approx(0.5), pytest.approx(0.5))


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


def test_the_rank_of_an_example_is_that_of_its_best_positive():
    samples = [RankingSample("query", positive=["good", "fine"], negative=["bad"], query_id=str(i)) for i in range(2)]
    given = {"before": [[0.1, 0.5, 0.9]] * 2, "after": [[0.2, 0.9, 0.1]] * 2}
    values = {ranker: measure(samples, rows) for ranker, rows in given.items()}
    ((gain, _), losses) = examples(FileEvaluation(Path("x"), "in-domain", samples, values, given), 10)
    assert (gain.rank_before, gain.rank_after, gain.first_after, losses) == (2, 1, "fine", [])


def test_the_table():
    table = format_table(report())
    assert "data/test.jsonl (in-domain, 8 queries)" in table
    assert "5 queries better than before, 1 worse, 2 the same" in table
    assert re.search(r"share of the teacher's lead closed: MAP 65% \[-?\d+%, \d+%\]", table)
    assert re.search(r"\| teacher +\| t +\| 1\.0000", table)
    assert "share" not in format_table(report(without_teacher()))


def test_a_teacher_without_a_lead_is_said_not_divided_by():
    found = report(evaluation(teacher=[LAST] * 8))
    assert found["files"][0]["gap_closed"]["MAP"] is None
    assert "MAP - (the teacher has no lead)" in format_table(found)
    assert warnings(found)[0].startswith("WARNING: on data/test.jsonl the teacher ranks worse than the student")


def test_every_ranker_and_metric_has_its_interval_and_every_metric_its_wins():
    (file,) = report()["files"]
    assert list(file["intervals"]) == ["BM25", "before", "after", "teacher"]
    assert file["intervals"]["teacher"] == dict.fromkeys(METRICS, (1, 1))
    low, high = file["intervals"]["after"]["MAP"]
    assert low < file["means"]["after"]["MAP"] < high
    assert file["wins"] == {metric: {"better": 5, "worse": 1, "same": 2} for metric in METRICS}


def test_the_page_is_well_formed_and_has_every_section(tmp_path):
    found = report(training=TRAINING)
    write_report(tmp_path, found, [evaluation()], 1)
    page = parse(tmp_path / "report.html")
    text = " ".join(" ".join(page.itertext()).split())
    for words in (
        "before b after m teacher t training teacher t, loss kl, steps 2, seconds 3.5",
        "data/test.jsonl in-domain, 8 of 8 queries measured",
        "5 queries better than before, 1 worse, 2 the same share of the teacher's lead closed: MAP",
        "5 better, 1 worse",
        "The 5 largest gains",
        "query 4 average precision +0.667, best positive at rank 3, now 1 first before, not relevant bad "
        "first after, relevant good",
        "The 1 largest losses",
        "student: alpha 0.5, as asked.",
    ):
        assert words in text
    captions = [caption.text for caption in page.iter("figcaption")]
    assert captions == [
        "What each ranker reaches",
        "What changed, query by query",
        "Does the student score as the teacher does?",
        "Loss by step",
        "How much of the training is kept",
    ]
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_every_picture_says_what_is_on_it(tmp_path):
    write_report(tmp_path, report(training=TRAINING), [evaluation()], 1)
    page = parse(tmp_path / "report.html")
    pictures = list(page.iter(f"{SVG}svg"))
    assert [svg.get("role") for svg in pictures] == ["img"] * 5
    bars, changes, scatter, losses, trade_off = (svg.find(f"{SVG}title").text for svg in pictures)
    assert bars.startswith("data/test.jsonl, means. MAP: BM25 0.333, before 0.583, after 0.854, teacher 1.000; MRR@10:")
    assert changes.endswith("5 queries better, 1 worse; not drawn: 2 the same")
    assert re.search(r"24 of 24 pairs. before: rank correlation -?0\.\d{3}; after: rank correlation 0\.\d{3}$", scatter)
    said = "training: from 2 to 1.5 at step 2; unseen: from 1 to 1 at step 2; dev files: from 0.5 to 0.5 at step 2"
    assert losses == f"Loss by step. {said}"
    assert trade_off.endswith("student: alpha 0.5, in-domain 0.6000; with $ and $: alpha 1, in-domain 0.7000")


def test_the_page_needs_no_network_and_no_script(tmp_path):
    write_report(tmp_path, report(training=TRAINING), [evaluation()], 1)
    for element in parse(tmp_path / "report.html").iter():
        assert element.tag not in ("script", "link", "img", "iframe")
        for name, value in element.attrib.items():
            if name.rpartition("}")[2] in ("href", "src"):
                assert value.startswith(("#", "data:image/png;base64,"))


def test_the_same_evaluation_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, report(training=TRAINING), [evaluation()], 1)
    for name in ("report.json", "report.md", "report.html", "per_query.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_markdown(tmp_path):
    found = report(training=TRAINING)
    write_report(tmp_path, found, [evaluation()], 1)
    markdown = (tmp_path / "report.md").read_text()
    assert format_table(found) in markdown
    assert "- training: teacher `t`, loss `kl`, steps `2`, seconds `3.5`\n" in markdown
    assert re.search(r"\n\| MAP +\| \+0\.2708 \[.*\| 5 +\| 1 +\| 2 +\| 65% \[", markdown)
    assert "### The 5 largest gains\n\n1. **query 4** (+0.667; best positive at rank 3, now 1)\n" in markdown
    assert "   - before, first (not relevant): bad\n   - after, first (relevant): good\n" in markdown


def test_what_a_text_spells_is_text_in_both_forms(tmp_path):
    spelled = "<script>x</script> | **a**\n# [b](c) `d` $e$ &amp;"
    samples = [replace(sample, query=spelled) for sample in SAMPLES]
    found = replace(evaluation(), samples=samples, path=Path("a<b>/long_name.jsonl"))
    write_report(tmp_path, report(found), [found], 1)
    (query, *_) = [span.text for span in parse(tmp_path / "report.html").iter("span") if span.get("class") == "query"]
    assert query == spelled
    plain = r"\<script\>x\</script\> \| \*\*a\*\* \# \[b\](c) \`d\` \$e\$ \&amp;"
    assert f"1. **{plain}** (+0.667" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["files"][0]["examples"]["gains"][0]["query"] == spelled


def test_without_a_teacher_or_what_training_left_the_page_does_without(tmp_path):
    without = without_teacher()
    write_report(tmp_path, make_report([without], {"before": "b", "after": "m"}, NOTHING, 1), [without], 1)
    page = parse(tmp_path / "report.html")
    assert len(list(page.iter(f"{SVG}svg"))) == 2
    assert "Training" not in [head.text for head in page.iter("h2")]
    assert json.loads((tmp_path / "report.json").read_text())["files"][0]["gap_closed"] is None


def test_a_student_that_scores_all_alike_has_no_correlation():
    picture = score_scatter(evaluation(before=[[1.0] * 3] * 8), 1)
    assert "before: no rank correlation, all scores are alike; after: rank correlation 0." in picture.svg


def test_no_more_than_two_thousand_pairs_are_drawn():
    found = evaluation()
    for name in ("before", "after", "teacher"):
        found.scores[name] = [list(range(400))] * 8
    assert "2000 of 3200 pairs. before: rank correlation 1.000" in score_scatter(found, 1).svg


def test_the_trade_off_without_files_of_other_domains_is_drawn_by_alpha():
    inside = {**MERGE, "files": CURVES[:1]}
    for merges in ([inside], [MERGE, inside]):  # one axis for all
        assert ">alpha</text>" in trade_off(merges).svg
        assert "In-domain by alpha." in trade_off(merges).svg
    assert ">mean change of the out-of-domain dev files</text>" in trade_off([MERGE]).svg
    assert ">0.5</text>" in trade_off([MERGE]).svg


def test_the_name_of_a_model_is_no_formula():
    assert ">with $ and $</text>" in trade_off([{**MERGE, "name": "with $ and $"}]).svg
