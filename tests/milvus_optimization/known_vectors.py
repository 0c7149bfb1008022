"""Vectors whose neighbours are known."""

import numpy as np


def make_clustered(rows=3_000, dimensions=64, queries=100, seed=0):
    """Return documents in clusters and queries near to some; each of length 1."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(100, dimensions))
    documents = centres[random.integers(100, size=rows)] + random.normal(size=(rows, dimensions))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    near = documents[random.permutation(rows)[:queries]] + random.normal(size=(queries, dimensions)) * 0.07
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    return documents.astype(np.float32), near.astype(np.float32)


def overlap(places, exact):
    """Return the share of exact results that were found; shape (queries, k) both."""
    return float(np.mean([len(set(row) & set(right)) / len(right) for row, right in zip(places, exact, strict=True)]))
