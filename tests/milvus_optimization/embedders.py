"""An embedder whose vectors are sums of its words' vectors, a model folder that stands for it, and a small corpus."""

import json
import re
import zlib
from pathlib import Path

import numpy as np

from milvus_optimization import embed_corpus
from rag_core.engines.canary import CANARY_PAIRS
from rag_core.engines.loading import LOADERS
from rag_core.files.qrels import write_qrels
from tests.conftest import write_model

DOCUMENTS = {
    "d1": "A loaf keeps fresh in a linen bag.",
    "d2": "Butter keeps for weeks in a cool larder.",
    "d3": "Hard water leaves limescale in the kettle.",
    "d4": "A kettle with a thick base boils slowly.",
    "d5": "A serrated knife cuts the skin of a tomato.",
    "d6": "Flour is milled from wheat.",
}
QUERIES = {"q1": "how do I keep a loaf fresh", "q2": "why limescale in my kettle", "q3": "knife for a tomato"}
QRELS = {"q1": {"d1": 2, "d2": 1}, "q2": {"d3": 1}, "q3": {"d5": 1, "d6": 0}}


class WordEncoder:
    """The vector of a text is the sum of its words' random ones; a query has one more for its role.

    Attributes:
        encoded: (model, role, text), without those of the canary.
    """

    score_unit = "cosine"
    truncated = None

    def __init__(self, name="", dimensions=8):
        self.name, self.dimensions = name, dimensions
        self.encoded = []
        self._canary = 0

    def loaded(self, options, canary_pairs):
        """Stand for a model that has just been loaded, in the place of an engine's loader."""
        self.name = Path(options.model.name).name
        self._canary = 2 if canary_pairs[:CANARY_PAIRS] else 0
        return self

    def encode(self, texts, role):
        if self._canary:
            self._canary -= 1
        else:
            self.encoded += [(self.name, role, text) for text in texts]
        rows = [[*re.findall(r"\w+", text.lower()), *(["query"] if role == "query" else [])] for text in texts]
        vectors = np.array([sum(map(self._word, words)) for words in rows], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _word(self, word):
        seed = zlib.crc32(f"{self.name}:{word}".encode())
        return np.random.default_rng(seed).standard_normal(self.dimensions)


def write_embedder(folder):
    """Write the files of an embedder of which nothing but its kind is asked."""
    write_model(folder, "BertModel")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return str(folder)


def install_encoders(monkeypatch, tmp_path):
    """Let a WordEncoder be each embedder of the folder models; return those that were loaded."""
    loaded = []

    def load(options, canary_pairs):
        loaded.append(WordEncoder().loaded(options, canary_pairs))
        return loaded[-1]

    monkeypatch.setitem(LOADERS, "sentence-transformers", load)
    for name in ("before", "after"):
        write_embedder(tmp_path / "models" / name)
    return loaded


def embed(tmp_path, source, *flags, model=("before",)):
    """Run the stage with models of that folder; its output is the folder v."""
    models = [str(tmp_path / "models" / name) for name in model]
    command = ["--input", str(source), "--model", *models, "--output_dir", str(tmp_path / "v"), "--dtype", "float32"]
    return embed_corpus.main([*command, *flags])


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_beir(folder, documents=DOCUMENTS, queries=QUERIES, **splits):
    """Write a folder in the BEIR layout; without `splits` one, `test`, of QRELS."""
    write_lines(folder / "corpus.jsonl", [{"_id": key, "text": text} for key, text in documents.items()])
    write_lines(folder / "queries.jsonl", [{"_id": key, "text": text} for key, text in queries.items()])
    for split, qrels in (splits or {"test": QRELS}).items():
        rows = [f"{query}\t{key}\t{grade}" for query, judged in qrels.items() for key, grade in judged.items()]
        path = folder / "qrels" / f"{split}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["query-id\tcorpus-id\tscore", *rows, ""]))
    return folder


def write_vectors(folder, documents, queries, qrels=None, model="m", texts=None):
    """Write what embed_corpus leaves, from elsewhere: without manifests; id -> vector of documents and of queries."""
    texts = texts or {key: f"text {key}" for key in documents}
    write_lines(folder / "documents.jsonl", [{"_id": key, "text": texts[key]} for key in documents])
    write_lines(folder / "queries.jsonl", [{"_id": key, "text": f"query {key}"} for key in queries])
    if qrels:
        write_qrels(folder / "qrels.tsv", qrels)
    (folder / model).mkdir()
    for name, vectors in (("documents", documents), ("queries", queries)):
        np.save(folder / model / f"{name}.npy", np.array(list(vectors.values()), dtype=np.float32))
    return folder
