"""The mix by hand, the weight that a dev file chooses, and what the report says of both outcomes."""

import json
import shutil

import numpy as np
import pytest

from rag_core import rank
from rag_core.base.records import ScoredPair
from rag_core.evaluation.mixing import Mixing, choose_weight, mixed, with_first_stage
from rag_core.evaluation.mixing_words import mixing_words
from rag_core.evaluation.pages import write_report
from rag_core.evaluation.report import make_report
from rag_core.evaluation.tables import format_table
from rag_core.files.jsonl import read_samples, write_records
from reranker_distillation import evaluate
from tests.conftest import TINY
from tests.evaluation.cases import LAST, NOTHING, RIGHT, SECOND, evaluation


def test_the_mix_of_a_query():
    # Standardised, the first stage is (1.2247, 0, -1.2247), the reranker (-1, 1, 0) * 1.2247.
    first, reranker = [30.0, 20.0, 10.0], [-1.0, 1.0, 0.0]
    unit = 1.5**0.5
    assert mixed(first, reranker, 0.25) == pytest.approx([0.5 * unit, 0.25 * unit, -0.75 * unit])
    assert mixed(first, reranker, 0) == pytest.approx([unit, 0, -unit])
    assert mixed(first, reranker, 1) == pytest.approx([-unit, unit, 0])
    assert mixed([0.0, 0.0, 0.0], reranker, 0.1) == pytest.approx([-0.1 * unit, 0.1 * unit, 0])


def test_the_best_weight_is_chosen_and_of_equal_ones_the_smallest():
    curve = {0.0: [0.5, 0.5], 0.1: [0.2, 0.9], 0.2: [0.9, 0.4], 0.3: [0.4, 0.9], 1.0: [0.5, np.nan]}
    assert choose_weight({weight: np.array(values) for weight, values in curve.items()}) == 0.2


def mixed_report(first, weight=0.5, **scores):
    found = with_first_stage(evaluation(**{"first stage": first, **scores}), weight)
    models = {"first stage": "models/bge_m3", "before": "b", "after": "m", "teacher": "t"}
    mixing = Mixing("models/bge_m3", weight, "data/dev.jsonl", 40, {0.0: 0.5, 0.5: 0.625})
    return make_report([found], models, NOTHING, 1, mixing), found


def test_a_reranker_that_adds_something_is_recommended(tmp_path):
    after = [RIGHT] * 4 + [RIGHT] + [LAST] + [RIGHT, SECOND]
    report, found = mixed_report([[0.25, 0.3, 0.1]] * 8, after=after)
    assert list(report.files[0].means) == ["BM25", "first stage", "before", "after", "mixed", "teacher"]
    mix, verdict = mixing_words(report, str)
    assert mix == (
        "Mixed is 0.5 first stage + 0.5 after, both standardised per query. The weight was chosen on 40 queries of "
        "dev.jsonl (MAP by weight 0: 0.5000, 0.5: 0.6250)."
    )
    # Of 8 queries whose positive is second, the mix lifts six; the reranker alone puts one of the others last.
    assert report.files[0].change_from_first_stage["mixed"]["MAP"].difference == pytest.approx(6 * 0.5 / 8)
    assert verdict.startswith(
        "On test.jsonl mixing in the reranker ranks better than the first stage alone, bge_m3 (mixed - first stage "
        "+0.3750 ["
    )
    assert verdict.endswith("MAP): serve the mix.")
    write_report(tmp_path, report, [found], 1)
    assert verdict in (tmp_path / "report.html").read_text()
    assert verdict in (tmp_path / "report.md").read_text()
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["mixing"]["dev_MAP"] == {"0": 0.5, "0.5": 0.625}
    assert list(content["files"][0]["change_from_first_stage"]) == ["mixed", "after"]
    assert "mixed" in json.loads((tmp_path / "per_query.jsonl").read_text().splitlines()[0])


def test_a_reranker_that_adds_nothing_is_said_with_the_cheaper_model():
    report, _ = mixed_report([RIGHT] * 4 + [SECOND] * 4, after=[SECOND] * 8)
    verdict = mixing_words(report, str)[-1]
    assert verdict.startswith(
        "On test.jsonl the reranker adds nothing to the first stage beyond the interval (mixed - "
    )
    assert verdict.endswith("The first stage alone, bge_m3, ranks as well: use it, and save the reranker.")
    worse = mixing_words(mixed_report([RIGHT] * 8, weight=0.9, after=[LAST] * 8)[0], str)[-1]
    assert worse.endswith("The first stage alone, bge_m3, ranks better: use it, and save the reranker.")


def test_without_a_mix_the_reranker_alone_is_compared_and_bm25_is_the_first_stage():
    found = with_first_stage(evaluation(), None)
    assert found.scores["first stage"] == [LAST] * 8
    models = {"first stage": "BM25", "before": "b", "after": "m", "teacher": "t"}
    report = make_report([found], models, NOTHING, 1, Mixing("BM25"))
    (words,) = mixing_words(report, str)
    assert "the reranker alone ranks better than the first stage alone, BM25 (after - first stage" in words
    assert words.endswith("serve the order of m.")
    assert words in format_table(report)
    assert report.as_json()["mixing"] == {"first_stage": "BM25"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mix", "auto"], "--mix needs a first stage. Pass --first_stage bm25, a model or files, too."),
        (["--first_stage", "bm25", "--mix", "auto"], "--mix auto needs labelled samples to choose by. Pass --mix_dev"),
        (["--first_stage", "bm25", "--mix", "1.5"], "--mix is '1.5'. Pass auto, or a number from 0 (first stage) to 1"),
        (["--first_stage", "bm25", "--mix", "nan"], "--mix is 'nan'. Pass auto, or a number from 0 (first stage) to 1"),
        (["--first_stage", "bm25", "--mix", "0.5", "--mix_dev", "d.jsonl"], "is given with the weight 0.5. Pass --mix"),
        (["--first_stage", "a.jsonl", "b.jsonl"], "2 files of first-stage scores for 1 files. Pass --first_stage with"),
        (
            ["--first_stage", "a.jsonl", "--mix", "auto", "--mix_dev", "d.jsonl"],
            "--first_stage is files, which do not score --mix_dev. Pass --mix_dev_first_stage FILE, or --mix WEIGHT.",
        ),
        (
            ["--first_stage", "bm25", "--mix", "auto", "--mix_dev", "d.jsonl", "--mix_dev_first_stage", "a.jsonl"],
            "--mix_dev_first_stage is for a first stage of files. Leave it out",
        ),
        (
            ["--first_stage", "bm25", "--mix", "auto", "--mix_dev", "other/test.jsonl"],
            "--mix_dev and an evaluated file are both named test.jsonl.",
        ),
    ],
)
def test_flags_that_do_not_go_together(flags, message, capsys, tmp_path):
    command = ["--after", "no/model", "--in_domain", str(TINY / "test.jsonl"), "--output_dir", str(tmp_path / "report")]
    assert evaluate.main([*command, *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_dev_file_that_is_evaluated_under_another_name_is_refused(capsys, tmp_path):
    dev = tmp_path / "dev.jsonl"
    dev.write_bytes((TINY / "test.jsonl").read_bytes())
    command = ["--after", "no/model", "--in_domain", str(TINY / "test.jsonl"), "--output_dir", str(tmp_path / "report")]
    assert evaluate.main([*command, "--first_stage", "bm25", "--mix", "auto", "--mix_dev", str(dev)]) == 1
    assert f"Error: {dev}: holds the same as {TINY / 'test.jsonl'}, on which the mix is measured. " in (
        capsys.readouterr().err
    )


@pytest.fixture
def trained(tiny_cross_encoder, tmp_path):
    """A cross-encoder with the manifest that makes its folder one of ours."""
    folder = tmp_path / "models" / "student"
    shutil.copytree(tiny_cross_encoder, folder)
    (folder.parent / "student.manifest.json").write_text('{"recipe": {"stage": "reranker_distillation.train"}}')
    return folder


def test_from_the_dev_file_to_rank(trained, tiny_encoder, tiny_wide_encoder, tmp_path, capsys):
    command = ["--before", tiny_wide_encoder, "--after", str(trained), "--in_domain", str(TINY / "test.jsonl")]
    command += ["--output_dir", str(tmp_path / "report"), "--first_stage", tiny_encoder, "--mix", "auto"]
    command += ["--mix_dev", str(TINY / "train.jsonl")]
    assert evaluate.main(command) == 0
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    kept = json.loads((trained / "mix.json").read_text())
    by_weight = content["mixing"]["dev_MAP"]
    assert kept["weight"] == content["mixing"]["weight"] == float(max(by_weight, key=by_weight.get))
    assert kept["chosen_on"] == "train.jsonl"
    assert content["files"][0]["means"]["mixed"]["MAP"] > 0
    assert "## Mix" in (trained / "README.md").read_text()
    scores = {path: path.stat().st_mtime_ns for path in (tmp_path / "report" / "scores").glob("*.jsonl")}
    assert evaluate.main(command) == 0  # the kept weight makes no other model of the folder
    assert scores == {path: path.stat().st_mtime_ns for path in (tmp_path / "report" / "scores").glob("*.jsonl")}

    def ranked(*flags):
        capsys.readouterr()
        code = rank.main(["--model", str(trained), "--passages", str(TINY / "test.jsonl"), *flags])
        found = capsys.readouterr()
        return code, found.out.splitlines()[3:], found.err

    kept["weight"] = 0.0
    (trained / "mix.json").write_text(json.dumps(kept))
    code, lines, _ = ranked("--first_stage", tiny_encoder)
    assert code == 0
    assert all(line.split()[0] == line.split()[1] for line in lines)
    kept["weight"] = 1.0
    (trained / "mix.json").write_text(json.dumps(kept))
    _, lines, _ = ranked("--first_stage", tiny_encoder)
    _, alone, _ = ranked("--before", tiny_encoder)
    assert [line.split()[:2] for line in lines] == [line.split()[:2] for line in alone]
    code, _, error = ranked("--first_stage", "bm25")
    assert code == 2
    assert "the kept weight is for the first stage" in error
    code, _, error = ranked("--first_stage", tiny_wide_encoder)
    assert code == 2
    assert "--first_stage is " in error


def test_files_and_bm25_as_first_stages(trained, tmp_path, capsys):
    samples = read_samples(TINY / "test.jsonl")
    rows = [
        ScoredPair(sample.query_id, sample.query, text, float(label))
        for sample in samples
        for text, label in sample.passages()
    ]
    write_records(tmp_path / "first.jsonl", rows)
    command = ["--before", str(trained), "--after", str(trained), "--in_domain", str(TINY / "test.jsonl")]
    command += ["--output_dir", str(tmp_path / "report"), "--mix", "0"]
    assert evaluate.main([*command, "--first_stage", str(tmp_path / "first.jsonl")]) == 0
    means = json.loads((tmp_path / "report" / "report.json").read_text())["files"][0]["means"]
    assert means["first stage"]["MAP"] == means["mixed"]["MAP"] == 1
    assert "The first stage alone, first.jsonl, ranks as well: use it" in capsys.readouterr().out.replace("\\", "")
    assert evaluate.main([*command, "--first_stage", "bm25"]) == 0
    means = json.loads((tmp_path / "report" / "report.json").read_text())["files"][0]["means"]
    assert means["first stage"] == means["mixed"] == means["BM25"]
    capsys.readouterr()
    first = ["--model", str(trained), "--first_stage", "bm25", "--passages", str(TINY / "test.jsonl")]
    assert rank.main(first) == 0
    assert all(line.split()[0] == line.split()[1] for line in capsys.readouterr().out.splitlines()[3:])
