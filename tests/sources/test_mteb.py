import sys
import types
from collections import Counter

import pytest

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample
from rag_core.files.bad_rows import BadRows
from rag_core.sources import mteb
from rag_core.sources.mteb import MtebSet
from tests.sources.rows import write_lines

STRICT = BadRows(skip=False)


@pytest.fixture
def no_network(monkeypatch):
    def download(name, repo_type):
        raise FileNotFoundError("Got: ConnectError: no route\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


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


def test_lists_that_were_written_as_text(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    lines = ["query,positive,negative", 'q1,"[\'a\', \'b\']","[""c""]"', "q2,[applause],d", "q3,one text,d"]
    (folder / "test.csv").write_text("\n".join(lines) + "\n")
    told = (
        f"{folder}: row 2 of the split test: 'positive' looks like a list and is none ('[applause]'). "
        "Correct the row, or pass --skip_bad_rows to leave such rows out."
    )
    with pytest.raises(DataError) as error:
        MtebSet(str(folder), "huggingface").read(Counter(), STRICT)
    assert str(error.value) == told
    bad_rows = BadRows(skip=True)
    samples = MtebSet(str(folder), "huggingface").read(Counter(), bad_rows)["test"]
    assert [(sample.positive, sample.negative) for sample in samples] == [(["a", "b"], ["c"]), (["one text"], ["d"])]
    assert list(map(str, bad_rows.errors)) == [told]


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
