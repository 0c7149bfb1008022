"""What is searched, by whom, and what it is worth, by hand."""

import json
import math

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from embedding_distillation import train
from rag_core.base.errors import DataError, UsageError
from rag_core.base.records import RankingSample, ScoredPair, SoftLabels
from rag_core.distillation.retrieval_dev_set import CorpusFiles, RetrievalDevSet
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import write_records

DOCUMENTS = {"a": "hens lay eggs", "b": "a bank lends money", "c": "rivers carry sand", "d": "iron rusts"}


@pytest.fixture
def beir(tmp_path):
    rows = [json.dumps({"_id": key, "text": text}) for key, text in DOCUMENTS.items()]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows))
    rows = [json.dumps({"_id": key, "text": text}) for key, text in (("1", "who lays eggs"), ("2", "what rusts"))]
    (tmp_path / "queries.jsonl").write_text("\n".join(rows))
    (tmp_path / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t1\n2\tc\t0\n")
    return CorpusFiles.of("in-domain", [tmp_path / "corpus.jsonl"], tmp_path / "dev.tsv", None)


class Student:
    """Each passage nearer to every query than the next one."""

    device = type("", (), {"type": "cpu"})

    def __init__(self, *order):
        self._place = {text: place for place, text in enumerate(order)}

    def encode_query(self, texts, **options):
        import torch

        return torch.tensor([[1.0, 0.0]] * len(texts))

    def encode_document(self, texts, **options):
        import torch

        angles = torch.tensor([0.1 * self._place[text] for text in texts])
        return torch.stack([angles.cos(), angles.sin()], dim=1)


def read(files, passages=5000, seed=0):
    return RetrievalDevSet.read(files, passages, seed, BadRows(skip=False))


def test_ndcg_of_a_graded_search_by_hand(beir):
    dev = read(beir)
    assert (dev.name, dev.queries, dev.count(None)) == (f"{beir.passages[0].parent.name}/corpus.jsonl", 1, 5)
    seen = []
    student = Student(*(DOCUMENTS[key] for key in "cbda"))
    (value,) = dev.measured(student, 1, seen.append)["NDCG@10"]
    found, ideal = 1 / math.log2(3) + 2 / math.log2(5), 2 + 1 / math.log2(3)
    assert value == pytest.approx(found / ideal, abs=1e-6)
    assert sum(seen) == 5


def test_of_a_large_corpus_all_that_is_judged_and_others_by_the_seed(beir):
    kept = [set(read(beir, 3, seed).documents) for seed in range(8)]
    assert all({"a", "b"} < keys and len(keys) == 3 for keys in kept)
    assert len({frozenset(keys) for keys in kept}) == 2
    assert set(read(beir, 1).documents) == {"a", "b"}


def test_passages_of_samples_are_a_corpus(tmp_path):
    write_records(tmp_path / "s.jsonl", [RankingSample("who lays eggs", [DOCUMENTS["a"]], [DOCUMENTS["b"]])])
    write_records(
        tmp_path / "t.jsonl", [RankingSample("what rusts", candidates=[DOCUMENTS["a"], DOCUMENTS["d"]], query_id="7")]
    )
    dev = read(CorpusFiles.of("out-of-domain", [tmp_path / "s.jsonl", tmp_path / "t.jsonl"], None, None))
    assert list(dev.texts.values()) == ["who lays eggs"]
    assert set(dev.documents.values()) == {DOCUMENTS[key] for key in "abd"}
    with pytest.raises(DataError, match="has no query with a relevant passage"):
        read(CorpusFiles.of("in-domain", [tmp_path / "t.jsonl"], None, None))


def test_files_that_do_not_belong_together(beir, tmp_path):
    corpus = beir.passages[0]
    with pytest.raises(UsageError, match="--retrieval_dev_qrels lacks its corpus"):
        CorpusFiles.of("in-domain", [], corpus, None)
    with pytest.raises(UsageError, match="--out_of_domain_retrieval_dev_qrels judge one corpus"):
        CorpusFiles.of("out-of-domain", [corpus, corpus], corpus, None)
    with pytest.raises(UsageError, match="--retrieval_dev_queries are known by --retrieval_dev_qrels only"):
        CorpusFiles.of("in-domain", [corpus], None, corpus)
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no queries\.jsonl"):
        CorpusFiles.of("in-domain", [corpus], corpus, None)


@pytest.mark.slow
def test_it_guards_the_merge_and_stands_in_the_recipe(beir, tmp_path, tiny_encoder):
    labels = [SoftLabels(str(i), text, list(DOCUMENTS.values()), [0.9, 0.5, 0.1, i]) for i, text in enumerate("xyz")]
    write_records(tmp_path / "labels.jsonl", labels)
    pairs = [ScoredPair("1", "x", text, i, i % 2) for i, text in enumerate(DOCUMENTS.values())]
    write_records(tmp_path / "dev_logits.jsonl", pairs)
    command = ["--train_file", f"{tmp_path}/labels.jsonl", "--student", tiny_encoder, "--output_dir", f"{tmp_path}/m"]
    command += ["--max_steps", "2", "--bf16", "false", "--dev_files", f"{tmp_path}/dev_logits.jsonl"]
    searched = ["--out_of_domain_retrieval_dev_corpus", f"{beir.passages[0]}"]
    searched += ["--out_of_domain_retrieval_dev_qrels", f"{beir.qrels}"]
    assert train.main([*command, *searched, "--merge", "off"]) == 2
    assert train.main([*command, *searched]) == 0
    merge = json.loads((tmp_path / "m" / "merge.json").read_text())
    _, curve = merge["files"]
    assert (curve["domain"], curve["measure"], curve["queries"]) == ("out-of-domain", "NDCG@10", 1)
    value = read(beir).measured(SentenceTransformer(f"{tmp_path}/m"), 32)["NDCG@10"].mean()
    assert np.array(curve["values"])[merge["alphas"].index(merge["alpha"])] == pytest.approx(value, abs=1e-6)
    inputs = json.loads((tmp_path / "m.manifest.json").read_text())["recipe"]["inputs"]
    assert {beir.passages[0], beir.qrels, beir.queries} <= {type(beir.qrels)(name) for name in inputs}
