"""The table of a ranking, by hand."""

import numpy as np

from rag_core.scoring.ranking_table import ranking_rows

PASSAGES = [("first  in\nthe file", 0), ("second", 1), ("third", 0)]


def test_the_rows_by_hand():
    assert ranking_rows(PASSAGES, np.array([0.1, 0.9, 0.5]), np.array([3.0, 1.0, 2.0])) == [
        ["rank", "before", "moved", "score", "score before", "label", "passage"],
        ["1", "3", "+2", "0.9000", "1.0000", "relevant", "second"],
        ["2", "2", "", "0.5000", "2.0000", "", "third"],
        ["3", "1", "-2", "0.1000", "3.0000", "", "first in the file"],
    ]
    unlabelled = [(text, None) for text, _ in PASSAGES]
    assert ranking_rows(unlabelled, [1, 2, 3], None)[:2] == [["rank", "score", "passage"], ["1", "3.0000", "third"]]
