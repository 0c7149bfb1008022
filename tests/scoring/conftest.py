"""An embedder and a way to score, for the tests of this folder."""

import numpy as np

from rag_core.scoring.chunks import Work
from rag_core.scoring.scores import compute_scores, scored_samples


class OverlapEncoder:
    """Vectors of the lengths of words, made so that their cosines are easy to compute in the test."""

    score_unit = "cosine"
    truncated = None
    dimensions = 4

    def __init__(self):
        self.encoded = []

    def encode(self, texts, role):
        self.encoded += [(role, text) for text in texts]
        vectors = np.array([[len(text), text.count("a") + 1, 1, role == "query"] for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def score(samples, model, folder, chunk_rows=2):
    folder.mkdir(exist_ok=True)
    return scored(samples, Work(model, "scope", [folder], chunk_rows))


def scored(samples, work):
    return [pair for _, pairs in scored_samples(samples, compute_scores(samples, work)) for pair in pairs]
