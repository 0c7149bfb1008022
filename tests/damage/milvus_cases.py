"""The stages of Milvus optimisation, as `cases` has the others: a few texts and vectors, and a Milvus of files."""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from milvus_optimization.quality.measures import Halves
from milvus_optimization.records import Recommendation
from rag_core.base.records import ScoredPair
from rag_core.files.jsonl import write_records
from tests.milvus_optimization import measured
from tests.milvus_optimization.retrieval_corpus import write_corpus

QUERIES, DOCUMENTS = 24, 20
REPORT = ("recommendation.json", "recommendation.json.manifest.json", "report.html", "report.md", "collection.py")
_VECTORS = ("documents.npy", "queries.npy")


def write_inputs(folder):
    """Write a folder as embed_corpus leaves it, a teacher's scores, and what the stages before `recommend` measure."""
    vectors = write_corpus(folder / "v", queries=QUERIES, documents=DOCUMENTS, models=("m",))
    texts = {name: _rows(vectors / f"{name}.jsonl") for name in ("documents", "queries")}
    scored = [
        ScoredPair(query["_id"], query["text"], document["text"], 1.5 - place, None)
        for number, query in enumerate(texts["queries"])
        for place, document in enumerate(texts["documents"][number % 10 : number % 10 + 3])
    ]
    write_records(folder / "pool.jsonl", scored)
    samples = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "fewer.jsonl").write_text("".join(samples[:2]))
    ids = measured.query_ids(QUERIES)
    measured.write_measured(folder / "measured", ids=ids)
    asked = [query["_id"] for query in texts["queries"]]
    (folder / "recommendation.json").write_bytes(TypeAdapter(Recommendation).dump_json(_recommendation(asked)))


def _recommendation(ids):
    """Return one of HNSW and RRF 60 for the folder `v`."""
    graph = {"build": {"M": 16, "efConstruction": 100}, "search": {"ef": 10}, "model": "m"}
    index = dataclasses.replace(measured.index("HNSW", ids=ids, **graph), rows=DOCUMENTS, by_query=None)
    way = dataclasses.replace(measured.retrieval("rrf", ids=ids, model="m"), by_query={})
    halves = Halves.of(ids, 0.5)
    return Recommendation(
        constraints={}, target="server", model="m", variant="float32", index=index, retrieval=way, first_stage=way,
        tune_fraction=0.5, tune_queries=len(halves.tune), report_queries=len(halves.report), against={},
        verdict="equal", sentence="HNSW.", judged_by="labels",
    )  # fmt: skip


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def commands(encoder):
    """Return a module, its flags, its outputs, and flags that make another output, by name."""
    name = Path(encoder).name
    trials = ["--index_trials", "measured/index_trials.jsonl", "--retrieval_trials", "measured/retrieval_trials.jsonl"]
    tuned = ["--fusion", "rrf", "--rrf_k", "1", "--depth", "10", "--bm25_k1", "0.9", "--bm25_b", "0.4"]
    asked = ["--recommendation", "recommendation.json", "--tolerance", "1", "--uri", "http://milvus:1", "--replace"]
    made = {
        "embed_corpus": (
            ["--input", "samples.jsonl", "--model", encoder, "--output_dir", "out/v"],
            ["v/documents.jsonl", "v/queries.jsonl", "v/qrels.tsv", *(f"v/{name}/{array}" for array in _VECTORS)],
            ["--input", "fewer.jsonl"],
        ),
        "compare_vectors": (
            ["--vectors", "v", "--variants", "sq8", "--rescore", "0", "--output_file", "out/c.jsonl"],
            ["c.jsonl"],
            ["--variants", "binary"],
        ),
        "sweep_indexes": (
            ["--vectors", "v", "--indexes", "IVF_FLAT", "--queries", "2", "--output_file", "out/i.jsonl"],
            ["i.jsonl"],
            ["--seed", "3"],
        ),
        "tune_retrieval": (
            ["--vectors", "v", *tuned, "--reranker", "t", "--reranker_depth", "2", "--output_file", "out/t.jsonl"],
            ["t.jsonl"],
            ["--tune_fraction", "0.6"],
        ),
        "recommend": (
            ["--vectors", "measured/vectors", *trials, "--output_dir", "out/r"],
            [tuple(f"r/{name}" for name in REPORT), "r/applied"],
            ["--max_loss", "0.05"],
        ),
        "apply": (
            ["--vectors", "v", *asked, "--collection", "passages", "--output_file", "out/a.json"],
            ["a.json", "milvus/other", "milvus/mo_theirs"],
            ["--tolerance", "2"],
        ),
        "pool_candidates": (
            ["--vectors", "v", "--depth", "2", "--output_file", "out/p.jsonl"],
            ["p.jsonl"],
            ["--depth", "1"],
        ),
        "judge_pool": (
            ["--vectors", "v", "--scores", "pool.jsonl", "--output_file", "out/j.tsv"],
            ["j.tsv"],
            ["--top", "1"],
        ),
    }
    return {stage: (f"milvus_optimization.{stage}", *given) for stage, given in made.items()}


def start(stage, place):
    """Write what others have put where a stage writes."""
    if stage == "recommend":
        (place / "r" / "applied").mkdir(parents=True)
        (place / "r" / "applied" / "applied.json").write_text("{}")
    if stage == "apply":
        for name in ("passages", "other", "mo_theirs"):
            Milvus(place / "milvus").create_collection(name)


class Milvus:
    """A server that keeps a file for each collection, and searches exactly; a process of its own could do no better.

    What it does is done whole or not at all, since it is the client that is killed.
    """

    metric = "COSINE"

    def __init__(self, folder):
        from pymilvus import MilvusClient

        self.create_schema, self.prepare_index_params = MilvusClient.create_schema, MilvusClient.prepare_index_params
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def list_collections(self):
        return sorted(path.name for path in self._folder.iterdir())

    def has_collection(self, name):
        return (self._folder / name).exists()

    def create_collection(self, name, schema=None, consistency_level=None):
        assert not self.has_collection(name)
        self._write(name, {"rows": {}, "index": None})

    def insert(self, name, rows):
        found = self._read(name)
        found["rows"] |= {row["id"]: np.asarray(row["dense"]).tolist() for row in rows}
        self._write(name, found)

    def create_index(self, name, indexes):
        near = next(iter(indexes)).to_dict()
        self._write(name, self._read(name) | {"index": near})

    def describe_index(self, name, field):
        told = self._read(name)["index"]
        return {"index_type": told["index_type"], "metric_type": self.metric, **told["params"]}

    def rename_collection(self, name, new):
        assert not self.has_collection(new)
        (self._folder / name).rename(self._folder / new)

    def drop_collection(self, name):
        (self._folder / name).unlink()

    def get_collection_stats(self, name):
        return {"row_count": len(self._read(name)["rows"])}

    def query(self, name, **_):
        return [{"count(*)": len(self._read(name)["rows"])}]

    def search(self, name, data, limit, **_):
        rows = self._read(name)["rows"]
        scores = np.array(data) @ np.array(list(rows.values())).T
        return [[{"id": list(rows)[place]} for place in np.argsort(-row, kind="stable")[:limit]] for row in scores]

    def hybrid_search(self, name, requests, ranker, limit):
        assert requests[0].param["params"]["ef"] >= requests[0].limit == DOCUMENTS  # as a server asks for
        return self.search(name, requests[0].data, limit)

    def get_server_version(self):
        return "a test"

    def flush(self, name): ...

    load_collection = flush

    def _read(self, name):
        return json.loads((self._folder / name).read_text())

    def _write(self, name, content):
        beside = self._folder.parent.parent / f"milvus-{os.getpid()}"  # where no moment is seen
        beside.write_text(json.dumps(content))
        beside.replace(self._folder / name)


class StandingClock:
    monotonic = process_time = perf_counter = staticmethod(lambda: 0.0)


def fake(monkeypatch):
    """Let clocks stand still and memory be none, leave out pictures, and let Milvus be files below `out`."""
    for module in ("indexes.passes", "retrieval.rankings", "backends.faiss_backend"):
        monkeypatch.setattr(f"milvus_optimization.{module}.time", StandingClock)
    monkeypatch.setattr("rag_core.scoring.reranking.time", StandingClock)
    monkeypatch.setattr("milvus_optimization.sweep_indexes.time", StandingClock)
    for module in ("indexes.trial", "sweep_indexes"):
        monkeypatch.setattr(f"milvus_optimization.{module}.peak_bytes", lambda: 0)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr("milvus_optimization.report.page.make_sections", lambda *_: [])
    served = contextlib.nullcontext
    monkeypatch.setattr("milvus_optimization.apply.connected", lambda uri: served(Milvus(Path("out/milvus"))))
