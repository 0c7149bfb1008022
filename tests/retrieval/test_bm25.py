import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rag_core.retrieval.bm25 import BM25, nearest_passages

WORDS = st.lists(st.sampled_from(["ice", "cave", "lake", "snow", "melt"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=12), WORDS, st.integers(1, 14))
def test_nearest_passages_are_the_head_of_a_full_stable_sort(passages, query, count):
    scores = BM25(passages).scores(query)
    expected = [int(i) for i in np.argsort(-scores, kind="stable")[:count]]
    assert nearest_passages([query], passages, count) == [expected]
