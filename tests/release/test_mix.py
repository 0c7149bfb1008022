"""What is kept of a mix: only in folders of ours, told apart by the first stage, and refused where it is damaged."""

import json

import numpy as np
import pytest

from rag_core import rank
from rag_core.base.errors import DataError, UsageError
from rag_core.engines.model_files import content_hash
from rag_core.files.manifest import Recipe, is_made, write_manifest
from rag_core.release.mix import FirstStage, Mix, markdown, read_mix, write_mix
from rag_core.retrieval.analyser import PLAIN
from rag_core.retrieval.fusion import standardise
from tests.conftest import TINY, marked_code, write_model

MIX = Mix(0.3, FirstStage.model({"name": "/somewhere/bge-m3", "sha256": "ab"}), "dev.jsonl")


@pytest.fixture
def ours(tmp_path):
    folder = tmp_path / "model"
    write_model(folder)
    (tmp_path / "model.manifest.json").write_text('{"recipe": {"stage": "x"}}')
    return folder


def test_what_is_written_is_read_and_changes_no_identity(ours):
    before = content_hash(ours)
    assert write_mix(ours, MIX)
    assert read_mix(ours) == MIX
    assert content_hash(ours) == before
    card = markdown(MIX, "m")
    assert "python -m rag_core.rank --model m --first_stage bge-m3 --query" in card
    assert "Reorders what `bge-m3` ranks. The mixed score of a passage is 0.7 times the first stage's score" in card
    assert "/somewhere" not in card + (ours / "mix.json").read_text()  # `push` sends no path of this machine
    write_mix(ours, Mix(1.0, FirstStage.bm25(PLAIN)))
    assert read_mix(ours).first_stage.analyser == PLAIN


def test_the_folder_of_others_stays_as_it_is(tmp_path):
    write_model(tmp_path / "theirs")
    assert not write_mix(tmp_path / "theirs", MIX)
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["config.json"]


def test_another_first_stage_is_refused():
    MIX.check_first_stage(FirstStage.model({"name": "elsewhere/copy", "sha256": "ab"}))
    with pytest.raises(UsageError, match=r"is for the first stage bge-m3, and --first_stage is another version of it"):
        MIX.check_first_stage(FirstStage.model({"name": "bge-m3", "sha256": "cd"}))
    with pytest.raises(UsageError, match=r"--first_stage is BM25. Pass --first_stage bge-m3, or run evaluate"):
        MIX.check_first_stage(FirstStage.bm25(PLAIN))
    with pytest.raises(UsageError, match=r"first stage BM25, and --first_stage is hub. Pass --first_stage bm25"):
        Mix(0.5, FirstStage.bm25(PLAIN)).check_first_stage(FirstStage.model({"name": "hub", "revision": "1"}))
    of_files = Mix(0.5, FirstStage.model({"name": "first.jsonl", "sha256": 5}))
    with pytest.raises(UsageError, match=r"--first_stage is BM25. Run evaluate with this one and --mix auto"):
        of_files.check_first_stage(FirstStage.bm25(PLAIN))
    assert "rag_core.rank" not in markdown(of_files, "m")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no weight of a mix is kept there"),
        ("{", "is not what evaluate keeps (Invalid JSON"),
        ('{"weight": 2.0, "first_stage": {"name": "a"}}', "weight: Input should be less than or equal to 1"),
        ('{"weight": NaN, "first_stage": {"name": "a"}}', "is not what evaluate keeps"),
        ('{"weight": 0.5}', "first_stage: Field required"),
        ('{"weight": 0.5, "first_stage": {"name": "a", "analyser": {"bm25_stemmer": "klingon"}}}', "bm25_stemmer"),
    ],
)
def test_what_is_no_mix_is_told_before_any_model_is_read(content, reason, tmp_path, capsys):
    if content is not None:
        (tmp_path / "mix.json").write_text(content)
    command = ["--model", str(tmp_path), "--first_stage", "bm25", "--passages", str(TINY / "test.jsonl")]
    assert rank.main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {tmp_path / 'mix.json'}: ")
    assert reason in error
    assert error.endswith("Run evaluate with --first_stage and --mix auto to make it.\n")
    with pytest.raises(DataError):
        read_mix(tmp_path)


def test_the_lines_of_the_documentation_mix_as_we_do(tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "model" / "mix.json").write_text(json.dumps({"weight": 0.25}))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(marked_code("docs/SERVING.md", "mix"), names)
    expected = 0.75 * standardise(names["first_stage"]) + 0.25 * standardise(names["reranker"])
    assert names["mixed"] == pytest.approx(expected)
    assert names["order"].tolist() == np.argsort(-expected).tolist()


def test_a_finished_folder_stays_finished(ours):
    recipe = Recipe("x", {}, {})
    write_mix(ours, MIX)
    write_manifest(ours, recipe)
    write_mix(ours, Mix(1.0, FirstStage.bm25(PLAIN)))
    assert is_made(ours, recipe)
