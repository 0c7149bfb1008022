"""What merged scores know, and what they do not, whatever the scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.distillation.teachers import merge
from rag_core.retrieval.fusion import standardise

SCORES = st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=9)


@given(SCORES, st.floats(0.1, 100), st.floats(-100, 100))
def test_standardised_scores_know_neither_unit_nor_zero(scores, factor, constant):
    standard = standardise(scores)
    assert standard.mean() == pytest.approx(0, abs=1e-9)
    assert standard.std() == pytest.approx(float(len(set(scores)) > 1))
    if len(set(scores)) > 1:
        assert standardise(np.array(scores) * factor + constant) == pytest.approx(standard, abs=1e-6)


@given(SCORES, st.floats(0.1, 5))
def test_fused_ranks_know_the_order_only_and_one_teacher_keeps_its_own(scores, power):
    fused = merge([scores], [2.0], "rank_fusion")
    assert fused == pytest.approx(merge([np.exp(np.array(scores) / 20 * power)], [1.0], "rank_fusion"))
    assert (np.argsort(-fused, kind="stable") == np.argsort(-np.array(scores), kind="stable")).all()
