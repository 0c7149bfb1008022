"""The tables, by what they say of cases that are known."""

import re

from rag_core.evaluation.depth import measure_depths
from rag_core.evaluation.latency import Latency, LatencyReport, LatencyRow, RerankingTime
from rag_core.evaluation.tables import depth_rows, format_table, latency_note, latency_rows
from tests.evaluation.cases import DEEPER_IS_WORSE, long_evaluation, report, without_teacher


def test_the_table():
    table = format_table(report())
    assert "data/test.jsonl (in-domain, 8 queries)" in table
    assert "5 queries better than before, 1 worse, 2 the same" in table
    assert re.search(r"share of the teacher's lead closed: MAP 65% \[-?\d+%, \d+%\]", table)
    assert re.search(r"\| teacher +\| t +\| 1\.0000", table)
    assert "share" not in format_table(report(without_teacher()))


def test_a_row_of_latency():
    cost = Latency(True, 2, 12_000_000, 345_000_000, 1234.5, {10: RerankingTime(10, 11, 17)})
    row = LatencyRow("before", "models/b", "float32", 512, 0.25, (0.1, 0.4), cost)
    found = LatencyReport("test.jsonl", queries=5, untimed=["teacher"], threads=2, depths=[10], rows=[row])
    assert latency_rows(found)[1] == ["before", "b", "float32", "0.2500", "10, 11, 17", "1234", "12", "345"]
    assert latency_note(found).startswith("Latency: 5 queries of test.jsonl, one after another, 2 threads, each model")
    assert latency_note(found).endswith(
        "cut to 512 tokens, or to what a model reads. The teacher was not timed: only its scores were given."
    )


def test_a_row_of_depth():
    rows = depth_rows(measure_depths(long_evaluation(DEEPER_IS_WORSE), 1))
    assert [row[0] for row in rows] == ["MAP", "before", "after"]
    assert rows[2] == ["after", "1.0000", "0.0476, -0.9524 [-0.9524, -0.9524]", "0.0323, -0.9677 [-0.9677, -0.9677]"]
