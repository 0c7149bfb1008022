import numpy as np
import pytest

from rag_core.evaluation.verdict import compare_rankers
from rag_core.metrics.ranking import METRICS


@pytest.mark.parametrize(("teacher", "verdict"), [(0.9, "go"), (0.1, "no"), (0.5, "unclear")])
def test_the_verdict_goes_by_the_interval_of_the_lead(teacher, verdict):
    noise = np.random.default_rng(0).normal(scale=0.05, size=100)
    values = {"student": np.full(100, 0.5), "teacher": teacher + noise - noise.mean()}
    found = compare_rankers({role: dict.fromkeys(METRICS, value) for role, value in values.items()}, seed=1)
    assert found.verdict == verdict
    assert found.interval.startswith(f"{teacher - 0.5:+.4f} of MAP" if verdict != "unclear" else ("+0.0000", "-0.0000"))
    assert [row[0] for row in found.rows()] == ["", "student", "teacher", "teacher - student"]
    assert found.as_json()["means"]["student"]["MAP"] == pytest.approx(0.5)
