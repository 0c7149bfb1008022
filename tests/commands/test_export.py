"""Exports of tiny models: they run without torch, rank as before, and broken ones are refused."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rag_core import export
from rag_core.engines.exported_engine import load_exported
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions
from rag_core.release import graph, proof
from reranker_distillation import evaluate
from tests.conftest import ROOT, TINY, marked_code
from tests.exports import MARKS, PAIRS, TEXTS, error_of

pytestmark = MARKS

NEEDED = ["onnxruntime", "tokenizers", "numpy"]  # as docs/EXPORT.md says


def run(model, folder, *flags):
    command = ["--model", model, "--output_dir", str(folder), "--dataset", f"{TINY}/test.jsonl", *flags]
    return export.main([*command, "--log_level", "error"])


def example(folder, rows):
    """The lines of docs/EXPORT.md, with a folder and rows of ours, and what they compute printed."""
    code = marked_code("docs/EXPORT.md", "export example").replace("runs/mine/int8", str(folder))
    code, count = re.subn(r"encode_batch\(.*?\)  #.*", f"encode_batch({rows})", code)
    assert count == 1
    return f"{code}\nimport sys\nassert not {{'torch', 'transformers'}} & sys.modules.keys()\nprint(scores.tolist())"


@pytest.fixture(scope="module")
def exported(sharp_cross_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "fp32"
    assert run(sharp_cross_encoder, folder) == 0
    return folder


@pytest.fixture(scope="module")
def exported_embedder(tiny_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "embedder"
    assert run(tiny_encoder, folder) == 0
    return folder


@pytest.fixture(scope="module")
def traced():
    """Graphs in fp32, by the name of their model."""
    return {}


@pytest.fixture
def one_graph(traced, monkeypatch):
    """Trace a model once for all tests that ask for this: it takes ten seconds, whatever the flags."""
    to_onnx = graph._to_onnx

    def once(student, inputs, path, name):
        if name not in traced:
            to_onnx(student, inputs, path, name)
            traced[name] = path.read_bytes()
        path.write_bytes(traced[name])

    monkeypatch.setattr(graph, "_to_onnx", once)


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
def test_the_lines_of_the_page_score_without_torch(
    python, exported, exported_embedder, sharp_cross_encoder, tiny_encoder, tmp_path
):
    def compute(folder, rows):
        command = [python, "-I", "-c", example(folder, rows)]  # -I: nothing of this checkout or of PYTHONPATH
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout)

    source = load_model(
        "sentence-transformers", EngineOptions(describe_model(sharp_cross_encoder), dtype="float32"), PAIRS
    )
    scores = compute(exported, PAIRS)
    np.testing.assert_allclose(scores, source.score(PAIRS), rtol=0, atol=1e-5)
    assert np.argsort(scores).tolist() == np.argsort(source.score(PAIRS)).tolist()
    np.testing.assert_allclose(load_exported(exported).score(PAIRS), source.score(PAIRS), rtol=0, atol=1e-5)
    encoder = load_model("sentence-transformers", EngineOptions(describe_model(tiny_encoder), dtype="float32"), PAIRS)
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


def operators(folder):
    import onnx

    return {node.op_type for node in onnx.load(folder / "model.onnx", load_external_data=False).graph.node}


def size(folder):
    return sum(path.stat().st_size for path in folder.glob("model.*"))


STATIC = ["--calibration_file", f"{TINY}/train.jsonl"]


@pytest.mark.usefixtures("one_graph")
@pytest.mark.parametrize(
    ("flags", "quantised"), [([], "DynamicQuantizeLinear"), (STATIC, "QuantizeLinear")], ids=["dynamic", "static"]
)
def test_int8_is_smaller_and_close(flags, quantised, exported, sharp_cross_encoder, tmp_path):
    out = tmp_path / "int8"
    assert run(sharp_cross_encoder, out, "--precision", "int8", "--max_map_drop", "1", *flags) == 0
    assert 0 < error_of(out, exported) < 0.5  # of zeros it is 1 and more
    assert size(out) < 0.9 * size(exported)
    assert operators(out) & {"DynamicQuantizeLinear", "QuantizeLinear"} == {quantised}


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed (extra export)")
@pytest.mark.usefixtures("one_graph")
@pytest.mark.parametrize(
    ("flags", "way", "most"),
    [
        ([], None, 1e-4),
        (["--precision", "int8"], "weights", 0.5),
        (["--precision", "int8", *STATIC], "static", 0.5),
    ],
)
def test_openvino(flags, way, most, exported, sharp_cross_encoder, tmp_path, capfd):
    assert run(sharp_cross_encoder, tmp_path / "ov", "--format", "openvino", "--max_map_drop", "1", *flags) == 0
    assert error_of(tmp_path / "ov", exported) < most
    assert json.loads((tmp_path / "ov" / "export.json").read_text())["quantisation"] == way
    assert {line[:1] for line in capfd.readouterr().out.splitlines()[:-1]} == {
        "|"
    }  # nothing but the table, and the path


def test_a_wrong_pooling_is_refused(tiny_encoder, tmp_path, monkeypatch, capsys):
    load = graph._load

    def broken(model):
        student = load(model)
        student[1].pooling_mode = ("max",) if isinstance(student[1].pooling_mode, tuple) else "max"
        return student

    monkeypatch.setattr(graph, "_load", broken)
    assert run(tiny_encoder, tmp_path / "out") == 1
    assert re.search("Error: .* of the export differ|Error: the export", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_sigmoid_too_many_is_refused(tiny_cross_encoder, tmp_path, monkeypatch, capsys):
    import torch

    to_onnx = graph._to_onnx

    class Squashed(torch.nn.Module):
        def forward(self, features):
            features["scores"] = torch.sigmoid(features["scores"])
            return features

    def broken(student, *further):
        student.append(Squashed())
        to_onnx(student, *further)

    monkeypatch.setattr(graph, "_to_onnx", broken)
    assert run(tiny_cross_encoder, tmp_path / "out") == 1
    assert "scores of the export differ by up to" in capsys.readouterr().err


@pytest.mark.usefixtures("one_graph")
def test_a_drop_is_refused_and_what_stands_there_stays(exported, sharp_cross_encoder, monkeypatch, capsys):
    before = (exported / "model.onnx").read_bytes()
    samples = [json.loads(line) for line in (TINY / "test.jsonl").read_text().splitlines()]
    negatives = {(sample["query"], text) for sample in samples for text in sample["negative"]}

    class Wrong:
        score_unit, truncated = "logit", None

        def score(self, pairs):
            return np.array([pair in negatives for pair in pairs], dtype=np.float32)

    monkeypatch.setattr(proof, "load_exported", lambda folder, max_length: Wrong())
    assert run(sharp_cross_encoder, exported, "--precision", "int8", "--overwrite", "--max_map_drop", "0") == 1
    assert "Error: the export loses 0." in capsys.readouterr().err
    assert (exported / "model.onnx").read_bytes() == before


@pytest.mark.usefixtures("one_graph")
def test_what_each_part_costs_is_measured_for_the_remedy(tiny_cross_encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(proof._LARGEST_DIFFERENCE, "int8", 0)
    assert run(tiny_cross_encoder, tmp_path / "out", "--precision", "int8", "--max_map_drop", "1") == 1
    said = capsys.readouterr()
    rows = dict(re.findall(r"^\| (\S*) *\| ([0-9.]+) *\|$", said.out, flags=re.MULTILINE))
    kinds = ["attention.self", "attention.output", "intermediate", "output"]
    assert list(rows) == ["", *(f"layer.*.{kind}" for kind in kinds), "layer.0", "layer.1"]
    least = min(rows, key=lambda part: float(rows[part]))
    assert float(rows[least]) < float(rows[""])
    assert f"Pass --exclude {shlex.quote(least)}, or --precision fp32." in said.err
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(proof._LARGEST_DIFFERENCE, "int8", 100)
    advised = ["--precision", "int8", "--max_map_drop", "1", "--exclude", least]
    assert run(tiny_cross_encoder, tmp_path / "out", *advised) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--exclude", "x"], "--calibration_file and --exclude are for int8"),
        (
            ["--max_map_drop", "-1"],
            "Pass --calibration_pairs 1 or more, and --max_map_drop 0 or more.",
        ),
    ],
)
def test_flags_without_effect(flags, message, tmp_path, capsys):
    assert run("m", tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err


def test_an_export_is_evaluated_like_any_model(exported, sharp_cross_encoder, tmp_path):
    flags = ["--before", sharp_cross_encoder, "--after", str(exported), "--in_domain", f"{TINY}/test.jsonl"]
    assert evaluate.main([*flags, "--output_dir", str(tmp_path), "--dtype", "float32", "--log_level", "error"]) == 0
    means = json.loads((tmp_path / "report.json").read_text())["files"][0]["means"]
    assert means["before"] == means["after"]


@pytest.mark.usefixtures("one_graph")
def test_an_excluded_part_that_is_nowhere_is_named(sharp_cross_encoder, tmp_path, capsys):
    flags = ["--precision", "int8", "--max_map_drop", "1", "--exclude"]
    assert run(sharp_cross_encoder, tmp_path / "out", *flags, "layer.0", "layer.9") == 2
    error = capsys.readouterr().err
    assert "--exclude layer.9 matches no matrix product. Pass parts of their paths: layer.*.attention.self, " in error
    assert run(sharp_cross_encoder, tmp_path / "out", *flags, "layer.0") == 0  # the attempt before is not in the way
    assert json.loads((tmp_path / "out" / "export.json").read_text())["left_in_fp32"] == ["layer.0"]


def test_where_nothing_is_ranked_nothing_is_exported(sharp_cross_encoder, tmp_path, capsys):
    rows = tmp_path / "one.jsonl"
    rows.write_text('{"query": "how are caves made", "candidates": ["a cave"]}\n')
    assert run(sharp_cross_encoder, tmp_path / "out", "--dataset", str(rows)) == 1
    assert capsys.readouterr().err == (
        f"Error: {rows}: has no query with two candidates, so nothing is ranked. "
        "Pass a --dataset with two or more candidates per query.\n"
    )


def test_the_card_is_that_of_the_graph(tiny_encoder, tmp_path):
    source = Path(shutil.copytree(tiny_encoder, tmp_path / "model"))
    (source / "README.md").write_text(
        "---\nlibrary_name: sentence-transformers\n---\n\n# model\n\n"
        "```python\nfrom sentence_transformers import SentenceTransformer\n```\n\nIt ranks.\n"
    )
    (source / "calibration.json").write_text('{"folded": false, "slope": 12.5, "intercept": -3}')
    assert run(str(source), tmp_path / "graph") == 0
    card = (tmp_path / "graph" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: onnxruntime\n---\n\n# graph\n\nIt ranks.\n")
    assert "python -m rag_core.rank --model graph" in card
    assert "`1 / (1 + exp(-(12.5 * cosine + -3)))`" in card
    assert (tmp_path / "graph" / "calibration.json").read_text() == (source / "calibration.json").read_text()
