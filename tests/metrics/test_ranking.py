import random
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.base.records import RankingSample
from rag_core.metrics.ranking import METRICS, RUN_METRICS, means, measure, measure_run, measured, rank
from rag_core.metrics.significance import paired_change


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


# --- runs


def test_graded_values_reckoned_by_hand():
    # Ranking: d2 (1), d9 (nobody judged it), d1 (3), d3 (0); d4 (2) is not found. The gain is the relevance:
    # DCG = 1 + 3 / log2(4) = 2.5, ideal 3 + 2 / log2(3) + 1 / log2(4) = 4.7618595071.
    # With gains of 2^relevance - 1 it would be (1 + 7 / 2) / (7 + 3 / log2(3) + 1 / 2) = 0.4790772087.
    qrels = {"q1": {"d1": 3, "d2": 1, "d3": 0, "d4": 2}}
    values = measure_run(qrels, {"q1": {"d1": 0.2, "d2": 0.9, "d3": 0.1, "d9": 0.5}})
    assert list(values) == list(RUN_METRICS)
    assert values["NDCG@10"][0] == pytest.approx(2.5 / 4.7618595071, abs=1e-9)
    assert values["MAP"][0] == pytest.approx((1 / 1 + 2 / 3) / 3, abs=1e-9)
    assert values["MRR@10"][0] == 1.0
    assert values["Recall@10"][0] == values["Recall@100"][0] == pytest.approx(2 / 3, abs=1e-9)


def test_recall_counts_up_to_its_depth():
    run = {"q1": {f"d{i}": -float(i) for i in range(1, 201)}}
    values = measure_run({"q1": {"d10": 1, "d11": 2, "d100": 1, "d101": 1, "gone": 1}}, run)
    assert values["Recall@10"][0] == pytest.approx(1 / 5)
    assert values["Recall@100"][0] == pytest.approx(3 / 5)


grades = st.dictionaries(st.sampled_from("abcdefghijklmno"), st.integers(-2, 4), min_size=2)


@given(grades, st.permutations("abcdefghijklmno"), st.integers(2, 15))
def test_agrees_with_scikit_learn_on_graded_judgements(judged, order, depth):
    from sklearn.metrics import ndcg_score

    run = {"q": {document: -place for place, document in enumerate(order[:depth])}}
    values = measure_run({"q": judged}, run)
    gains = [max(judged.get(document, 0), 0) for document in order]
    if not any(gains):
        assert all(np.isnan(values[metric][0]) for metric in RUN_METRICS)
        return
    theirs = ndcg_score([gains], [[depth - place for place in range(len(order))]], k=min(10, depth))
    ideal = sum(gain / np.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)[:10]))
    cut = sum(gain / np.log2(place + 2) for place, gain in enumerate(sorted(gains, reverse=True)[: min(10, depth)]))
    assert values["NDCG@10"][0] == pytest.approx(theirs * cut / ideal, abs=1e-9)


@given(st.dictionaries(st.text(min_size=1), st.booleans(), min_size=2), st.data())
def test_a_run_over_the_texts_of_a_sample_is_measured_as_the_sample(labels, data):
    scores = data.draw(st.lists(st.integers(0, 3), min_size=len(labels), max_size=len(labels)))
    texts = [f"text {key}" for key in sorted(labels, key=labels.get, reverse=True)]
    positives = sum(labels.values())
    one = RankingSample("q", positive=texts[:positives], negative=texts[positives:])
    by_sample = measure([one], [scores])
    by_run = measure_run(
        {"q": {text: int(i < positives) for i, text in enumerate(texts)}},
        {"q": dict(zip(texts, scores, strict=True))},
    )
    if positives in (0, len(texts)):
        assert measured(by_sample) == 0
    else:
        assert [by_sample[metric][0] for metric in METRICS] == [by_run[metric][0] for metric in METRICS]


@pytest.mark.parametrize("best", ["a", "b"])
def test_scores_that_are_one_in_float32_are_still_two(best):
    run = {"q1": {"a": 1.0, "b": 1.0} | {best: 1.0 + 1e-12}}
    assert measure_run({"q1": {best: 1}}, run)["MRR@10"][0] == 1.0


def test_equal_scores_are_ordered_by_the_hash_of_the_id():
    ids = [f"d{i}" for i in range(50)]
    places = rank(ids, [0.5] * 50)
    for order in (ids, ids[::-1]):
        values = measure_run({f"q{i}": {i: 1} for i in ids}, {f"q{i}": dict.fromkeys(order, 0.5) for i in ids})
        assert values["MAP"] == pytest.approx(1 / (places + 1))


def test_queries_of_a_run_that_found_nothing_and_that_nobody_judged():
    qrels = {"lost": {"d1": 1}, "empty": {"d1": 1}, "irrelevant": {"d1": 0, "d2": -1}, "unjudged": {}, "q": {"d1": 1}}
    values = measure_run(
        qrels, {"other": {"d1": 1.0}, "q": {"d2": 2.0, "d1": 1.0}, "empty": {}, "irrelevant": {"d1": 1}}
    )
    for metric in RUN_METRICS:
        assert values[metric][:2].tolist() == [0.0, 0.0]
        assert np.isnan(values[metric][2:4]).all()
    assert measured(values) == 3
    assert means(values)["MRR@10"] == pytest.approx(0.5 / 3)
    assert list(means(values)) == list(RUN_METRICS)
    assert np.isnan(means(measure_run({}, {}))["Recall@100"])


def test_two_runs_are_compared_query_by_query():
    qrels = {f"q{i}": {"d1": 1} for i in range(40)} | {"none": {"d1": 0}}
    old = measure_run(qrels, {query: {"d1": 1.0, "d2": 2.0} for query in qrels})
    new = measure_run(qrels, {query: {"d1": 3.0, "d2": 2.0} for query in qrels})
    change = paired_change(old["MRR@10"], new["MRR@10"], 0)
    assert (change.difference, change.low, change.high) == (0.5, 0.5, 0.5)
    assert change.p_value < 0.001
