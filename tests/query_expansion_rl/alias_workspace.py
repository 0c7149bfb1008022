"""A workspace whose queries use another name than the documents do: who knows the alias finds everything."""

import json

import numpy as np

from query_expansion_rl.records import Expansion, Judgement, Ranking, Topic
from query_expansion_rl.retrieval.searching import ExpandedQuery, FusedSearcher
from query_expansion_rl.retrieval.workspace import DEPTH, Workspace, read_workspace
from rag_core.files.jsonl import write_records

SPLITS = ("test", "test", "dev", "train")
COMMON = [f"common{number}" for number in range(6)]


def write_workspace(
    folder, *, queries=80, qrels=True, retriever="bm25", best="hybrid", vectors=True, seed=0, dimensions=8
):
    """Write a workspace; query `i` says `alias<i>`, and its document `name<i>`. Vectors know half of the answers."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    _lines(
        folder / "documents.jsonl",
        ({"_id": f"d{i}", "text": f"name{i} {' '.join(rng.choice(COMMON, 4))}"} for i in range(queries)),
    )
    texts = [f"alias{i} {' '.join(rng.choice(COMMON, 2, replace=False))}" for i in range(queries)]
    _lines(folder / "queries.jsonl", ({"_id": f"q{i}", "text": text} for i, text in enumerate(texts)))
    if qrels:
        rows = "".join(f"q{i}\td{i}\t1\n" for i in range(queries))
        (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    if vectors:
        documents = rng.standard_normal((queries, dimensions))
        near = documents + rng.choice([0.1, 3.0], queries)[:, None] * rng.standard_normal((queries, dimensions))
        (folder / "m").mkdir(exist_ok=True)
        for name, values in (("documents", documents), ("queries", near)):
            unit = values / np.linalg.norm(values, axis=1, keepdims=True)
            np.save(folder / "m" / f"{name}.npy", unit.astype(np.float32))
    topics = [
        Topic(f"q{i}", text, SPLITS[i % len(SPLITS)], {f"d{i}": 1} if qrels else None) for i, text in enumerate(texts)
    ]
    write_records(folder / "topics.jsonl", topics)
    model = "m" if vectors else None
    summary = {
        "retriever": {"retriever": retriever, "k1": 1.2, "b": 0.75, "vectors": model, "dense_model": model},
        "teacher": "hybrid",
        "judge_top": 3,
        "tuned": {},
        "tuned_by": "qrels",
        "measured_by": "qrels" if qrels else "judge",
        "best": best,
        "best_on": "dev",
        "headroom": 0.1,
        "figures": {},
        "table": [],
        "advice": "",
    }
    (folder / "baselines.json").write_text(json.dumps(summary))
    _rankings(read_workspace(folder))
    return folder


def _rankings(workspace: Workspace):
    """Write what the retrievers find, and the first three of the fusion as the teacher's gains."""
    documents = list(workspace.corpus.documents)
    words = workspace.word_searcher()
    searchers = {"bm25": words}
    if workspace.settings.vectors:
        dense = workspace.vector_searcher()
        searchers |= {"dense": dense, "hybrid": FusedSearcher([words, dense])}
    asked = [ExpandedQuery(topic.query) for topic in workspace.topics]
    rows, judged = [], []
    for method, searcher in searchers.items():
        for topic, places, scores in zip(workspace.topics, *searcher.search(asked, DEPTH), strict=True):
            found = [documents[place] for place in places if place >= 0]
            rows.append(Ranking(topic.query_id, method, found, [float(score) for score in scores[: len(found)]]))
            if method == list(searchers)[-1]:
                judged += [Judgement(topic.query_id, key, 3.0 - rank, "hybrid") for rank, key in enumerate(found[:3])]
    write_records(workspace.folder / "rankings.jsonl", rows)
    write_records(workspace.folder / "judgements.jsonl", judged)


def write_expansions(path, method, text_of, *, queries=80, samples=1, splits=("test", "dev"), tokens=4):
    """Write expansions; `text_of(number of the query, sample)` is the text."""
    rows = [
        Expansion(query_id=f"q{i}", method=method, sample=sample, text=text_of(i, sample), tokens=tokens)
        for i in range(queries)
        if SPLITS[i % len(SPLITS)] in splits
        for sample in range(samples)
    ]
    write_records(path, rows)
    return path


def _lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
