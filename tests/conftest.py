"""Tiny models with random weights, built on the spot, and a teacher whose scores can be reckoned by hand."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
import re
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from rag_core.engines.canary import CANARY_PAIRS
from rag_core.engines.loading import LOADERS
from rag_core.scoring.ray_workers import ENVIRONMENT
from tests.warm_python import WarmPython

for name, value in ENVIRONMENT.items():  # trl's GRPO imports vLLM and that Ray, which reads them once
    os.environ.setdefault(name, value)

# A busy machine is no reason for a property to fail.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

pytest_plugins = ["tests.tiny_qwen"]

ROOT = Path(__file__).parent.parent
TINY = ROOT / "data" / "tiny"

# They take seconds: two build a model, one reads the vocabulary that the tiny LLMs are made with, one imports torch.
SLOW_FIXTURES = {"tiny_encoder", "tiny_wide_encoder", "qwen_tokenizer", "warm_python"}


def pytest_collection_modifyitems(items):
    """Mark as slow what asks for a slow fixture, be it through others."""
    for item in items:
        if SLOW_FIXTURES & set(item.fixturenames):
            item.add_marker("slow")


def marked_code(page, mark):
    """Return the Python that stands between `<!-- mark: begin -->` and its end in a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.search(rf"<!-- {mark}: begin -->\n```python\n(.*?)```", text, flags=re.DOTALL)[1]


@pytest.fixture
def tiny_data(tmp_path):
    """Copy data/tiny to a folder that the test may write to."""
    for path in TINY.glob("*.jsonl"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def _words():
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(TINY.glob("*.jsonl")))
    return sorted(set(re.findall(r"\w+|[^\w\s]", text.lower())))


def _make_encoder(tmp_path_factory, size):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    raw = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_words()]
    BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}).save_pretrained(raw)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    BertModel(config).save_pretrained(raw)
    folder = tmp_path_factory.mktemp("tiny-encoder")
    transformer = Transformer(str(raw))
    SentenceTransformer(modules=[transformer, Pooling(size)]).save(str(folder), create_model_card=False)
    return str(folder)


@pytest.fixture(scope="session")
def warm_python(tmp_path_factory):
    """What starts stages in processes of their own without an import of torch in each."""
    python = WarmPython(tmp_path_factory.mktemp("warm"))
    yield python
    python.close()


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory):
    """A two-layer BERT as a sentence-transformers embedder of 32 dimensions."""
    return _make_encoder(tmp_path_factory, 32)


@pytest.fixture(scope="session")
def tiny_wide_encoder(tmp_path_factory):
    """Another one, of 48 dimensions."""
    return _make_encoder(tmp_path_factory, 48)


@pytest.fixture(scope="session")
def tiny_cross_encoder(tiny_encoder, tmp_path_factory):
    """The same BERT with a scoring head."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("tiny-cross-encoder")
    CrossEncoder(tiny_encoder, num_labels=1).save_pretrained(str(folder), create_model_card=False)
    return str(folder)


@pytest.fixture(scope="session")
def sharp_cross_encoder(tiny_cross_encoder, tmp_path_factory):
    """The tiny cross-encoder with larger weights, so that its scores tell pairs apart by more than rounding."""
    import torch
    from sentence_transformers import CrossEncoder

    from rag_core.release.saving import save_model

    model = CrossEncoder(tiny_cross_encoder)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "LayerNorm" not in name and "bias" not in name:
                values.mul_(8)
    folder = tmp_path_factory.mktemp("sharp-cross-encoder")
    save_model(model, folder)
    return str(folder)


class GivenScorer:
    """Gives the scores that a test has chosen, whatever the pairs."""

    score_unit = "log-odds"

    def __init__(self, scores):
        self.scores = np.array(scores, dtype=np.float32)
        self.truncated = 0

    def score(self, pairs):
        self.truncated += len(pairs)
        return self.scores[: len(pairs)]


class OverlapScorer:
    """Score = shared words minus a hundredth of the passage's words.

    Attributes:
        scored: the pairs, in their order, without those of the canary.
    """

    score_unit = "log-odds"
    truncated = 0

    def __init__(self):
        self.scored = []
        self._canary = None

    def loaded(self, options, canary_pairs):
        """Stand for a model that has just been loaded, in the place of an engine's loader."""
        self._canary = list(canary_pairs[:CANARY_PAIRS])
        return self

    def score(self, pairs):
        if pairs == self._canary:
            self._canary = None
        else:
            self.scored += pairs
        rows = [(set(re.findall(r"\w+", query.lower())), re.findall(r"\w+", text.lower())) for query, text in pairs]
        return np.array([len(query & set(text)) - len(text) / 100 for query, text in rows], dtype=np.float32)


def write_model(folder, architecture="Qwen3ForCausalLM", **config):
    """Write the files of a model of which nothing but its kind is asked."""
    folder.mkdir(parents=True)
    model_type = "qwen3" if architecture.startswith("Qwen3") else "bert"
    (folder / "config.json").write_text(
        json.dumps({"model_type": model_type, "architectures": [architecture], **config})
    )


@pytest.fixture
def overlap_teacher(monkeypatch, tmp_path_factory):
    """Let an OverlapScorer be every LLM reranker; the folders t, a, b, m and the default student's are some."""
    models = tmp_path_factory.mktemp("models")
    for name in ("t", "a", "b", "m", "BAAI/bge-reranker-v2-m3"):
        write_model(models / name)
    monkeypatch.chdir(models)
    scorer = OverlapScorer()
    for engine in ("vllm", "transformers"):
        monkeypatch.setitem(LOADERS, engine, scorer.loaded)
    return scorer
