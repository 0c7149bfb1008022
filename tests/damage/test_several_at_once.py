"""Two and three processes of one command at once: each makes the whole output or says why not, and nothing is mixed."""

import re

import pytest

from tests.damage import cases, harness

CASES = [
    "reranker generate_logits", "embedding generate_logits", "create_triplets", "generate_scores",
    "reranker train", "embedding train", "reranker evaluate", "embedding evaluate", "prepare", "prepare with vectors",
    "write_queries", "check_teacher", "merge_scores", "calibrate", "export", "demo_models",
    "embed_corpus", "compare_vectors", "sweep_indexes", "tune_retrieval", "recommend", "apply", "pool_candidates",
    "judge_pool", "generate_expansions", "rank_baselines", "score_expansions", "create_pairs", "train select",
    "expansion evaluate", "expand",
]  # fmt: skip
BUSY = re.compile(r"Error: \S+: another process is (working on this output|writing it)\. Wait[^\n]*\.\n")
MEETINGS = 6  # operations before which a second run comes and goes

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def learning_nothing(monkeypatch):
    """Torch cannot learn in a process that was forked: the students stay as they are."""
    for pipeline in ("reranker", "embedding"):
        name = f"{pipeline}_distillation.training.run_trainer"
        monkeypatch.setattr(name, lambda trainer, selection: {"steps": 2, "seconds": 0.0})


def check(codes, outputs):
    """Each run has made what it was to make, or has said in a sentence that another one is at it."""
    assert 0 in codes
    for code, output in zip(codes, outputs, strict=True):
        said = output.read_text()
        assert "Traceback" not in said, said
        errors = [line for line in said.splitlines(keepends=True) if line.startswith("Error")]
        if code == 0:
            assert not errors
        else:
            assert code == 1
            assert len(errors) == 1 and BUSY.fullmatch(errors[0]), said
        output.unlink()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_several_at_once(case, place, count):
    former = harness.tree(place)
    assert case.run() == 0
    final = harness.tree(place)
    outputs = [place.parent / f"said-{number}" for number in range(count)]
    for seed in range(4 - count):
        harness.restore(place, former)
        check(harness.at_once(place, [case.run] * count, outputs, seed), outputs)
        assert harness.tree(place) == final
    assert case.run() == 0
    assert harness.tree(place) == final


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_a_second_run_comes_and_goes(case, place):
    """It is there from its beginning to its end while the first one is about to do something to a file."""
    former = harness.tree(place)
    assert case.run() == 0
    final = harness.tree(place)
    harness.restore(place, former)
    count = max(moment.number for moment in harness.moments(place, case.run))
    outputs = [place.parent / f"said-{number}" for number in range(2)]
    for number in range(1, count + 1, max(1, count // MEETINGS)):
        harness.restore(place, former)
        check(harness.meeting(place, case.run, outputs, number), outputs)
        assert harness.tree(place) == final


def test_three_on_one_score_store(place):
    module = "reranker_distillation.generate_logits"
    flags = ["--input_files", "samples.jsonl", "--teacher", "t", "--score_store", "out/store", "--output_dir"]
    runs = [cases.Case(module, [*flags, f"out/{number}"], [], []).run for number in range(3)]
    outputs = [place.parent / f"said-{number}" for number in range(3)]
    for seed in range(4):
        harness.restore(place, {})
        assert harness.at_once(place, runs, outputs, seed) == [0, 0, 0], [output.read_text() for output in outputs]
        tree = harness.tree(place)
        assert len({tree[f"{number}/samples_logits.jsonl"] for number in range(3)}) == 1
        assert not [path for path in tree if path.endswith((".tmp", ".partial"))]


@pytest.mark.parametrize("case", ["reranker evaluate"], indirect=True)
def test_reports_of_two_settings_are_not_mixed(case, place):
    settings = [[], ["--seed", "3", "--dtype", "bfloat16"]]
    former, reports = harness.tree(place), []
    for more in settings:
        harness.restore(place, former)
        assert case.run(*more) == 0
        reports.append(cases.parts(case.outputs, harness.tree(place)))
    outputs = [place.parent / f"said-{number}" for number in range(2)]
    runs = [lambda more=more: case.run(*more) for more in settings]
    for seed in range(4):
        harness.restore(place, former)
        check(harness.at_once(place, runs, outputs, seed), outputs)
        assert cases.parts(case.outputs, harness.tree(place)) in reports
