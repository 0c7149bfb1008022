"""The report's words and pages: the verdict on given figures, what is shown of texts that are not ours."""

import functools
from dataclasses import replace

import numpy as np
import pytest

from query_expansion_rl.records import Topic
from query_expansion_rl.report.findings import Example, Report, examples
from query_expansion_rl.report.measuring import METRICS, report_rows
from query_expansion_rl.report.page import read_report, write_report
from query_expansion_rl.report.rows import Row, oracle
from query_expansion_rl.report.table import control_table, row_table
from query_expansion_rl.report.verdict import compare_with_control, conclude
from rag_core.base.errors import DataError
from tests.injections import TEXTS, blocks, columns, elements

IDS = [f"q{number}" for number in range(40)]
PLACES = np.zeros((len(IDS), 1), dtype=np.int64)


def row(name, kind="expansion", way="concat", base="bm25", **fields):
    return Row(name, kind, PLACES, base, way=way if kind == "expansion" else None, **fields)


def reports(rows, values, best):
    """Return the reports of rows that reach the same on every query but for what `values` adds to some."""
    reached = {
        name: {metric: {key: float(v) for key, v in zip(IDS, of, strict=True)} for metric in METRICS}
        for name, of in values.items()
    }
    return report_rows(rows, reached, best, IDS, 0)


def values_of(mean, *, spread=0.0, seed=0):
    """Return values of that mean, which differ by chance alone."""
    noise = np.random.default_rng(seed).normal(size=len(IDS))
    return mean + spread * (noise - noise.mean())


ROWS = [
    row("bm25", "retriever"),
    row("rm3", "training-free"),
    row("dpo", method="dpo", tokens=9.25, search_ms=1.5, write_ms=212.0),
    row("oracle over 2 ways", "oracle"),
]


def test_the_table():
    values = {
        "bm25": np.full(40, 0.5),
        "rm3": np.full(40, 0.5),
        "dpo": np.full(40, 0.25),
        "oracle over 2 ways": [0.5] * 40,
    }
    values["rm3"][:10] = 0.75
    values["dpo"][:10] = 1.0
    table = row_table(reports(ROWS, values, "rm3"), "bm25", "rm3")
    changes = "-0.0625 [-0.1562, +0.0500]", "-0.1250 [-0.1875, -0.0500]"
    assert [[*cells[:2], *cells[4:]] for cells in table] == [
        ["way", "nDCG@10", "minus bm25", "minus rm3", "better", "worse", "harm", "tokens", "search ms", "LLM ms"],
        ["bm25", "0.5000", "-", "-0.0625 [-0.1000, -0.0312]", "-", "-", "-", "-", "-", "-"],
        ["rm3", "0.5625", "+0.0625 [+0.0312, +0.1000]", "-", "10", "0", "0.0%", "-", "-", "-"],
        ["dpo", "0.4375", *changes, "10", "30", "75.0%", "9.2", "1.50", "212"],
        ["oracle over 2 ways (not attainable)", "0.5000", "-", "-", "-", "-", "-", "-", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("rm3", "dpo", "use", "outcome", "says"),
    [
        (0.55, 0.65, "dpo", "expansion", "Use dpo: nDCG@10 0.650, +0.1000 [+0."),
        (
            0.55,
            0.56,
            "rm3",
            "training-free",
            "No expansion is better beyond the interval: dpo, the best of 1 rows, is +0.0",
        ),
        (0.55, 0.45, "rm3", "training-free", "Use rm3: nDCG@10 0.550, +0.0500 [+0."),
        (0.501, 0.45, "bm25", "retriever", "Leave bm25 as it is: nDCG@10 0.500. Without training rm3 did best"),
        (0.40, 0.50, "bm25", "retriever", "Leave bm25 as it is"),  # better than what dev chose, and no better than BM25
    ],
)
def test_the_verdict(rm3, dpo, use, outcome, says):
    spread = 0.05
    values = {
        "bm25": values_of(0.5),
        "rm3": values_of(rm3, spread=spread, seed=1),
        "dpo": values_of(dpo, spread=spread, seed=2),
        "oracle over 2 ways": values_of(0.9),
    }
    verdict = conclude(reports(ROWS, values, "rm3"), retriever="bm25", best="rm3", dev={}, controls=[])
    assert (verdict.use, verdict.outcome) == (use, outcome)
    assert says in verdict.sentence


def test_an_oracle_and_an_expansion_alone_are_never_recommended():
    rows = [*ROWS, row("dpo alone", way="alone", method="dpo")]
    values = {"bm25": values_of(0.5), "rm3": values_of(0.4), "dpo": values_of(0.5), "dpo alone": values_of(0.9)}
    verdict = conclude(
        reports(rows, values | {"oracle over 2 ways": values_of(1.0)}, "rm3"),
        retriever="bm25", best="rm3", dev={}, controls=[],
    )  # fmt: skip
    assert verdict.use == "bm25" and verdict.shown == "dpo"


def test_the_dev_queries_choose_among_expansions():
    rows = [*ROWS, row("dpo gated", way="gated", method="dpo")]
    values = {"bm25": values_of(0.5), "rm3": values_of(0.5), "dpo": values_of(0.6), "dpo gated": values_of(0.7)}
    found = reports(rows, values | {"oracle over 2 ways": values_of(1.0)}, "rm3")
    assert conclude(found, retriever="bm25", best="rm3", dev={}, controls=[]).use == "dpo gated"
    verdict = conclude(found, retriever="bm25", best="rm3", dev={"dpo": 0.8, "dpo gated": 0.7}, controls=[])
    assert verdict.use == "dpo"
    assert "It was chosen among 2 rows on the dev queries." in verdict.sentence


@pytest.mark.parametrize(
    ("learned", "word"), [(0.6, "above"), (0.5, "no difference beyond the interval"), (0.4, "below")]
)
def test_the_control_in_words(learned, word):
    rows = [row("bm25", "retriever"), row("dpo", method="dpo"), row("random", method="random")]
    values = {
        "bm25": values_of(0.3),
        "dpo": values_of(learned, spread=0.05, seed=1),
        "random": values_of(0.5, spread=0.05, seed=2),
    }
    found = reports(rows, values, "bm25")
    controls = compare_with_control(found, "random", IDS, 0)
    assert [(one.method, one.way) for one in controls] == [("dpo", "concat")]
    verdict = conclude(found, retriever="bm25", best="bm25", dev={"dpo": 1.0}, controls=controls)
    assert "Minus the control random, which learned from random samples: this row " in verdict.sentence
    assert f"{abs(learned - 0.5):.4f} [" in verdict.sentence
    assert verdict.sentence.endswith(f", {word}.")


def test_the_oracle_takes_the_best_of_each_query():
    topics = [Topic(query_id, "x", "test") for query_id in IDS[:3]]
    rankings = [np.full((3, 2), number) for number in range(2)]
    values = [{"q0": 0.1, "q1": 0.5}, {"q0": 0.2, "q1": 0.5}]  # nobody judged q2
    assert oracle("o", rankings, values, topics, "bm25").places[:, 0].tolist() == [1, 0, 0]


def test_the_queries_that_changed_most():
    topics = [Topic(query_id, query_id, "test") for query_id in IDS]
    before = dict.fromkeys(IDS, 0.5)
    after = {key: 0.5 + (number - 12) / 100 for number, key in enumerate(IDS)}
    gains, losses = examples(row("dpo", texts={"q39": "more"}), before, after, topics)
    assert [one.query for one in gains] == [f"q{number}" for number in range(39, 29, -1)]
    assert [one.query for one in losses] == [f"q{number}" for number in range(10)]
    assert gains[0] == Example(query_id="q39", query="q39", expansion="more", before=0.5, after=0.77)
    assert examples(row("dpo"), before, before, topics) == ([], [])


@functools.cache
def compared():
    """Return rows and what they are above the control, whose figures take a while."""
    rows = [row("bm25", "retriever"), row("dpo", method="dpo", tokens=1.0), row("random", method="random")]
    values = {"bm25": values_of(0.3), "dpo": values_of(0.5), "random": values_of(0.4)}
    found = reports(rows, values, "bm25")
    return found, compare_with_control(found, "random", IDS, 0)


def report_with(text, *, reranked=False):
    """Return a report in which a text stands wherever one that is not ours may stand."""
    found, controls = compared()
    found = [replace(one, name=text, method=text) if one.name == "dpo" else one for one in found]
    controls = [replace(one, method=text, control=text) for one in controls]
    verdict = conclude(found, retriever="bm25", best="bm25", dev={}, controls=controls)
    told = [Example(query_id="q", query=text, expansion=text, before=0.25, after=0.5)]
    return Report(
        retriever="bm25", best="bm25", judged_by=text, queries=40, dev_queries=0, query_weight=5.0, reranker=text,
        reranker_depth=20, headroom=0.1, verdict=verdict, reranked_verdict=verdict if reranked else None, rows=found,
        reranked=found if reranked else [], controls=controls, shown=text, gains=told, losses=told,
    )  # fmt: skip


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harmless")
    write_report(folder, report_with("harmless"))
    return {name: (folder / name).read_text() for name in ("report.html", "report.md")}


@pytest.mark.parametrize("text", [TEXTS[name] for name in TEXTS], ids=list(TEXTS))
def test_a_text_that_is_markup_is_text(text, harmless, tmp_path):
    write_report(tmp_path, report_with(text))
    page, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert elements(page) == elements(harmless["report.html"])
    assert "<script" not in page
    assert blocks(markdown) == blocks(harmless["report.md"])
    assert columns(markdown) == columns(harmless["report.md"])
    for shown in (page, markdown):
        assert not [one for one in shown if one in "\x1b\x07\x08\x9b\u202e\u2066\u200b"]


def test_what_is_written_is_read(tmp_path):
    report = report_with("dpo", reranked=True)
    write_report(tmp_path, report)
    assert read_report(tmp_path / "report.json") == report
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(DataError, match="is no report"):
        read_report(tmp_path / "report.json")


def test_the_table_of_the_control():
    assert control_table(report_with("dpo").controls)[1][:2] == ["dpo", "beside the query"]
