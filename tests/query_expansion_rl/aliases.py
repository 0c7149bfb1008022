"""A corpus whose queries are abbreviations that no passage has: words alone find nothing, the expansion finds all.

The fake embedder knows what the abbreviations stand for, so dense search finds the passages, and so does RM3 with
feedback passages from the hybrid.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np

from rag_core.engines.canary import CANARY_PAIRS
from tests.conftest import write_model

# Abbreviation -> what it stands for. No two share a word.
ALIASES = {
    "MI": "myocardial infarction",
    "TB": "tuberculosis bacterium",
    "RA": "rheumatoid arthritis",
    "MS": "multiple sclerosis",
    "CF": "cystic fibrosis",
    "HTN": "arterial hypertension",
    "DM": "diabetes mellitus",
    "OSA": "obstructive apnoea",
    "IBS": "irritable bowel",
    "GERD": "gastroesophageal reflux",
    "COPD": "chronic bronchitis",
    "AF": "atrial fibrillation",
    "DVT": "venous thrombosis",
    "PE": "pulmonary embolism",
    "SLE": "systemic lupus",
    "ALS": "lateral degeneration",
    "PCOS": "polycystic ovary",
    "UTI": "urinary infection",
    "CKD": "kidney insufficiency",
    "BPH": "prostate hyperplasia",
}
_KINDS = ("patients", "history", "prevention")


def documents():
    """Three passages of each, of which the first two answer its query, and one of nothing."""
    found = {}
    for number, long in enumerate(ALIASES.values()):
        for kind, what in enumerate(_KINDS):
            text = f"{long} {long}: {what} of ward {number}" if kind < 2 else f"{what} of ward {number} and {long}"
            found[f"d{number}-{kind}"] = text
    return found | {"d-none": "the canteen of the clinic"}


def queries():
    """One abbreviation each."""
    return {f"q{number}": short for number, short in enumerate(ALIASES)}


def qrels():
    """Query id -> the passages that answer it."""
    return {f"q{number}": {f"d{number}-0": 1, f"d{number}-1": 1} for number in range(len(ALIASES))}


class AliasEncoder:
    """The vector of a text is the sum of its words' random ones, an abbreviation's being that of its words.

    Attributes:
        encoded: (role, text), without those of the canary.
    """

    score_unit = "cosine"
    truncated = None
    dimensions = 64

    def __init__(self):
        self.encoded = []
        self._canary = 0

    def loaded(self, options, canary_pairs):
        """Stand for a model that has just been loaded, in the place of an engine's loader."""
        self._canary = 2 if canary_pairs[:CANARY_PAIRS] else 0
        return self

    def encode(self, texts, role):
        if self._canary:
            self._canary -= 1
        else:
            self.encoded += [(role, text) for text in texts]
        return encode(texts)


def encode(texts):
    """Give texts their vectors: an `Encode` for searchers."""
    rows = [re.findall(r"\w+", " ".join(ALIASES.get(word, word) for word in text.split())) for text in texts]
    vectors = np.array([sum(map(_word, row)) for row in rows], dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _word(word):
    return np.random.default_rng(zlib.crc32(word.lower().encode())).standard_normal(AliasEncoder.dimensions)


def write_embedder(folder):
    """Write the files of an embedder of which nothing but its kind is asked."""
    write_model(folder, "BertModel")
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling")])
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_aliases(folder, splits=None):
    """Write the corpus in the BEIR layout; the qrels are split -> query id -> judged, by default all in `test`."""
    write_lines(folder / "corpus.jsonl", [{"_id": key, "text": text} for key, text in documents().items()])
    write_lines(folder / "queries.jsonl", [{"_id": key, "text": text} for key, text in queries().items()])
    for split, judged in ({"test": qrels()} if splits is None else splits).items():
        rows = [f"{query}\t{key}\t{grade}" for query, mine in judged.items() for key, grade in mine.items()]
        path = folder / "qrels" / f"{split}.tsv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["query-id\tcorpus-id\tscore", *rows, ""]))
    return folder


def install_encoder(monkeypatch):
    """Let an AliasEncoder be every embedder; return those that were loaded."""
    from rag_core.engines.loading import LOADERS

    loaded = []

    def load(options, canary_pairs):
        loaded.append(AliasEncoder().loaded(options, canary_pairs))
        return loaded[-1]

    monkeypatch.setitem(LOADERS, "sentence-transformers", load)
    return loaded


def make_baselines(folder: Path, *flags, source=None):
    """Run the stage over the corpus; `folder` gets models/embedder, beir and the workspace w. Return the exit code."""
    from query_expansion_rl import rank_baselines

    if not (folder / "models" / "embedder").exists():
        write_embedder(folder / "models" / "embedder")
    source = source or (folder / "beir" if (folder / "beir").exists() else write_aliases(folder / "beir"))
    command = ["--input", str(source), "--output_dir", str(folder / "w"), "--dtype", "float32"]
    if "--dense_model" not in flags:
        command += ["--dense_model", str(folder / "models" / "embedder")]
    return rank_baselines.main([*command, *flags])
