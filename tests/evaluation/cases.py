"""Evaluations whose figures are known, and what training leaves: for the tests of the report and its parts."""

from dataclasses import replace
from pathlib import Path

from rag_core.base.records import RankingSample
from rag_core.distillation.weight_merging import Curve, Merge
from rag_core.evaluation.rankers import FileEvaluation
from rag_core.evaluation.report import make_report
from rag_core.evaluation.training_record import TrainingRecord
from rag_core.metrics.ranking import measure

SAMPLES = [RankingSample(f"query {i}", positive=["good"], negative=["bad", "worse"], query_id=str(i)) for i in range(8)]
RIGHT, SECOND, LAST = [0.9, 0.2, 0.1], [0.5, 0.9, 0.1], [0.1, 0.9, 0.5]
LONG_SAMPLES = [
    RankingSample(f"quéry {i}", positive=["good"], negative=[f"bad {n}" for n in range(39)], query_id=str(i))
    for i in range(12)
]
DEEPER_IS_WORSE = [1.0, *[0.0] * 9, *[2.0] * 30]  # it lifts whatever BM25 has from the eleventh on


def evaluated(samples, path, given):
    values = {ranker: measure(samples, rows) for ranker, rows in given.items()}
    return FileEvaluation(Path(path), "in-domain", samples, values, given)


def evaluation(**scores):
    """Six queries whose change is known, and two that stay."""
    given = {
        "BM25": [LAST] * 8,
        "before": [SECOND] * 4 + [LAST] * 2 + [RIGHT] * 2,
        "after": [RIGHT] * 4 + [RIGHT] + [LAST] + [RIGHT, SECOND],
        "teacher": [RIGHT] * 8,
        **scores,
    }
    return evaluated(SAMPLES, "data/test.jsonl", given)


def without_teacher():
    found = evaluation()
    del found.values["teacher"], found.scores["teacher"]
    return found


def long_evaluation(after):
    """BM25 keeps the order of the file, but for the positive, which is third."""
    first = [[-2.5, *(-float(place) for place in range(39))]] * len(LONG_SAMPLES)
    before = [[1.0, *[0.0] * 39]] * len(LONG_SAMPLES)
    return evaluated(
        LONG_SAMPLES, "test.jsonl", {"BM25": first, "before": before, "after": [after] * len(LONG_SAMPLES)}
    )


MERGE = Merge(
    alpha=0.5,
    reason="as asked",
    alphas=[0, 0.5, 1],
    files=[
        Curve("a", "in-domain", "MAP", 5, [0.5, 0.6, 0.7]),
        Curve("b", "out-of-domain", "MAP", 5, [0.8, 0.9, 0.6]),
        Curve("c", "out-of-domain", "MAP", 5, [0.4, 0.4, 0.4]),
    ],
)
NOTHING = TrainingRecord()
TRAINING = TrainingRecord(
    facts={"teacher": "t", "loss": "kl", "steps": 2, "seconds": 3.5, "merge": None},
    log=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5, "eval_loss": 1.0, "eval_dev": 0.5}],
    merges={"student": MERGE, "with $ and $": replace(MERGE, alpha=1)},
)


def report(*evaluations, training=NOTHING):
    return make_report(evaluations or [evaluation()], {"before": "b", "after": "m", "teacher": "t"}, training, 1)
