import pickle

import pytest

from rag_core.base.errors import DataError, PipelineError, UsageError


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ({}, "is empty. Fill it."),
        ({"path": "a.jsonl"}, "a.jsonl: is empty. Fill it."),
        ({"path": "a.jsonl", "line": 3}, "a.jsonl:3: is empty. Fill it."),
    ],
)
def test_an_error_says_where_what_and_what_to_do(place, sentence):
    assert str(PipelineError("is empty", "Fill it", **place)) == sentence
    assert str(PipelineError("is empty.", "Fill it.", **place)) == sentence
    assert (DataError.exit_code, UsageError.exit_code) == (1, 2)


def test_an_error_travels_whole():
    error = pickle.loads(pickle.dumps(DataError("is empty", "Fill it", path="a.jsonl", line=3)))
    assert str(error) == "a.jsonl:3: is empty. Fill it."
    assert (error.what, error.remedy) == ("is empty", "Fill it")
