"""The stage with tiny models: what is in the folder, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rag_core import calibrate
from rag_core.base.records import ScoredPair
from rag_core.files.jsonl import read_samples, write_records
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.release.calibration import Scaling, sigmoid
from tests.conftest import TINY


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
    assert "on the held-out pairs, the pass rates of old and new cut-offs differ by at most" in output.err
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
            "there are no labels to fit to (the teacher's scores are cosine, not probabilities). Pass --input_files ",
        ),
        (None, [], "or --target teacher if the scores are the log-odds of relevance."),
        ("cosine", ["--target", "teacher"], "scores are cosines, not probabilities. Pass --target labels."),
        ("log-odds", ["--target", "labels"], "there are no labels to fit to"),
        ("log-odds", ["--cut_offs", "1"], "--cut_offs need the scores of the old model. Pass --old_scores, too."),
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
