"""Scores at the ends of what a number can be, and ids of megabytes, through every stage that reckons with them."""

import itertools
import json

import numpy as np
import pytest

import embedding_distillation.generate_scores
import embedding_distillation.train
import rag_core.merge_scores
import reranker_distillation.create_triplets
import reranker_distillation.train
from rag_core.base.errors import DataError, EngineError
from rag_core.base.records import ScoredPair, SoftLabels, Triplet
from rag_core.distillation import train_stage
from rag_core.engines.canary import check_finite
from rag_core.files import manifest
from rag_core.files.jsonl import read_groups, read_records, read_samples
from rag_core.files.qrels import read_qrels
from rag_core.files.runs import read_run
from rag_core.scoring.scored_files import scores_by_sample
from tests.damage.test_mutated_rows import RowsTakenError, stop

SCORES = [1e308, -1e308, 1e16, 1e15, -1e15, 1e-200, 5e-324, -0.0, 1.0, 1.0000000000000002]
STAGES = {
    "create_triplets": (reranker_distillation.create_triplets, "--num_negatives all --input_files FILE", Triplet),
    "generate_scores": (embedding_distillation.generate_scores, "--input_files FILE", SoftLabels),
    "merge_scores": (rag_core.merge_scores, "--output_file OUT --input_files FILE", ScoredPair),
    "merge_scores, ranks": (
        rag_core.merge_scores,
        "--output_file OUT --method rank_fusion --input_files FILE",
        ScoredPair,
    ),
}


@pytest.mark.parametrize("name", STAGES)
def test_scores_at_the_ends_of_a_float(name, tmp_path, monkeypatch, capsys):
    module, argv, record = STAGES[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(manifest, "provenance", dict)  # which asks git
    monkeypatch.setattr("os.fsync", lambda _: None)
    for number, (first, second) in enumerate(itertools.combinations(SCORES, 2)):
        path = tmp_path / f"{number}.jsonl"
        rows = [
            {"query_id": query, "query": query, "passage": text, "score": score}
            for query, scores in (("odd", (first, second)), ("good", (1.0, 2.0)))
            for text, score in zip("ab", scores, strict=True)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        code = module.main(argv.replace("FILE", str(path)).replace("OUT", f"out-{number}.jsonl").split())
        out, said = capsys.readouterr()
        if max(abs(first), abs(second)) > 1e15:
            line = 1 if abs(first) > 1e15 else 2
            assert (code, said.partition(" should be")[0]) == (1, f"Error: {path}:{line}: 'score'")
        else:
            assert code == 0, (first, second, said)
            assert list(read_records(tmp_path / out.strip(), record))


@pytest.mark.slow
@pytest.mark.parametrize("scores", [(1e-320, 0.0), (5e-324, 0.0), (1e-200, 2e-200), (1.0, 1.0)])
@pytest.mark.parametrize("pipeline", [reranker_distillation, embedding_distillation], ids=["reranker", "embedder"])
def test_scores_that_do_not_spread(pipeline, scores, tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"query_id": "1", "query": "q", "passages": ["a", "b"], "scores": scores}) + "\n")
    monkeypatch.setattr(train_stage, "parse_training_arguments", lambda *_, **__: None)
    monkeypatch.setattr("rag_core.engines.identity.describe_models", stop)
    argv = ["--loss", "kl", "--student", "s", "--output_dir", str(tmp_path / "out"), "--train_file", str(path)]
    try:
        assert pipeline.train.main(argv) == 1
    except RowsTakenError:
        pytest.fail("taken")
    assert capsys.readouterr().err.startswith(f"Error: {path}: the teacher scores all candidates of most queries alike")


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf, 1e16, -3e38])
def test_what_a_model_may_not_say(score):
    check_finite(np.array([1e15, -1e15], np.float32) * np.float32(0.999))
    with pytest.raises(EngineError, match="1 of 2 scores of the teacher are not finite"):
        check_finite(np.array([0, score], np.float32))


@pytest.mark.parametrize("grade", ["1" * 5000, "1e999", "inf", "nan", "1_0", "\u0661", "99999999999", "1.0", "true"])
def test_grades(grade, tmp_path):
    for row in (f"q\td\t{grade}", f"q 0 d {grade}"):
        (tmp_path / "a.tsv").write_text(
            f"q2{'	' if '	' in row else ' 0 '}d{'	' if '	' in row else ' '}1\n{row}\n"
        )
        with pytest.raises(DataError, match=r"a.tsv:2: the (score|relevance) '.* is not a whole number") as error:
            read_qrels(tmp_path / "a.tsv")
        assert len(str(error.value)) < 500


ID = "x" * 5_000_000


def test_ids_of_megabytes_are_cut(tmp_path):
    path = tmp_path / "a"

    def told(read, *rows):
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        with pytest.raises(DataError) as error:
            read()
        assert len(str(error.value)) < 600
        assert "xxx…xxx" in str(error.value)

    pair = {"query_id": ID, "query": "q", "passage": "p", "score": 1}
    sample = {"query_id": ID, "query": "q", "candidates": ["a"]}
    told(lambda: read_samples(path), sample, sample)
    told(lambda: read_groups(path, ScoredPair), pair, pair)
    told(lambda: read_groups(path, ScoredPair), pair, pair | {"query": ID})
    told(lambda: read_qrels(path, queries=()), f"{ID} 0 d 1")
    told(lambda: read_qrels(path), f"q 0 d {ID}")
    told(lambda: read_run(path), f"q Q0 d 1 {ID} t")
    told(lambda: read_run(path), *[f"{ID} Q0 {ID} 1 1 t"] * 2)
    path.write_text(json.dumps(sample) + "\n")
    samples = read_samples(path)
    told(lambda: scores_by_sample(path, samples), pair)
