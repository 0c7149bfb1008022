"""An embedder whose vectors are sums of its words' vectors, a model folder that stands for it, and a small corpus."""

import json
import re
import zlib
from pathlib import Path

import numpy as np

from rag_core.engines.canary import CANARY_PAIRS
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
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(KINDS)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return str(folder)


KINDS = [("", "Transformer"), ("1_Pooling", "Pooling")]


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
