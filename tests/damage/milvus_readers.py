"""The stages of Milvus optimisation that read rows, as `test_mutated_rows` has the others."""

import dataclasses
import json

import numpy as np

from milvus_optimization import compare_vectors, embed_corpus, judge_pool, pool_candidates, recommend, sweep_indexes
from milvus_optimization import tune_retrieval as tune
from milvus_optimization.quality.judged import Judged
from milvus_optimization.records import IndexTrial, RetrievalTrial, VectorVariant
from rag_core.base.records import Document, Query, RankingSample, ScoredPair
from rag_core.corpora import embedding
from tests.milvus_optimization import measured

_IDS = measured.query_ids(12)


def _as_written(trials):
    rows = (dataclasses.asdict(trial) for trial in trials)
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


GOOD = {
    IndexTrial: _as_written(measured.sweep(ids=_IDS)),
    RetrievalTrial: _as_written(measured.defaults(ids=_IDS)),
    VectorVariant: _as_written(measured.variants(ids=_IDS)),
}
_TRIALS = {"index_trials": IndexTrial, "retrieval_trials": RetrievalTrial, "variants": VectorVariant}
_OUT = "--output_file out.jsonl --vectors FOLDER"


def _recommend(mutated):
    files = " ".join(f"--{flag} {'FILE' if one is mutated else one.__name__}" for flag, one in _TRIALS.items())
    return recommend, mutated, f"--vectors measured --output_dir out {files}", (recommend, "save_together")


# As the fields of a Reader: module, record, argv, stop, file, whether there is --skip_bad_rows for its rows.
_EMBEDDING = (embedding, "settle_runs")
READERS = {
    "embed_corpus": (embed_corpus, RankingSample, "--model m --output_dir out --input FILE", _EMBEDDING),
    "embed_corpus beir, corpus": (embed_corpus, Document, "--model m --output_dir out --input FOLDER", _EMBEDDING),
    "embed_corpus beir, queries": (embed_corpus, Query, "--model m --output_dir out --input FOLDER", _EMBEDDING),
    "judge_pool": (
        judge_pool,
        ScoredPair,
        "--vectors vectors --output_file out.tsv --scores FILE",
        (judge_pool, "judge"),
    ),
    **{
        f"{module.__name__.rpartition('.')[2]}, {file}": (
            module, Document if file == "documents" else Query, _OUT, stop, f"vectors/{file}.jsonl", False,
        )
        for module, stop, file in (
            (compare_vectors, (Judged, "of"), "documents"),
            (sweep_indexes, (Judged, "of"), "queries"),
            (tune, (tune, "read_vectors"), "documents"),
            (pool_candidates, (pool_candidates, "read_vectors"), "queries"),
        )
    },
    **{f"recommend, {flag}": (*_recommend(one), "rows.jsonl", False) for flag, one in _TRIALS.items()},
}  # fmt: skip


def lay_out(folder, good):
    """Write what a stage reads besides: documents and queries, vectors, trials."""
    (folder / "vectors" / "m").mkdir(parents=True)
    for stem, record in (("documents", Document), ("queries", Query)):
        _write(folder / "vectors" / f"{stem}.jsonl", good[record])
        np.save(folder / "vectors" / "m" / f"{stem}.npy", np.eye(len(good[record]), 4, dtype=np.float32))
    (folder / "vectors" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\n")
    measured.write_measured(folder / "made", ids=_IDS)
    (folder / "made" / "vectors").rename(folder / "measured")


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
