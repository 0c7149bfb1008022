import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.base.errors import DataError
from rag_core.files.bad_rows import BadRows
from rag_core.files.runs import read_run, write_run
from tests.files.test_qrels import FIX, words


def runs_of(scores):
    return st.dictionaries(words, st.dictionaries(words, scores, min_size=1), min_size=1)


@given(runs_of(st.floats(allow_nan=False, allow_infinity=False)), st.sampled_from(["a.run", "a.run.gz"]))
def test_what_is_written_is_read(tmp_path_factory, run, name):
    path = tmp_path_factory.mktemp("x") / name
    assert write_run(path, run, "bm25") == sum(map(len, run.values()))
    found = read_run(path)
    assert found == run
    assert list(found) == list(run)
    written = path.read_bytes()
    write_run(path, found, "bm25")
    assert path.read_bytes() == written


@given(runs_of(st.floats(width=32, allow_nan=False, allow_infinity=False).map(np.float32)))
def test_scores_in_float32_come_back_in_float32(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("x") / "a.run"
    write_run(path, run, "dense")
    for query, scores in read_run(path).items():
        for document, score in scores.items():
            assert np.float32(score) == run[query][document]


def test_rows_are_ranked_and_scores_short(tmp_path):
    path = tmp_path / "a.run"
    scores = {"d4": -1, "d1": 0.1, "d9": np.float32(0.7), "d3": 0.1, "d2": 1e-9}
    assert write_run(path, {"q2": scores, "q3": {}, "q1": {"d1": 2.0}}, "bm25") == 6
    assert path.read_text() == (
        "q2 Q0 d9 1 0.7 bm25\n"
        "q2 Q0 d1 2 0.1 bm25\n"
        "q2 Q0 d3 3 0.1 bm25\n"
        "q2 Q0 d2 4 1e-09 bm25\n"
        "q2 Q0 d4 5 -1 bm25\n"
        "q1 Q0 d1 1 2.0 bm25\n"
    )


def test_a_run_of_others(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"q1\tQ0\td1\t2\t3\tx\r\nq2 0 d1 0 1e2 x\n\n q1  Q0  d2  1  7.50  x\n"))
    assert read_run(path) == {"q1": {"d1": 3.0, "d2": 7.5}, "q2": {"d1": 100.0}}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("q1 Q0 d2 1 0.5", "has 5 columns, not query, Q0, document, rank, score, tag"),
        ("q1 Q0 d2 1 0.5 my run", "has 7 columns, not query, Q0, document, rank, score, tag"),
        ("q1 Q0 d2 1 high x", "the score 'high' is not a finite number"),
        ("q1 Q0 d2 1 nan x", "the score 'nan' is not a finite number"),
        ("q1 Q0 d2 1 1e999 x", "the score '1e999' is not a finite number"),
        ("q1 Q0 d1 1 0.5 x", "query 'q1' has the document 'd1' twice"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path, row, what):
    path = tmp_path / "a.run"
    path.write_text(f"q1 Q0 d1 1 0.5 x\n{row}\n")
    with pytest.raises(DataError) as error:
        read_run(path, bad_rows=BadRows(skip=False))
    assert str(error.value) == f"{path}:2: {what}. {FIX}"
    bad_rows = BadRows(skip=True)
    assert read_run(path, bad_rows=bad_rows) == {"q1": {"d1": 0.5}}
    assert [str(one) for one in bad_rows.errors] == [str(error.value)]


def test_files_that_cannot_be_used(tmp_path):
    empty = tmp_path / "empty.run"
    empty.write_text("\n")
    for path, what in [
        (empty, "holds no ranked documents. Check the path, or make the run again."),
        (tmp_path, "is a directory. Name a run file in it."),
        (tmp_path / "none.run", "no such file. Check the path."),
    ]:
        with pytest.raises(DataError) as error:
            read_run(path)
        assert str(error.value) == f"{path}: {what}"


@pytest.mark.parametrize(
    ("run", "tag", "what"),
    [
        ({"q 1": {"d1": 1.0}}, "x", "cannot hold 'q 1'. Give ids and a tag without white space."),
        ({"q1": {"d1": 1.0, "": 0.5}}, "x", "cannot hold ''. Give ids and a tag without white space."),
        ({"q1": {"d1": 1.0}}, "my run", "cannot hold 'my run'. Give ids and a tag without white space."),
        (
            {"q1": {"d1": float("nan")}},
            "x",
            "the score of document 'd1' for query 'q1' is nan. Check the model that gave it.",
        ),
    ],
)
def test_a_run_that_a_file_cannot_hold(tmp_path, run, tag, what):
    path = tmp_path / "a.run"
    path.write_text("old")
    with pytest.raises(DataError) as error:
        write_run(path, run, tag)
    assert str(error.value) == f"{path}: {what}"
    assert path.read_text() == "old"
