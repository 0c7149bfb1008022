"""Records as the stages before `recommend` leave them, with figures that are set, not measured."""

import dataclasses
import json

import numpy as np

from milvus_optimization.quality.halves import is_tune_query
from milvus_optimization.quality.measures import Halves
from milvus_optimization.records import IndexTrial, RetrievalTrial, VectorVariant
from rag_core.files.jsonl import write_records
from rag_core.metrics.differences import Difference

MODEL = "small"
DOCUMENTS = 60
FLAT_QUALITY = 0.6


def query_ids(count=160):
    return [f"q{number}" for number in range(count)]


def values(ids, tune, report, seed):
    """Return values by query whose means are exactly these on either half."""
    generator = np.random.default_rng(seed)
    found = {}
    for half, target in ((True, tune), (False, report)):
        own = [key for key in ids if is_tune_query(key, 0.5) is half]
        drawn = generator.uniform(-0.15, 0.15, len(own))
        drawn += target - drawn.mean() if own else 0
        found |= dict(zip(own, map(float, drawn), strict=True))
    return {key: found[key] for key in ids}


def means(by_query):
    report, tune = Halves.of(by_query, 0.5).means(by_query)
    return {"ndcg": report, "ndcg_tune": tune}


def shifted(old, new):
    """Return the difference on the report half where it is the same on every query, so that it has no interval."""
    changes = [new[key] - old[key] for key in Halves.of(old, 0.5).report]
    mean = float(np.mean(changes))
    return Difference(mean, mean, mean, sum(c > 0 for c in changes), sum(c < 0 for c in changes))


def retrieval(fusion="dense", tune=0.6, report=0.6, *, ids=None, model=MODEL, seed=0, **fields):
    by_query = values(ids or query_ids(), tune, report, seed)
    settings = {
        "dense": {"normalisation": "none", "depth": 0, "bm25": {}},
        "bm25": {"normalisation": "none", "depth": 0},
        "rrf": {"normalisation": "rank", "parameter": 60.0, "depth": 100},
        "weighted": {"normalisation": "arctan", "parameter": 0.5, "depth": 100},
    }[fusion]
    fields = {"bm25": {"k1": 1.2, "b": 0.75, "analyser": "words-bigrams-1"}} | settings | fields
    asked = json.dumps([model, fusion, {key: value for key, value in fields.items() if key != "trial_id"}])
    return RetrievalTrial(
        trial_id=f"{abs(hash(asked)):x}", model=model, fusion=fusion, bm25_ms=0.4, rerank_ms=0.0,
        **means(by_query), by_query=by_query, **fields,
    )  # fmt: skip


def defaults(**fields):
    return [retrieval(**fields), retrieval("rrf", 0.62, 0.62, **fields), retrieval("weighted", 0.63, 0.63, **fields)]


def index(name="FLAT", tune_loss=0.0, report_loss=0.0, *, ids=None, model=MODEL, ms=0.3, mb=8.0, recall=1.0, **fields):
    flat = values(ids or query_ids(), FLAT_QUALITY, FLAT_QUALITY, 0)
    by_query = {k: v - (tune_loss if is_tune_query(k, 0.5) else report_loss) for k, v in flat.items()}
    fields = {"backend": "faiss", "build": {}, "search": {}, "status": "ok", "rows": DOCUMENTS} | fields
    if fields["status"] == "ok":
        fields |= {
            "recall": recall, "top1_kept": recall, **means(by_query), "mrr": 0.5, "recall_100": 0.9,
            "loss": shifted(flat, by_query), "index_bytes": None if mb is None else int(mb * 1e6),
            "by_query": by_query,
        }  # fmt: skip
        if fields["backend"] == "faiss":
            fields |= {"cpu_ms_p50": ms, "cpu_ms_p95": ms * 2}
    return IndexTrial(
        trial_id=f"{name}{fields['backend']}{fields['build']}{fields['search']}{model}", backend_version="1",
        model=model, index=name, dimensions=8, k=10, queries=len(by_query), **fields,
    )  # fmt: skip


def sweep(**fields):
    """FLAT slow enough that an index is worth it, and some of each kind."""
    graph = {"build": {"M": 16, "efConstruction": 100}}
    lists = {"build": {"nlist": 8}}
    return [
        index(ms=4.0, mb=30.0, **fields),
        index("HNSW", 0.03, 0.034, ms=0.1, mb=33, recall=0.888, search={"ef": 10}, **graph, **fields),
        index("HNSW", 0.002, 0.001, ms=0.4, mb=33, recall=0.99, search={"ef": 64}, **graph, **fields),
        index("IVF_SQ8", 0.001, 0.0012, ms=0.3, mb=9, recall=0.95, search={"nprobe": 32}, **lists, **fields),
        index("IVF_FLAT", 0.05, 0.054, ms=0.05, mb=30, recall=0.875, search={"nprobe": 1}, **lists, **fields),
        index("IVF_RABITQ", 0.004, 0.0034, ms=0.2, mb=3, recall=0.877, search={"nprobe": 8}, **lists, **fields),
        index("DISKANN", status="unsupported", reason="no such index in faiss", **fields),
        index("HNSW_PQ", status="ignored", reason="brute force", **fields),
    ]


def variants(**fields):
    ids = fields.pop("ids", query_ids())
    flat = values(ids, FLAT_QUALITY, FLAT_QUALITY, 0)
    found = []
    for name, loss, size in (("float32", 0, 32), ("sq8", 0.0005, 8), ("binary", 0.06, 1)):
        by_query = {key: value - loss for key, value in flat.items()}
        found.append(
            VectorVariant(
                model=MODEL,
                variant=name,
                rescore=0,
                dimensions=8,
                bytes_per_vector=size,
                overlap=1 - loss,
                **means(by_query),
                loss=shifted(flat, by_query),
                by_query=by_query,
            )
        )
    return found


def write_measured(folder, *, indexes=None, ways=None, forms=None, ids=None, queries=None, labelled=None):
    """Write all inputs of `recommend`; return its flags."""
    ids = ids or query_ids()
    texts = folder / "vectors"
    texts.mkdir(parents=True, exist_ok=True)
    documents = [{"_id": f"d{number}", "title": "", "text": f"text {number}"} for number in range(DOCUMENTS)]
    (texts / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in documents))
    asked = [{"_id": key, "text": (queries or {}).get(key, f"what is {key}")} for key in ids]
    (texts / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    judged = "".join(f"{key}\td1\t1\n" for key in ids)
    (texts / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    better = [retrieval("weighted", 0.68, 0.67, ids=ids, parameter=0.4, depth=50)]
    records = {
        "index_trials": sweep(ids=ids) if indexes is None else indexes,
        "retrieval_trials": [*defaults(ids=ids), *better] if ways is None else ways,
        "variants": variants(ids=ids) if forms is None else forms,
        "labelled_trials": labelled or [],
    }
    flags = ["--vectors", str(texts), "--output_dir", str(folder / "report")]
    for name, rows in records.items():
        if rows:
            write_records(folder / f"{name}.jsonl", rows)
            flags += [f"--{name}", str(folder / f"{name}.jsonl")]
    return flags


def swapped(trial):
    """Return a trial whose halves have changed places: what it did on the one it does on the other."""
    shift = {True: trial.ndcg - trial.ndcg_tune, False: trial.ndcg_tune - trial.ndcg}
    by_query = {key: value + shift[is_tune_query(key, 0.5)] for key, value in trial.by_query.items()}
    return dataclasses.replace(trial, by_query=by_query, **means(by_query))
