import numpy as np
import pytest

from rag_core.retrieval import dense
from rag_core.retrieval.dense import best_places, nearest, scores_at


def test_ties_keep_their_order():
    assert best_places(np.array([1.0, 2.0, 2.0, 2.0, 0.0], dtype=np.float32), 2) == [1, 2]
    assert best_places(np.array([1.0, 2.0], dtype=np.float32), 9) == [1, 0]


@pytest.mark.parametrize("count", [1, 4, 11])
def test_blocks_find_what_a_sort_finds_ties_by_place(monkeypatch, count):
    generator = np.random.default_rng(0)
    # Whole numbers, so that the order of the additions has no say, and many scores are equal.
    documents = generator.integers(-2, 3, size=(50, 5)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(9, 5)).astype(np.float32)
    scores = queries @ documents.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    for rows in (7, 50, 1000):
        monkeypatch.setattr(dense, "_DOCUMENTS_AT_ONCE", rows)
        monkeypatch.setattr(dense, "_QUERIES_AT_ONCE", 4)
        places, found = nearest(queries, documents, count)
        assert (places.dtype, found.dtype) == (np.int64, np.float32)
        np.testing.assert_array_equal(places, order)
        np.testing.assert_array_equal(found, np.take_along_axis(scores, order, axis=1))


def test_where_there_are_too_few_documents_the_rest_is_marked():
    queries, documents = np.eye(2, dtype=np.float32), np.array([[0.6, 0.8], [1, 0]], dtype=np.float32)
    places, scores = nearest(queries, documents, 3)
    assert places.tolist() == [[1, 0, -1], [0, 1, -1]]
    np.testing.assert_array_equal(scores, np.array([[1, 0.6, -np.inf], [0.8, 0, -np.inf]], dtype=np.float32))
    np.testing.assert_array_equal(scores_at(queries, documents, places), scores)


def test_scores_by_place_in_blocks_of_queries(monkeypatch):
    generator = np.random.default_rng(1)
    queries, documents = (generator.standard_normal((n, 6)).astype(np.float32) for n in (7, 20))
    places, scores = nearest(queries, documents, 5)
    monkeypatch.setattr(dense, "_VALUES_AT_ONCE", 60)
    np.testing.assert_allclose(scores_at(queries, documents, places), scores, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4, 60])
def test_torch_finds_what_numpy_finds_ties_by_place(monkeypatch, count):
    import torch

    generator = np.random.default_rng(0)
    # Whole numbers, so that the order of the additions has no say, and many scores are equal.
    documents = generator.integers(-2, 3, size=(50, 5)).astype(np.float32)
    queries = generator.integers(-2, 3, size=(9, 5)).astype(np.float32)
    monkeypatch.setattr(dense, "_DOCUMENTS_AT_ONCE", 7)
    monkeypatch.setattr(dense, "_QUERIES_AT_ONCE", 4)
    expected = nearest(queries, documents, count)
    for device in ["cpu:0", *(["cuda"] if torch.cuda.is_available() else [])]:  # "cpu" alone is NumPy's
        for found, wanted in zip(nearest(queries, documents, count, device=device), expected, strict=True):
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
