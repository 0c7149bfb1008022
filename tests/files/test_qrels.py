import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.base.errors import DataError
from rag_core.files.bad_rows import BadRows
from rag_core.files.qrels import read_qrels, write_qrels

FIX = "Correct the row, or pass --skip_bad_rows to leave such rows out."
QRELS = {"q2": {"d1": 2, "d3": 0}, "q1": {"d1": 1}}

words = st.text(st.characters(codec="utf-8", exclude_characters="\ufeff"), min_size=1).filter(
    lambda text: text.split() == [text]  # a byte order mark may begin a file, but not an id
)
spaced = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n"), min_size=1).filter(str.strip)


def qrels_of(ids):
    judged = st.dictionaries(ids, st.integers(-2, 4), min_size=1)
    return st.dictionaries(ids, judged, min_size=1).filter(
        lambda qrels: any(relevance > 0 for found in qrels.values() for relevance in found.values())
    )


@given(
    st.one_of(
        st.tuples(st.sampled_from(["a.tsv", "a.tsv.gz"]), qrels_of(spaced)),
        st.tuples(st.sampled_from(["a.txt", "a.qrels.gz"]), qrels_of(words)),
    )
)
def test_what_is_written_is_read(tmp_path_factory, named):
    name, qrels = named
    path = tmp_path_factory.mktemp("x") / name
    assert write_qrels(path, qrels) == sum(map(len, qrels.values()))
    found = read_qrels(path)
    assert found == qrels
    assert list(found) == list(qrels)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", b"query-id\tcorpus-id\tscore\nq2\td1\t2\nq2\td3\t0\nq1\td1\t1\n"),
        ("qrels.txt", b"q2 0 d1 2\nq2 0 d3 0\nq1 0 d1 1\n"),
    ],
)
def test_the_name_tells_the_format(tmp_path, name, content):
    write_qrels(tmp_path / name, QRELS)
    assert (tmp_path / name).read_bytes() == content
    write_qrels(tmp_path / f"{name}.gz", QRELS)
    assert gzip.decompress((tmp_path / f"{name}.gz").read_bytes()) == content


@pytest.mark.parametrize(
    "content",
    [
        "query-id\tcorpus-id\tscore\r\nq2\td1\t2\r\nq2\td3\t0\r\nq1\td1\t1",
        "q2\td1\t2\nq2\td3\t0\nq1\td1\t1\n",
        "q2 0 d1 2\nq2  0  d3\t0\n\nq1 0 d1 1\n",
        "q2\t0\td1\t2\nq2\tQ0\td3\t0\nq1\t0\td1\t1\n",
        "q2 0 d1 1\nq1 0 d1 1\nq2 0 d3 -1\nq2 0 d1 2\nq2 0 d1 0\nq2 0 d3 0\n",
    ],
    ids=["beir", "no names", "trec", "trec with tabs", "judged twice"],
)
def test_files_of_others(tmp_path, content):
    path = tmp_path / "a.tsv"
    path.write_text(content)
    assert read_qrels(path) == QRELS


@pytest.mark.parametrize(
    ("first", "row", "what"),
    [
        ("q1\td1\t1", "q1\td1", "has 2 tab-separated fields, not query-id, corpus-id, score"),
        ("q1\td1\t1", "q1 0 d1 1", "has 1 tab-separated fields, not query-id, corpus-id, score"),
        ("q1\td1\t1", "q1\td1\t1.5", "the score '1.5' is not a whole number"),
        ("q1\td1\t1", "q9\td1\t1", "'q9' is not in queries"),
        ("q1\td1\t1", "q1\td9\t1", "'d9' is not in the corpus"),
        ("q1 0 d1 1", "q1 0 d1", "has 3 columns, not query, 0, document, relevance"),
        ("q1 0 d1 1", "q1 0 d1 high", "the relevance 'high' is not a whole number"),
        ("q1 0 d1 1", "q1 0 d9 1", "'d9' is not in the corpus"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path, first, row, what):
    path = tmp_path / "a.tsv"
    path.write_text(f"{first}\n{row}\n")
    with pytest.raises(DataError) as error:
        read_qrels(path, queries={"q1"}, documents={"d1"}, bad_rows=BadRows(skip=False))
    assert str(error.value) == f"{path}:2: {what}. {FIX}"
    bad_rows = BadRows(skip=True)
    assert read_qrels(path, queries={"q1"}, documents={"d1"}, bad_rows=bad_rows) == {"q1": {"d1": 1}}
    assert [str(one) for one in bad_rows.errors] == [str(error.value)]


def test_a_fourth_column_under_the_names_of_beir_is_no_trec(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("query-id\tcorpus-id\tscore\tsplit\nq1\td1\t1\t7\n")
    with pytest.raises(DataError) as error:
        read_qrels(path, bad_rows=BadRows(skip=False))
    assert str(error.value) == f"{path}:2: has 4 tab-separated fields, not query-id, corpus-id, score. {FIX}"


def test_files_that_cannot_be_used(tmp_path):
    blank, nothing = tmp_path / "blank.tsv", tmp_path / "nothing.tsv"
    blank.write_text("q1\t\t1\n")
    nothing.write_text("query-id\tcorpus-id\tscore\nq1\td1\t0\n")
    for path, what in [
        (blank, f":1: an id is empty. {FIX}"),
        (nothing, ": judges no document above 0. Check the scores, or remove the file."),
        (tmp_path, ": is a directory. Name a qrels file in it."),
        (tmp_path / "none.tsv", ": no such file. Check the path."),
    ]:
        with pytest.raises(DataError) as error:
            read_qrels(path, bad_rows=BadRows(skip=False))
        assert str(error.value) == f"{path}{what}"


@pytest.mark.parametrize(("name", "key"), [("a.tsv", "d\t1"), ("a.tsv", " "), ("a.tsv.gz", "d\n1"), ("a.txt", "d 1")])
def test_an_id_that_a_file_cannot_hold(tmp_path, name, key):
    path = tmp_path / name
    with pytest.raises(DataError) as error:
        write_qrels(path, {"q1": {"d1": 1, key: 1}})
    assert str(error.value) == f"{path}: cannot hold the id {key!r}. Give ids without white space."
    assert list(tmp_path.iterdir()) == []
