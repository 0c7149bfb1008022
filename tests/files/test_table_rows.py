"""Rows of tables: lists in every form that tools write them in, and what is refused with its row."""

import gzip

import numpy as np
import pandas as pd
import pytest

from rag_core.base.errors import DataError
from rag_core.base.records import Passage, Query, RankingSample
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records, read_samples
from rag_core.files.table_rows import texts_of

LISTS = [["a", "it's b"], ['say "c", d', "line\nbreak", "[e]", "\u0939\u093f"]]
FIX = "Correct the row, or pass --skip_bad_rows to leave such rows out."


def frame(lists=LISTS):
    return pd.DataFrame({"query": ["q1", "q2"], "positive": lists, "negative": [["x"], ["y", "z"]], "score": [1, 2]})


def samples(path, bad_rows=None):
    return [(s.query_id, s.query, s.positive, s.negative) for s in read_samples(path, bad_rows=bad_rows, tables=True)]


EXPECTED = [("q1", LISTS[0], ["x"]), ("q2", LISTS[1], ["y", "z"])]


@pytest.mark.parametrize("form", [list, np.array, lambda texts: __import__("json").dumps(texts)])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz", "a.parquet"])
def test_what_pandas_writes(tmp_path, form, name):
    path = tmp_path / name
    table = frame([form(texts) for texts in LISTS])
    if name == "a.parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if "tsv" in name else ",", index=name != "a.tsv")
    found = samples(path)
    assert [row[1:] for row in found] == EXPECTED
    assert [row[0] for row in found] == (["1", "2"] if name == "a.parquet" else ["2", "3"])


@pytest.mark.parametrize(
    ("cell", "texts"),
    [
        ("one text", ["one text"]),
        ("[1] a reference", ["[1] a reference"]),
        ("", []),
        (" ", []),
        ("[]", []),
        (" ['a', \"b's\"] ", ["a", "b's"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ('["a", "\\u0062"]', ["a", "b"]),
        (r"['a\'s', r'\d', 'b\n']", ["a's", r"\d", "b\n"]),
        ("['[', ']', ',']", ["[", "]", ","]),
        ("[1, 2]", [1, 2]),
    ],
)
def test_the_texts_of_a_cell(cell, texts):
    assert texts_of("positive", cell) == texts


@pytest.mark.parametrize(
    "cell",
    ["[applause]", "['a', 1]", "['a', nan]", "['a' ... 'b']", "['a'], ['b']", "[['a']]", "[b'a']", "['a]", "[f'{x}']"],
)
def test_what_looks_like_a_list_and_is_none(cell):
    with pytest.raises(ValueError, match=r"^'positive' looks like a list and is none \(") as error:
        texts_of("positive", cell)
    assert str(error.value).endswith(f"({cell!r})")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("q,[applause],x", "'positive' looks like a list and is none ('[applause]')"),
        ("q,a", "has 2 cells, not one for each of query, positive, negative"),
        ("q,a,b,c", "has 4 cells, not one for each of query, positive, negative"),
        ("caf\xe9,a,b", "'query' is not UTF-8"),
        (",a,b", "'query' is empty"),
        ("q,,", "the RankingSample has no candidates"),
        ('q,"[""a"", """"]",b', "'positive[1]' is empty"),
        ("q,[3],b", "'positive[0]' should be a valid string"),
    ],
)
def test_a_bad_row_is_named_by_its_first_line(tmp_path, row, what):
    path = tmp_path / "a.csv"
    content = f'query,positive,negative\n"two\nlines",a,b\n\n{row}\nlast,,b\n'
    path.write_bytes(content.encode("latin1"))
    with pytest.raises(DataError) as error:
        samples(path, bad_rows=BadRows(skip=False))
    assert str(error.value) == f"{path}:5: {what}. {FIX}"
    bad_rows = BadRows(skip=True)
    assert samples(path, bad_rows) == [("2", "two\nlines", ["a"], ["b"]), ("6", "last", [], ["b"])]
    assert list(map(str, bad_rows.errors)) == [str(error.value)]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'query,candidates\n"q,a\nr,b\n', "is not CSV (unexpected end of data). Correct the quotes from this row on."),
        (
            b'query,candidates\nq,"a" b\n',
            """is not CSV (',' expected after '"'). Correct the quotes from this row on.""",
        ),
    ],
)
def test_quotes_that_do_not_end(tmp_path, content, what):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        samples(path, BadRows(skip=True))
    assert str(error.value) == f"{path}:2: {what}"


def test_candidates_and_ids_and_other_separators(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        "\ufeffquery; candidates;positive;negative;query_id\r\nq;\"['a', 'b']\";;;7\r\nr;;a;;\r\n".encode()
    )
    found = read_samples(path, tables=True)
    assert found == [
        RankingSample("q", candidates=["a", "b"], query_id="7"),
        RankingSample("r", positive=["a"], negative=[], query_id="3"),
    ]


def test_cells_of_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    table = pd.DataFrame(
        {
            "query": ["q", "r", None, "t"],
            "candidates": [["a"], None, ["b"], ["c", None]],
            "positive": [None, ["p"], None, None],
            "negative": [None, None, None, None],
            "query_id": [1, 2, 3, 4],
            "when": pd.to_datetime(["2024-01-01"] * 4),
        }
    )
    table.to_parquet(path)
    bad_rows = BadRows(skip=True)
    assert samples(path, bad_rows) == [("1", "q", None, None), ("2", "r", ["p"], [])]
    assert list(map(str, bad_rows.errors)) == [
        f"{path}:3: a RankingSample needs 'query', which is missing. {FIX}",
        f"{path}:4: 'candidates[1]' should be a valid string. {FIX}",
    ]
    pd.DataFrame({"query": [b"q", b"\xff"], "candidates": [[b"a"], [b"b"]]}).to_parquet(path)
    with pytest.raises(DataError) as error:
        samples(path, bad_rows=BadRows(skip=False))
    assert str(error.value) == f"{path}:2: has bytes that are not UTF-8 (invalid start byte). {FIX}"


def test_tables_that_cannot_be_read(tmp_path):
    for name, content, what in [
        ("none.parquet", None, "no such file. Check the path."),
        ("none.csv", None, "no such file. Check the path."),
        (
            "cut.csv.gz",
            gzip.compress(b"query,candidates\n" + b"q,a\n" * 9999)[:-20],
            "the gzip file is damaged or cut off",
        ),
        ("wide.csv", "query,candidates\nq,a\n".encode("utf-16"), "is UTF-16. Convert it: iconv"),
        ("sheet.csv", b"PK\x03\x04", "is a zip archive or a spreadsheet."),
        ("bad.parquet", b"PAR1" * 9, "cannot be read as Parquet ("),
        ("empty.csv", b"", "holds no RankingSample records."),
        ("head.csv", b"query,candidates\n", "holds no RankingSample records."),
    ]:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError) as error:
            samples(path)
        assert str(error.value).startswith(f"{path}: {what}")


def test_passages_and_queries(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("title,text\nLakes,ice\n,['melt']\n")
    assert list(read_records(path, Passage, tables=True)) == [Passage("ice", "Lakes"), Passage("['melt']", "")]
    path.write_text("query,_id\nwhat is ice,\n")
    assert list(read_records(path, Query, tables=True)) == [Query("what is ice")]
