"""rank_baselines through the front door: what it leaves, what it prints, what it refuses."""

from query_expansion_rl.retrieval.searching import ExpandedQuery
from tests.query_expansion_rl.aliases import ALIASES, encode


def test_words_alone_find_nothing_and_their_expansion_finds_all(workspace):
    figures = workspace.summary.figures
    assert (figures["bm25"]["NDCG@10"], figures["rm3"]["NDCG@10"]) == (0, 0)
    assert figures["hybrid"]["NDCG@10"] == figures["rm3_hybrid"]["NDCG@10"] == 1
    assert workspace.summary.headroom == 1
    searcher = workspace.searcher("bm25")
    for topic in workspace.of("test"):
        places, _ = searcher.search([ExpandedQuery(topic.query, ALIASES[topic.query])], 2)
        assert {list(workspace.corpus.documents)[place] for place in places[0]} == set(topic.relevant)


def test_a_hybrid_searcher_takes_expansions(workspace):
    searcher = workspace.searcher("hybrid", encode)
    places, _ = searcher.search([ExpandedQuery("MI", "cystic fibrosis", weight=0.1)], 2)
    assert {list(workspace.corpus.documents)[place] for place in places[0]} == {"d4-0", "d4-1"}
