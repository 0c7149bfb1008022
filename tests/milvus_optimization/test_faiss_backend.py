"""faiss in this process, against exact search by numpy."""

import numpy as np
import pytest

from milvus_optimization.backends import lite_store
from milvus_optimization.backends.loading import open_backend
from milvus_optimization.backends.protocol import UnsupportedIndexError
from milvus_optimization.backends.readback import built_as_asked
from milvus_optimization.backends.space import default_grid
from rag_core.base.errors import DataError, EngineError, UsageError
from tests.milvus_optimization.known_vectors import make_clustered, overlap

faiss = pytest.importorskip("faiss")

K = 10


@pytest.fixture(scope="session")
def clustered_vectors():
    return make_clustered()


@pytest.fixture
def filled(clustered_vectors):
    """A backend that holds the vectors, with the rest of a row's number by 100 as its number."""
    backend = open_backend("faiss")
    documents, _ = clustered_vectors
    backend.insert(documents, np.arange(len(documents)) % 100)
    return backend


def exact_places(queries, documents):
    return np.argsort(-(queries @ documents.T), axis=1)[:, :K]


# The least recall at the highest search setting of each index: what was measured, less .02.
LEAST = {"FLAT": 1, "IVF_FLAT": 0.97, "IVF_SQ8": 0.96, "IVF_RABITQ": 0.5, "HNSW": 0.98, "HNSW_SQ": 0.97, "IVF_PQ": 0.55}


def test_every_build_of_the_grid_is_the_one_asked_for_and_finds_what_it_should(filled, clustered_vectors):
    documents, queries = clustered_vectors
    exact = exact_places(queries, documents)
    sizes = {}
    for setting in default_grid("faiss", *documents.shape, K):
        built = filled.build(setting.index, setting.build)
        assert built_as_asked(setting.build, built.seen) == ""
        recalls = [overlap(filled.search(queries, K, search)[0], exact) for search in setting.searches]
        assert recalls[-1] >= LEAST[setting.index], setting
        if "refine_type" in setting.build:  # (nprobe, refine_k)
            assert recalls[3] > recalls[0] + 0.2
        elif setting.index.startswith("HNSW") or setting.index == "IVF_FLAT":
            assert recalls == sorted(recalls)
            assert recalls[0] < 1
        sizes[setting.index] = built.index_bytes
        assert (built.cpu_seconds > 0) is True
    vectors = documents.nbytes
    assert vectors < sizes["FLAT"] < sizes["IVF_FLAT"] < sizes["HNSW"]
    assert sizes["IVF_PQ"] < sizes["IVF_SQ8"] < vectors / 2


def test_flat_is_exact_and_its_scores_are_cosines(filled, clustered_vectors):
    documents, queries = clustered_vectors
    filled.build("FLAT", {})
    places, scores = filled.search(queries, K, {})
    assert places.dtype == np.int64
    np.testing.assert_array_equal(places, exact_places(queries, documents))
    np.testing.assert_allclose(scores, np.sort(queries @ documents.T, axis=1)[:, ::-1][:, :K], atol=1e-6)


@pytest.mark.parametrize(
    ("index", "build", "search"),
    [
        ("FLAT", {}, {}),
        ("HNSW", {"M": 16, "efConstruction": 100}, {"ef": 1000}),
        ("HNSW_SQ", {"M": 16, "efConstruction": 100, "refine_type": "FP32"}, {"ef": 1000, "refine_k": 10}),
        ("IVF_FLAT", {"nlist": 10}, {"nprobe": 10}),
        ("IVF_RABITQ", {"nlist": 10, "refine_type": "FP32"}, {"nprobe": 10, "refine_k": 100}),
    ],
)
def test_a_filter_keeps_the_nearest_of_what_it_lets_through(filled, clustered_vectors, index, build, search):
    documents, queries = clustered_vectors
    filled.build(index, build)
    places, _ = filled.search(queries, K, search, below=50)
    kept = np.flatnonzero(np.arange(len(documents)) % 100 < 50)
    assert overlap(places, kept[exact_places(queries, documents[kept])]) > 0.99
    assert (filled.search(queries, K, search)[0] % 100 >= 50).any()  # and is gone with the next search


def test_where_fewer_are_found_the_rest_is_no_row(filled, clustered_vectors):
    filled.build("FLAT", {})
    filled.insert(clustered_vectors[0], np.arange(len(clustered_vectors[0])))
    filled.build("FLAT", {})
    places, scores = filled.search(clustered_vectors[1][:5], K, {}, below=3)
    assert (np.sort(places[:, :3], axis=1) == [0, 1, 2]).all()
    assert (places[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()


def test_the_same_seed_builds_the_same_index(clustered_vectors):
    documents, queries = clustered_vectors
    found = []
    for _ in range(2):
        backend = open_backend("faiss")
        backend.insert(documents)
        backend.build("IVF_RABITQ", {"nlist": 50})
        found.append(backend.search(queries, K, {"nprobe": 5}))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_one_thread_is_used_and_the_others_are_given_back(filled, clustered_vectors):
    faiss.omp_set_num_threads(2)
    try:
        filled.build("FLAT", {})
        filled.search(clustered_vectors[1], K, {})
        assert faiss.omp_get_max_threads() == 2
    finally:
        faiss.omp_set_num_threads(1)


@pytest.mark.parametrize("index", ["SCANN", "DISKANN", "AUTOINDEX", "HNSW_PQ"])
def test_what_faiss_does_not_have_is_unsupported(filled, index):
    with pytest.raises(UnsupportedIndexError, match=f"faiss has no counterpart of {index}"):
        filled.build(index, {})


def test_parameters_are_checked_before_anything_is_built(filled, clustered_vectors):
    with pytest.raises(UsageError, match="M of HNSW is -3"):
        filled.build("HNSW", {"M": -3, "efConstruction": 100})
    filled.build("HNSW", {"M": 4, "efConstruction": 10})
    filled.search(clustered_vectors[1], K, {"ef": 10})
    with pytest.raises(UsageError, match="ef of HNSW is 10, and 11 results"):
        filled.search(clustered_vectors[1], K + 1, {"ef": 10})


@pytest.mark.parametrize(("value", "length"), [(0, "0"), (np.nan, "nan"), (2, "4")])
def test_vectors_without_length_1_are_refused(value, length):
    vectors = np.eye(4, dtype=np.float32)
    vectors[2] = value
    with pytest.raises(DataError, match=rf"documents: row 2 has length {length}, not 1\. Normalise"):
        open_backend("faiss").insert(vectors)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("server", {}, "--backend server needs --uri. Pass --uri http://HOST:19530."),
        (
            "server",
            {"uri": "milvus.db"},
            "--uri is 'milvus.db'. Pass http://HOST:19530, or choose --backend lite.",
        ),
        (
            "server",
            {"uri": "http://root:secret@host:19530"},
            "--uri has a user or password in it. Set RAG_MILVUS_TOKEN=user:password, and leave it out of --uri.",
        ),
        ("lite", {}, "--backend lite needs a folder. Pass one."),
    ],
)
def test_a_backend_that_cannot_be_opened_so(name, given, sentence):
    pytest.importorskip("pymilvus")
    with pytest.raises(UsageError) as error:
        open_backend(name, **given)
    assert str(error.value) == sentence


@pytest.mark.parametrize(("name", "package"), [("faiss", "faiss"), ("lite", "pymilvus"), ("server", "pymilvus")])
def test_a_missing_extra_is_named(monkeypatch, name, package):
    monkeypatch.setattr("milvus_optimization.backends.loading.find_spec", lambda _: None)
    with pytest.raises(EngineError) as error:
        open_backend(name)
    assert str(error.value) == f'--backend {name} needs {package}. Run: pip install "rag-optimization[milvus]".'


def test_an_old_milvus_lite_is_refused(monkeypatch):
    monkeypatch.setattr(lite_store, "version", lambda _: "3.2.1")
    with pytest.raises(EngineError) as error:
        lite_store.check_version()
    assert str(error.value) == 'milvus-lite is 3.2.1, older than 3.2.2. Run: pip install -U "milvus-lite>=3.2.2".'
    for newer in ("3.2.2", "3.10.0", "4.0.0rc1"):
        monkeypatch.setattr(lite_store, "version", lambda _, newer=newer: newer)
        assert lite_store.check_version() == newer
