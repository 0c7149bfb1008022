from rag_core.base.records import RankingSample


def test_a_passage_in_both_lists_is_a_positive_and_stands_once():
    sample = RankingSample("q", positive=["a", "b", "a"], negative=["c", "a"])
    assert list(sample.passages()) == [("a", 1), ("b", 1), ("c", 0)]
