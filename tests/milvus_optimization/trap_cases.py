"""The traps of milvus-lite, stepped into in a process of its own, and our backend at the same places."""

import math
import time
from pathlib import Path

import numpy as np

from milvus_optimization.backends.lite_store import index_files, read_index
from milvus_optimization.backends.loading import open_backend
from tests.milvus_optimization.known_vectors import overlap

K = 10


def _random(rows=3_000, dimensions=64, queries=20):
    """Return random vectors, among which a poor graph finds little, and their exact neighbours."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(rows + queries, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents, near = vectors[:rows], vectors[rows:]
    return documents, near, _nearest(near, documents)


def _nearest(queries, documents):
    return np.argsort(-(queries @ documents.T), axis=1)[:, :K]


class _Plain:
    """milvus-lite as its documentation has it, without our backend."""

    def __init__(self, folder):
        from pymilvus import MilvusClient

        self.path = Path(folder) / "plain.db"
        self.client = MilvusClient(str(self.path))
        self.documents, self.queries, self.exact = _random()

    def create(self, name, index=None, rows=None, **parameters):
        from pymilvus import DataType

        schema = self.client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("v", DataType.FLOAT_VECTOR, dim=self.documents.shape[1])
        given = {} if index is None else {"index_params": self.index(index, **parameters)}
        self.client.create_collection(name, schema=schema, **given)
        self.client.insert(name, [{"id": row, "v": vector} for row, vector in enumerate(self.documents[:rows])])
        self.client.flush(name)

    def index(self, kind, **parameters):
        wanted = self.client.prepare_index_params()
        wanted.add_index("v", index_type=kind, metric_type="COSINE", params=parameters)
        return wanted

    def recall(self, name, rows=None, **search):
        exact = self.exact if rows is None else _nearest(self.queries, self.documents[:rows])
        found = self.client.search(
            name, data=list(self.queries), limit=K, search_params={"params": search}, output_fields=["id"]
        )
        return overlap([[hit["id"] for hit in hits] for hits in found], exact)


def traps(folder):
    """Step into each trap of milvus-lite 3.2.2."""
    plain = _Plain(folder)
    told = {}
    plain.create("flat_form", rows=100)
    plain.client.create_index("flat_form", plain.index("HNSW", M=4, efConstruction=30))
    plain.client.load_collection("flat_form")
    (file,) = index_files(plain.path, "flat_form")
    told["flat form"] = read_index(file)

    plain.create("early", "HNSW", params={"M": 4, "efConstruction": 600})
    plain.client.load_collection("early")
    first, state = plain.recall("early", ef=10), plain.client.describe_index("early", "v")
    latest = time.monotonic() + 30
    while (later := plain.recall("early", ef=10)) == 1 and time.monotonic() < latest:
        time.sleep(0.2)
    told["early"] = [first, state["state"], state["pending_index_rows"], later]

    told["unsupported"] = {}
    for kind in ("SCANN", "IVF_PQ", "DISKANN"):
        plain.create(kind, kind, rows=1_100, params={})
        plain.client.load_collection(kind)
        time.sleep(0.2)
        state = plain.client.describe_index(kind, "v")
        told["unsupported"][kind] = [state["state"], plain.recall(kind, rows=1_100), len(index_files(plain.path, kind))]
    told["weights"] = _weights(folder)
    told["ours"] = _poor_graph(folder)
    return told


def _weights(folder):
    """Fuse a vector search and BM25 with weights, with and without `norm_score`; return it beside the formulas."""
    from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, MilvusClient, WeightedRanker

    client = MilvusClient(str(Path(folder) / "weights.db"))
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=200, enable_analyzer=True)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("v", DataType.FLOAT_VECTOR, dim=8)
    schema.add_function(
        Function(name="bm25", function_type=FunctionType.BM25, input_field_names=["text"], output_field_names=["words"])
    )
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(["alpha", "beta", "gamma", "delta", "zeta", "theta"], 5)) for _ in range(50)]
    vectors = random.normal(size=(50, 8)).astype(np.float32)
    client.create_collection("h", schema=schema)
    client.insert("h", [{"id": row, "text": texts[row], "v": vectors[row]} for row in range(50)])
    client.flush("h")
    wanted = client.prepare_index_params()
    wanted.add_index("v", index_type="FLAT", metric_type="COSINE")
    wanted.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_index("h", wanted)
    client.load_collection("h")

    sides = (("v", vectors[0], 0.7), ("words", "alpha beta", 0.3))
    found = [
        {hit["id"]: hit["distance"] for hit in client.search("h", data=[data], anns_field=field, limit=10)[0]}
        for field, data, _ in sides
    ]
    found[1] = {row: -score for row, score in found[1].items()}  # BM25 is told with the sign turned
    forms = {
        "server, norm_score": (lambda s: (1 + s) / 2, lambda s: 2 * math.atan(s) / math.pi),
        "server, raw": (float, float),
        "minmax": tuple(_minmax(scores) for scores in found),
    }
    told = {}
    for name, change in forms.items():
        sums = {
            row: sum(
                weight * form(scores[row])
                for (_, _, weight), form, scores in zip(sides, change, found, strict=True)
                if row in scores
            )
            for row in {*found[0], *found[1]}
        }
        told[name] = sorted(([row, score] for row, score in sums.items()), key=lambda pair: -pair[1])[:5]
    for norm in (True, False):
        hits = client.hybrid_search(
            "h",
            [AnnSearchRequest(data=[data], anns_field=field, param={}, limit=10) for field, data, _ in sides],
            WeightedRanker(0.7, 0.3, norm_score=norm),
            limit=5,
        )[0]
        told[f"lite, norm_score {norm}"] = [[hit["id"], hit["distance"]] for hit in hits]
    return told


def _minmax(scores):
    low, high = min(scores.values()), max(scores.values())
    return lambda score: (score - low) / (high - low)


def _poor_graph(folder):
    """Build a poor graph with our backend, and search it at once and later."""
    documents, queries, exact = _random()
    lite = open_backend("lite", folder=Path(folder))
    lite.insert(documents)
    built = lite.build("HNSW", {"M": 4, "efConstruction": 30})
    first = overlap(lite.search(queries, K, {"ef": 10})[0], exact)
    time.sleep(1)
    later = overlap(lite.search(queries, K, {"ef": 10})[0], exact)
    lite.close()
    return [built.seen["M"], built.seen["efConstruction"], first, later]
