"""A small corpus in which words and vectors each know half of the answer: their fusion is better than either."""

import json

import numpy as np

from milvus_optimization.records import RetrievalTrial


def write_corpus(folder, *, queries=120, documents=60, models=("m",), qrels=True, seed=0):
    """Write texts, qrels and vectors; a query has some words of its document, and a vector near that of it."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = rng.integers(8, 20, size=documents)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 80, size=length)) for length in sizes]
    answers = rng.integers(0, documents, size=queries)
    asked = [" ".join(rng.choice(texts[answer].split(), size=2)) + f" w{rng.integers(80)}" for answer in answers]
    _write(folder / "documents.jsonl", ({"_id": f"d{i}", "text": text} for i, text in enumerate(texts)))
    _write(folder / "queries.jsonl", ({"_id": f"q{i}", "text": text} for i, text in enumerate(asked)))
    if qrels:
        rows = "".join(f"q{i}\td{answer}\t1\n" for i, answer in enumerate(answers))
        (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    for model in models:
        vectors = rng.standard_normal((documents, 8))
        near = vectors[answers] + 0.8 * rng.standard_normal((queries, 8))
        (folder / model).mkdir(exist_ok=True)
        for name, rows in (("documents", vectors), ("queries", near)):
            unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            np.save(folder / model / f"{name}.npy", unit.astype(np.float32))
    return folder


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def trial(tune, report=None, **fields):
    """Return a trial whose values are the same for each query of the halves `t0`... and `r0`..."""
    report = tune if report is None else report
    of_tune = tune if isinstance(tune, list) else [tune] * 30
    of_report = report if isinstance(report, list) else [report] * 30
    by_query = {f"t{i}": value for i, value in enumerate(of_tune)} | {f"r{i}": v for i, v in enumerate(of_report)}
    given = {
        "trial_id": "x",
        "model": "m",
        "fusion": "dense",
        "normalisation": "none",
        "depth": 0,
        "bm25": {},
        "bm25_ms": 0.0,
        "rerank_ms": 0.0,
        "ndcg": float(np.mean(of_report)),
        "ndcg_tune": float(np.mean(of_tune)),
        "by_query": by_query,
    }
    return RetrievalTrial(**given | fields)


WORDS = {"k1": 1.2, "b": 0.75, "analyser": "words"}
RRF = {"fusion": "rrf", "normalisation": "rank", "bm25": WORDS}
WEIGHTED = {"fusion": "weighted", "normalisation": "arctan", "bm25": WORDS}
