import gzip
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.base.errors import DataError
from rag_core.base.records import (
    LARGEST_SCORE,
    Document,
    Passage,
    Query,
    RankingSample,
    ScoredPair,
    SoftLabels,
    Triplet,
)
from rag_core.files.bad_rows import BadRows
from rag_core.files.inputs import sha256
from rag_core.files.jsonl import output_path, read_by_id, read_groups, read_records, read_samples, write_records

text = st.text(min_size=1).filter(str.strip)


@given(
    st.lists(
        st.builds(
            ScoredPair,
            text,
            text,
            text,
            st.floats(-LARGEST_SCORE, LARGEST_SCORE),
            st.sampled_from([0, 1, None]),
        ),
        min_size=1,
    ),
    st.sampled_from([".jsonl", ".jsonl.gz"]),
)
def test_what_is_written_is_read(tmp_path_factory, records, suffix):
    path = tmp_path_factory.mktemp("x") / f"a{suffix}"
    assert write_records(path, records) == len(records)
    assert list(read_records(path, ScoredPair)) == records


def test_a_sample_without_id_gets_its_line_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"query": "a", "candidates": ["x"]}\n\n{"query": "a", "candidates": ["x"]}\n')
    assert [sample.query_id for sample in read_samples(path)] == ["2", "4"]


def test_keys_of_others_are_ignored_and_a_byte_order_mark_too(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"query": "a", "positive": ["x"], "negative": ["y"], "source": {"k": 1}}\r\n')
    assert read_samples(path)[0].positive == ["x"]


@pytest.mark.parametrize(
    ("record", "row"),
    [
        (Query("ice"), b'{"text":"ice"}'),
        (Query("ice", id="q1"), b'{"text":"ice","_id":"q1"}'),
        (Passage("ice"), b'{"text":"ice"}'),
        (Document("ice", "Lakes", id="d1"), b'{"text":"ice","title":"Lakes","_id":"d1"}'),
        (Document("ice", id="d1"), b'{"text":"ice","_id":"d1"}'),
        (ScoredPair("q1", "q", "p", 1.0), b'{"query_id":"q1","query":"q","passage":"p","score":1.0,"label":null}'),
    ],
)
def test_ids_are_written_as_beir_spells_them_and_only_a_label_may_be_null(tmp_path, record, row):
    path = tmp_path / "a.jsonl"
    write_records(path, [record])
    assert path.read_bytes() == row + b"\n"
    assert list(read_records(path, type(record))) == [record]


def test_a_query_of_a_log(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"query": "ice", "text": "all that was said", "id": 7}\n{"text": "lake"}\n')
    assert list(read_records(path, Query)) == [Query("ice"), Query("lake")]


def test_documents_and_queries_by_id(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"_id": "2", "text": "b", "metadata": {}}\n{"_id": "1", "text": "a", "title": ""}\n')
    documents = read_by_id(path, Document)
    assert documents == {"2": Document("b", id="2"), "1": Document("a", "", id="1")}
    assert list(documents) == ["2", "1"]
    assert read_by_id(path, Query)["1"] == Query("a", id="1")
    path.write_text('{"_id": 7, "text": "a number is as good"}\n')
    assert list(read_by_id(path, Query)) == ["7"]


@pytest.mark.parametrize(
    ("record_type", "row", "what"),
    [
        (Document, '{"id": "2", "text": "b"}', "a Document needs '_id', which is missing"),
        (Query, '{"id": "2", "text": "b"}', "a Query needs '_id', which is missing"),
        (Query, '{"_id": true, "text": "b"}', "'_id' should be a valid string"),
        (Query, '{"_id": "2"}', "a Query needs 'query' or 'text', which is missing"),
    ],
)
def test_rows_that_have_no_id_or_no_text(tmp_path, record_type, row, what):
    path = tmp_path / "a.jsonl"
    path.write_text('{"_id": "1", "text": "a"}\n' + row + "\n")
    with pytest.raises(DataError) as error:
        read_by_id(path, record_type, bad_rows=BadRows(skip=False))
    assert str(error.value) == (f"{path}:2: {what}. Correct the row, or pass --skip_bad_rows to leave such rows out.")
    with pytest.raises(DataError) as bare:
        read_by_id(path, record_type)  # no flag of the stage would be of use
    assert str(bare.value) == f"{path}:2: {what}. Correct the row."
    bad_rows = BadRows(skip=True)
    assert list(read_by_id(path, record_type, bad_rows=bad_rows)) == ["1"]
    assert [str(one) for one in bad_rows.errors] == [str(error.value)]


@pytest.mark.parametrize("record_type", [Document, Query])
def test_an_id_that_stands_twice(tmp_path, record_type):
    path = tmp_path / "a.jsonl"
    path.write_text('{"_id": "1", "text": "a"}\n' * 2)
    with pytest.raises(DataError) as error:
        read_by_id(path, record_type, bad_rows=BadRows(skip=True))
    assert str(error.value) == f"{path}:2: _id '1' stands in more than one row. Keep one of them."


BAD = [
    (RankingSample, b"{", "is not JSON (EOF while parsing an object)"),
    (RankingSample, b"[1]", "is not a JSON object"),
    (RankingSample, b'{"query": " ", "positive": ["x"], "negative": []}', "'query' is empty"),
    (RankingSample, b'{"query": 3, "positive": ["x"], "negative": []}', "'query' should be a valid string"),
    (RankingSample, b'{"query": "a", "positive": ["x"], "negative": ["y", ""]}', "'negative[1]' is empty"),
    (RankingSample, b'{"query": "a", "positive": "x", "negative": ["y"]}', "'positive' should be a valid array"),
    (RankingSample, b'{"query": "a"}', "the RankingSample needs 'positive' and 'negative', or 'candidates'"),
    (RankingSample, b'{"query": "a", "positive": [], "negative": []}', "the RankingSample has no candidates"),
    (RankingSample, b'{"positive": ["a"], "negative": ["b"]}', "a RankingSample needs 'query', which is missing"),
    (
        RankingSample,
        b'{"query": "a", "positive": ["b"], "negative": [], "candidates": ["c"]}',
        "the RankingSample has both 'candidates' and 'positive'/'negative'",
    ),
    (ScoredPair, b'{"query_id": "1", "query": "a", "passage": "b", "score": NaN}', "'score' should be a finite number"),
    (ScoredPair, b'{"query_id": "1", "query": "a", "passage": "b", "score": "1"}', "'score' should be a valid number"),
    (
        ScoredPair,
        b'{"query_id": "1", "query": "a", "passage": "b", "score": 1, "label": 2}',
        "'label' should be 0 or 1",
    ),
    (
        Triplet,
        b'{"query_id": "1", "query": "a", "positive": "b", "negative": "c", "score": 0}',
        "the Triplet has a margin ('score') that is not above 0",
    ),
    (
        SoftLabels,
        b'{"query_id": "1", "query": "a", "passages": ["b"], "scores": [1, 2]}',
        "the SoftLabels has 1 passages but 2 scores",
    ),
    (
        ScoredPair,
        b'{"query_id": "1", "query": "a", "positive": "b", "negative": "c", "score": 1}',
        "is a Triplet (made by create_triplets), where a ScoredPair is needed",
    ),
]


@pytest.mark.parametrize(("record_type", "line", "what"), BAD, ids=[what[:40] for _, _, what in BAD])
def test_a_bad_row_is_named_with_file_and_line(tmp_path, record_type, line, what):
    path = tmp_path / "a.jsonl"
    good = {
        RankingSample: b'{"query": "a", "candidates": ["b"]}',
        ScoredPair: b'{"query_id": "0", "query": "a", "passage": "b", "score": 1}',
        Triplet: b'{"query_id": "0", "query": "a", "positive": "b", "negative": "c", "score": 1}',
        SoftLabels: b'{"query_id": "0", "query": "a", "passages": ["b"], "scores": [1]}',
    }[record_type]
    path.write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(DataError) as error:
        list(read_records(path, record_type))
    assert str(error.value).startswith(f"{path}:2: {what}")
    bad_rows = BadRows(skip=True)
    assert len(list(read_records(path, record_type, bad_rows=bad_rows))) == 1
    assert len(bad_rows) == 1


def test_two_rows_with_one_query_id(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"query": "a", "candidates": ["x"], "query_id": "7"}\n' * 2)
    with pytest.raises(DataError, match="query_id '7' stands in more than one row"):
        read_samples(path)


def test_groups_are_by_query_id_wherever_the_rows_stand(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [ScoredPair(i, "same text", f"{i}{j}", 0.0) for j in range(2) for i in ("1", "2")]
    write_records(path, rows)
    assert [[pair.passage for pair in group] for group in read_groups(path, ScoredPair)] == [["10", "11"], ["20", "21"]]


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (ScoredPair("1", "other", "b", 0.0), "query_id '1' stands for two queries ('q', 'other')"),
        (ScoredPair("1", "q", "a", 1.0), "query_id '1' has the passage 'a' twice"),
    ],
)
def test_groups_that_contradict_themselves(tmp_path, second, what):
    path = tmp_path / "a.jsonl"
    write_records(path, [ScoredPair("1", "q", "a", 0.0), second])
    with pytest.raises(DataError) as error:
        read_groups(path, ScoredPair)
    assert what in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"query": "a", "candidates": ["x"]}\n' * 9999)[:-20])
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_bytes(b"{}\n")
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b'{"query": "caf\xe9", "candidates": ["x"]}\n')
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"\n")
    for path, what in [
        (cut, "the gzip file is damaged or cut off after line"),
        (plain, "is not compressed, and its name ends in .gz"),
        (latin, "1: is not UTF-8"),
        (empty, "holds no RankingSample records"),
        (tmp_path / "none.jsonl", "no such file"),
        (tmp_path, "is a directory"),
    ]:
        with pytest.raises(DataError) as error:
            read_samples(path)
        assert str(error.value).startswith(f"{path}:")
        assert what in str(error.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_the_hash_is_taken_of_the_file_as_it_is_stored(tmp_path, name):
    path = tmp_path / name
    write_records(path, [Triplet(str(i), f"query {i * 7919}", "p" * i, "n", 0.5) for i in range(1, 2000)])
    digest = hashlib.sha256()
    assert len(list(read_records(path, Triplet, digest=digest))) == 1999
    assert digest.hexdigest() == sha256(path)


def test_output_path(tmp_path):
    assert output_path(tmp_path / "a.b.jsonl.gz", "_logits", None) == tmp_path / "a.b_logits.jsonl"
    assert output_path(tmp_path / "a.jsonl", "_x", tmp_path / "o") == tmp_path / "o" / "a_x.jsonl"
