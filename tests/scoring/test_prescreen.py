"""A cheap model chooses what the teacher scores: which candidates, what is told of the others, and who refuses it."""

import dataclasses
import json

import numpy as np
import pytest

from embedding_distillation import generate_scores
from rag_core import merge_scores
from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample, ScoredPair, SoftLabels
from rag_core.engines.loading import LOADERS
from rag_core.files.chunk_store import row_key
from rag_core.files.jsonl import read_groups, read_records, write_records
from rag_core.scoring.plan import Plan
from rag_core.scoring.prescreen import check_all_scored
from rag_core.scoring.prescreen_plan import PrescreenPlan
from rag_core.scoring.settings import CHUNK_ROWS
from reranker_distillation import evaluate, generate_logits
from tests.conftest import write_model

TEXTS = ["x b", "a", "aaaa", "x", "aa", "aaa"]
SAMPLES = [
    RankingSample("one x", ["aaa", "x b"], ["a", "aaaa", "x", "aa", "aa"], query_id="1"),
    RankingSample("two", candidates=["aa", "a"], query_id="2"),  # fewer than are asked for
    RankingSample("three", candidates=TEXTS, query_id="3"),
]


class CountsLetters:
    """A cheap cross-encoder: the number of letters a."""

    score_unit = "logit"
    truncated = 0

    def __init__(self):
        self.calls = []

    def score(self, pairs):
        self.calls.append(list(pairs))
        return np.array([text.count("a") - text.count("b") / 8 for _, text in pairs], dtype=np.float32)


def drawn(query_id, others, count, seed=42):
    return sorted(others, key=lambda text: row_key(str(seed), query_id, text))[:count]


@pytest.fixture
def cheap(overlap_teacher, monkeypatch, tmp_path):
    """The folder c is a cross-encoder; work in a folder with train.jsonl and the models."""
    write_model(tmp_path / "c", "BertForSequenceClassification", id2label={"0": "x"})
    write_model(tmp_path / "t")
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "train.jsonl", SAMPLES)
    model = CountsLetters()
    monkeypatch.setitem(LOADERS, "sentence-transformers", lambda *_: model)
    for engine in CHUNK_ROWS:
        monkeypatch.setitem(CHUNK_ROWS, engine, 2)
    return model


COMMAND = ["--teacher", "t", "--input_files", "train.jsonl"]
PRESCREEN = ["--prescreen", "c", "--prescreen_keep", "2", "--prescreen_random", "1"]


def prescreen(*flags):
    return generate_logits.main([*COMMAND, *PRESCREEN, *flags])


def test_the_best_and_a_random_few_are_scored(cheap, overlap_teacher, tmp_path, capsys):
    assert prescreen() == 0
    rest = ["x b", "a", "x", "aa"]
    first, short, third = read_groups(tmp_path / "train_logits.jsonl", ScoredPair)
    for group, query_id in ((first, "1"), (third, "3")):
        (random,) = drawn(query_id, rest, 1)
        assert {pair.passage for pair in group} == {"aaaa", "aaa", random}
        assert set(group[0].unscored) == {*rest} - {random}
        assert [pair.unscored for pair in group[1:]] == [None, None]
    assert [pair.passage for pair in third] == [text for text in TEXTS if text not in third[0].unscored]
    assert [(pair.passage, pair.unscored) for pair in short] == [("aa", None), ("a", None)]
    assert {pair.passage: pair.label for pair in first}["aaa"] == 1
    assert sorted(overlap_teacher.scored) == sorted((pair.query, pair.passage) for pair in (*first, *short, *third))
    manifest = json.loads((tmp_path / "train_logits.jsonl.manifest.json").read_text())
    told = manifest["prescreen"]
    assert (told["model"]["name"], told["keep"], told["random"], told["seed"]) == ("c", 2, 1, 42)
    assert (told["pairs_left_out"], manifest["rows"]) == (6, 8)
    assert manifest["recipe"]["flags"]["prescreen_keep"] == 2
    lost = told["relevant_left_out"]
    assert lost == ("x b" in first[0].unscored)
    assert f"prescreening left 6 candidates unscored, {lost} of the 2 relevant ones" in capsys.readouterr().err


def test_another_order_changes_nothing(cheap, tmp_path):
    assert prescreen() == 0
    chosen = {(pair.query_id, pair.passage) for pair in read_records(tmp_path / "train_logits.jsonl", ScoredPair)}
    again = RankingSample("one x", ["x b", "aaa"], ["aa", "x", "aaaa", "a"], query_id="1")
    write_records(tmp_path / "train.jsonl", [SAMPLES[2], again, SAMPLES[1]])
    assert prescreen("--overwrite") == 0
    found = {(pair.query_id, pair.passage) for pair in read_records(tmp_path / "train_logits.jsonl", ScoredPair)}
    assert found == chosen
    assert prescreen("--overwrite", "--seed", "7") == 0
    third = {pair.passage for pair in read_groups(tmp_path / "train_logits.jsonl", ScoredPair)[0]}
    assert third == {"aaaa", "aaa", *drawn("3", ["x b", "a", "x", "aa"], 1, seed=7)}


@pytest.mark.parametrize("store", [[], ["--score_store", "store"]], ids=["partial", "store"])
@pytest.mark.parametrize("killed", ["cheap", "teacher"])
def test_a_killed_run_goes_on(killed, store, cheap, overlap_teacher, tmp_path, monkeypatch):
    model = cheap if killed == "cheap" else overlap_teacher
    score, calls = model.score, 0

    def killing(pairs):
        nonlocal calls
        calls += 1
        if calls == 4:  # the first is the canary's
            raise KeyboardInterrupt
        return score(pairs)

    monkeypatch.setattr(model, "score", killing)
    assert prescreen(*store) == 130
    monkeypatch.setattr(model, "score", score)
    paid = {pair for call in cheap.calls[1:] for pair in call}
    cheap.calls.clear()
    assert prescreen(*store) == 0
    assert paid and paid.isdisjoint(pair for call in cheap.calls[1:] for pair in call)
    assert len(set(overlap_teacher.scored)) == len(overlap_teacher.scored) == 8
    assert not list(tmp_path.glob("*.partial"))
    found = (tmp_path / "train_logits.jsonl").read_bytes()
    assert generate_logits.main([*COMMAND, *PRESCREEN, "--output_suffix", "_undisturbed"]) == 0
    assert found == (tmp_path / "train_undisturbed.jsonl").read_bytes()


def test_a_score_store_keeps_both_models_and_serves_more(cheap, overlap_teacher, tmp_path):
    assert prescreen("--score_store", "store") == 0
    assert len(list((tmp_path / "store").glob("*/model.json"))) == 2
    cheap.calls.clear()
    assert prescreen("--score_store", "store", "--prescreen_keep", "4", "--overwrite") == 0
    assert len(cheap.calls) == 1  # the canary's
    assert len(set(overlap_teacher.scored)) == len(overlap_teacher.scored) == 12


def test_another_prescreening_is_another_output(cheap, tmp_path, capsys):
    assert prescreen() == 0
    assert prescreen() == 0
    assert "is finished already" in capsys.readouterr().err
    before = (tmp_path / "train_logits.jsonl").read_bytes()
    assert prescreen("--prescreen_keep", "3") == 1
    assert "made with other settings: --prescreen_keep (was 2, is 3). Pass --overwrite" in capsys.readouterr().err
    assert generate_logits.main(COMMAND) == 1
    assert "--prescreen (was " in capsys.readouterr().err
    assert (tmp_path / "train_logits.jsonl").read_bytes() == before


def test_flags_that_want_it(cheap, capsys):
    assert generate_logits.main([*COMMAND, "--seed", "3"]) == 2
    assert "--seed is for --prescreen. Pass --prescreen as well, or leave it out" in capsys.readouterr().err
    assert generate_logits.main([*COMMAND, "--prescreen", "t"]) == 2
    assert "--prescreen t is the teacher" in capsys.readouterr().err


def test_a_file_that_is_to_be_measured_on_is_told(cheap, tmp_path, capsys):
    labelled = SAMPLES[0]
    write_records(tmp_path / "test.jsonl", [labelled, dataclasses.replace(labelled, query="four", query_id="4")])
    flags = ["--teacher", "t", *PRESCREEN, "--input_files", "train.jsonl", "test.jsonl", "--log_level", "warning"]
    assert generate_logits.main(flags) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "WARNING" in line and "labels" in line]
    assert "test.jsonl has labels, and by its name is no training file" in warning
    scored = "test_logits.jsonl"
    arguments = ["--before", "t", "--after", "t", "--in_domain", "test.jsonl", "--output_dir", "report"]
    assert evaluate.main([*arguments, "--teacher_scores", scored]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        "Error: test_logits.jsonl: was prescreened: 6 candidates of 2 queries have no score, and measuring needs the "
        "score of every candidate. Score the file without --prescreen (generate_logits with another --output_dir)."
    )
    with pytest.raises(DataError, match="6 candidates of 2 queries"):
        check_all_scored(tmp_path / scored, read_records(tmp_path / scored, ScoredPair))


def test_what_is_unscored_stays_told(cheap, tmp_path, capsys):
    assert prescreen() == 0
    unscored = {pair.query_id: pair.unscored for pair in read_records(tmp_path / "train_logits.jsonl", ScoredPair)
                if pair.unscored}  # fmt: skip
    assert generate_scores.main(["--input_files", "train_logits.jsonl"]) == 0
    rows = list(read_records(tmp_path / "train_logits_scores.jsonl", SoftLabels))
    assert {row.query_id: row.unscored for row in rows} == {**unscored, "2": None}
    manifest = json.loads((tmp_path / "train_logits_scores.jsonl.manifest.json").read_text())
    assert manifest["prescreen"]["pairs_left_out"] == 6
    merge = ["--output_file", "both.jsonl", "--input_files", "train_logits.jsonl", "other.jsonl"]
    pairs = list(read_records(tmp_path / "train_logits.jsonl", ScoredPair))
    write_records(tmp_path / "other.jsonl", pairs)
    assert merge_scores.main(merge) == 0
    assert [pair.unscored for pair in read_records(tmp_path / "both.jsonl", ScoredPair)] == [
        pair.unscored for pair in pairs
    ]
    assert json.loads((tmp_path / "both.jsonl.manifest.json").read_text())["prescreen"]["keep"] == 2
    (tmp_path / "other.jsonl").unlink()
    assert generate_logits.main([*COMMAND, "--output_suffix", "_whole"]) == 0
    capsys.readouterr()
    assert merge_scores.main([*merge[:-1], "train_whole.jsonl", "--overwrite"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "train_whole.jsonl: has 6 pairs that train_logits.jsonl has not. Score the same samples" in error
    assert "give --prescreen, --prescreen_keep, --prescreen_random and --seed alike" in error


def plan(pairs, rows, found, seconds, unit="pairs"):
    return Plan(
        queries=10, pairs=pairs, unit=unit, rows=rows, found=found, tokens=0, cached=0, operations=0, weights=0,
        seconds=seconds, gpu="H100", peak=1, dtype="bfloat16",
    )  # fmt: skip


def test_the_saving_in_minutes_and_money(cheap):
    class Settings:
        keep, random = 12, 4

        class options:  # noqa: N801
            class model:  # noqa: N801
                name = "c"

    whole, teacher = plan(300, 300, 0, 7200.0), plan(160, 160, 10, 3600.0)
    lines = PrescreenPlan(Settings, whole, teacher, plan(300, 305, 5, 360.0, "texts")).lines(2.5)
    assert lines == [
        "prescreened by   c, its best 12 and 4 random candidates of each query",
        "then scored      160 of 300 candidates (53%)",
        "cheap model      300 texts to compute, 6 minutes",
        "teacher          about 150 pairs to compute, instead of 300; 60 minutes",
        "time saved       54 minutes of 2.0 hours (45%)",
        "estimated cost   2.75 instead of 5.00 at 2.5 an hour",
    ]
    assert PrescreenPlan(Settings, teacher, teacher, whole).lines(None)[-1].startswith("time lost        2.0 hours of")


@pytest.mark.slow
def test_a_dry_run_counts_what_is_expected(tmp_path, tiny_encoder, tiny_cross_encoder, capsys):
    """Of two queries with four candidates each, one of which they share, the teacher scores three each."""
    texts = ["hen", "egg", "pan"]
    rows = [RankingSample(query, candidates=[*(f"{query} {text}" for text in texts), "both"]) for query in ("a", "b")]
    write_records(tmp_path / "train.jsonl", rows)
    command = ["--input_files", f"{tmp_path}/train.jsonl", "--max_length", "64", "--dry_run", "--gpu_price", "2"]
    command += ["--prescreen_keep", "2", "--prescreen_random", "1"]
    assert generate_logits.main([*command, "--teacher", tiny_cross_encoder, "--prescreen", tiny_encoder]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "then scored      6 of 8 candidates (75%)" in lines
    assert any(line.startswith("cheap model      9 texts to compute, ") for line in lines)  # two of queries
    assert any(line.startswith("teacher          about 6 pairs to compute, instead of 8; ") for line in lines)
    assert lines[-1] == "estimated cost   0.00 instead of 0.00 at 2 an hour"
    assert generate_logits.main([*command, "--teacher", tiny_encoder, "--prescreen", tiny_cross_encoder]) == 0
    # Six passages with a chance of 3/4, one with 1 - 1/16, and two queries.
    assert "teacher          about 7 texts to compute, instead of 9; " in capsys.readouterr().out
