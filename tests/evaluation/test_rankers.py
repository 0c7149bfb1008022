"""Whose ranking changed most, and to what."""

from pathlib import Path

from rag_core.base.records import RankingSample
from rag_core.evaluation.rankers import FileEvaluation, examples
from rag_core.metrics.ranking import measure
from tests.evaluation.cases import evaluation


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
