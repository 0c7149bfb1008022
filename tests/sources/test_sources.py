import gzip
import json
import sys
import textwrap
import types
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample, passage_text
from rag_core.base.tables import counts_table
from rag_core.files.bad_rows import BadRows
from rag_core.retrieval.bm25 import BM25, nearest_passages
from rag_core.sources import apidocs, mteb
from rag_core.sources.beir import BeirFolder
from rag_core.sources.cleaning import clean_samples, count_samples, draw_samples
from rag_core.sources.corpus import Corpus
from rag_core.sources.mteb import MtebSet
from tests.conftest import TINY

STRICT = BadRows(skip=False)


@pytest.fixture
def no_network(monkeypatch):
    def download(name, repo_type):
        raise FileNotFoundError("Got: ConnectError: no route\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


# --- BM25


WORDS = st.lists(st.sampled_from(["ice", "cave", "lake", "snow", "melt"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=12), WORDS, st.integers(1, 14))
def test_nearest_passages_are_the_head_of_a_full_stable_sort(passages, query, count):
    scores = BM25(passages).scores(query)
    expected = [int(i) for i in np.argsort(-scores, kind="stable")[:count]]
    assert nearest_passages([query], passages, count) == [expected]


# --- cleaning


def test_cleaning_counts_what_it_takes_out():
    dropped = Counter()
    samples = [
        RankingSample(query="q", positive=["a", "a", " q "], negative=["b", "a", "b", "c"]),
        RankingSample(query="only", positive=["only"], negative=[]),
        RankingSample(query="free", candidates=["x", "x", "free"]),
    ]
    cleaned = clean_samples(samples, dropped)
    assert [(one.positive, one.negative, one.candidates) for one in cleaned] == [
        (["a"], ["b", "c"], None),
        (None, None, ["x"]),
    ]
    assert dropped == {
        "duplicate_passages": 3,
        "passages_equal_to_query": 3,
        "negatives_that_are_positives": 1,
        "queries_without_passages": 1,
    }


def test_counts():
    counts = count_samples(
        [RankingSample(query="q", positive=["a"], negative=["b", "c"]), RankingSample(query="r", candidates=["a"])]
    )
    assert counts == {
        "queries": 2, "positives": 1, "negatives": 2, "unlabelled": 1, "pairs": 4, "distinct_passages": 3,
    }  # fmt: skip
    assert counts_table({"train": counts}).splitlines() == [
        "       queries  positives  negatives  unlabelled  pairs  distinct passages",
        "train        2          1          2           1      4                  3",
    ]


def test_samples_are_drawn_by_the_seed_in_their_order():
    samples = [RankingSample(query=str(i), candidates=["x"]) for i in range(50)]
    drawn = [int(one.query) for one in draw_samples(samples, 10, 1)]
    assert len(drawn) == 10
    assert drawn == sorted(drawn) != list(range(10))
    assert draw_samples(samples, 10, 1) == draw_samples(samples, 10, 1) != draw_samples(samples, 10, 2)
    assert draw_samples(samples, 50, 1) == draw_samples(samples, None, 1) == samples


# --- a pile of passages


PILE = [
    {
        "title": "Glacier caves",
        "text": "They form by melt water. In the ice of a glacier a cave grows. It falls in.",
    },
    {"text": "A lake holds water that came down the river. Fish live in the lake."},
    {"text": "Too short. It is."},
    {"text": "A lake holds water that came down the river. Fish live in the lake."},
]


def corpus(path, queries=None, rows=PILE, **settings):
    write_lines(path / "pile.jsonl", rows)
    defaults = {"query_from": "sentence", "num_queries": 9, "dense_model": None, "num_candidates": 3, "seed": 1}
    defaults["vectors"] = path / "vectors"
    fractions = {"train": 0.5, "dev": 0.5}
    source = Corpus(path / "pile.jsonl", queries, fractions=fractions, **defaults | settings)
    return source, Counter()


def all_samples(source, dropped):
    return {one.query: one.candidates for split in source.read(dropped, STRICT).values() for one in split}


def test_a_sentence_is_cut_out_of_its_passage(tmp_path):
    source, dropped = corpus(tmp_path)
    samples = all_samples(source, dropped)
    assert dropped == {"passages_without_a_query": 1}
    assert len(samples) == 2
    for query, candidates in samples.items():
        whole = next(f"{row.get('title', '')} {row['text']}" for row in PILE if query in row["text"])
        assert candidates[0] in whole.replace("caves ", "caves. ").replace(f"{query} ", "").replace(f" {query}", "")
        assert query not in candidates[0]
        assert all(query not in text for text in candidates)
        assert 2 <= len(candidates) <= 3


def test_a_title_is_a_query(tmp_path):
    rows = [{"title": f"How the {name} of glaciers form", "text": f"{name} form."} for name in ("caves", "lakes")]
    source, dropped = corpus(tmp_path, rows=[*PILE, *rows], query_from="title")
    samples = all_samples(source, dropped)
    assert dropped == {"passages_without_a_query": 3}
    assert {query: found[0] for query, found in samples.items()} == {row["title"]: row["text"] for row in rows}


def test_queries_of_a_log_keep_their_passages_whole(tmp_path):
    log = write_lines(tmp_path / "log.jsonl", [{"query": "fish in a lake"}, {"text": "melt"}, {"query": "melt"}])
    samples = all_samples(*corpus(tmp_path, log))
    assert set(samples) == {"fish in a lake", "melt"}
    assert samples["fish in a lake"][0] == PILE[1]["text"]


def test_dense_search_adds_what_bm25_does_not_find(tmp_path, tiny_encoder):
    samples = [json.loads(line) for line in (TINY / "train.jsonl").read_text().splitlines()]
    log = write_lines(tmp_path / "log.jsonl", [{"query": sample["query"]} for sample in samples])
    rows = [{"text": text} for sample in samples for text in sample["positive"] + sample["negative"]]
    sparse = all_samples(*corpus(tmp_path, log, rows, num_candidates=6))
    both = all_samples(*corpus(tmp_path, log, rows, num_candidates=6, dense_model=tiny_encoder))
    for query, found in both.items():
        assert len(found) == len(set(found)) == 6
        assert found[0] == sparse[query][0]
    assert any(set(found) != set(sparse[query]) for query, found in both.items())


# --- BEIR


CORPUS = [
    {"_id": "d1", "title": "Glacier caves", "text": "form by melt water."},
    {"_id": "d2", "title": "", "text": "Glacier ice is blue."},
    {"_id": "d3", "title": "Why?", "text": "Snow becomes ice."},
    {"_id": "d4", "text": "Lakes hold water."},
    {"_id": "d5", "text": "Glacier ice is blue."},
    {"_id": "d6", "text": "how do glacier caves form"},
]
QUERIES = [
    {"_id": "q1", "text": "how do glacier caves form"},
    {"_id": "q2", "text": "blue ice"},
    {"_id": "q3", "text": "x"},
]
QRELS = ["query-id\tcorpus-id\tscore", "q1\td1\t1", "q1\td2\t0", "q2\td2\t2", "q2\td3\t1", "q3\td4\t0"]


@pytest.fixture
def beir(tmp_path):
    write_lines(tmp_path / "corpus.jsonl.gz", CORPUS)
    write_lines(tmp_path / "queries.jsonl", QUERIES)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("\n".join(QRELS) + "\n")
    return tmp_path


def test_beir_positives_are_judged_and_negatives_are_the_nearest_others(beir):
    dropped = Counter()
    splits = BeirFolder(beir, 3).read(dropped, None)
    assert list(splits) == ["test"]
    assert splits["test"] == [
        RankingSample(
            query_id="q1",
            query="how do glacier caves form",
            positive=["Glacier caves. form by melt water."],
            negative=["Glacier ice is blue.", "Why? Snow becomes ice."],
        ),
        RankingSample(
            query_id="q2",
            query="blue ice",
            positive=["Glacier ice is blue.", "Why? Snow becomes ice."],
            negative=["Glacier caves. form by melt water."],
        ),
    ]
    assert dropped == {"queries_without_positives": 1}


def test_beir_leaves_one_negative_however_many_positives(beir):
    sample = BeirFolder(beir, 2).read(Counter(), None)["test"][1]
    assert (len(sample.positive), len(sample.negative)) == (2, 1)


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [("A", "b", "A. b"), ("A.", "b", "A. b"), ("A?", "b", "A? b"), (None, "b", "b"), ("A", " ", "A"), (None, None, "")],
)
def test_passage_text(title, text, expected):
    assert passage_text(title, text) == expected


_FIX = "Correct the row, or pass --skip_bad_rows to leave such rows out."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("q1\td1", "has 2 tab-separated fields, not query-id, corpus-id, score"),
        ("q1\td1\thigh", "the score 'high' is not a whole number"),
        ("q9\td1\t1", "'q9' is not in queries"),
        ("q1\td9\t1", "'d9' is not in the corpus"),
    ],
)
def test_beir_bad_judgements(beir, row, message):
    path = beir / "qrels/test.tsv"
    path.write_text("\n".join([*QRELS, row]) + "\n")
    with pytest.raises(DataError) as error:
        BeirFolder(beir, 3).read(Counter(), None)
    assert str(error.value) == f"{path}:7: {message}. {_FIX}"
    skipped = BadRows(skip=True)
    assert len(BeirFolder(beir, 3).read(Counter(), skipped)["test"]) == 2
    assert [str(one) for one in skipped.errors] == [str(error.value)]


def test_beir_one_passage_under_two_ids_is_one_positive_where_it_was_first_judged(beir):
    (beir / "qrels/test.tsv").write_text("q2\td2\t0\nq2\td3\t1\nq2\td5\t1\n")
    assert BeirFolder(beir, 3).read(Counter(), STRICT)["test"][0].positive == [
        "Glacier ice is blue.",
        "Why? Snow becomes ice.",
    ]


def test_beir_bad_documents(beir):
    path = beir / "corpus.jsonl.gz"
    write_lines(path, [*CORPUS, {"_id": "d7", "title": " ", "text": ""}])
    with pytest.raises(DataError) as error:
        BeirFolder(beir, 3).read(Counter(), None)
    assert str(error.value) == f"{path}:7: the Document has neither a title nor a text. {_FIX}"
    write_lines(path, [*CORPUS, CORPUS[0]])
    with pytest.raises(DataError) as error:
        BeirFolder(beir, 3).read(Counter(), None)
    assert str(error.value) == f"{path}: _id 'd1' stands in more than one row. Keep one of them."


def test_beir_folders_that_are_none(beir):
    with pytest.raises(DataError) as error:
        BeirFolder(beir / "qrels", 3)
    assert str(error.value) == (
        f"{beir / 'qrels'}: holds no corpus.jsonl or corpus.jsonl.gz. Pass a folder in the BEIR layout."
    )
    (beir / "qrels/test.tsv").write_text("q1\td1\t0\n")
    with pytest.raises(DataError) as error:
        BeirFolder(beir, 3).read(Counter(), None)
    assert str(error.value) == (
        f"{beir / 'qrels/test.tsv'}: judges no document above 0. Check the scores, or remove the file."
    )
    (beir / "qrels/test.tsv").unlink()
    with pytest.raises(DataError) as error:
        BeirFolder(beir, 3)
    assert str(error.value) == f"{beir}: holds no qrels/<split>.tsv. Pass a folder in the BEIR layout."


# --- MTEB


@pytest.fixture
def flat(tmp_path):
    folder = tmp_path / "askubuntudupquestions-reranking"
    write_lines(
        folder / "train.jsonl.gz",
        [
            {"query": "q1", "positive": ["a", ""], "negative": ["b"]},
            {"query": " ", "positive": ["a"], "negative": ["b"]},
            {"query": "q3", "positive": [" "], "negative": []},
        ],
    )
    write_lines(folder / "test.jsonl.gz", [{"query": "q2", "positive": ["c"], "negative": ["d", "e"]}])
    return folder


@pytest.fixture
def nested(tmp_path):
    folder = tmp_path / "nested"
    tables = {
        "corpus": [{"_id": f"d{i}", "title": "T" if i == 2 else "", "text": f"text {i}"} for i in range(1, 6)],
        "queries": [{"_id": "q1", "text": "first"}, {"_id": "q2", "text": "second"}],
        "qrels": [
            {"query-id": "q1", "corpus-id": "d1", "score": 1},
            {"query-id": "q1", "corpus-id": "d2", "score": 0},
            {"query-id": "q2", "corpus-id": "d3", "score": 1},
        ],
        "top_ranked": [
            {"query-id": "q1", "corpus-ids": ["d2", "d1", "d4"]},
            {"query-id": "q2", "corpus-ids": ["d5"]},
        ],
    }
    splits = dict.fromkeys(tables, "test") | {"corpus": "corpus"}
    header = "configs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: {splits[name]}\n    path: {name}/*\n" for name in tables
    )
    for name, rows in tables.items():
        write_lines(folder / name / "test.jsonl", rows)
    (folder / "README.md").write_text(f"---\n{header}---\n")
    return folder


def test_mteb_flat_layout(flat):
    source = MtebSet(str(flat), "huggingface")
    dropped = Counter()
    splits = source.read(dropped, STRICT)
    assert source.instruction == "Retrieve duplicate questions from AskUbuntu forum"
    assert sorted(source.splits) == ["test", "train"]
    assert [path.name for path in source.inputs] == ["test.jsonl.gz", "train.jsonl.gz"]
    assert splits["train"] == [RankingSample(query_id="train-1", query="q1", positive=["a"], negative=["b"])]
    assert splits["test"] == [RankingSample(query_id="test-1", query="q2", positive=["c"], negative=["d", "e"])]
    assert dropped == {"empty_passages": 2, "empty_queries": 1, "queries_without_passages": 1}


def test_mteb_nested_layout(nested):
    source = MtebSet(str(nested), "huggingface")
    assert source.instruction is None
    assert source.splits == ["test"]
    assert source.read(Counter(), STRICT)["test"] == [
        RankingSample(query_id="q1", query="first", positive=["text 1"], negative=["T. text 2", "text 4"]),
        RankingSample(query_id="q2", query="second", positive=["text 3"], negative=["text 5"]),
    ]


def test_mteb_nested_layout_without_top_ranked_takes_the_judged(nested):
    readme = nested / "README.md"
    readme.write_text(readme.read_text().partition("- config_name: top_ranked")[0] + "---\n")
    samples = MtebSet(str(nested), "huggingface").read(Counter(), None)["test"]
    assert [(one.positive, one.negative) for one in samples] == [(["text 1"], ["T. text 2"]), (["text 3"], [])]


def test_mteb_judgement_of_an_unknown_passage(nested):
    write_lines(nested / "qrels/test.jsonl", [{"query-id": "q1", "corpus-id": "d9", "score": 1}])
    with pytest.raises(DataError) as error:
        MtebSet(str(nested), "huggingface").read(Counter(), None)
    assert str(error.value) == f"{nested}: split test: 'd9' is judged but not in the corpus. Fetch the files again."


def test_mteb_other_columns(tmp_path):
    write_lines(tmp_path / "test.jsonl", [{"sentence": "a"}])
    with pytest.raises(DataError) as error:
        MtebSet(str(tmp_path), "huggingface").read(Counter(), None)
    assert str(error.value) == (
        f"{tmp_path}: default has the columns sentence, where query, positive, negative are needed. "
        "Pass an MTEB reranking set."
    )


@pytest.mark.parametrize("row", [{"query": 1}, {"positive": [1]}, {"negative": 5}])
def test_mteb_columns_of_other_types(tmp_path, row):
    write_lines(tmp_path / "test.jsonl", [{"query": "q", "positive": ["a"], "negative": ["b"]} | row])
    with pytest.raises(DataError) as error:
        MtebSet(str(tmp_path), "huggingface").read(Counter(), None)
    assert str(error.value).startswith(f"{tmp_path}: the split test has something else where texts are needed (")


def test_mteb_damaged_and_empty_folders(tmp_path):
    with pytest.raises(DataError) as error:
        MtebSet(str(tmp_path), "huggingface")
    assert "cannot be read as a data set (The directory at " in str(error.value)
    (tmp_path / "test.jsonl").write_text('{"query": 1,\n')
    with pytest.raises(DataError, match=r"cannot be read as a data set \(JSON parse error.*fetch them again\.$"):
        MtebSet(str(tmp_path), "huggingface").read(Counter(), None)


def test_mteb_unreachable_hub(no_network):
    with pytest.raises(DataError) as error:
        MtebSet("SciDocsRR", "huggingface")
    assert str(error.value) == (
        "mteb/SciDocsRR is no local folder, and cannot be fetched from Hugging Face (Got: ConnectError: no route). "
        "Check the name and the network, or fetch the files elsewhere and pass their folder as --name."
    )


def test_mteb_from_the_hub(monkeypatch, flat):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, repo_type: asked.append((name, repo_type)) or flat
    )
    for name in ("askubuntudupquestions", "mteb/askubuntudupquestions-reranking", "AskUbuntuDupQuestions"):
        assert MtebSet(name, "huggingface").instruction == "Retrieve duplicate questions from AskUbuntu forum"
    assert set(asked) == {("mteb/askubuntudupquestions-reranking", "dataset")}


def test_modelscope_is_asked_for_only_when_wanted(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(DataError) as error:
        MtebSet("scidocs", "modelscope")
    assert str(error.value) == "--hub modelscope needs the package modelscope. pip install modelscope."


@pytest.fixture
def modelscope(monkeypatch):
    package, hub, errors = (
        types.ModuleType(name) for name in ("modelscope", "modelscope.hub", "modelscope.hub.errors")
    )
    for name in ("FileDownloadError", "NotExistError", "RequestError"):
        setattr(errors, name, type(name, (Exception,), {}))
    for module in (package, hub, errors):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    package.errors = errors
    return package


def test_modelscope_folder_is_read_like_any(modelscope, flat):
    modelscope.dataset_snapshot_download = lambda name: {"mteb/scidocs-reranking": str(flat)}[name]
    assert len(MtebSet("scidocs", "modelscope").read(Counter(), None)["test"]) == 1


def test_modelscope_errors(modelscope):
    def download(name):
        raise modelscope.errors.NotExistError("404")

    modelscope.dataset_snapshot_download = download
    with pytest.raises(DataError) as error:
        MtebSet("me/mine", "modelscope")
    assert str(error.value) == "ModelScope has no data set me/mine. Check --name."


def test_instructions_cover_the_short_names():
    assert set(mteb._HUB_NAMES) == set(mteb.INSTRUCTIONS)


# --- docs of installed packages


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the way of numpy; `rest` is long enough for a passage."""
    rest = (
        "It takes the {0} apart, looks at every {0} by itself, and gives back what it found for the {0} in order, " * 2
    )
    functions = {
        "fft": ("Compute the one-dimensional transform of a signal.", rest.format("wave")),
        "sort": ("Put the rows of a table in order.", rest.format("row")),
        "signature": ("where(condition, x, y) of a thing", rest.format("choice")),
        "essay": ("word " * 60, rest.format("essay")),
        "short": ("Two words", rest.format("brief")),
        "trivial": ("Give the mean of a table.", "Give the mean of a table. " + rest.format("mean")),
        "_private": ("Do what nobody needs to know.", rest.format("secret")),
    }
    source = "".join(
        f'def {name}():\n    """{query}\n\n    {text}\n    """\n' for name, (query, text) in functions.items()
    )
    (tmp_path / "docs_a").mkdir()
    (tmp_path / "docs_a/__init__.py").write_text(source)
    (tmp_path / "docs_a/_inductor.py").write_text(source.replace("of", "by"))
    (tmp_path / "docs_a/test_it.py").write_text(source.replace("of", "by"))
    twin = f'''
        def fft():
            """Find the frequencies in a discrete series.

            {rest.format("series of samples")}
            """
        def near():
            """Sort in another way altogether, quickly.

            Beware. {rest.format("row")}
            """
        class Other:
            """Say what else a transform of a signal is good for.

            {"A transform of a signal has many uses that nobody listed. " * 4}
            """
    '''
    (tmp_path / "docs_b").mkdir()
    (tmp_path / "docs_b/__init__.py").write_text(textwrap.dedent(twin))
    monkeypatch.syspath_prepend(tmp_path)
    return ("docs_a", "docs_b")


def test_apidocs_takes_sentences_and_their_docs(package):
    samples = {one.query_id: one for one in apidocs.read_samples(package, 3)}
    assert list(samples) == ["docs_a.fft", "docs_a.sort", "docs_b.fft", "docs_b.near", "docs_b.Other"]
    assert samples["docs_a.sort"].query == "Put the rows of a table in order."
    assert samples["docs_a.sort"].positive[0].startswith("It takes the row apart")


def test_apidocs_negatives_are_no_twins_of_the_positive(package):
    samples = {one.query_id: one for one in apidocs.read_samples(package, 5)}
    passages = {name: one.positive[0] for name, one in samples.items()}
    assert passages["docs_b.fft"] not in samples["docs_a.fft"].negative  # the same name
    assert passages["docs_b.near"] not in samples["docs_a.sort"].negative  # nearly the same text
    assert set(samples["docs_b.Other"].negative) == set(passages.values()) - {passages["docs_b.Other"]}
    assert all(one.positive[0] not in one.negative for one in samples.values())


def test_apidocs_of_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError) as error:
        apidocs.read_samples(("sklearn",), 3)
    assert str(error.value) == "the package sklearn is not installed. pip install scikit-learn."
