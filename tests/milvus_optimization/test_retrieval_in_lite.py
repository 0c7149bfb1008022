"""Our rankings are those of milvus-lite: BM25, rank fusion, weighted sums. It runs in a process with bounded memory."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from milvus_optimization.retrieval.fusion import RankingPair
from milvus_optimization.retrieval.rankings import Ranking, WordSearch, dense_ranking
from rag_core.corpora.corpus import read_corpus, read_vectors
from rag_core.retrieval.analyser import PLAIN
from tests.conftest import TINY
from tests.milvus_optimization.retrieval_corpus import write_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("milvus_lite") is None, reason="milvus-lite is not installed"),
]

K1, B, DEPTH, QUERIES = 0.9, 0.4, 20, 25

# Prints what each ranker finds: name -> for each query [[place, score], ...].
IN_LITE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))
import json, logging
from pathlib import Path
import numpy as np
from pymilvus import AnnSearchRequest, DataType, Function, FunctionType, MilvusClient, MilvusException
from pymilvus import RRFRanker, WeightedRanker

logging.disable()
folder, k1, b, depth, queries = Path(sys.argv[1]), *map(float, sys.argv[2:4]), *map(int, sys.argv[4:])
texts = [json.loads(line)["text"] for line in (folder / "documents.jsonl").open()]
asked = [json.loads(line)["text"] for line in (folder / "queries.jsonl").open()][:queries]
documents, near = (np.load(folder / "m" / f"{name}.npy") for name in ("documents", "queries"))
client = MilvusClient(str(folder / "lite.db"))

def make(name, texts, analyser, nested=True):
    schema = client.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=2000, enable_analyzer=True, analyzer_params=analyser)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=documents.shape[1])
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, ["text"], ["words"]))
    client.create_collection(name, schema=schema)
    client.insert(name, [{"id": i, "text": text, "dense": documents[i]} for i, text in enumerate(texts)])
    client.flush(name)
    index = client.prepare_index_params()
    index.add_index("dense", index_type="FLAT", metric_type="COSINE")
    params = {"params": {"bm25_k1": k1, "bm25_b": b}} if nested else {"bm25_k1": k1, "bm25_b": b}
    index.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=params)
    client.create_index(name, index)
    client.load_collection(name)

def hits(found):
    return [[[hit["id"], hit["distance"]] for hit in row] for row in found]

make("a", texts, {"type": "standard"})
vectors = [row.tolist() for row in near[:queries]]
requests = [
    AnnSearchRequest(vectors, "dense", {"metric_type": "COSINE"}, limit=depth),
    AnnSearchRequest(asked, "words", {"metric_type": "BM25"}, limit=depth),
]
rankers = {
    "rrf": RRFRanker(5),
    "arctan": WeightedRanker(0.3, 0.7),
    "none": WeightedRanker(0.3, 0.7, norm_score=False),
    "function": Function(
        "f", FunctionType.RERANK, [], params={"reranker": "weighted", "weights": [0.3, 0.7], "norm_score": True}
    ),
}
found = {name: hits(client.hybrid_search("a", requests, ranker, limit=2 * depth)) for name, ranker in rankers.items()}

def by_words(name, queries):
    return client.search(name, queries, anns_field="words", limit=depth, search_params={"metric_type": "BM25"})

found["bm25"] = hits(by_words("a", asked))
make("flat", texts, {"type": "standard"}, nested=False)
found["flat"] = hits(by_words("flat", asked))

plural = ["cats run", "a cat", "dogs"]
stemmer = {"tokenizer": "standard", "filter": ["lowercase", {"type": "stemmer", "language": "english"}]}
make("stemmed", plural, stemmer)
found["stemmed"] = [hit["id"] for hit in by_words("stemmed", ["cat"])[0]]
make("stopped", plural, {"tokenizer": "standard", "filter": [{"type": "stop", "stop_words": ["a"]}]})
found["stopped"] = [hit["id"] for hit in by_words("stopped", ["a"])[0]]
try:
    make("english", plural, {"type": "english"})
except MilvusException as error:
    found["english"] = str(error)
client.close()
print("found", json.dumps(found))
"""


@pytest.fixture(scope="session")
def both(tmp_path_factory):
    """Return what milvus-lite finds, and our two rankings."""
    folder = write_corpus(tmp_path_factory.mktemp("lite"), queries=40, documents=200, models=("m",))
    argv = [sys.executable, "-c", IN_LITE, folder, *map(str, (K1, B, DEPTH, QUERIES))]
    environment = os.environ | {"PYTHONPATH": str(TINY.parent.parent)}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment, timeout=120)
    assert "found " in done.stdout, done.stderr[-2000:]
    corpus = read_corpus(folder)
    vectors = read_vectors(folder, "m", corpus)
    asked = list(corpus.queries.values())[:QUERIES]
    words, _ = WordSearch(corpus.texts(), PLAIN).rank(asked, DEPTH, K1, B)
    pair = RankingPair(dense_ranking(vectors.queries[:QUERIES], vectors.documents, DEPTH), words)
    return json.loads(done.stdout.partition("found ")[2]), pair


def orders(places):
    return [[int(place) for place in row if place >= 0] for row in places]


def found_by(found, ranker):
    return [[place for place, _ in row] for row in found[ranker]]


def test_bm25_has_our_scores(both):
    found, pair = both
    for number, row in enumerate(found["bm25"]):
        mine = pair.words.scores[number][pair.words.places[number] >= 0]
        assert [-score for _, score in row] == pytest.approx(mine.tolist(), rel=1e-4)  # Lite's are negative


def test_k1_and_b_in_the_documented_form_are_ignored(both):
    """The day this fails, milvus-lite reads {"bm25_k1": ...}, and {"params": {"bm25_k1": ...}} is needed no more."""
    found, _ = both
    assert found["flat"] != found["bm25"]


def test_rank_fusion_has_our_order(both):
    found, pair = both
    # Equal BM25 scores have ranks in an order of Lite's own, which is taken as it is here.
    rows = [[place for place, _ in row] + [-1] * (DEPTH - len(row)) for row in found["bm25"]]
    words = Ranking(np.array(rows), np.zeros((QUERIES, DEPTH), dtype=np.float32))
    fused = RankingPair(pair.dense, words).by_ranks(5, DEPTH, 2 * DEPTH)
    assert found_by(found, "rrf") == orders(fused)


@pytest.mark.parametrize("normalisation", ["arctan", "none"])
def test_a_weighted_sum_has_our_order(both, normalisation):
    found, pair = both
    assert found_by(found, normalisation) == orders(pair.by_scores(0.3, normalisation, DEPTH, 2 * DEPTH))


def test_the_function_form_is_the_same_ranker(both):
    found, _ = both
    assert found["function"] == found["arctan"]


def test_a_weighted_sum_is_not_of_minmax(both):
    """The day this fails, milvus-lite normalises as it once did, and "lite" may choose "minmax"."""
    found, pair = both
    assert found_by(found, "arctan") != orders(pair.by_scores(0.3, "minmax", DEPTH, 2 * DEPTH))


def test_lite_has_stop_words_and_no_stemmer(both):
    """The day this fails, milvus-lite stems, and can take the analyser that a server has."""
    found, _ = both
    assert found["stemmed"] == [1]  # and not 0, "cats": the filter is taken, and nothing is said
    assert found["stopped"] == []
    assert "unknown tokenizer type: 'english'" in found["english"]
