"""embed_corpus through the front door: what it leaves, what it does not embed again, what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from milvus_optimization import embed_corpus
from rag_core.base.errors import StaleError
from rag_core.corpora.corpus import model_names, read_corpus, read_vectors
from rag_core.files.manifest import read_manifest
from rag_core.scoring.settings import CHUNK_ROWS
from tests.milvus_optimization.embedders import (
    DOCUMENTS,
    QRELS,
    QUERIES,
    WordEncoder,
    embed,
    install_encoders,
    write_beir,
    write_embedder,
    write_lines,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def encoders(monkeypatch, tmp_path):
    """The embedders that are loaded, of the folder models."""
    return install_encoders(monkeypatch, tmp_path)


def test_a_beir_folder_becomes_texts_and_vectors(tmp_path, encoders, capsys):
    source = write_beir(tmp_path / "beir", train={"q1": {"d1": 1, "d2": 1}}, test={"q1": {"d1": 2}, "q3": {"d5": 1}})
    assert embed(tmp_path, source) == 0
    assert capsys.readouterr().out == f"{tmp_path}/v\n"
    folder = tmp_path / "v"
    first = json.loads((folder / "documents.jsonl").read_text().splitlines()[0])
    assert first == {"_id": "d1", "text": DOCUMENTS["d1"]}
    assert (folder / "queries.jsonl").read_text() == (
        f'{{"text":"{QUERIES["q1"]}","_id":"q1"}}\n{{"text":"{QUERIES["q3"]}","_id":"q3"}}\n'
    )
    assert (folder / "qrels.tsv").read_text() == (
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t1\nq3\td5\t1\n"  # of two judgements the higher
    )
    corpus = read_corpus(folder)
    vectors = read_vectors(folder, "before", corpus)
    expected = WordEncoder("before")
    np.testing.assert_array_equal(vectors.documents, expected.encode(list(DOCUMENTS.values()), "passage"))
    np.testing.assert_array_equal(vectors.queries, expected.encode([QUERIES["q1"], QUERIES["q3"]], "query"))
    assert sorted(path.name for path in (folder / "before").iterdir()) == [
        "documents.npy",
        "documents.npy.manifest.json",
        "queries.npy",
        "queries.npy.manifest.json",
    ]
    facts = read_manifest(folder / "before" / "documents.npy").facts
    assert (facts["rows"], facts["dimensions"], facts["score_unit"]) == (6, 8, "cosine")


def test_a_split_takes_its_own_queries_only(tmp_path, encoders):
    source = write_beir(tmp_path / "beir", train={"q1": {"d1": 1}}, test={"q3": {"d5": 1}})
    assert embed(tmp_path, source, "--splits", "test") == 0
    assert list(read_corpus(tmp_path / "v").queries) == ["q3"]


def test_without_qrels_all_queries_stay(tmp_path, encoders):
    source = write_beir(tmp_path / "beir")
    (source / "qrels" / "test.tsv").unlink()
    assert embed(tmp_path, source) == 0
    corpus = read_corpus(tmp_path / "v")
    assert (list(corpus.queries), corpus.qrels) == (list(QUERIES), {})
    assert not (tmp_path / "v" / "qrels.tsv").exists()
    (tmp_path / "v" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")  # the user's own, later
    assert embed(tmp_path, source, model=["after"]) == 0
    assert read_corpus(tmp_path / "v").qrels == {"q1": {"d1": 1}}


def test_the_passages_of_samples_are_the_corpus(tmp_path, encoders):
    samples = [
        {"query": "a", "positive": ["one", "two"], "negative": ["three"]},
        {"query": "b", "query_id": "x", "candidates": ["two", "four"]},
        {"query": "a", "positive": ["four"], "negative": ["one"]},
    ]
    write_lines(tmp_path / "s.jsonl", samples)
    assert embed(tmp_path, tmp_path / "s.jsonl") == 0
    corpus = read_corpus(tmp_path / "v")
    assert corpus.texts() == ["one", "two", "three", "four"]
    assert corpus.queries == {"1": "a", "x": "b", "3": "a"}
    ids = dict(zip(corpus.texts(), corpus.documents, strict=True))
    assert corpus.qrels == {"1": {ids["one"]: 1, ids["two"]: 1}, "3": {ids["four"]: 1}}
    assert ids["one"] == "7692c3ad3540bb803c020b3aee66cd88"  # sha256 of "one"
    # A query text that two queries have is embedded once, as a shared passage is.
    assert [text for _, _, text in encoders[0].encoded] == ["a", "b", "three", "four", "one", "two"]


def test_several_models_stand_side_by_side_and_another_is_added_alone(tmp_path, encoders, capsys):
    source = write_beir(tmp_path / "beir")
    assert embed(tmp_path, source, model=["before"]) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "v").rglob("*") if path.is_file()}
    assert embed(tmp_path, source, model=["before", "after"]) == 0
    assert model_names(tmp_path / "v") == ["after", "before"]
    assert [encoder.name for encoder in encoders] == ["before", "after"]
    assert before.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "v").rglob("*")}.items()
    assert embed(tmp_path, source, model=["before", "after"]) == 0
    assert len(encoders) == 2
    assert capsys.readouterr().err.count("is finished already") == 2 + 2 + 4  # the texts twice, and arrays


def test_a_changed_corpus_embeds_only_what_is_new_and_the_other_model_is_refused(tmp_path, encoders, capsys):
    source = write_beir(tmp_path / "beir")
    store = ["--score_store", str(tmp_path / "store")]
    assert embed(tmp_path, source, *store, model=["before", "after"]) == 0
    write_beir(source, documents=DOCUMENTS | {"d7": "Rye makes a dark loaf."})
    assert embed(tmp_path, source, *store) == 1
    assert "made with other settings: the content of the input. Pass --overwrite" in capsys.readouterr().err
    assert embed(tmp_path, source, *store, "--overwrite") == 0
    assert [text for _, _, text in encoders[2].encoded] == ["Rye makes a dark loaf."]
    corpus = read_corpus(tmp_path / "v")
    assert len(read_vectors(tmp_path / "v", "before", corpus).documents) == 7
    with pytest.raises(StaleError, match=r"was embedded from another documents\.jsonl than the one in the folder"):
        read_vectors(tmp_path / "v", "after", corpus)


def test_files_of_two_runs_are_told_apart(tmp_path, encoders):
    source = write_beir(tmp_path / "beir")
    assert embed(tmp_path, source) == 0
    write_beir(source, queries=QUERIES | {"q1": "another"})
    folder = tmp_path / "v"
    kept = {name: (folder / name).read_bytes() for name in ("documents.jsonl", "documents.jsonl.manifest.json")}
    assert embed(tmp_path, source, "--overwrite") == 0
    for name, content in kept.items():
        (folder / name).write_bytes(content)
    with pytest.raises(StaleError, match=r"queries\.jsonl: is of another run than the documents\.jsonl beside it"):
        read_corpus(folder)
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "x"}\n')
    with pytest.raises(StaleError, match="has changed since its manifest was written"):
        read_corpus(folder)


TABLE = "query-id\tcorpus-id\tscore\n"
BAD = [
    ("qrels/test.tsv", TABLE + "q1\td1\t1\nq1\td9\t1\n", ":3: 'd9' is not in the corpus. "),
    ("qrels/test.tsv", TABLE + "q1\td1\t1\nq9\td1\t1\n", ":3: 'q9' is not in queries. "),
    ("qrels/test.tsv", TABLE + "q1\td1\tyes\n", ":2: the score 'yes' is not a whole number. "),
    ("qrels/test.tsv", TABLE + "q1\td1\t0\n", ": judges no document above 0. "),
    (
        "corpus.jsonl",
        '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}\n',
        ":2: _id 'a' stands in more than one row",
    ),
    ("corpus.jsonl", '{"_id": "a", "text": " "}\n', ":1: the Document has neither a title nor a text. "),
    ("corpus.jsonl", "", ": holds no Document records. "),
    ("queries.jsonl", "\n", ": holds no Query records. "),
    ("queries.jsonl", '{"_id": "q1", "text": ""}\n', ":1: 'text' is empty. "),
    ("queries.jsonl", '{"text": "x"}\n', ":1: a Query needs '_id', which is missing. "),
]


@pytest.mark.parametrize(("name", "content", "sentence"), BAD, ids=[sentence[:30] for _, _, sentence in BAD])
def test_bad_input_gets_a_sentence_and_nothing_is_written(name, content, sentence, tmp_path, encoders, capsys):
    source = write_beir(tmp_path / "beir")
    (source / name).write_text(content)
    assert embed(tmp_path, source) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {source / name}{sentence}")
    assert error.count("\n") == 1
    assert not (tmp_path / "v").exists()
    assert not encoders


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path, encoders):
    source = write_beir(tmp_path / "beir")
    with (source / "qrels" / "test.tsv").open("a") as file:
        file.write("q1\td9\t1\nq9\td1\t1\n")
    with (source / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d8", "text": ""}\n')
    assert embed(tmp_path, source, "--skip_bad_rows") == 0
    assert read_manifest(tmp_path / "v" / "documents.jsonl").skipped == {"bad_rows": 3}
    assert read_corpus(tmp_path / "v").qrels == QRELS


def test_wrong_flags_are_told_before_anything_is_written(tmp_path, encoders, capsys):
    source = write_beir(tmp_path / "beir")
    write_embedder(tmp_path / "models" / "x" / "before")
    assert embed(tmp_path, source, model=["before", "x/before"]) == 2
    assert "two models have the same last part of their names. Rename one" in capsys.readouterr().err
    assert embed(tmp_path, source, "--splits", "dev") == 2
    assert "has no qrels/dev.tsv. Pass --splits with one of: test." in capsys.readouterr().err
    assert embed(tmp_path, source / "corpus.jsonl", "--splits", "test") == 2
    assert "--splits is for a folder in the BEIR layout" in capsys.readouterr().err
    server = ["--engine", "server", "--server_url", "http://x:1", "--dtype", "auto"]
    assert embed(tmp_path, source, *server, model=["before", "after"]) == 2
    assert "a server runs one model" in capsys.readouterr().err
    (tmp_path / "models" / "before" / "modules.json").unlink()
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    (tmp_path / "models" / "before" / "config.json").write_text(json.dumps(config))
    assert embed(tmp_path, source) == 1
    assert "gives no vectors" in capsys.readouterr().err
    assert not (tmp_path / "v").exists()


def test_a_text_without_a_direction_is_named(tmp_path, encoders, monkeypatch, capsys):
    encode = WordEncoder.encode
    monkeypatch.setattr(
        WordEncoder,
        "encode",
        lambda self, texts, role: encode(self, texts, role) * np.array([["limescale" not in t] for t in texts]),
    )
    source = write_beir(tmp_path / "beir", queries={"q1": "a loaf"}, test={"q1": {"d1": 1}})
    assert embed(tmp_path, source) == 1
    assert "documents.npy: row 2 has length 0, not 1. Normalise the vectors" in capsys.readouterr().err
    assert not (tmp_path / "v" / "before" / "documents.npy").exists()
    left = {key: text for key, text in DOCUMENTS.items() if "limescale" not in text}
    write_beir(source, documents=left, queries={"q1": "a loaf"}, test={"q1": {"d1": 1}})
    assert embed(tmp_path, source, "--overwrite") == 0  # another corpus, of which all texts are embedded
    assert [text for _, role, text in encoders[1].encoded if role == "passage"] == []
    assert not list((tmp_path / "v").rglob("*.partial"))


def test_what_is_embedded_of_the_documents_outlives_the_finished_queries(tmp_path, encoders, monkeypatch):
    encode = WordEncoder.encode

    def failing(self, texts, role):
        if role == "passage" and not self._canary and DOCUMENTS["d6"] in texts:
            raise RuntimeError("stands for a kill")
        return encode(self, texts, role)

    monkeypatch.setitem(CHUNK_ROWS, "sentence-transformers", 2)
    monkeypatch.setattr(WordEncoder, "encode", failing)
    source = write_beir(tmp_path / "beir")
    with pytest.raises(RuntimeError):
        embed(tmp_path, source)
    assert (tmp_path / "v" / "before" / "queries.npy").exists()
    monkeypatch.setattr(WordEncoder, "encode", encode)
    assert embed(tmp_path, source) == 0
    assert [text for _, _, text in encoders[1].encoded] == [DOCUMENTS["d1"], DOCUMENTS["d6"]]


def test_an_input_is_never_overwritten(tmp_path, encoders, capsys):
    source = write_beir(tmp_path / "v")
    assert embed(tmp_path, source, "--overwrite") == 2
    assert f"{source}/queries.jsonl is input and output" in capsys.readouterr().err
    assert len((source / "queries.jsonl").read_text().splitlines()) == 3


def test_what_others_put_there_is_not_replaced(tmp_path, encoders, capsys):
    source = write_beir(tmp_path / "beir")
    write_lines(tmp_path / "v" / "queries.jsonl", [{"mine": 1}])
    assert embed(tmp_path, source) == 1
    assert "queries.jsonl: exists already, and no manifest tells what made it" in capsys.readouterr().err


# The stage again and again in processes that are killed right before or after something that is to stay on disk. The
# texts that each embedded go through a pipe.
KILLED = """
import collections, json, os, random, shutil, signal, sys
from pathlib import Path
from milvus_optimization import embed_corpus
from rag_core.corpora import embedding as corpus_vectors
from rag_core.engines import identity
from rag_core.engines.loading import LOADERS
from rag_core.files import provenance
from rag_core.scoring.settings import CHUNK_ROWS
from tests.milvus_optimization.embedders import WordEncoder

folder, flags = Path(sys.argv[1]), sys.argv[2:]
LOADERS["sentence-transformers"] = WordEncoder().loaded
CHUNK_ROWS["sentence-transformers"] = 2
provenance._git_state = lambda: None  # a process of its own each time
# Without transformers, whose import takes longer than all the runs.
identity.describe_models = lambda names, _: [identity.ModelInfo(name, "bi-encoder", "a test") for name in names]
generator = random.Random(3)

def deadly(owner, name, left):
    call = getattr(owner, name)
    def wrapped(*args, **kwargs):
        for when in range(2):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            if not when:
                found = call(*args, **kwargs)
        return found
    setattr(owner, name, wrapped)

def run(left, pipe):
    encode = WordEncoder.encode
    def told(self, texts, role):
        canary = self._canary
        if not canary:
            os.write(pipe, "".join(f"{role} {text}\\n" for text in texts).encode())
        return encode(self, texts, role)
    WordEncoder.encode = told
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
        deadly(owner, name, left)
    os._exit(embed_corpus.main(flags))

def start(left):
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        run([left], writing)
    os.close(writing)
    status = os.waitpid(process, 0)[1]
    texts = os.fdopen(reading).read().splitlines()
    return os.WIFSIGNALED(status), texts

def outputs():
    names = ("documents.jsonl", "queries.jsonl", "qrels.tsv", "before/documents.npy", "before/queries.npy")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}

assert start(0)[0] is False
expected, kills = outputs(), 0
assert len(expected) == 5
for first in range(1, 60, 7):
    shutil.rmtree(folder)
    left, embedded, died = first, collections.Counter(), 0
    while True:
        killed, texts = start(left)
        embedded.update(texts)
        assert outputs().items() <= expected.items()  # whole, or not there
        if not killed:
            break
        died += 1
        left = generator.randint(4, 40)
    assert outputs() == expected
    assert not list(folder.rglob("*.partial")), list(folder.rglob("*"))
    assert not list(folder.rglob(".*.tmp"))
    assert sum(embedded.values()) - len(embedded) <= 2 * died, embedded  # the chunk under way
    kills += died
print(kills)
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_ends_in_the_same_bytes(tmp_path):
    source = write_beir(tmp_path / "beir")
    model = write_embedder(tmp_path / "models" / "before")
    flags = ["--input", str(source), "--model", model, "--output_dir", f"{tmp_path}/v", "--dtype", "float32"]
    command = [sys.executable, "-c", KILLED, f"{tmp_path}/v", *flags, "--log_level", "error"]
    found = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    assert int(found.stdout.splitlines()[-1]) >= 18


@pytest.mark.slow
def test_a_real_model_gives_the_vectors_of_sentence_transformers(tmp_path, tiny_encoder):
    from sentence_transformers import SentenceTransformer

    source = write_beir(tmp_path / "beir")
    command = ["--input", str(source), "--model", tiny_encoder, "--output_dir", str(tmp_path / "v")]
    assert embed_corpus.main([*command, "--dtype", "float32"]) == 0
    vectors = read_vectors(tmp_path / "v", Path(tiny_encoder).name, read_corpus(tmp_path / "v"))
    model = SentenceTransformer(tiny_encoder, device="cpu")
    expected = model.encode(list(DOCUMENTS.values()), normalize_embeddings=True)
    np.testing.assert_allclose(vectors.documents, expected, atol=1e-5)
