"""Recall with ties counted as equals."""

import numpy as np

from milvus_optimization.quality.recall import share_kept


def test_a_result_that_ties_with_the_last_exact_one_is_kept():
    best = np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]], dtype=np.float32)
    found = np.array([[0.9, 0.7 - 5e-6, 0.69], [0.9, 0.9, -np.inf]], dtype=np.float32)
    assert share_kept(best, found).tolist() == [2 / 3, 2 / 3]
