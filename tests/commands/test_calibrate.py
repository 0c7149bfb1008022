"""Probabilities and carried-over cut-offs: on scores whose truth is known, and through the stage with tiny models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rag_core import calibrate
from rag_core.base.errors import DataError
from rag_core.base.records import ScoredPair
from rag_core.files.jsonl import read_samples, write_records
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.release.calibration import (
    Scaling,
    expected_calibration_error,
    fit,
    is_held_out,
    reliability,
    sigmoid,
    uncalibrated,
)
from rag_core.release.cut_offs import default_cut_offs, largest_difference, map_cut_offs
from rag_core.release.model_card import write_section
from tests.conftest import TINY


def miscalibrated(count, seed=0):
    """Scores four times too sure of themselves and too high, and labels drawn by the probabilities they stand for."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-1, 1.5, count)
    labels = (generator.random(count) < sigmoid(logits)).astype(float)
    return 4 * logits + 3, labels


def test_the_error_by_hand():
    probabilities, targets = np.array([0.01, 0.03, 0.99, 1.0]), np.array([0, 1, 1, 1])
    assert reliability(probabilities, targets) == [
        {"pairs": 2, "probability": pytest.approx(0.02), "target": 0.5},
        {"pairs": 2, "probability": pytest.approx(0.995), "target": 1.0},
    ]
    assert expected_calibration_error(probabilities, targets) == pytest.approx((0.48 + 0.005) / 2)


def test_the_error_falls_on_scores_not_fitted_on_and_is_that_of_chance_where_nothing_is_wrong():
    scaling = fit(*miscalibrated(20_000), "platt")
    assert (scaling.slope, scaling.intercept) == (pytest.approx(0.25, rel=0.04), pytest.approx(-0.75, abs=0.06))
    scores, labels = miscalibrated(20_000, seed=1)
    assert expected_calibration_error(uncalibrated(scores, "logit"), labels) > 0.1
    assert expected_calibration_error(scaling(scores), labels) < 0.02
    right = (scores - 3) / 4
    assert expected_calibration_error(uncalibrated(right, "logit"), labels) < 0.02  # what is right before stays so


def test_the_fit_is_that_of_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    scores, labels = miscalibrated(5000)
    found = LogisticRegression(C=np.inf, tol=1e-10).fit(scores[:, None], labels)
    scaling = fit(scores, labels, "platt")
    assert (scaling.slope, scaling.intercept) == (
        pytest.approx(found.coef_.item(), rel=1e-2),  # Platt's targets are not quite 0 and 1
        pytest.approx(found.intercept_.item(), rel=1e-2),
    )


def test_soft_targets_are_met_exactly_and_a_temperature_has_no_offset():
    scores = np.linspace(-5, 5, 101)
    scaling = fit(scores, sigmoid(0.3 * scores - 1), "platt")
    assert (scaling.slope, scaling.intercept) == (pytest.approx(0.3, rel=1e-4), pytest.approx(-1, rel=1e-4))
    temperature = fit(scores, sigmoid(0.3 * scores), "temperature")
    assert (temperature.slope, temperature.intercept) == (pytest.approx(0.3, rel=1e-4), 0)


def test_labels_that_scores_divide_without_error_ask_for_no_infinite_slope():
    scaling = fit(np.arange(10.0), (np.arange(10) > 4).astype(float), "platt")
    assert 0 < scaling.slope < 10
    with pytest.raises(DataError, match="higher scores do not stand for higher probabilities"):
        fit(-np.arange(10.0), (np.arange(10) > 4).astype(float), "platt")
    with pytest.raises(DataError, match="the scores of the pairs to fit on are all the same"):
        fit(np.ones(4), np.array([0.0, 1, 0, 1]), "platt")


def test_cut_offs_by_hand():
    old, new = np.array([4.0, 3, 2, 1] * 2), np.array([0.4, 0.3, 0.2, 0.1, 0.35, 0.1, 0.2, 0.3])
    held_out = np.arange(8) > 3
    labels = np.array([1.0, 0, 1, 0] * 2)
    two, nothing = map_cut_offs([3, 9], old, new, held_out, labels)
    assert (two.pass_rate, two.pass_rate_old, two.pass_rate_new) == (pytest.approx(0.25), 0.5, 0.5)
    assert two.precision == pytest.approx(0.1)
    assert (two.precision_old, two.precision_new) == (0.5, 0.5)
    assert (nothing.pass_rate_old, nothing.pass_rate_new, nothing.precision) == (0, 0, None)
    assert map_cut_offs([3], old, new, held_out, None)[0].precision_old is None
    unknown = np.append(labels, [np.nan] * 2)  # pairs without a label count for pass rates only
    more = map_cut_offs(
        [3], np.append(old, [9, 9]), np.append(new, [9, 9]), np.append(held_out, [True, False]), unknown
    )
    assert (more[0].precision_old, more[0].pass_rate_old) == (0.5, 0.6)


def test_pass_rates_hold_within_two_points_on_other_pairs():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=20_000)
    old = truth + 0.5 * generator.normal(size=20_000)
    new = np.exp(truth + 0.5 * generator.normal(size=20_000))  # another scale, and noise of its own
    held_out = np.arange(20_000) % 2 == 1
    labels = (generator.random(20_000) < sigmoid(2 * truth - 1)).astype(float)
    mapped = map_cut_offs(default_cut_offs(old[~held_out]), old, new, held_out, labels)
    assert len(mapped) == 9
    assert 0 < largest_difference(mapped) < 0.02
    assert all(abs(row.precision_new - row.precision_old) < 0.05 for row in mapped[2:])
    unchanged = [abs((new[held_out] >= row.old).mean() - row.pass_rate_old) for row in mapped]
    assert max(unchanged) > 0.2  # a cut-off that is left as it is means something else


@pytest.fixture
def scored(tmp_path):
    """Return a function that writes data/tiny's pairs with scores (and labels) of one's own."""
    samples = [sample for name in ("train", "test") for sample in read_samples(TINY / f"{name}.jsonl")]
    pairs = [(f"{number}", s.query, text) for number, s in enumerate(samples) for text, _ in s.passages()]

    def write(name, score, *, unit=None, label=lambda query, text: None, only=slice(None)):
        path = tmp_path / name
        write_records(path, [ScoredPair(i, q, t, float(score(q, t)), label(q, t)) for i, q, t in pairs[only]])
        if unit:
            write_manifest(path, Recipe(stage="test", flags={}, inputs={}), score_unit=unit)
        return str(path)

    return write


def raw_scores(model):
    """Return a function of query and text: the cross-encoder's score before any sigmoid."""
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    encoder = CrossEncoder(model)
    return lambda query, text: encoder.predict([(query, text)], activation_fn=Identity(), show_progress_bar=False)[0]


def content(folder):
    return json.loads((folder / "calibration.json").read_text())


def test_the_calibrated_folder_predicts_probabilities(tiny_cross_encoder, scored, tmp_path, capsys):
    from sentence_transformers import CrossEncoder

    score = raw_scores(tiny_cross_encoder)
    pairs = scored("pairs.jsonl", lambda q, t: 30 * score(q, t) - 2, unit="log-odds")
    old = scored("old.jsonl", lambda q, t: 100 * score(q, t))
    folder = tmp_path / "calibrated"
    command = ["--model", tiny_cross_encoder, "--input_files", pairs, "--old_scores", old, "--output_dir", str(folder)]
    command += ["--dtype", "float32"]
    assert calibrate.main(command) == 0
    output = capsys.readouterr()
    assert "fitted to the teacher's probabilities" in output.err
    assert "points at most, on pairs that were not fitted on" in output.err
    found = content(folder)
    assert (found["slope"], found["intercept"]) == (pytest.approx(30, rel=0.01), pytest.approx(-2, abs=0.05))
    assert found["errors"]["teacher"]["after"] < 0.01 < found["errors"]["teacher"]["before"]
    for row in found["thresholds"]:
        assert row["pass_rate_new"] == pytest.approx(row["pass_rate_old"], abs=0.1)  # of some fifty pairs
        assert row["probability"] == pytest.approx(sigmoid(row["pass_rate"]))
    model = CrossEncoder(str(folder))
    texts = [("what is a list", "a list is a sequence"), ("a", "b"), ("sort", "sort a list in place")]
    expected = Scaling(found["slope"], found["intercept"])([score(*pair) for pair in texts])
    assert model.predict(texts, show_progress_bar=False) == pytest.approx(expected, abs=1e-5)
    assert (folder / "reliability.svg").read_text().startswith("<svg ")
    assert not folder.with_name("calibrated.partial").exists()
    assert calibrate.main(command) == 0
    assert "is finished already" in capsys.readouterr().err
    assert calibrate.main([*command, "--overwrite"]) == 0
    card = (folder / "README.md").read_text()
    assert card.count("## Calibration") == 1
    assert found["held_out"]["queries"] + found["fitted_on"]["queries"] == len(
        {json.loads(line)["query"] for line in Path(pairs).read_text().splitlines()}
    )


def test_an_embedder_stays_as_it_is_and_has_the_figures_beside_it(tiny_encoder, scored, tmp_path):
    model, folder = tmp_path / "model", tmp_path / "calibrated"
    shutil.copytree(tiny_encoder, model)
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(tiny_encoder)

    def cosine(query, text):
        return encoder.similarity(encoder.encode_query(query), encoder.encode_document(text)).item()

    middle = np.median([cosine(s.query, text) for s in read_samples(TINY / "train.jsonl") for text, _ in s.passages()])
    pairs = scored("pairs.jsonl", cosine, unit="cosine", label=lambda q, t: int(cosine(q, t) > middle))
    assert calibrate.main(["--model", str(model), "--input_files", pairs, "--output_dir", str(folder)]) == 0
    found = content(folder)
    assert (found["target"], found["folded"], found["thresholds"]) == ("labels", False, [])
    assert found["errors"]["labels"]["after"] < found["errors"]["labels"]["before"]
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert "A cosine has no layer that could hold it" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("unit", "flags", "message"),
    [
        (
            "cosine",
            [],
            "there are no labels to fit to (the teacher's scores are cosine, no probabilities). Pass files ",
        ),
        (None, [], "or --target teacher where the scores are the log-odds of relevance."),
        ("cosine", ["--target", "teacher"], "scores are cosines, which are no probabilities. Pass --target labels."),
        ("log-odds", ["--target", "labels"], "there are no labels to fit to"),
        ("log-odds", ["--cut_offs", "1"], "its scores are not given. Pass --old_scores."),
        ("log-odds", ["--output_dir", "no/model"], "no/model, which is read. Name a folder of its own"),
    ],
)
def test_errors_come_before_any_model(unit, flags, message, scored, tmp_path, capsys):
    pairs = scored("pairs.jsonl", lambda q, t: len(t), unit=unit)
    command = ["--model", "no/model", "--input_files", pairs, "--output_dir", str(tmp_path / "out"), *flags]
    assert calibrate.main(command) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_old_scores_must_be_of_the_same_pairs(scored, tmp_path, capsys):
    pairs = scored("pairs.jsonl", lambda q, t: len(t), unit="log-odds")
    old = scored("old.jsonl", lambda q, t: len(t), only=slice(1, None))
    command = [
        "--model",
        "no/model",
        "--input_files",
        pairs,
        "--old_scores",
        old,
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert calibrate.main(command) == 1
    assert f"Error: {old}: has no score for query" in capsys.readouterr().err


def test_a_section_is_replaced_and_what_is_around_it_stays(tmp_path):
    (tmp_path / "README.md").write_text("# mine\n\nmy own words\n")
    write_section(tmp_path, "figures", "first")
    with (tmp_path / "README.md").open("a") as file:
        file.write("\nmore of mine\n")
    write_section(tmp_path, "figures", r"second \1")
    write_section(tmp_path, "others", "third")
    assert (tmp_path / "README.md").read_text() == (
        "# mine\n\nmy own words\n\n<!-- figures: begin -->\nsecond \\1\n<!-- figures: end -->\n\nmore of mine\n"
        "\n<!-- others: begin -->\nthird\n<!-- others: end -->\n"
    )


def test_the_same_query_is_always_in_the_same_half():
    halves = [is_held_out(f"query {number}") for number in range(1000)]
    assert 400 < sum(halves) < 600
    assert halves == [is_held_out(f"query {number}") for number in range(1000)]
