import random
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.base.records import RankingSample
from rag_core.metrics.ranking import means, measure, measured, rank


def sample(positives, negatives):
    return RankingSample(
        "q", positive=[f"p{i}" for i in range(positives)], negative=[f"n{i}" for i in range(negatives)]
    )


def test_values_reckoned_by_hand():
    # Ranking: n, p, n, p. AP = (1/2 + 2/4) / 2; RR = 1/2; DCG = 1/log2(3) + 1/log2(5), ideal 1 + 1/log2(3).
    values = measure([sample(2, 2)], [[3.0, 1.0, 4.0, 2.0]])
    assert values["MAP"][0] == pytest.approx(0.5, abs=1e-9)
    assert values["MRR@10"][0] == pytest.approx(0.5, abs=1e-9)
    assert values["NDCG@10"][0] == pytest.approx(0.6509209298, abs=1e-9)


def test_the_eleventh_place_counts_for_map_only():
    values = measure([sample(1, 10)], [[0.0, *range(1, 11)]])
    assert values["MAP"][0] == pytest.approx(1 / 11)
    assert values["MRR@10"][0] == values["NDCG@10"][0] == 0.0


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 15), st.integers(0, 2**32))
def test_agrees_with_sentence_transformers_where_there_are_no_ties(positives, negatives, seed):
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    generator = random.Random(seed)
    rows = [sample(positives, negatives), sample(negatives, positives)]
    scores = [generator.sample(range(100), positives + negatives) for _ in rows]

    class Model:
        model_card_data = Mock()

        def __init__(self):
            self.queue = [float(score) for row in scores for score in row]

        def predict(self, pairs, **_):
            taken, self.queue = self.queue[: len(pairs)], self.queue[len(pairs) :]
            return np.array(taken)

    evaluator = CrossEncoderRerankingEvaluator(
        [{"query": row.query, "positive": row.positive, "negative": row.negative} for row in rows],
        at_k=10,
        show_progress_bar=False,
        write_csv=False,
    )
    theirs = evaluator(Model())
    ours = means(measure(rows, scores))
    assert ours["MAP"] == pytest.approx(theirs["map"], abs=1e-6)
    assert ours["MRR@10"] == pytest.approx(theirs["mrr@10"], abs=1e-6)
    assert ours["NDCG@10"] == pytest.approx(theirs["ndcg@10"], abs=1e-6)


def test_a_model_that_cannot_tell_passages_apart_is_judged_as_a_random_order():
    generator = random.Random(0)
    rows = [
        RankingSample(
            "q",
            positive=[f"{generator.random()}"],
            negative=[f"{generator.random()}" for _ in range(9)],
        )
        for _ in range(400)
    ]
    values = means(measure(rows, [[0.5] * 10] * 400))
    expected = np.mean([1 / place for place in range(1, 11)])
    assert values["MAP"] == pytest.approx(expected, abs=0.05)  # and not 1, though positives come first in the file


def test_ties_do_not_depend_on_the_order_in_the_file():
    assert rank(["a", "b", "c"], [1, 1, 1])[0] == rank(["c", "b", "a"], [1, 1, 1])[2]


def test_queries_that_say_nothing_are_left_out_of_the_means():
    rows = [sample(1, 1), sample(1, 0), sample(0, 1), RankingSample("q", candidates=["a", "b"])]
    values = measure(rows, [[0, 1], [1], [1], [1, 2]])
    assert measured(values) == 1
    assert np.isnan(values["MAP"][1:]).all()
    assert means(values)["MAP"] == 0.5
    assert np.isnan(means(measure(rows[1:], [[1], [1], [1, 2]]))["MAP"])
