"""compare_vectors through the front door: losses reckoned by hand, and what it refuses."""

import json
import math

import numpy as np
import pytest

from milvus_optimization import compare_vectors, pool_candidates
from milvus_optimization.quality.halves import is_tune_query
from milvus_optimization.records import VectorVariant
from rag_core.files.jsonl import read_records
from rag_core.files.manifest import read_manifest
from tests.milvus_optimization.embedders import embed, install_encoders, write_beir, write_vectors

DOCUMENTS = {"d1": (0.6, 0.8), "d2": (0.8, 0.6), "d3": (-0.6, 0.8), "d4": (0.8, -0.6)}
TUNE = [str(number) for number in range(40) if is_tune_query(str(number), 0.5)]
REPORT = [str(number) for number in range(40) if not is_tune_query(str(number), 0.5)]
# Nearest to d2, to d3, and to d2.
QUERIES = {REPORT[0]: (0.8, 0.6), REPORT[1]: (-0.6, 0.8), TUNE[0]: (0.8, 0.6)}
QRELS = {REPORT[0]: {"d2": 1}, REPORT[1]: {"d3": 1}, TUNE[0]: {"d2": 1}}
SECOND = round(1 / math.log2(3), 6)  # nDCG of the one relevant document at place 2


def compare(folder, *flags):
    command = ["--vectors", str(folder), "--output_file", str(folder.parent / "variants.jsonl"), *flags]
    return compare_vectors.main(command)


def found(folder):
    records = read_records(folder.parent / "variants.jsonl", VectorVariant)
    return {(one.model, one.variant, one.rescore): one for one in records}


def test_losses_by_hand(tmp_path, capsys):
    folder = write_vectors(tmp_path / "v", DOCUMENTS, QUERIES, QRELS)
    assert compare(folder, "--variants", "binary", "first1", "--rescore", "0", "1") == 0
    variants = found(folder)
    assert list(variants) == [("m", "float32", 0), *(("m", name, n) for name in ("binary", "first1") for n in (0, 1))]
    exact, binary = variants["m", "float32", 0], variants["m", "binary", 0]
    assert exact.by_query == dict.fromkeys(QUERIES, 1.0)
    assert (exact.ndcg, exact.ndcg_tune, exact.loss.difference, exact.overlap) == (1, 1, 0, 1)
    # d1 and d2 have the same signs as the first query, and d1 stands before d2.
    assert binary.by_query == {REPORT[0]: SECOND, REPORT[1]: 1.0, TUNE[0]: SECOND}
    assert binary.ndcg == pytest.approx((1 + SECOND) / 2)
    assert binary.ndcg_tune == SECOND
    assert binary.loss.difference == pytest.approx((SECOND - 1) / 2)
    assert (binary.loss.low, binary.loss.high) == pytest.approx((SECOND - 1, 0))
    assert (binary.loss.better, binary.loss.worse) == (0, 1)
    assert (binary.dimensions, binary.bytes_per_vector) == (2, 1)
    assert variants["m", "binary", 1].by_query == exact.by_query  # the ten candidates are all documents
    first = variants["m", "first1", 0]
    assert first.by_query == {REPORT[0]: SECOND, REPORT[1]: 1.0, TUNE[0]: SECOND}
    assert (first.dimensions, first.bytes_per_vector) == (1, 4)
    table = capsys.readouterr()
    rows = [line.split("|")[1:-1] for line in table.out.splitlines()[:-1]]
    assert [cell.strip() for cell in rows[3]] == [
        *("m", "binary", "-", "1", "1.000", "0.8155", "-0.1845 [-0.3691, +0.0000]", "0", "1")
    ]
    assert table.out.endswith(f"\n{tmp_path}/variants.jsonl\n")
    assert "WARNING: 1 judged queries to choose by are few" in table.err
    manifest = read_manifest(tmp_path / "variants.jsonl").facts
    assert (manifest["judged_by"], manifest["tune_queries"], manifest["report_queries"]) == ("labels", 1, 2)


def test_rescored_ties_go_by_place_as_exact_ones_do(tmp_path):
    # The first query is as near to d1 as to d2; by their signs d2 is nearer.
    documents = {"d1": (0.6, 0.8), "d2": (0.6, -0.8), "d3": (-1, 0)}
    qrels = {key: {"d2": 1} for key in QUERIES}
    folder = write_vectors(tmp_path / "v", documents, QUERIES | {REPORT[0]: (1, 0)}, qrels)
    assert compare(folder, "--variants", "binary", "--rescore", "0", "1") == 0
    values = {key: one.by_query[REPORT[0]] for key, one in found(folder).items()}
    assert values == {("m", "float32", 0): SECOND, ("m", "binary", 0): 1, ("m", "binary", 1): SECOND}


@pytest.fixture
def random_folder(tmp_path):
    """60 documents and 40 queries of 16 dimensions; the one relevant document is the nearest of half of them."""
    generator = np.random.default_rng(4)
    documents, queries = (generator.standard_normal((rows, 16)).astype(np.float32) for rows in (60, 40))
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    order = np.argsort(-(queries @ documents.T), axis=1)
    qrels = {str(i): {f"d{order[i, 0 if i % 2 else 12]}": 1} for i in range(40)}
    by_id = [{f"{prefix}{i}": row for i, row in enumerate(rows)} for prefix, rows in (("d", documents), ("", queries))]
    return write_vectors(tmp_path / "v", *by_id, qrels), documents, queries


def test_overlap_is_the_share_of_the_exact_ten(random_folder):
    folder, documents, queries = random_folder
    assert compare(folder, "--variants", "first12", "float16", "--rescore", "0", "2", "4") == 0
    variants = found(folder)
    assert ("m", "float16", 2) not in variants
    cut = queries[:, :12] @ (documents[:, :12] / np.linalg.norm(documents[:, :12], axis=1, keepdims=True)).T
    exact = queries @ documents.T
    for rescore in (0, 2, 4):
        kept = []
        for row in range(40):
            candidates = np.argsort(-cut[row])[: 10 * max(rescore, 1)]
            ten = candidates[np.argsort(-exact[row][candidates])][:10]
            kept.append(len({*ten} & {*np.argsort(-exact[row])[:10]}) / 10)
        assert variants["m", "first12", rescore].overlap == pytest.approx(np.mean(kept))
    assert 0.5 < variants["m", "first12", 0].overlap < variants["m", "first12", 2].overlap < 1


def test_the_default_variants_of_all_models(random_folder, capsys):
    folder, documents, queries = random_folder
    (folder / "wide").mkdir()
    np.save(folder / "wide" / "documents.npy", np.hstack([documents, documents]) / np.float32(2**0.5))
    np.save(folder / "wide" / "queries.npy", np.hstack([queries, queries]) / np.float32(2**0.5))
    assert compare(folder) == 0
    variants = found(folder)
    names = {model: [name for of, name, n in variants if of == model and n == 0] for model in ("m", "wide")}
    assert names["m"] == ["float32", "sq8", "sq4", "int8", "binary", "pca8", "pca5", "first8", "first5"]
    assert names["wide"][-4:] == ["pca16", "pca10", "first16", "first10"]
    assert [n for model, name, n in variants if (model, name) == ("m", "sq4")] == [0, 2, 4, 10]
    same = variants["m", "float32", 0].by_query
    assert variants["m", "binary", 10].by_query == same  # a hundred candidates are all
    assert variants["wide", "first16", 0].by_query == same
    table = capsys.readouterr().out
    assert compare(folder) == 0
    again = capsys.readouterr()
    assert again.out == table
    assert "is finished already" in again.err


def test_other_judgements_take_the_place_of_the_folders_own(tmp_path):
    folder = write_vectors(tmp_path / "v", DOCUMENTS, QUERIES, QRELS)
    judged = tmp_path / "mine.tsv"
    rows = [f"{query}\td1\t1" for query in QUERIES]
    judged.write_text("\n".join(["query-id\tcorpus-id\tscore", *rows, "x\td1\t1", ""]))
    assert compare(folder, "--qrels", str(judged), "--variants", "sq8") == 1
    assert compare(folder, "--qrels", str(judged), "--variants", "sq8", "--skip_bad_rows") == 0
    assert found(folder)["m", "float32", 0].by_query == dict.fromkeys(QUERIES, SECOND)
    assert read_manifest(tmp_path / "variants.jsonl").skipped == {"bad_rows": 1}


def edit(folder, name, values):
    np.save(folder / "m" / f"{name}.npy", values)


UNIT = np.array(list(DOCUMENTS.values()), dtype=np.float32)
WRONG = [
    (
        lambda v: (v / "qrels.tsv").unlink(),
        "v: has no qrels, and quality is measured by them. Pass --qrels",
    ),
    (lambda v: (v / "qrels.tsv").write_text("0\td9\t1\n"), "qrels.tsv:1: 'd9' is not in the corpus. "),
    (lambda v: edit(v, "documents", UNIT[:3]), "has float32 values of shape (3, 2), not float32 of (4, dimensions)"),
    (lambda v: edit(v, "documents", UNIT.astype(float)), "has float64 values of shape (4, 2), not float32"),
    (lambda v: edit(v, "documents", UNIT * 2), "documents.npy: row 0 has length 2, not 1. Normalise the vectors"),
    (lambda v: edit(v, "documents", UNIT * [[1], [np.nan], [1], [1]]), "has float64"),
    (lambda v: edit(v, "queries", (UNIT * np.float32([[1], [np.nan], [1], [1]]))[:3]), "row 1 has length nan, not 1"),
    (lambda v: edit(v, "queries", np.eye(3, 4, dtype=np.float32)), "has 4 dimensions, and the documents have 2"),
    (lambda v: (v / "m" / "queries.npy").write_bytes(b"no array"), "queries.npy: is no NumPy array"),
    (lambda v: (v / "m" / "queries.npy").unlink(), "queries.npy: no such file"),
    (lambda v: (v / "m" / "documents.npy").unlink(), "v: holds no vectors. Run embed_corpus, or name its --output_dir"),
    (lambda v: (v / "documents.jsonl").unlink(), "documents.jsonl: no such file"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG, ids=[sentence[:40] for _, sentence in WRONG])
def test_wrong_files_get_a_sentence(change, sentence, tmp_path, capsys):
    folder = write_vectors(tmp_path / "v", DOCUMENTS, QUERIES, QRELS)
    change(folder)
    assert compare(folder) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"Error: {folder}")
    assert sentence in error
    assert not (tmp_path / "variants.jsonl").exists()
    assert not (tmp_path / "variants.jsonl.partial").exists()


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["--variants", "sq8", "fp8"], 2, "--variants has 'fp8', which is none. Pass some of: float32,"),
        (
            ["--variants", "pca2"],
            2,
            "has pca2, and the vectors have 2 dimensions. Pass pca<n> of less than 2.",
        ),
        (["--model", "x"], 1, "has no vectors of 'x'. Pass --model with one of: m."),
        (["--rescore", "0", "-1"], 2, "--rescore is -1. Pass a number from 0 to 100."),
        (["--tune_fraction", "1"], 1, "judges 3 queries to choose by and 0 to report on, and at least 1 and 2 are"),
        (["--tune_fraction", "0"], 1, "judges 0 queries to choose by and 3 to report on, and at least 1 and 2 are"),
    ],
)
def test_wrong_flags_get_a_sentence(flags, code, sentence, tmp_path, capsys):
    folder = write_vectors(tmp_path / "v", DOCUMENTS, QUERIES, QRELS)
    assert compare(folder, *flags) == code
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "variants.jsonl").exists()


def test_a_corpus_that_was_edited_after_it_was_embedded_is_refused(tmp_path, monkeypatch, capsys):
    install_encoders(monkeypatch, tmp_path)
    assert embed(tmp_path, write_beir(tmp_path / "beir")) == 0
    path = tmp_path / "v" / "documents.jsonl"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([*rows[1:], rows[0], ""]))
    assert compare(tmp_path / "v") == 1
    error = capsys.readouterr().err
    assert "documents.jsonl: has changed since its manifest was written. Make it again (python -m" in error
    path.with_name("documents.jsonl.manifest.json").unlink()  # as the error says; the vectors are not of it for that
    pooling = ["--vectors", str(tmp_path / "v"), "--output_file", str(tmp_path / "pool.jsonl")]
    assert pool_candidates.main(pooling) == 1
    assert "documents.npy: was embedded from another documents.jsonl than the one in" in capsys.readouterr().err


def test_the_lines_are_plain_json(tmp_path):
    folder = write_vectors(tmp_path / "v", DOCUMENTS, QUERIES, QRELS)
    assert compare(folder, "--variants", "sq8") == 0
    lines = (tmp_path / "variants.jsonl").read_text().splitlines()
    assert list(json.loads(lines[1])) == [
        *("model", "variant", "rescore", "dimensions", "bytes_per_vector", "overlap", "ndcg", "ndcg_tune", "loss"),
        "by_query",
    ]
