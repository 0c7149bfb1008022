"""Fusions reckoned by hand, and against the plain way to fuse: a dictionary per query."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milvus_optimization.retrieval.fusion import RankingPair, normalised
from milvus_optimization.retrieval.rankings import Ranking, WordSearch
from rag_core.retrieval.analyser import PLAIN


def ranking(*rows, width=None):
    """Return a ranking of rows of (place, score)."""
    width = width or max(map(len, rows))
    places = [[place for place, _ in row] + [-1] * (width - len(row)) for row in rows]
    scores = [[score for _, score in row] + [-math.inf] * (width - len(row)) for row in rows]
    return Ranking(np.array(places, dtype=np.int64), np.array(scores, dtype=np.float32))


DENSE = ranking([(0, 0.9), (1, 0.5), (2, 0.1)], [(4, 0.3), (5, 0.2), (6, 0.1)])
WORDS = ranking([(2, 6.0), (3, 2.0)], [], width=2)
PAIR = RankingPair(DENSE, WORDS)


def test_reciprocal_ranks():
    # k = 1: document 2 has 1/4 + 1/2, 0 has 1/2, 1 and 3 have 1/3 each, ordered by id
    assert PAIR.by_ranks(1, 3, 4).tolist() == [[2, 0, 1, 3], [4, 5, 6, -1]]
    # of depth 2, document 2 has only BM25's 1/2
    assert PAIR.by_ranks(1, 2, 4).tolist() == [[0, 2, 1, 3], [4, 5, -1, -1]]
    # k = 60: 1/63 + 1/61 = .0323, then 1/61, 1/62 twice
    assert PAIR.by_ranks(60, 3, 4)[0].tolist() == [2, 0, 1, 3]


def test_a_small_k_lets_the_first_places_count_more():
    # document 9 is third in both, 0 is first in one
    pair = RankingPair(ranking([(0, 3), (1, 2), (9, 1)]), ranking([(2, 3), (3, 2), (9, 1)]))
    assert pair.by_ranks(0, 3, 1).tolist() == [[0]]  # 1 against 2/3
    assert pair.by_ranks(60, 3, 1).tolist() == [[9]]  # 1/61 against 2/63


def test_minmax():
    # dense: 1, .5, 0; BM25: 1, 0. Half of each: 0 has .5, 1 has .25, 2 has 0 + .5, 3 has 0
    assert PAIR.by_scores(0.5, "minmax", 3, 4)[0].tolist() == [0, 2, 1, 3]
    assert PAIR.by_scores(0.4, "minmax", 3, 4)[0].tolist() == [2, 0, 1, 3]
    # of depth 1 each has one result, which is the best and the last: 1
    assert PAIR.by_scores(0.6, "minmax", 1, 4)[0].tolist() == [0, 2]


def test_arctan():
    # dense: .95, .75, .55; BM25: 2 atan(6) / pi = .8949, 2 atan(2) / pi = .7048
    found = PAIR.by_scores(0.7, "arctan", 3, 4)[0].tolist()
    # 2 has .385 + .268 = .653, 0 has .665, 1 has .525, 3 has .211
    assert found == [0, 2, 1, 3]
    assert PAIR.by_scores(0.6, "arctan", 3, 4)[0].tolist() == [2, 0, 1, 3]  # .688, .57, .45, .282


def test_normalised_scores():
    scores = [[3.0, 1.0, -math.inf], [2.0, 2.0, 2.0], [-math.inf] * 3]
    assert normalised(scores, "minmax", "bm25").tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert normalised(scores, "none", "bm25").tolist() == [[3, 1, 0], [2, 2, 2], [0, 0, 0]]
    assert normalised(scores, "arctan", "bm25")[0] == pytest.approx([0.795167, 0.5, 0])
    assert normalised([[0.5, -0.5]], "arctan", "cosine").tolist() == [[0.75, 0.25]]


def fused_plainly(dense, words, weights, shares):
    """Sum shares by document in a dictionary, as milvus-lite does it."""
    sums = {}
    for row, weight, share in zip((dense, words), weights, shares, strict=True):
        for (place, _), value in zip(row, share, strict=True):
            sums[place] = sums.get(place, 0.0) + weight * value
    return sorted(sums, key=lambda place: (-sums[place], place))


ROW = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9)), max_size=8, unique_by=lambda pair: pair[0]).map(
    lambda pairs: sorted(pairs, key=lambda pair: -pair[1])
)


@given(st.lists(st.tuples(ROW, ROW), min_size=1, max_size=4), st.integers(1, 9), st.sampled_from([1, 10, 60]))
def test_fusions_are_those_of_a_dictionary(rows, depth, k):
    pair = RankingPair(*(ranking(*(row[side] for row in rows), width=8) for side in (0, 1)))
    found = {
        "rank": pair.by_ranks(k, depth, 16),
        **{name: pair.by_scores(0.3, name, depth, 16) for name in ("minmax", "none")},
    }
    for number, sides in enumerate(rows):
        cut = [side[:depth] for side in sides]
        scores = [[score for _, score in side] for side in cut]
        spread = [[(s - min(row)) / (max(row) - min(row)) if max(row) > min(row) else 1 for s in row] for row in scores]
        expected = {
            "rank": fused_plainly(*cut, (1, 1), [[1 / (k + i + 1) for i in range(len(row))] for row in cut]),
            "minmax": fused_plainly(*cut, (0.3, 0.7), spread),
            "none": fused_plainly(*cut, (0.3, 0.7), scores),
        }
        for name, places in found.items():
            assert [place for place in places[number] if place >= 0] == expected[name], name


def test_bm25_scores_are_those_of_the_paper():
    texts = ["ice ice cave", "snow", "ice lake snow snow"]
    found, milliseconds = WordSearch(texts, PLAIN).rank(["ice", "sun"], 5, k1=2.0, b=0.5)
    assert found.places.tolist() == [[0, 2, -1], [-1, -1, -1]]
    idf, mean = math.log(1 + 1.5 / 2.5), 8 / 3
    expected = [idf * tf * 3 / (tf + 2 * (0.5 + 0.5 * length / mean)) for tf, length in ((2, 3), (1, 4))]
    assert found.scores[0, :2] == pytest.approx(expected, rel=1e-5)
    assert milliseconds > 0
