"""From a corpus without labels to qrels: pool_candidates, a teacher, judge_pool, and what is measured by them."""

import json

import numpy as np
import pytest

from milvus_optimization import compare_vectors, judge_pool, pool_candidates
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import Recipe, read_manifest, write_manifest
from reranker_distillation import generate_logits
from tests.milvus_optimization.embedders import write_vectors

# Of 14 documents, the vectors go round a circle; texts share words with the queries as they please.
ANGLES = {f"d{i}": 10.0 * i for i in range(14)}
TEXTS = {key: f"text number {key}" for key in ANGLES} | {
    "d7": "bread and butter",
    "d9": "bread",
    "d12": "bread",  # the same text as d9
    "d13": "butter knives",
}
QUERIES = {"a": 0.0, "b": 70.0, "c": 130.0}


def on_circle(angles):
    return {key: (np.cos(np.radians(angle)), np.sin(np.radians(angle))) for key, angle in angles.items()}


@pytest.fixture
def folder(tmp_path):
    """Vectors of two models; the other one goes round the other way."""
    folder = write_vectors(tmp_path / "v", on_circle(ANGLES), on_circle(QUERIES), texts=TEXTS, model="one")
    other = on_circle({key: 130 - angle for key, angle in ANGLES.items()})
    (folder / "two").mkdir()
    np.save(folder / "two" / "documents.npy", np.array(list(other.values()), dtype=np.float32))
    np.save(folder / "two" / "queries.npy", np.load(folder / "one" / "queries.npy"))
    rows = [{"_id": "a", "text": "bread"}, {"_id": "b", "text": "nothing known"}, {"_id": "c", "text": "butter"}]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def pool(folder, *flags):
    output = folder.parent / "pool.jsonl"
    assert pool_candidates.main(["--vectors", str(folder), "--output_file", str(output), *flags]) == 0
    return {sample.query_id: sample.candidates for sample in read_records(output, RankingSample)}


def judge(folder, scores, *flags):
    output = folder.parent / "teacher.tsv"
    return judge_pool.main(["--vectors", str(folder), "--scores", str(scores), "--output_file", str(output), *flags])


def test_the_pool_is_the_union_of_all_ways_to_search(folder):
    found = pool(folder, "--model", "one", "--depth", "2")
    # Dense d0, d1; BM25 d9, d12, which are one text; fused d9 and d7: 8th and 3rd beat d12's 13th and 2nd.
    assert found["a"] == [TEXTS["d0"], "bread", TEXTS["d1"], "bread and butter"]
    assert found["b"] == [TEXTS["d7"], TEXTS["d6"]]  # no word is shared: dense alone, whose second is a tie by place
    assert set(found["c"]) == {"butter knives", "bread", "bread and butter"}
    both = pool(folder, "--depth", "2", "--overwrite")
    assert set(both["a"]) == {*found["a"], "butter knives", "bread"}
    assert read_manifest(folder.parent / "pool.jsonl").facts["pairs"] == sum(map(len, both.values()))


def test_a_teacher_stands_in_for_labels(folder, overlap_teacher, capsys):
    pool(folder, "--depth", "4")
    assert generate_logits.main(["--teacher", "t", "--input_files", str(folder.parent / "pool.jsonl")]) == 0
    assert judge(folder, folder.parent / "pool_logits.jsonl") == 0
    qrels = (folder.parent / "teacher.tsv").read_text().splitlines()
    assert qrels[0] == "query-id\tcorpus-id\tscore"
    # Shared words less a hundredth of the length: "bread", "bread and butter", and the rest at least ties.
    assert {line for line in qrels if line.startswith("a\t")} >= {"a\td9\t3", "a\td12\t3", "a\td7\t2"}
    manifest = read_manifest(folder.parent / "teacher.tsv")
    assert manifest.teacher["name"] == "t"
    assert manifest.score_unit == "log-odds"
    command = ["--vectors", str(folder), "--output_file", str(folder.parent / "variants.jsonl")]
    assert compare_vectors.main([*command, "--variants", "sq8"]) == 1
    assert capsys.readouterr().err.endswith(
        f"Error: {folder}: has no qrels, and quality is measured by them. Pass --qrels FILE: labels (query-id, "
        "corpus-id and score between tabs), or a teacher's judgement, which pool_candidates, generate_logits and "
        "judge_pool make.\n"
    )
    judged = ["--qrels", str(folder.parent / "teacher.tsv"), "--tune_fraction", "0.242"]
    assert compare_vectors.main([*command, "--variants", "sq8", *judged]) == 0, capsys.readouterr().err
    assert read_manifest(folder.parent / "variants.jsonl").facts["judged_by"] == "t"


def pairs(*rows):
    texts = {"a": "bread", "b": "nothing known", "c": "butter"}
    return [ScoredPair(query_id, texts[query_id], passage, score) for query_id, passage, score in rows]


def test_grades_go_by_the_teachers_order_and_ties_share_the_higher(folder):
    scores = folder.parent / "s.jsonl"
    first = {"d0": -1.0, "d1": 2.0, "d2": 2.0, "d3": 0.5, "d9": 1.0}
    rows = [*(("a", key, score) for key, score in first.items()), ("b", "d0", -1.0), ("b", "d1", -2.0)]
    write_records(scores, pairs(*((query_id, TEXTS[key], score) for query_id, key, score in rows)))
    assert judge(folder, scores) == 0
    rows = (folder.parent / "teacher.tsv").read_text().splitlines()[1:]
    assert rows == ["a\td1\t3", "a\td2\t3", "a\td9\t1", "a\td12\t1", "b\td0\t3", "b\td1\t2"]
    assert judge(folder, scores, "--top", "1", "--min_score", "0", "--overwrite") == 0
    assert (folder.parent / "teacher.tsv").read_text().splitlines()[1:] == ["a\td1\t1", "a\td2\t1"]
    assert read_manifest(folder.parent / "teacher.tsv").skipped == {"bad_rows": 0, "queries_without_relevant": 1}
    assert read_manifest(folder.parent / "teacher.tsv").teacher == {"name": "unknown"}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (ScoredPair("x", "bread", "bread", 1), "query_id 'x' ('bread') is not in the corpus. "),
        (ScoredPair("a", "bred", "bread", 1), "query_id 'a' ('bred') is not in the corpus. "),
        (ScoredPair("a", "bread", "toast", 1), "the passage 'toast' of query_id a is not in the corpus. "),
    ],
)
def test_scores_of_another_corpus_are_refused(row, sentence, folder, capsys):
    scores = folder.parent / "s.jsonl"
    write_records(scores, [row, *pairs(("c", TEXTS["d7"], 1.0))])
    assert judge(folder, scores) == 1
    remedy = "Pass the scores of what pool_candidates made of it, or pass --skip_bad_rows to leave such rows out."
    assert capsys.readouterr().err == f"Error: {scores}: {sentence}{remedy}\n"
    assert not (folder.parent / "teacher.tsv").exists()
    assert judge(folder, scores, "--skip_bad_rows") == 0
    assert (folder.parent / "teacher.tsv").read_text().splitlines()[1:] == ["c\td7\t3"]
    assert read_manifest(folder.parent / "teacher.tsv").skipped["bad_rows"] == 1


@pytest.mark.parametrize(("unit", "warned"), [("cosine", True), ("log-odds", False), ("standard deviations", False)])
def test_an_embedder_is_no_judge_of_embedders(folder, capsys, unit, warned):
    scores = folder.parent / "scores.jsonl"
    write_records(scores, [ScoredPair(query_id="a", query="bread", passage="bread", score=0.5)])
    write_manifest(scores, Recipe("embedding_distillation.generate_logits", {}, {}), score_unit=unit)
    assert judge(folder, scores) == 0
    assert ("WARNING: an embedder judges." in capsys.readouterr().err) == warned


def test_what_judges_nothing_is_refused(folder, capsys):
    scores = folder.parent / "s.jsonl"
    write_records(scores, pairs(("a", "bread", -3.0)))
    assert judge(folder, scores, "--min_score", "0") == 1
    assert "has no passage of the corpus that scores 0. Check --min_score and the file." in capsys.readouterr().err
    command = ["--vectors", str(folder), "--scores", str(scores), "--output_file", f"{folder}/teacher.qrels"]
    assert judge_pool.main(command) == 2
    assert "is not named .tsv. Name it so." in capsys.readouterr().err


def test_a_pool_of_another_folder_is_no_vectors(tmp_path, capsys):
    command = ["--vectors", str(tmp_path), "--output_file", str(tmp_path / "pool.jsonl")]
    assert pool_candidates.main(command) == 1
    assert capsys.readouterr().err == (
        f"Error: {tmp_path}: holds no vectors. Run embed_corpus, or name its --output_dir.\n"
    )
