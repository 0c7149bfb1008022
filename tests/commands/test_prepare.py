import json

import pandas as pd
import pytest

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample
from rag_core.engines.sentence_transformers_engine import BiEncoder
from rag_core.files.jsonl import read_samples
from rag_core.prepare import main
from rag_core.scoring.settings import CHUNK_ROWS
from rag_core.sources import apidocs
from tests.conftest import TINY

APIDOCS = ["--source", "apidocs"]
FILES = ("train", "dev", "test")


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(i, **keys):
    return {"query": f"{i * 7919:x} {i * 104729:b}", "positive": [f"yes {i}"], "negative": [f"no {i}", "shared"]} | keys


def manifest(folder, split):
    return json.loads((folder / f"{split}.jsonl.manifest.json").read_text())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl", [row(i) for i in range(20)])


@pytest.fixture
def three_files(tmp_path):
    leaking = [row(30), row(31, query="How are glacier caves formed?"), row(32, query="what is a moraine made of")]
    train = [row(1), row(2, query="how are glacier caves formed"), row(3, query="what is a moraine made of?!x")]
    return [
        write_rows(tmp_path / "in/train.jsonl", train),
        write_rows(tmp_path / "in/dev.jsonl", [row(40)]),
        write_rows(tmp_path / "in/test.jsonl", leaking),
    ]


def jsonl(inputs, output, *further):
    return main(["--source", "jsonl", "--input", *map(str, inputs), "--output_dir", str(output), *further])


def test_one_file_is_split(rows, tmp_path, capsys):
    out = tmp_path / "out"
    assert jsonl([rows], out) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert printed.err.splitlines() == [
        "       queries  positives  negatives  unlabelled  pairs  distinct passages",
        "train       16         16         32           0     48                 33",
        "dev          2          2          4           0      6                  5",
        "test         2          2          4           0      6                  5",
        "train and dev share 0 queries exactly, 0 nearly, and 1 passages",
        "train and test share 0 queries exactly, 0 nearly, and 1 passages",
        "dev and test share 0 queries exactly, 0 nearly, and 1 passages",
        "Left out: nothing",
    ]
    samples = [sample for name in FILES for sample in read_samples(out / f"{name}.jsonl")]
    assert sorted(samples, key=lambda sample: int(sample.query_id)) == read_samples(rows)


def test_the_same_command_again_finds_its_work_done(rows, tmp_path, capsys):
    out = tmp_path / "out"
    assert jsonl([rows], out) == 0
    before = contents(out)
    capsys.readouterr()
    assert jsonl([rows], out) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (f"{out}\n", f"{out} is finished already\n")
    assert contents(out) == before
    assert jsonl([rows], out, "--overwrite") == 0
    assert all(contents(out)[f"{name}.jsonl"] == before[f"{name}.jsonl"] for name in FILES)


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--seed", "1"], "--seed (was 42, is 1)"),
        (["--limit", "3"], "--limit (was None, is ['3'])"),
        (["--splits", "train=0.8", "test=0.2"], "--splits (was {'train': 0.8, 'dev': 0.1, 'test': 0.1}, "),
    ],
)
def test_other_settings_do_not_overwrite(rows, tmp_path, capsys, flags, what):
    out = tmp_path / "out"
    assert jsonl([rows], out) == 0
    before = contents(out)
    capsys.readouterr()
    assert jsonl([rows], out, *flags) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {out / 'train.jsonl'}: exists already, made with other settings: {what}")
    assert error.endswith("Pass --overwrite to replace it, or choose another output.\n")
    assert contents(out) == before
    assert jsonl([rows], out, *flags, "--overwrite") == 0


def test_a_stale_output_is_found_behind_a_missing_one(rows, tmp_path, capsys):
    out = tmp_path / "out"
    write_rows(out / "test.jsonl", [row(1)])
    before = contents(out)
    assert jsonl([rows], out) == 1
    assert capsys.readouterr().err == (
        f"Error: {out / 'test.jsonl'}: exists already, and no manifest tells what made it. "
        "Pass --overwrite to replace it, or choose another output.\n"
    )
    assert contents(out) == before


def test_several_files_are_taken_as_they_are_and_their_leaks_reported(three_files, tmp_path, capsys):
    out = tmp_path / "out"
    assert jsonl(three_files, out) == 0
    notes = capsys.readouterr().err
    assert "train and test share 1 queries exactly, 1 nearly, and 1 passages\n" in notes
    assert "train and dev share 0 queries exactly, 0 nearly, and 1 passages\n" in notes
    assert [len(read_samples(out / f"{name}.jsonl")) for name in FILES] == [3, 1, 3]
    assert manifest(out, "train")["leaks"][1] == {
        "between": "train and test", "queries_exact": 1, "queries_near": 1, "passages": 1,
    }  # fmt: skip


def test_leaking_train_queries_are_dropped_on_demand(three_files, tmp_path, capsys):
    out = tmp_path / "out"
    assert jsonl(three_files, out, "--drop_leaks") == 0
    assert "Left out: 2 leaking queries\n" in capsys.readouterr().err
    assert [len(read_samples(out / f"{name}.jsonl")) for name in FILES] == [1, 1, 3]
    assert manifest(out, "train")["skipped"] == {"bad_rows": 0, "leaking_queries": 2}
    assert manifest(out, "train")["rows"] == 1


def test_a_folder_stands_for_its_files(three_files, tmp_path):
    out = tmp_path / "out"
    assert jsonl([three_files[0].parent], out) == 0
    assert sorted(path.name for path in out.glob("*.jsonl")) == ["dev.jsonl", "test.jsonl", "train.jsonl"]
    assert len(manifest(out, "dev")["recipe"]["inputs"]) == 3


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.parquet"])
def test_a_table_gives_what_its_rows_give_as_jsonl(name, tmp_path):
    """Also where its lists were written as text, as pandas does it."""
    rows = [row(i, query_id=f"q{i}", positive=[f"yes {i}", 'it\'s "so", yes']) for i in range(5)]
    expected = write_rows(tmp_path / "as_jsonl" / "train.jsonl", rows)
    table = tmp_path / "tables" / name
    table.parent.mkdir()
    if name == "train.parquet":
        pd.DataFrame(rows).to_parquet(table)
    else:
        pd.DataFrame(rows).to_csv(table, sep="\t" if name == "train.tsv" else ",", index=False)
    for given, out in ((expected, "a"), (table, "b"), (table.parent, "c")):
        assert jsonl([given], tmp_path / out, "--splits", "all=1") == 0
    written = [(tmp_path / out / "all.jsonl").read_bytes() for out in "abc"]
    assert written[1:] == written[:1] * 2
    write_rows(table.parent / "dev.jsonl", [row(7)])
    assert jsonl([table.parent], tmp_path / "d") == 0
    assert sorted(path.name for path in (tmp_path / "d").glob("*.jsonl")) == ["dev.jsonl", "train.jsonl"]


def test_a_table_whose_list_is_none(tmp_path, capsys):
    table = tmp_path / "rows.csv"
    table.write_text("query,positive,negative\na,['b'],\nb,[applause],c\n")
    assert jsonl([table], tmp_path / "out", "--splits", "all=1") == 1
    message = (
        f"{table}:3: 'positive' looks like a list and is none ('[applause]'). "
        "Correct the row, or pass --skip_bad_rows to leave such rows out.\n"
    )
    assert capsys.readouterr().err == f"Error: {message}"
    assert jsonl([table], tmp_path / "out", "--splits", "all=1", "--skip_bad_rows") == 0
    assert f"Left out 1 bad row, the first: {message}" in capsys.readouterr().err
    assert read_samples(tmp_path / "out" / "all.jsonl") == [RankingSample("a", ["b"], [], query_id="2")]


def test_passages_and_a_log_from_tables(tmp_path):
    passages = [{"text": f"the {i}th passage about {i * 7919:x}", "title": None} for i in range(9)]
    pd.DataFrame(passages).to_parquet(tmp_path / "pile.parquet")
    (tmp_path / "log.csv").write_text("query\nwhat is 1eef\nwhat is 3dde\n")
    flags = ["--queries", str(tmp_path / "log.csv"), "--num_candidates", "3", "--splits", "all=1"]
    command = ["--source", "corpus", "--input", str(tmp_path / "pile.parquet"), "--output_dir", str(tmp_path / "out")]
    assert main([*command, *flags]) == 0
    found = read_samples(tmp_path / "out" / "all.jsonl")
    assert [(sample.query, sample.candidates[0]) for sample in found] == [
        ("what is 1eef", "the 1th passage about 1eef"),
        ("what is 3dde", "the 2th passage about 3dde"),
    ]


def test_cleaning_is_counted(tmp_path, capsys):
    dirty = row(1, positive=["a", "a"], negative=["a", "b", row(1)["query"]])
    source = write_rows(tmp_path / "rows.jsonl", [dirty, row(2)])
    assert jsonl([source], tmp_path / "out", "--splits", "all=1") == 0
    assert (
        "Left out: 1 duplicate passages, 1 negatives that are positives, 1 passages equal to query\n"
        in capsys.readouterr().err
    )
    first = read_samples(tmp_path / "out/all.jsonl")[0]
    assert (first.positive, first.negative) == (["a"], ["b"])
    assert manifest(tmp_path / "out", "all")["skipped"] == {
        "bad_rows": 0, "duplicate_passages": 1, "negatives_that_are_positives": 1, "passages_equal_to_query": 1,
    }  # fmt: skip


def test_a_bad_row_stops_or_is_counted(tmp_path, capsys):
    source = write_rows(tmp_path / "rows.jsonl", [row(1), row(2, positive=[""]), row(3)])
    out = tmp_path / "out"
    assert jsonl([source], out, "--splits", "all=1") == 1
    message = f"{source}:2: 'positive[0]' is empty. Correct the row, or pass --skip_bad_rows to leave such rows out.\n"
    assert capsys.readouterr().err == f"Error: {message}"
    assert contents(out) == {}
    assert jsonl([source], out, "--splits", "all=1", "--skip_bad_rows") == 0
    assert f"Left out 1 bad row, the first: {message}" in capsys.readouterr().err
    assert manifest(out, "all")["skipped"] == {"bad_rows": 1}
    assert manifest(out, "all")["rows"] == 2


def test_limit_is_per_output(three_files, tmp_path):
    assert jsonl(three_files, tmp_path / "out", "--limit", "2") == 0
    assert [len(read_samples(tmp_path / f"out/{name}.jsonl")) for name in FILES] == [2, 1, 2]
    assert jsonl(three_files, tmp_path / "named", "--limit", f"{next(iter(FILES))}=1") == 0
    assert next(len(read_samples(tmp_path / f"named/{name}.jsonl")) for name in FILES) == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--source", "mteb"], "--source mteb needs --name. Pass --name."),
        (["--source", "beir"], "--source beir needs --input. Pass --input."),
        (["--source", "apidocs", "--input", "x"], "--input has no effect with --source apidocs. Leave it out."),
        (["--source", "jsonl", "--input", "x", "--hub", "modelscope"],
         "--hub has no effect with --source jsonl. Leave it out."),
        (["--source", "mteb", "--name", "x", "--splits", "a=1"],
         "--splits has no effect with --source mteb. Leave it out."),
        (["--source", "jsonl", "--input", "x", "--bm25_stop_words", "german"],
         "--bm25_stop_words has no effect with --source jsonl. Leave it out."),
        (["--source", "mteb", "--name", "x", "--bm25_stemmer", "german"],
         "--bm25_stemmer has no effect with --source mteb. Leave it out."),
        ([*APIDOCS, "--prefer", "disagreement", "--dense_model", "s"],
         "--prefer disagreement compares two models, and --dense_model names 1. Pass the student and then the teacher: "
         "--dense_model STUDENT TEACHER."),
        ([*APIDOCS, "--dense_model", "s", "s"], "--dense_model names a model twice. Pass each once."),
        ([*APIDOCS, "--score_store", "x"], "--score_store is for --dense_model. Pass it, too."),
        ([*APIDOCS, "--dense_max_length", "9"], "--dense_max_length is for --dense_model. Pass it, too."),
        ([*APIDOCS, "--random_share", "0.02"],
         "--random_share 0.02 of 20 candidates is 0. Pass one that draws at least 1 and leaves 2."),
        ([*APIDOCS, "--random_share", "0.95"],
         "--random_share 0.95 of 20 candidates is 19. Pass one that draws at least 1 and leaves 2."),
        ([*APIDOCS, "--random_share", "1.5"], "--random_share is 1.5. Pass a number from 0 to 1."),
        (["--source", "jsonl", "--input", "x", "--random_share", "0.5"],
         "--random_share has no effect with --source jsonl. Leave it out."),
        (["--source", "beir", "--input", "x", "--num_candidates", "1"],
         "--num_candidates is 1. Pass at least 2: one leaves nothing to rank."),
        (["--source", "apidocs", "--limit", "0"],
         "--limit '0' is not a number above 0. Write e.g. 500, or train=500 test=50."),
        (["--source", "apidocs", "--limit", "train=5", "tset=5"],
         "--limit names 'tset', which is no split. The splits are train, dev, test, out_of_domain, "
         "out_of_domain_dev."),
        (["--source", "beir", "--input", "x", "y"],
         "--input names 2 folders. Pass one: --source beir reads one corpus."),
        (["--source", "apidocs", "--splits", "a"],
         "--splits 'a' is not name=fraction. Write e.g. train=0.8 dev=0.1 test=0.1."),
        (["--source", "jsonl", "--input", "a/x.jsonl", "b/x.jsonl.gz"],
         "--input has 2 files named x. Rename them: each becomes one output."),
        (["--source", "jsonl", "--input", "x.jsonl", "y.jsonl", "--splits", "a=1"],
         "--splits has no effect on several files: each is a split. Leave it out, or pass one file."),
        (["--source", "jsonl", "--input", "x.jsonl", "y.jsonl", "--drop_leaks"],
         "--drop_leaks: no split of x, y is a training split. Leave it out."),
    ],
)  # fmt: skip
def test_flags_that_make_no_sense(argv, message, tmp_path, capsys):
    assert main([*argv, "--output_dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"Error: {message}\n"
    assert not (tmp_path / "out").exists()


def test_an_input_is_never_an_output(three_files, capsys):
    before = contents(three_files[0].parent)
    assert jsonl(three_files, three_files[0].parent, "--overwrite") == 2
    assert capsys.readouterr().err == f"Error: {three_files[0]} is input and output. Choose another output.\n"
    assert contents(three_files[0].parent) == before


@pytest.mark.parametrize("name", ["gone.jsonl", "empty"])
def test_missing_inputs(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    assert jsonl([tmp_path / name], tmp_path / "out") == 1
    what = {"gone.jsonl": "no such file", "empty": "holds no .jsonl, .csv, .tsv or .parquet file"}[name]
    assert capsys.readouterr().err == f"Error: {tmp_path / name}: {what}. Check the path.\n"


def test_a_split_of_which_nothing_is_left(tmp_path, capsys):
    source = write_rows(tmp_path / "rows.jsonl", [{"query": "q", "positive": ["q"], "negative": []}])
    assert jsonl([source], tmp_path / "out", "--splits", "all=1") == 1
    assert capsys.readouterr().err == (
        "Error: nothing is left of the split all (1 passages equal to query, 1 queries without passages). "
        "Check the input.\n"
    )
    assert contents(tmp_path / "out") == {}


def test_beir_gives_one_output_a_qrels_file(tmp_path, capsys):
    folder = tmp_path / "beir"
    write_rows(folder / "corpus.jsonl", [{"_id": f"d{i}", "title": "", "text": f"glacier {i}"} for i in range(6)])
    write_rows(folder / "queries.jsonl", [{"_id": "q1", "text": "glacier 1"}, {"_id": "q2", "text": "about 2"}])
    (folder / "qrels").mkdir()
    (folder / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\nq1\td1\t0\n")
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td4\t1\n")
    out = tmp_path / "out"
    argv = ["--source", "beir", "--input", str(folder), "--output_dir", str(out), "--num_candidates", "3"]
    assert main(argv) == 0
    (trained,) = read_samples(out / "train.jsonl")
    assert (trained.query_id, trained.positive, len(trained.negative)) == ("q2", ["glacier 2"], 2)
    (tested,) = read_samples(out / "test.jsonl")
    assert (tested.positive, len(tested.negative)) == (["glacier 4"], 1)
    found = manifest(out, "test")
    assert "instruction" not in found
    assert found["recipe"]["flags"]["num_candidates"] == 3
    assert sorted(path.rpartition("/")[2] for path in found["recipe"]["inputs"]) == [
        "corpus.jsonl", "queries.jsonl", "test.tsv", "train.tsv",
    ]  # fmt: skip
    assert found["skipped"] == {"bad_rows": 0, "passages_equal_to_query": 1, "queries_without_positives": 1}
    before = contents(out)
    (folder / "qrels/test.tsv").write_text("q1\td1\tx\n")
    assert main([*argv, "--overwrite"]) == 1
    assert contents(out) == before


def test_mteb_carries_its_instruction(tmp_path):
    folder = tmp_path / "scidocs-reranking"
    write_rows(folder / "test.jsonl", [row(1, positive=["a", ""])])
    out = tmp_path / "out"
    assert main(["--source", "mteb", "--name", str(folder), "--output_dir", str(out)]) == 0
    found = manifest(out, "test")
    assert found["instruction"].startswith("Given a title of a scientific paper, ")
    assert found["skipped"] == {"bad_rows": 0, "empty_passages": 1}
    assert list(found["recipe"]["inputs"]) == [str(folder / "test.jsonl")]


@pytest.fixture
def docs(monkeypatch):
    monkeypatch.setattr(apidocs, "_version", lambda package: "1.0")
    made = {
        package: [RankingSample(query=row(i)["query"], query_id=str(i), positive=[f"{i}"], negative=["n"]) for i in at]
        for package, at in ((apidocs.IN_DOMAIN, range(20)), (apidocs.OUT_OF_DOMAIN, range(50, 55)))
    }
    monkeypatch.setattr(apidocs, "read_samples", lambda packages, *_: made[packages])


def test_apidocs_has_two_domains(docs, tmp_path):
    out = tmp_path / "out"
    assert main(["--source", "apidocs", "--output_dir", str(out)]) == 0
    assert [manifest(out, name)["rows"] for name in (*FILES, *apidocs.OUT_OF_DOMAIN_SPLITS)] == [16, 2, 2, 4, 1]
    found = manifest(out, "out_of_domain")
    assert found["recipe"]["flags"]["packages"] == dict.fromkeys((*apidocs.IN_DOMAIN, *apidocs.OUT_OF_DOMAIN), "1.0")
    assert found["instruction"] == "Given a summary of what a function does, retrieve its documentation"


def test_apidocs_of_another_version_is_stale(docs, tmp_path, monkeypatch, capsys):
    argv = ["--source", "apidocs", "--output_dir", str(tmp_path / "out")]
    assert main(argv) == 0
    monkeypatch.setattr(apidocs, "_version", lambda package: "2.0")
    assert main(argv) == 1
    assert "exists already, made with other settings: --packages (was {'numpy': '1.0'" in capsys.readouterr().err


def test_an_error_in_the_source_leaves_the_outputs(docs, tmp_path, monkeypatch, capsys):
    argv = ["--source", "apidocs", "--output_dir", str(tmp_path / "out")]
    assert main(argv) == 0
    before = contents(tmp_path / "out")

    def fail(*_):
        raise DataError("the package x is not installed", "pip install x")

    monkeypatch.setattr(apidocs, "read_samples", fail)
    assert main([*argv, "--overwrite"]) == 1
    assert capsys.readouterr().err.endswith("Error: the package x is not installed. pip install x.\n")
    assert contents(tmp_path / "out") == before


def test_a_dense_search_that_is_killed_goes_on(tmp_path, tiny_encoder, monkeypatch):
    samples = read_samples(TINY / "train.jsonl")
    pile = write_rows(tmp_path / "pile.jsonl", [{"text": text} for one in samples for text, _ in one.passages()])
    log = write_rows(tmp_path / "log.jsonl", [{"query": one.query} for one in samples])
    monkeypatch.setitem(CHUNK_ROWS, "sentence-transformers", 8)
    encode, embedded = BiEncoder.encode, []

    def counting(self, texts, role):
        if len(embedded) == calls:
            raise KeyboardInterrupt
        embedded.append(len(texts))
        return encode(self, texts, role)

    monkeypatch.setattr(BiEncoder, "encode", counting)

    def prepare(out):
        flags = ["--queries", str(log), "--dense_model", tiny_encoder, "--splits", "train=0.5", "dev=0.5"]
        return main(["--source", "corpus", "--input", str(pile), "--output_dir", str(out), *flags])

    calls = -1
    assert prepare(tmp_path / "whole") == 0
    texts, calls = sum(embedded), len(embedded) - 1
    embedded.clear()
    assert prepare(tmp_path / "out") == 130
    calls = -1
    embedded.clear()
    assert prepare(tmp_path / "out") == 0
    assert sum(embedded) < texts / 2
    assert not list((tmp_path / "out").glob("*.partial"))
    for name in ("train.jsonl", "dev.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
