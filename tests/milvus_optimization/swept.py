"""The sweep as a stage, over small random vectors in a backend whose curves are known."""

import dataclasses
import json

import numpy as np
import pytest

from milvus_optimization import sweep_indexes
from milvus_optimization.indexes import passes, strategy
from milvus_optimization.records import IndexTrial
from rag_core.files import manifest
from rag_core.files.jsonl import read_records
from rag_core.metrics import significance
from tests.milvus_optimization.fake_backend import FLAT, Clock, FakeBackend, graph


def unit(random, *shape):
    rows = random.standard_normal(shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_vectors(folder, rows=200, queries=120, dimensions=8, model="model", seed=0, noise=0.2):
    """Write a corpus; each query lies near one document, which is the relevant one."""
    random = np.random.default_rng(seed)
    documents = unit(random, rows, dimensions)
    relevant = random.integers(rows, size=queries)
    asked = documents[relevant] + noise * unit(random, queries, dimensions)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    (folder / model).mkdir(parents=True)
    np.save(folder / model / "documents.npy", documents)
    np.save(folder / model / "queries.npy", asked.astype(np.float32))
    lines = [json.dumps({"_id": f"d{row}", "text": f"text {row}"}) for row in range(rows)]
    (folder / "documents.jsonl").write_text("\n".join(lines) + "\n")
    lines = [json.dumps({"_id": f"q{row}", "text": f"query {row}"}) for row in range(queries)]
    (folder / "queries.jsonl").write_text("\n".join(lines) + "\n")
    lines = ["query-id\tcorpus-id\tscore", *(f"q{row}\td{found}\t1" for row, found in enumerate(relevant))]
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n")
    return folder


@dataclasses.dataclass
class Swept:
    """The stage, what it has done in the backend, and what is to go wrong there."""

    folder: object
    output: object
    done: list
    faults: dict
    grid: list

    def run(self, *flags):
        self.done.clear()
        return sweep_indexes.main(["--vectors", str(self.folder), "--output_file", str(self.output), *flags])

    def trials(self):
        return list(read_records(self.output, IndexTrial))

    def told(self):
        """Return what each trial is, in short."""
        return [(one.index, one.search.get("ef"), one.status) for one in self.trials()]

    def facts(self):
        return json.loads((self.output.parent / "trials.jsonl.manifest.json").read_text())

    def builds(self):
        return [one for one in self.done if one.startswith("build")]

    def searched(self):
        """Return each search that was gone through, once."""
        return list(dict.fromkeys(one for one in self.done if one.startswith("search")))


@pytest.fixture(scope="session")
def swept_vectors(tmp_path_factory):
    return write_vectors(tmp_path_factory.mktemp("vectors") / "small")


@pytest.fixture
def swept(tmp_path, monkeypatch, swept_vectors):
    clock = Clock()
    swept = Swept(swept_vectors, tmp_path / "trials.jsonl", [], {}, [FLAT, graph(10, 40, 80, 160)])
    swept.lost = None
    monkeypatch.setattr(passes, "time", clock)
    monkeypatch.setattr(significance, "_RESAMPLES", 99)
    monkeypatch.setattr(manifest, "provenance", lambda: {"command": ""})  # it asks git
    monkeypatch.setattr(
        strategy, "open_backend", lambda *_, **__: FakeBackend(clock, swept.done, swept.faults, swept.lost)
    )
    monkeypatch.setattr(sweep_indexes, "default_grid", lambda *_: swept.grid)
    return swept
