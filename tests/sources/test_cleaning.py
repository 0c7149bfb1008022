from collections import Counter

from rag_core.base.records import RankingSample
from rag_core.base.tables import counts_table
from rag_core.sources.cleaning import clean_samples, count_samples, draw_samples


def test_cleaning_counts_what_it_takes_out():
    dropped = Counter()
    samples = [
        RankingSample(query="q", positive=["a", "a", " q "], negative=["b", "a", "b", "c"]),
        RankingSample(query="only", positive=["only"], negative=[]),
        RankingSample(query="free", candidates=["x", "x", "free"]),
    ]
    cleaned = clean_samples(samples, dropped)
    assert [(one.positive, one.negative, one.candidates) for one in cleaned] == [
        (["a"], ["b", "c"], None),
        (None, None, ["x"]),
    ]
    assert dropped == {
        "duplicate_passages": 3,
        "passages_equal_to_query": 3,
        "negatives_that_are_positives": 1,
        "queries_without_passages": 1,
    }


def test_counts():
    counts = count_samples(
        [RankingSample(query="q", positive=["a"], negative=["b", "c"]), RankingSample(query="r", candidates=["a"])]
    )
    assert counts == {
        "queries": 2, "positives": 1, "negatives": 2, "unlabelled": 1, "pairs": 4, "distinct_passages": 3,
    }  # fmt: skip
    assert counts_table({"train": counts}).splitlines() == [
        "       queries  positives  negatives  unlabelled  pairs  distinct passages",
        "train        2          1          2           1      4                  3",
    ]


def test_samples_are_drawn_by_the_seed_in_their_order():
    samples = [RankingSample(query=str(i), candidates=["x"]) for i in range(50)]
    drawn = [int(one.query) for one in draw_samples(samples, 10, 1)]
    assert len(drawn) == 10
    assert drawn == sorted(drawn) != list(range(10))
    assert draw_samples(samples, 10, 1) == draw_samples(samples, 10, 1) != draw_samples(samples, 10, 2)
    assert draw_samples(samples, 50, 1) == draw_samples(samples, None, 1) == samples
