import numpy as np

from rag_core.retrieval.dense import best_places, nearest_vectors


def test_the_nearest_are_those_of_a_full_sort():
    generator = np.random.default_rng(0)
    vectors = {text: generator.normal(size=8).astype(np.float32) for text in [f"q{i}" for i in range(600)]}
    passages = generator.normal(size=(40, 8)).astype(np.float32)
    asked = []

    def vectors_of(block):
        asked.append(len(block))
        return np.stack([vectors[text] for text in block])

    found = nearest_vectors(list(vectors), vectors_of, passages, 5)
    assert found == [np.argsort(-(passages @ vector), kind="stable")[:5].tolist() for vector in vectors.values()]
    assert sum(asked) == 600
    assert max(asked) < 600, "queries come in blocks"


def test_ties_keep_their_order():
    assert best_places(np.array([1.0, 2.0, 2.0, 2.0, 0.0], dtype=np.float32), 2) == [1, 2]
    assert best_places(np.array([1.0, 2.0], dtype=np.float32), 9) == [1, 0]
