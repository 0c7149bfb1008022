from collections import Counter

from rag_core.base.tables import format_ranking, format_rows, listed


def test_rows_as_markdown():
    assert format_rows([["model", "MAP"], ["a", "0.5000"], ["longer", "1"]]).splitlines() == [
        "| model  | MAP    |",
        "|--------|--------|",
        "| a      | 0.5000 |",
        "| longer | 1      |",
    ]


def test_passages_are_cut_to_the_width():
    rows = [["rank", "passage"], ["1", "a" * 100], ["2", "漢" * 50], ["3", "e\u0301" * 30 + "\x1b[31m"]]
    lines = format_ranking(rows, 40).splitlines()
    assert lines[1] == "   1  " + "a" * 33 + "…"
    assert lines[2] == "   2  " + "漢" * 16 + "…"  # each takes two columns
    assert lines[3] == "   3  " + "e\u0301" * 30 + "[31m"  # no combining character takes one, no control is printed
    assert format_ranking([["rank", "passage"], ["1", "short"]], 40) == "rank  passage\n   1  short"


def test_what_was_left_out_is_listed():
    dropped = Counter({"empty_passages": 1, "duplicate_passages": 2, "long_queries": 0})
    assert listed(dropped) == "2 duplicate passages, 1 empty passages"
    assert listed(Counter()) == "nothing"
