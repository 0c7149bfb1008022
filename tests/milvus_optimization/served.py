"""A corpus of 500 documents on its way through the real stages to a recommendation, for `apply`."""

import dataclasses
import json

import numpy as np
import pytest

from milvus_optimization import recommend, sweep_indexes, tune_retrieval
from milvus_optimization.records import IndexTrial
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import manifest_path
from rag_core.metrics import significance

DOCUMENTS, QUERIES, DIMENSIONS = 500, 100, 16


def write_corpus(folder):
    """Write documents in groups of five that share a direction and words; a query asks for one of each."""
    generator = np.random.default_rng(5)
    groups = DOCUMENTS // 5
    centres = generator.standard_normal((groups, DIMENSIONS))
    vectors = np.repeat(centres, 5, axis=0) + 0.9 * generator.standard_normal((DOCUMENTS, DIMENSIONS))
    asked = [int(number) for number in generator.integers(0, groups, QUERIES)]
    queries = centres[asked] + 1.1 * generator.standard_normal((QUERIES, DIMENSIONS))
    words = [[f"w{number}{letter}" for letter in "abc"] for number in range(groups)]
    common = [f"c{number}" for number in range(30)]

    def text(group, own):
        return " ".join([*generator.choice(words[group], own, replace=False), *generator.choice(common, 4)])

    (folder / "mini").mkdir(parents=True)
    rows = [{"_id": f"d{i}", "title": "", "text": text(i // 5, 2)} for i in range(DOCUMENTS)]
    (folder / "documents.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"_id": f"q{i}", "text": text(group, 1)} for i, group in enumerate(asked)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{i}\td{5 * group + j}\t1\n" for i, group in enumerate(asked) for j in range(5))
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    for name, array in (("documents", vectors), ("queries", queries)):
        unit = array / np.linalg.norm(array, axis=1, keepdims=True)
        np.save(folder / "mini" / f"{name}.npy", unit.astype(np.float32))


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """Return a folder with `vectors` and the `recommendation` of an HNSW with weighted fusion."""
    monkeypatch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("served")
    write_corpus(folder / "vectors")
    monkeypatch.setattr(significance, "_RESAMPLES", 199)
    vectors = ["--vectors", str(folder / "vectors")]
    swept = ["--output_file", str(folder / "index_trials.jsonl"), "--indexes", "HNSW"]
    assert sweep_indexes.main([*vectors, *swept]) == 0
    tuned = ["--output_file", str(folder / "retrieval_trials.jsonl"), "--bm25_stemmer", "english"]
    grid = ["--fusion", "weighted", "--weights", "0.4", "--depth", "20", "--bm25_k1", "0.9", "--bm25_b", "0.4"]
    assert tune_retrieval.main([*vectors, *tuned, *grid]) == 0
    _let_only_one_index_be_worth_it(folder)
    trials = [f"--{name}={folder / f'{name}.jsonl'}" for name in ("index_trials", "retrieval_trials")]
    chosen = ["--output_dir", str(folder / "recommendation"), "--max_loss", "1"]
    assert recommend.main([*vectors, *trials, *chosen]) == 0
    monkeypatch.undo()
    return folder


def _let_only_one_index_be_worth_it(folder):
    """Leave FLAT, as slow as that of a large corpus, and one HNSW: times of so few documents are chance."""
    path = folder / "index_trials.jsonl"
    trials = [trial for trial in read_records(path, IndexTrial) if trial.status == "ok"]
    flat = dataclasses.replace(trials[0], cpu_ms_p50=5.0)
    graph = {"M": 16, "efConstruction": 100}
    kept = [trial for trial in trials if trial.build == graph and trial.search == {"ef": 16}]
    write_records(path, [flat, *kept])
    manifest_path(path).unlink()
