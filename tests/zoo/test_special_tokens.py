"""Thirty special tokens at the end of a passage are text to the model itself, in every stage."""

import numpy as np
import pytest

from embedding_distillation import evaluate as embedding_evaluate
from embedding_distillation import generate_logits as embedding_logits
from embedding_distillation import train as embedding_train
from rag_core import calibrate, rank
from rag_core.base.records import RankingSample, SoftLabels, Triplet
from rag_core.engines import exported_engine
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.special_tokens import special_tokens
from rag_core.files.jsonl import write_records
from rag_core.release.graph import PlainGraph
from reranker_distillation import evaluate as reranker_evaluate
from reranker_distillation import generate_logits as reranker_logits
from reranker_distillation import train as reranker_train
from tests.exports import MARKS
from tests.vocabularies import FAMILIES, OWN, encoder
from tests.zoo.test_stages import label_by_its_own_scores

pytestmark = pytest.mark.slow

PADDING = {"bert": "[PAD]", "xlm-r": "<pad>", "qwen": "<|endoftext|>", "gemma": "<pad>"}
TIMES = 30
every_family = pytest.mark.parametrize("family", FAMILIES)
two_families = pytest.mark.parametrize("family", ["bert", "xlm-r"])
QUERY, PASSAGES = "river bank", ["the water flow of a river", "a bank loan", "index of the vector engine"]


def _on_cpu(rows):
    return np.asarray(rows.cpu() if hasattr(rows, "cpu") else rows)  # a graph is fed with arrays


class Reader:
    """What a model was given: the ids of each row that it attended to."""

    def __init__(self, family):
        self.rows = []
        self.family = family
        tokens = FAMILIES[family]()
        names = [token for token in special_tokens(tokens) if token != tokens.unk_token]
        self.special = set(tokens.convert_tokens_to_ids(names))

    def see(self, input_ids, attention_mask):
        for ids, mask in zip(*map(_on_cpu, (input_ids, attention_mask)), strict=True):
            self.rows.append(ids[mask.astype(bool)].tolist())

    def check(self, own):
        """Check that special tokens are the template's own, and that the thirty were read as text."""
        assert {sum(id in self.special for id in row) for row in self.rows} <= own
        assert max(map(len, self.rows)) > 3 * TIMES
        self.rows.clear()


@pytest.fixture
def read(family, monkeypatch):
    """Record what every BERT reads."""
    from transformers import BertModel

    reader, usual = Reader(family), BertModel.forward

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        import torch

        if not torch.compiler.is_compiling():
            reader.see(input_ids, attention_mask)
        return usual(self, input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(BertModel, "forward", forward)
    return reader


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Build each model once."""
    root, built = tmp_path_factory.mktemp("families"), {}

    def get(kind, family):
        labels = 1 if kind == "reranker" else None
        if (kind, family) not in built:
            built[kind, family] = encoder(root / f"{kind}-{family}", family, labels=labels)
        return built[kind, family]

    return get


@pytest.fixture
def files(family, tmp_path):
    spelled = [f"{PASSAGES[0]} {' '.join([PADDING[family]] * TIMES)}", *PASSAGES[1:]]
    queries = [QUERY, "interest rate", "protein", "a model ?", "growth", "the loan"]
    ids = [str(number) for number in range(len(queries))]
    write_records(
        tmp_path / "samples.jsonl",
        [
            RankingSample(query, positive=spelled[:1], negative=spelled[1:], query_id=id)
            for id, query in zip(ids, queries, strict=True)
        ],
    )
    write_records(
        tmp_path / "labels.jsonl",
        [SoftLabels(id, query, spelled, [0.9, 0.5, 0.1]) for id, query in zip(ids, queries, strict=True)],
    )
    write_records(
        tmp_path / "triplets.jsonl",
        [
            Triplet(id, query, spelled[0], text, 1.0)
            for id, query in zip(ids, queries, strict=True)
            for text in spelled[1:]
        ],
    )
    (tmp_path / "passages.txt").write_text("".join(f"{text}\n" for text in spelled))
    return tmp_path


def run(main, *flags):
    assert main([*map(str, flags), "--log_level", "error"]) == 0


@every_family
def test_scores(family, folders, read, files):
    for kind, main in (("embedder", embedding_logits.main), ("reranker", reranker_logits.main)):
        run(
            main,
            "--teacher",
            folders(kind, family),
            "--input_files",
            files / "samples.jsonl",
            "--output_dir",
            files / kind,
        )
        read.check({OWN[family][kind == "reranker"]})


@every_family
def test_training(family, folders, read, files):
    common = ("--max_steps", 1, "--per_device_train_batch_size", 2, "--save_strategy", "no", "--report_to", "none")
    run(
        embedding_train.main,
        "--student",
        folders("embedder", family),
        "--train_file",
        files / "labels.jsonl",
        "--output_dir",
        files / "e",
        *common,
    )
    read.check({OWN[family][0]})
    run(
        reranker_train.main,
        "--student",
        folders("reranker", family),
        "--train_file",
        files / "triplets.jsonl",
        "--output_dir",
        files / "r",
        *common,
    )
    read.check({OWN[family][1]})
    for folder in (files / "e", files / "r"):  # how texts are read is no part of what is saved
        assert "(?=" not in (folder / "tokenizer.json").read_text()


@two_families
def test_evaluation(family, folders, read, files):
    flags = ("--in_domain", files / "samples.jsonl", "--dtype", "float32")
    for kind, main in (("embedder", embedding_evaluate.main), ("reranker", reranker_evaluate.main)):
        model = folders(kind, family)
        run(main, "--before", model, "--after", model, *flags, "--output_dir", files / kind)
        read.check({OWN[family][kind == "reranker"]})


@two_families
def test_rank(family, folders, read, files):
    for kind in ("embedder", "reranker"):
        run(rank.main, "--model", folders(kind, family), "--query", QUERY, "--passages", files / "passages.txt")
        read.check({OWN[family][kind == "reranker"]})


@two_families
def test_calibration(family, folders, read, files):
    model, out = folders("reranker", family), files / "calibrated"
    scored = label_by_its_own_scores(model, files, files)
    run(calibrate.main, "--model", model, "--input_files", scored, "--target", "labels", "--output_dir", out)
    read.check({OWN[family][1]})


class TestExport:
    """The hardest of the four, since an export takes seconds."""

    pytestmark = MARKS

    @pytest.fixture(scope="class")
    @staticmethod
    def plain_graph(folders, tmp_path_factory):
        spelled = " ".join([PASSAGES[0], *[PADDING["xlm-r"]] * TIMES])
        folder = tmp_path_factory.mktemp("graph")
        return PlainGraph(describe_model(str(folders("reranker", "xlm-r"))), folder, [(QUERY, spelled)] * 2), spelled

    def test_what_a_graph_is_quantised_on(self, plain_graph):
        reader = Reader("xlm-r")
        for batch in plain_graph[0]._batches:
            reader.see(batch["input_ids"], batch["attention_mask"])
        reader.check({OWN["xlm-r"][1]})

    def test_what_an_export_reads(self, plain_graph, folders, tmp_path, monkeypatch):
        graph, spelled = plain_graph
        graph.write(tmp_path / "fp32", "onnx", "fp32")
        reader, usual = Reader("xlm-r"), exported_engine._onnx

        def recording(path):
            compute = usual(path)
            return lambda inputs: (reader.see(inputs["input_ids"], inputs["attention_mask"]), compute(inputs))[1]

        monkeypatch.setattr(exported_engine, "_onnx", recording)
        pairs = [(QUERY, spelled), (QUERY, PASSAGES[1])]
        scores = exported_engine.load_exported(tmp_path / "fp32").score(pairs)
        reader.check({OWN["xlm-r"][1]})
        options = EngineOptions(graph.model, dtype="float32")
        expected = load_model("sentence-transformers", options, pairs).score(pairs)
        np.testing.assert_allclose(scores, expected, atol=1e-4)
