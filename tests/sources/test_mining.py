"""Candidates by hand-made rankings: BM25's by shared words, a model's by cosines that are written down."""

import json
from collections import Counter

import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.base.records import RankingSample
from rag_core.engines.loading import LOADERS
from rag_core.files.bad_rows import BadRows
from rag_core.scoring.settings import CHUNK_ROWS
from rag_core.sources import mining
from rag_core.sources.beir import BeirFolder
from rag_core.sources.corpus import Corpus
from rag_core.sources.mining import RANDOM, Asked, Mining, disagreement_order, in_turns, mine_candidates
from tests.conftest import write_model
from tests.sources.rows import write_lines

# Of ten passages, BM25 finds the first two; the student likes those from the front, the teacher those from behind.
PASSAGES = ["ice ice melts", "ice floats", *(f"p{number}" for number in range(2, 10))]
COSINES = {
    "s": {text: 0.9 - place / 10 for place, text in enumerate(PASSAGES)},
    "t": {text: place / 10 for place, text in enumerate(PASSAGES)},
}


class Table:
    """An embedder whose cosines with every query stand in a table."""

    score_unit = "cosine"
    truncated = 0
    dimensions = 2

    def __init__(self, name, encoded):
        self.name, self.encoded = name, encoded

    def encode(self, texts, role):
        self.encoded.append((self.name, role, *texts))
        cosines = [1 if role == "query" else COSINES[self.name].get(text, 0) for text in texts]
        return np.array([[cosine, np.sqrt(1 - cosine**2)] for cosine in cosines], dtype=np.float32)


@pytest.fixture
def encoded(tmp_path, monkeypatch):
    """Make the embedders s and t in the working folder; the list has what they were asked to embed."""
    for name in COSINES:
        folder = tmp_path / name
        write_model(folder, "BertModel", name=name)
        (folder / "modules.json").write_text(
            json.dumps([{"type": "sentence_transformers.models.Normalize", "path": "", "idx": 0, "name": "0"}])
        )
    found = []
    monkeypatch.setitem(LOADERS, "sentence-transformers", lambda options, canary: Table(options.model.name, found))
    monkeypatch.setattr("rag_core.engines.loading.check", lambda model, pairs: None)
    monkeypatch.chdir(tmp_path)
    return found


def mine(num_candidates, asked=None, **settings):
    asked = asked or [Asked("ice", num_candidates)]
    return mine_candidates(asked, PASSAGES, Mining(num_candidates, **settings), depth=num_candidates + 1)


def test_rankings_take_turns_and_the_highest_has_found_it():
    rankings = {"bm25": [3, 1, 2], "s": [1, 4], "t": [5, 3]}
    assert in_turns(rankings, 9) == {3: "bm25", 1: "s", 5: "t", 4: "s", 2: "bm25"}
    assert in_turns(rankings, 2) == {3: "bm25", 1: "s"}
    assert list(in_turns(rankings, 9)) == [3, 1, 5, 4, 2]


def test_disagreement_counts_most_at_the_head_and_keeps_the_teachers_best():
    student, teacher = list(range(82, 0, -1)), list(range(82, 0, -1))
    teacher[49], teacher[74] = teacher[74], teacher[49]  # ranks 50 and 75: 1/110 - 1/135 = .0017
    teacher[5], teacher[20] = teacher[20], teacher[5]  # ranks 6 and 21: 1/66 - 1/81 = .0028
    assert disagreement_order(student, teacher)[:7] == [0, 1, 5, 20, 49, 74, 2]
    assert disagreement_order([3, 3, 3], [1, 2, 3]) == [2, 1, 0]
    assert disagreement_order([1], [1]) == [0]


def test_two_models_and_bm25_take_turns(encoded):
    (found,) = mine(6, dense_models=["s", "t"])
    # bm25: 0 1; s: 0 1 2 ...; t: 9 8 7 ...
    assert list(found.items()) == [(0, "bm25"), (9, "t"), (1, "bm25"), (8, "t"), (2, "s"), (7, "t")]


def test_disagreement_takes_the_ends_of_opposite_rankings(encoded, monkeypatch):
    monkeypatch.setattr(mining, "_QUERIES_AT_ONCE", 1)
    (found,) = mine(5, dense_models=["s", "t"], prefer="disagreement")
    assert list(found) == [9, 8, 0, 1, 2]  # the teacher's best two; 0 differs as much as 9, and 2 as 7
    asked = [Asked("ice", 3, frozenset({9, 0})), Asked("other", 2), Asked("ice", 1)]
    found = mine(5, asked, dense_models=["s", "t"], prefer="disagreement")
    assert [list(one) for one in found] == [[8, 1, 2], [9, 8], [9]]


@pytest.mark.parametrize("settings", [{}, {"dense_models": ["s", "t"]}])
def test_the_share_at_random_is_exact_and_of_none_that_is_known(encoded, settings):
    known = frozenset({4, 5})
    asked = [Asked(f"ice {number}", 7, known) for number in range(40)]
    found = mine(8, asked, random_share=0.4, **settings)  # 3 of 8
    for one in found:
        assert (len(one), known & set(one)) == (7, set())
        if settings:
            assert list(one.values()).count(RANDOM) == 3
            assert set(list(one.values())[-3:]) == {RANDOM}
    assert len({tuple(one)[-3:] for one in found}) > 10, "each query has others"
    assert found == mine(8, asked, random_share=0.4, **settings)
    assert found != mine(8, asked, random_share=0.4, seed=1, **settings)
    assert Mining(10, random_share=0.25).drawn == 3


def test_a_killed_search_embeds_nothing_twice(encoded, tmp_path, monkeypatch):
    monkeypatch.setitem(CHUNK_ROWS, "sentence-transformers", 4)
    settings = {"dense_models": ["s", "t"], "vectors": tmp_path / "kept"}
    encode, left = Table.encode, [7]

    def dying(self, texts, role):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return encode(self, texts, role)

    monkeypatch.setattr(Table, "encode", dying)
    with pytest.raises(KeyboardInterrupt):
        mine(6, **settings)
    assert encoded[-1] == ("t", "passage", *sorted(PASSAGES, key=lambda text: (-len(text), text))[:4])
    found = mine(6, prefer="disagreement", **settings)
    texts = [(name, role, text) for name, role, *texts in encoded for text in texts]
    assert len(texts) == len(set(texts)) == 2 * (1 + len(PASSAGES))
    assert found == mine(6, prefer="disagreement", dense_models=["s", "t"], vectors=tmp_path / "other")


def test_a_score_store_keeps_the_vectors_for_generate_logits(encoded, tmp_path, monkeypatch):
    from embedding_distillation.generate_logits import main

    mine(6, dense_models=["s", "t"], vectors=tmp_path / "kept", score_store=tmp_path / "store", max_length=128)
    assert len(list((tmp_path / "store").glob("*/model.json"))) == 2
    assert not list((tmp_path / "kept").glob("**/*.npy"))
    write_lines(tmp_path / "train.jsonl", [{"query": "ice", "candidates": PASSAGES[:3]}])
    encoded.clear()
    flags = ["--teacher", "t", "--max_length", "128", "--input_files", "train.jsonl", "--score_store", "store"]
    assert main(flags) == 0
    assert encoded == []
    scores = [json.loads(line)["score"] for line in (tmp_path / "train_logits.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(scores, [0, 0.1, 0.2], atol=1e-6)


def test_what_is_no_embedder_is_told_before_anything_is_embedded(encoded, tmp_path):
    write_model(tmp_path / "reranker")
    with pytest.raises(EngineError, match=r"^reranker gives no vectors .*Pass an embedder"):
        mine(6, dense_models=["s", "reranker"])
    assert encoded == []


def test_beir_keeps_its_positives_and_takes_negatives_of_all(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(mining, "_QUERIES_AT_ONCE", 1)
    folder = tmp_path / "beir"
    write_lines(folder / "corpus.jsonl", [{"_id": text, "text": text} for text in PASSAGES])
    write_lines(folder / "queries.jsonl", [{"_id": "q1", "text": "ice"}, {"_id": "q2", "text": "other"}])
    (folder / "qrels").mkdir()
    rows = ["query-id\tcorpus-id\tscore", "q1\tice floats\t1", "q2\tp9\t1", "q2\tp2\t1"]
    (folder / "qrels/test.tsv").write_text("\n".join(rows) + "\n")
    source = BeirFolder(folder, Mining(5, dense_models=["s", "t"], random_share=0.2))
    first, second = source.read(Counter(), BadRows(skip=False))["test"]
    assert first == RankingSample(
        "ice", ["ice floats"], ["ice ice melts", "p9", "p8", first.negative[3]], query_id="q1"
    )
    assert first.negative[3] in {"p2", "p3", "p4", "p5", "p6", "p7"}
    assert (second.positive, second.negative[:2]) == (["p9", "p2"], ["ice ice melts", "ice floats"])
    assert source.mined == {"bm25": 1, "s": 2, "t": 2, RANDOM: 2}
    assert source.flags["dense_model"] == ["s", "t"]


def test_a_corpus_counts_what_found_its_candidates(encoded, tmp_path):
    pile = write_lines(tmp_path / "pile.jsonl", [{"text": text} for text in PASSAGES])
    log = write_lines(tmp_path / "log.jsonl", [{"query": "ice"}, {"query": "other"}])
    how = Mining(4, dense_models=["t"], prefer=None, random_share=0.25)
    source = Corpus(pile, log, how, query_from="sentence", num_queries=1, fractions={"train": 1.0})
    samples = source.read(Counter(), BadRows(skip=False))["train"]
    found = {one.query: one.candidates[:3] for one in samples}
    assert found == {"ice": ["ice ice melts", "p9", "ice floats"], "other": ["p9", "p8", "p7"]}
    assert source.mined == {"bm25": 2, "t": 4, RANDOM: 2}
