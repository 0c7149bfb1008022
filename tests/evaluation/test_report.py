"""What the report says, checked by hand."""

from rag_core.evaluation.report import warnings
from rag_core.evaluation.tables import format_table
from rag_core.metrics.ranking import METRICS
from rag_core.metrics.significance import Wins
from tests.evaluation.cases import LAST, evaluation, report


def test_a_teacher_without_a_lead_is_said_not_divided_by():
    found = report(evaluation(teacher=[LAST] * 8))
    assert found.files[0].gap_closed["MAP"] is None
    assert "MAP - (the teacher has no lead)" in format_table(found)
    assert warnings(found)[0].startswith("WARNING: on data/test.jsonl the teacher ranks worse than the student")


def test_every_ranker_and_metric_has_its_interval_and_every_metric_its_wins():
    (file,) = report().files
    assert list(file.intervals) == ["BM25", "before", "after", "teacher"]
    assert file.intervals["teacher"] == dict.fromkeys(METRICS, (1, 1))
    low, high = file.intervals["after"]["MAP"]
    assert low < file.means["after"]["MAP"] < high
    assert file.wins == dict.fromkeys(METRICS, Wins(better=5, worse=1, same=2))
