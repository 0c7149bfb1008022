"""Scores that were paid for before the core was rebuilt: today's code takes them as they are."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rag_core.engines.loading import LOADERS
from rag_core.scoring.settings import CHUNK_ROWS
from tests.fixtures.scoring_before import teachers
from tests.fixtures.scoring_before.teachers import SharedWords, Signs

BEFORE = Path(teachers.__file__).parent
MANIFEST = "test_logits.jsonl.manifest.json"
CALLS_OF_THE_CANARY = {SharedWords: 1, Signs: 2}  # queries, passages


@pytest.fixture(params=[SharedWords, Signs])
def kind(request, monkeypatch, tmp_path):
    """Work in a copy of the fixture's folder, where paths are those of then."""
    shutil.copytree(BEFORE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(CHUNK_ROWS, teachers.ENGINE, teachers.CHUNK_ROWS)
    return request.param


@pytest.fixture
def score(kind, monkeypatch):
    """Run the stage into a folder beside that of the model; return what was loaded."""

    def run(folder, *flags):
        loaded = []
        monkeypatch.setitem(LOADERS, teachers.ENGINE, lambda *_: loaded.append(kind()) or loaded[-1])
        command = teachers.command(kind, str(Path(kind.folder).with_name(folder)))
        assert importlib.import_module(kind.stage).main([*command, *flags]) == 0
        return loaded

    return run


def recipe_of(manifest):
    return json.dumps(json.loads(manifest.read_text())["recipe"])


def test_a_finished_output_is_finished(kind, score, capsys):
    folder = Path(kind.folder).with_name("finished")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert score("finished") == []
    assert f"{folder}/test_logits.jsonl is finished already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_unfinished_work_goes_on_where_it_stopped(kind, score):
    finished, unfinished = (Path(kind.folder).with_name(name) for name in ("finished", "unfinished"))
    partial = unfinished / "test_logits.jsonl.partial"
    kept = sum(len(np.load(chunk)) for chunk in partial.glob("*.npy"))
    (teacher,) = score("unfinished")
    scored = [row for call in teacher.calls[CALLS_OF_THE_CANARY[kind] :] for row in call]
    rows = 24 if kind is SharedWords else 6 + 24  # pairs; queries and passages
    assert 0 < kept < rows
    assert len(scored) == len(set(scored)) == rows - kept
    assert not partial.exists()
    assert recipe_of(unfinished / MANIFEST) == recipe_of(finished / MANIFEST)
    assert (unfinished / "test_logits.jsonl").read_bytes() == (finished / "test_logits.jsonl").read_bytes()


def test_the_recipe_is_the_same_to_the_byte(kind, score):
    score("again")
    finished, again = (Path(kind.folder).with_name(name) for name in ("finished", "again"))
    assert recipe_of(again / MANIFEST) == recipe_of(finished / MANIFEST)
    assert (again / "test_logits.jsonl").read_bytes() == (finished / "test_logits.jsonl").read_bytes()
