"""Exports of tiny models: they run without torch, rank as before, and broken ones are refused."""

import dataclasses
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rag_core import export, exporting
from rag_core.engines import EngineOptions, load_model
from rag_core.exported_model import load_exported
from rag_core.proof import Proof
from rag_core.significance import Change
from reranker_distillation import evaluate
from tests.conftest import ROOT, TINY, marked_code

pytestmark = [
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
        reason="onnxruntime is not installed (extra export)",
    ),
    pytest.mark.filterwarnings("ignore"),  # what the exporters warn of is not ours to mend
]

PAIRS = [("how are caves made", "melt water carves them"), ("how are caves made", "a cave"), ("ants", "the fence")]
TEXTS = ["how are caves made", *(text for _, text in PAIRS)]
NEEDED = ["onnxruntime", "tokenizers", "numpy"]  # as README says


def run(model, folder, *flags):
    command = ["--model", model, "--output_dir", str(folder), "--dataset", f"{TINY}/test.jsonl", *flags]
    return export.main([*command, "--log_level", "error"])


def example(folder, rows):
    """README's lines, with a folder and rows of ours, and what they compute printed."""
    code = marked_code("README.md", "export example").replace("runs/mine/int8", str(folder))
    code, count = re.subn(r"encode_batch\(.*?\)  #.*", f"encode_batch({rows})", code)
    assert count == 1
    return f"{code}\nimport sys\nassert not {{'torch', 'transformers'}} & sys.modules.keys()\nprint(scores.tolist())"


@pytest.fixture(scope="module")
def exported(tiny_cross_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "fp32"
    assert run(tiny_cross_encoder, folder) == 0
    return folder


@pytest.fixture(scope="module")
def exported_embedder(tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "embedder"
    assert run(tiny_encoder, folder) == 0
    return folder


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """The Python of a new environment that has what an export needs, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    found = subprocess.run([*pip, *NEEDED], capture_output=True, text=True, check=False)
    if found.returncode and re.search("connection broken|ConnectionError|NameResolution|timed out", found.stderr):
        pytest.skip("the package index is out of reach")
    assert found.returncode == 0, found.stderr
    return str(folder / "bin" / "python")


@pytest.fixture
def python(request):
    return sys.executable if request.param == "this environment" else request.getfixturevalue("bare_python")


@pytest.mark.parametrize(
    "python", ["this environment", pytest.param("a new environment", marks=pytest.mark.slow)], indirect=True
)
def test_the_lines_of_the_readme_score_without_torch(
    python, exported, exported_embedder, tiny_cross_encoder, tiny_encoder, tmp_path
):
    def compute(folder, rows):
        command = [python, "-I", "-c", example(folder, rows)]  # -I: nothing of this checkout or of PYTHONPATH
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout)

    source = load_model("sentence-transformers", EngineOptions(tiny_cross_encoder, dtype="float32"), PAIRS)
    scores = compute(exported, PAIRS)
    np.testing.assert_allclose(scores, source.score(PAIRS), rtol=0, atol=1e-5)
    assert np.argsort(scores).tolist() == np.argsort(source.score(PAIRS)).tolist()
    np.testing.assert_allclose(load_exported(exported).score(PAIRS), source.score(PAIRS), rtol=0, atol=1e-5)
    encoder = load_model("sentence-transformers", EngineOptions(tiny_encoder, dtype="float32"), PAIRS)
    vectors = np.array(compute(exported_embedder, TEXTS))
    exact = encoder.encode(TEXTS, "passage")
    np.testing.assert_allclose(vectors, exact, rtol=0, atol=1e-5)
    assert np.argsort(vectors[1:] @ vectors[0]).tolist() == np.argsort(exact[1:] @ exact[0]).tolist()


def test_the_proof_stands_beside_the_graph(exported):
    proof = json.loads((exported / "proof.json").read_text())
    assert proof["kendall_tau"] == pytest.approx(1, abs=0.01)
    assert proof["changes"]["MAP"]["difference"] == 0
    assert {path.name for path in exported.iterdir()} == {
        "model.onnx",
        "tokenizer.json",
        "export.json",
        "proof.json",
        "README.md",
    }
    assert "A graph for onnxruntime in fp32" in (exported / "README.md").read_text()
    assert json.loads((exported / "export.json").read_text())["kind"] == "cross-encoder"
    assert b"site-packages" not in (exported / "model.onnx").read_bytes()  # where torch notes who called what


def test_an_embedder_and_its_prompts(exported_embedder, tiny_encoder):
    source = load_model("sentence-transformers", EngineOptions(tiny_encoder, dtype="float32"), PAIRS)
    texts = ["one text", "another, which is longer than the first"]
    for role in ("query", "passage"):
        found = load_exported(exported_embedder).encode(texts, role)
        np.testing.assert_allclose(found, source.encode(texts, role), rtol=0, atol=1e-5)


@pytest.mark.parametrize("flags", [[], ["--calibration_file", f"{TINY}/train.jsonl"]], ids=["dynamic", "static"])
def test_int8_is_smaller_and_close(flags, exported, tiny_cross_encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(export._LARGEST_DIFFERENCE, "int8", 100)  # random weights tell pairs hardly apart
    out = tmp_path / "int8"
    assert run(tiny_cross_encoder, out, "--precision", "int8", "--max_map_drop", "1", *flags) == 0
    scores, exact = (load_exported(folder).score(PAIRS) for folder in (out, exported))
    assert 0 < np.abs(scores - exact).max() < 0.5 * max(exact.std(), 0.1)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed (extra export)")
def test_openvino(exported, tiny_cross_encoder, tmp_path):
    assert run(tiny_cross_encoder, tmp_path / "ov", "--format", "openvino") == 0
    found = load_exported(tmp_path / "ov").score(PAIRS)
    np.testing.assert_allclose(found, load_exported(exported).score(PAIRS), rtol=0, atol=1e-4)


def test_a_wrong_pooling_is_refused(tiny_encoder, tmp_path, monkeypatch, capsys):
    load = exporting._load

    def broken(model):
        student = load(model)
        student[1].pooling_mode = ("max",) if isinstance(student[1].pooling_mode, tuple) else "max"
        return student

    monkeypatch.setattr(exporting, "_load", broken)
    assert run(tiny_encoder, tmp_path / "out") == 1
    assert re.search("Error: .* of the export differ|Error: the export", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_sigmoid_too_many_is_refused(tiny_cross_encoder, tmp_path, monkeypatch, capsys):
    import torch

    to_onnx = exporting._to_onnx

    class Squashed(torch.nn.Module):
        def forward(self, features):
            features["scores"] = torch.sigmoid(features["scores"])
            return features

    def broken(student, inputs, path):
        student.append(Squashed())
        to_onnx(student, inputs, path)

    monkeypatch.setattr(exporting, "_to_onnx", broken)
    assert run(tiny_cross_encoder, tmp_path / "out") == 1
    assert "scores of the export differ by up to" in capsys.readouterr().err


def test_int8_that_ranks_alike_but_scores_otherwise_is_refused():
    same = Change(difference=0.0, relative=0.0, low=0.0, high=0.0, p_value=1.0)
    proof = Proof(9, 90, 1.0, 0.5, 1.0, {"MAP": same}, {})
    args = export.Args(model="m", output_dir=Path("o"), dataset=Path("d"), precision="int8")
    assert export._fault(proof, args) is None
    worse = dataclasses.replace(proof, largest_difference=5.5)
    expected = "scores of the export differ by up to 5.5 in int8, where the source's have a standard deviation of 1"
    assert export._fault(worse, args) == expected


def test_a_drop_is_refused_and_what_stands_there_stays(exported, tiny_cross_encoder, monkeypatch, capsys):
    before = (exported / "model.onnx").read_bytes()
    samples = [json.loads(line) for line in (TINY / "test.jsonl").read_text().splitlines()]
    negatives = {(sample["query"], text) for sample in samples for text in sample["negative"]}

    class Wrong:
        score_unit, truncated = "logit", None

        def score(self, pairs):
            return np.array([pair in negatives for pair in pairs], dtype=np.float32)

    monkeypatch.setattr("rag_core.proof.load_exported", lambda folder: Wrong())
    assert run(tiny_cross_encoder, exported, "--precision", "int8", "--overwrite", "--max_map_drop", "0") == 1
    assert "Error: the export loses 0." in capsys.readouterr().err
    assert (exported / "model.onnx").read_bytes() == before


def test_what_each_part_costs_is_measured_for_the_remedy(tiny_cross_encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(export._LARGEST_DIFFERENCE, "int8", 0)
    assert run(tiny_cross_encoder, tmp_path / "out", "--precision", "int8", "--max_map_drop", "1") == 1
    said = capsys.readouterr()
    rows = dict(re.findall(r"^\| (\S*) *\| ([0-9.]+) *\|$", said.out, flags=re.MULTILINE))
    assert list(rows) == ["", "attention.self", "attention.output", "intermediate", "output", "layer.0.", "layer.1."]
    least = min(rows, key=lambda part: float(rows[part]))
    assert float(rows[least]) < float(rows[""])
    assert f"Pass --exclude {least}, or --precision fp32." in said.err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(export._LARGEST_DIFFERENCE, "int8", 100)
    advised = ["--precision", "int8", "--max_map_drop", "1", "--exclude", least]
    assert run(tiny_cross_encoder, tmp_path / "out", *advised) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--exclude", "x"], "--calibration_file and --exclude are for int8"),
        (["--max_map_drop", "-1"], "--calibration_pairs must be above 0"),
    ],
)
def test_flags_without_effect(flags, message, tmp_path, capsys):
    assert run("m", tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_of_a_large_model_stand_beside_the_graph(
    precision, exported, tiny_cross_encoder, tmp_path, monkeypatch
):
    monkeypatch.setattr(exporting, "_LARGEST_FILE", 0)
    monkeypatch.setitem(export._LARGEST_DIFFERENCE, "int8", 100)
    out = tmp_path / "out"
    assert run(tiny_cross_encoder, out, "--precision", precision, "--max_map_drop", "1") == 0
    assert {"model.onnx", "model.onnx.data"} <= {path.name for path in out.iterdir()}
    difference = np.abs(load_exported(out).score(PAIRS) - load_exported(exported).score(PAIRS)).max()
    assert difference < (1e-4 if precision == "fp32" else 0.1)


def test_an_export_is_evaluated_like_any_model(exported, tiny_cross_encoder, tmp_path):
    flags = ["--before", tiny_cross_encoder, "--after", str(exported), "--in_domain", f"{TINY}/test.jsonl"]
    assert evaluate.main([*flags, "--output_dir", str(tmp_path), "--dtype", "float32", "--log_level", "error"]) == 0
    means = json.loads((tmp_path / "report.json").read_text())["files"][0]["means"]
    assert means["before"] == means["after"]
