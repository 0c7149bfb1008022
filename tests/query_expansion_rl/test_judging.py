"""Label-free gains: whose they are, and when a teacher is refused."""

import json
import logging

import numpy as np
import pytest

from query_expansion_rl.records import Judgement
from query_expansion_rl.retrieval.judging import as_qrels, compare, conclude, hybrid_gains, pool, top_gains
from query_expansion_rl.retrieval.workspace import read_workspace
from rag_core.base.errors import PipelineError
from rag_core.files.jsonl import read_records
from tests.query_expansion_rl.aliases import encode, make_baselines, qrels


def test_gains_fall_with_the_rank():
    places = np.array([[4, 2, 7, 1], [3, -1, -1, -1], [-1, -1, -1, -1]])
    gains = top_gains(places, 3)
    assert gains == [{4: 3.0, 2: 2.0, 7: 1.0}, {3: 3.0}, {}]
    assert as_qrels(["a", "b", "c"], gains, [f"d{n}" for n in range(8)]) == {
        "a": {"d4": 3, "d2": 2, "d7": 1},
        "b": {"d3": 3},
    }


def test_a_pool_takes_turns_and_has_each_passage_once():
    rankings = [np.array([[0, 1, 2], [5, -1, -1]]), np.array([[1, 3, 4], [-1, -1, -1]])]
    assert pool(rankings, 2) == [[0, 1, 3], [5]]


def test_the_hybrid_judges_new_queries_as_it_judged_those_of_the_workspace(workspace):
    topics = workspace.of("train")
    found = hybrid_gains(workspace.searcher("hybrid", encode), [topic.query for topic in topics], 10)
    ids = list(workspace.corpus.documents)
    known = workspace.gains()
    assert [{ids[place]: gain for place, gain in mine.items()} for mine in found] == [
        known[topic.query_id] for topic in topics
    ]
    (new,) = hybrid_gains(workspace.searcher("hybrid", encode), ["cystic fibrosis"], 1)
    assert {ids[place].split("-")[0] for place in new} == {"d4"}


@pytest.mark.parametrize(("teacher", "verdict"), [("good", "go"), ("same", "unclear"), ("bad", "no")])
def test_the_verdict_is_that_of_check_teacher(caplog, teacher, verdict):
    judged = {f"q{n}": {"d0": 1} for n in range(8)}
    rows = {query_id: row for row, query_id in enumerate(judged)}
    ranking = {"good": [0, 1, 2], "same": [1, 0, 2], "bad": [1, 2, 0]}
    places = {name: np.array([row] * 8) for name, row in ranking.items()}
    comparison = compare(judged, rows, ["d0", "d1", "d2"], teacher=places[teacher], retriever=places["same"], seed=1)
    assert comparison.verdict == verdict
    caplog.set_level(logging.INFO)
    if verdict == "no":
        with pytest.raises(PipelineError) as error:
            conclude(comparison, 8, "t", "bm25", force=False)
        assert str(error.value) == (
            "no: the teacher t ranks worse than bm25 (-0.1667 of MAP, 95 % interval -0.1667 to -0.1667, 8 train and "
            "dev queries). Pass another --teacher, or --force to go on nevertheless."
        )
        conclude(comparison, 8, "t", "bm25", force=True)
        assert caplog.records[-1].levelname == "WARNING"
    else:
        conclude(comparison, 8, "t", "bm25", force=False)
        assert caplog.records[-1].levelname == {"go": "INFO", "unclear": "WARNING"}[verdict]


def test_an_embedder_judges_the_pool(tmp_path, encoders):
    models = tmp_path / "models"
    assert make_baselines(tmp_path, "--teacher", str(models / "embedder"), "--judge_top", "2") == 0
    workspace = read_workspace(tmp_path / "w")
    assert (workspace.summary.teacher, workspace.summary.judge_top) == (str(models / "embedder"), 2)
    gains = workspace.gains()
    assert all(set(gains[key]) == set(mine) for key, mine in qrels().items())
    assert {one.teacher for one in read_records(tmp_path / "w" / "judgements.jsonl", Judgement)} == {
        str(models / "embedder")
    }


def test_a_teacher_that_ranks_worse_is_refused_before_anything_is_judged(tmp_path, encoders, overlap_teacher, capsys):
    flags = ("--teacher", "t", "--retriever", "dense")
    assert make_baselines(tmp_path, *flags) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("Error: no: the teacher t ranks worse than dense (-")
    assert error.endswith("12 train and dev queries). Pass another --teacher, or --force to go on nevertheless.")
    assert not (tmp_path / "w" / "judgements.jsonl").exists()
    scored = len(overlap_teacher.scored)
    assert make_baselines(tmp_path, *flags, "--force") == 0
    assert len(overlap_teacher.scored) == scored  # they were kept
    assert "going on, as forced" in capsys.readouterr().err


def test_a_score_store_serves_other_runs(tmp_path, encoders, overlap_teacher):
    flags = ("--teacher", "t", "--force", "--score_store", str(tmp_path / "store"))
    assert make_baselines(tmp_path, *flags) == 0
    scored, embedded = len(overlap_teacher.scored), sum(len(one.encoded) for one in encoders)
    assert make_baselines(tmp_path, *flags, "--judge_top", "3", "--overwrite") == 0
    assert (len(overlap_teacher.scored), sum(len(one.encoded) for one in encoders)) == (scored, embedded)
    assert json.loads((tmp_path / "w" / "baselines.json").read_text())["judge_top"] == 3
