"""What an expansion is worth: hand-checked values, an independent nDCG, and the faults that must not pay."""

import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_expansion_rl.retrieval.searching import WordSearcher
from query_expansion_rl.rewards.copying import longest_span, spaced
from query_expansion_rl.rewards.ndcg import log_rank, ndcg
from query_expansion_rl.rewards.reward import Reward, RewardSettings, Sample
from rag_core.retrieval.analyser import PLAIN

PASSAGES = [
    "myocardial infarction is treated with aspirin in most of the clinics that were asked",
    "MI stands for a state in the north",
    "MI is a note as well",
    "aspirin thins blood",
    "clinics of the north",
    "blood and bones",
]
GAINS = {"q": {0: 2.0, 3: 1.0}}
QUERIES = {"q": "MI", "unknown words": "xyzzy", "no gains": "blood"}


def make_reward(examples=(), **settings):
    gains = GAINS | {"unknown words": {3: 1.0}, "no gains": {}}
    searcher = WordSearcher(PASSAGES, PLAIN)
    chosen = RewardSettings(**settings)
    return Reward(QUERIES, PASSAGES, searcher, gains, settings=chosen, examples=examples)


def test_ndcg_by_hand():
    places = np.array([[3, 0, 5], [5, 4, -1]])
    best = 2 / math.log2(2) + 1 / math.log2(3)
    found = ndcg(places, [GAINS["q"], GAINS["q"]])
    assert found == pytest.approx([(1 + 2 / math.log2(3)) / best, 0])
    assert math.isnan(ndcg(places[:1], [{0: 0.0, 3: -1.0}])[0])


@given(st.data())
def test_ndcg_is_that_of_trec_eval(data):
    grades = data.draw(st.dictionaries(st.integers(0, 29), st.integers(0, 4), min_size=1))
    grades[30] = 1  # one that is relevant
    row = data.draw(st.permutations(range(31)))[: data.draw(st.integers(1, 31))]
    mine = ndcg(np.array([row]), [grades])[0]
    qrels = [ir_measures.Qrel("q", str(place), grade) for place, grade in grades.items()]
    run = [ir_measures.ScoredDoc("q", str(place), -float(rank)) for rank, place in enumerate(row)]
    assert mine == pytest.approx(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10])


def test_log_rank_by_hand():
    places = np.array([[0, 5, 3], [1, 2, 4], [0, 3, -1]])
    found = log_rank(places, [GAINS["q"]] * 3)
    third = 1 - math.log(3) / math.log(4)
    assert found == pytest.approx([(2 * 1 + third) / 3, 0, (2 + 1 - math.log(2) / math.log(4)) / 3])


def test_span_counts_words_in_a_row():
    assert longest_span(spaced("One two, three four FIVE six"), [spaced("zero one two three four five seven")]) == 5
    assert longest_span(spaced("one two three four"), [spaced("one two three four")]) == 0  # a term, no copy
    assert longest_span(spaced("none two three four five"), [spaced("one two three four five")]) == 0


def test_gain_is_the_change_of_ndcg():
    (worth,) = make_reward(query_weight=1.0).score("q", ["myocardial infarction aspirin"])
    assert worth.base == 0
    assert worth.parts == {"gain": 1.0, "rank_shaping": 0.0, "length": 0.0, "copy": 0.0, "format": 0.0}
    assert worth.reward == 1


def test_what_changes_nothing_is_worth_nothing():
    empty, unknown, query = make_reward().score("q", ["", "xyzzy", "MI"])
    assert empty.reward == unknown.reward == query.reward == 0
    (worth,) = make_reward().score("unknown words", ["plugh"])
    assert worth.reward == worth.base == 0


def test_query_without_a_known_word_is_found_by_its_expansion():
    (worth,) = make_reward().score("unknown words", ["aspirin thins"])
    assert worth.parts["gain"] == 1


def test_a_copied_passage_earns_nothing():
    copied, own, half = make_reward(query_weight=1.0).score(
        "q",
        [
            "myocardial infarction is treated with aspirin",
            "aspirin for infarction, myocardial, clinics, treated",
            "one two three four five myocardial infarction is treated with",
        ],
    )
    assert copied.parts["gain"] > 0
    assert copied.parts["copy"] == -copied.parts["gain"]
    assert copied.reward == 0
    assert own.reward > 0
    assert half.reward > 0  # 5 of 10 words
    (allowed,) = make_reward(query_weight=1.0, max_copy=1.0).score("q", [PASSAGES[0]])
    assert allowed.reward > 0


def test_a_copied_example_earns_nothing():
    text = "aspirin, heart, clinic, infarction, myocardial"
    assert make_reward().score("q", [text])[0].reward > 0
    assert make_reward(examples=[text]).score("q", [text])[0].reward == 0


def test_a_fault_spares_nothing_of_a_loss():
    reward = make_reward(query_weight=1.0)
    good = "myocardial infarction aspirin"
    whole, cut = reward.score("q", [good, good], [False, True])
    assert cut.reward == whole.reward / 2
    (repeated,) = reward.score("q", [" ".join([good] * 4)])
    assert repeated.parts["format"] == pytest.approx(-repeated.parts["gain"] / 2)
    spoiled = Reward({"q": "aspirin"}, PASSAGES, WordSearcher(PASSAGES, PLAIN), GAINS, settings=RewardSettings())
    bad = "north " * 9 + "state well note"
    (lost,) = spoiled.score("q", [bad], [True])
    assert lost.parts["gain"] <= 0
    assert lost.parts["format"] == 0


def test_words_beyond_the_free_ones_cost():
    (worth,) = make_reward(free_words=2, length_cost=0.01).score("q", ["a b c d"])
    assert worth.reward == worth.parts["length"] == -0.02


def test_shaping_sees_what_the_first_ten_do_not():
    passages = ["aspirin zero"] + [f"MI filler {number}" for number in range(30)]
    passages += ["MI and the heart heart heart, long long long long long"]
    gains = {"q": {31: 1.0}}
    searcher = WordSearcher(passages, PLAIN)
    text = "long filler"

    def worth(**settings):
        chosen = RewardSettings(query_weight=0.1, **settings)
        return Reward({"q": "MI filler"}, passages, searcher, gains, settings=chosen).score("q", [text])[0]

    assert worth(rank_shaping=0.5).parts["rank_shaping"] > 0
    assert worth().parts["rank_shaping"] == 0


@given(st.lists(st.sampled_from(["aspirin", "north", "", "xyzzy", "blood bones", "myocardial"])), st.randoms())
def test_the_order_of_samples_is_that_of_rewards(texts, random):
    reward = make_reward()
    order = list(range(len(texts)))
    random.shuffle(order)
    straight = reward.score("q", texts)
    assert reward.score("q", [texts[place] for place in order]) == [straight[place] for place in order]


@given(
    st.lists(st.sampled_from(["MI", "aspirin", "north", "blood", "myocardial", "infarction", "the", "a"]), max_size=60),
    st.booleans(),
)
def test_a_reward_is_the_sum_of_its_parts_and_bounded(words, cut):
    reward = make_reward(query_weight=1.0, rank_shaping=0.5, free_words=4, length_cost=0.03)
    (worth,) = reward.score_all([Sample("q", " ".join(words), cut)])
    assert -1 <= worth.reward <= 1
    assert worth.reward == pytest.approx(max(-1, min(1, sum(worth.parts.values()))), abs=1e-6)


def test_only_queries_with_gains_are_measured():
    reward = make_reward()
    assert [reward.measures(key) for key in QUERIES] == [True, True, False]
    assert reward.base(["q", "unknown words"]) == [0, 0]
