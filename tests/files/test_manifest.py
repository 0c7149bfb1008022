import dataclasses
import json
from pathlib import Path

import pytest

from rag_core.base.errors import DataError, StaleError, UsageError
from rag_core.base.records import Triplet
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import (
    Recipe,
    check_inputs,
    check_output_folder,
    is_made,
    manifest_path,
    read_manifest,
    write_manifest,
)

RECIPE = Recipe(stage="s", flags={"top_k": 8}, inputs={"a.jsonl": "00"}, model={"name": "m", "sha256": "11"})


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "out.jsonl"
    write_records(path, [Triplet("1", "q", "p", "n", 0.5)])
    write_manifest(path, RECIPE, rows=1)
    return path


def test_a_manifest_says_what_made_the_file(made):
    content = read_manifest(made)
    assert content.recipe == json.loads(json.dumps(dataclasses.asdict(RECIPE)))
    assert content.rows == 1
    assert len(content.output["sha256"]) == 64
    assert {"torch", "transformers", "numpy"} <= set(content.facts["packages"])
    assert content.command.startswith("python -m ")


def test_a_finished_output_is_recognised(made, tmp_path):
    assert is_made(made, RECIPE)
    assert is_made(made, dataclasses.replace(RECIPE, inputs={"moved/a.jsonl": "00"}))
    assert not is_made(tmp_path / "other.jsonl", RECIPE)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"flags": {"top_k": 4}}, "--top_k (was 8, is 4)"),
        ({"flags": {"top_k": 8, "seed": 1}}, "--seed (was None, is 1)"),
        ({"inputs": {"a.jsonl": "ff"}}, "the content of the input"),
        ({"model": {"name": "m", "sha256": "22"}}, "model sha256 (was '11', is '22')"),
        ({"stage": "t"}, "stage (was 's', is 't')"),
    ],
)
def test_an_output_of_other_settings_is_named(made, change, what):
    with pytest.raises(StaleError) as error:
        is_made(made, dataclasses.replace(RECIPE, **change))
    assert str(error.value) == (
        f"{made}: exists already, made with other settings: {what}. "
        "Pass --overwrite to replace it, or choose another output."
    )


def test_an_output_that_was_edited_or_has_no_manifest(made):
    made.write_text(made.read_text() + "\n")
    with pytest.raises(StaleError, match="has changed since its manifest was written"):
        is_made(made, RECIPE)
    with pytest.raises(StaleError, match=r"Make it again \(python -m .* --overwrite\), or delete out.jsonl.manifest"):
        check_inputs([made])
    manifest_path(made).unlink()
    assert list(check_inputs([made])) == [str(made)]  # a file from elsewhere is taken
    with pytest.raises(StaleError, match="no manifest tells what made it"):
        is_made(made, RECIPE)


@pytest.mark.parametrize(("folder", "how"), [("in/model", "is"), ("in", "holds"), ("in/model/further", "lies in")])
def test_an_output_folder_is_no_input(tmp_path, monkeypatch, folder, how):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "model").mkdir(parents=True)
    with pytest.raises(UsageError, match=f"^--output_dir {folder} {how} {tmp_path}/in/model, which is read"):
        check_output_folder(Path(folder), ["in/model", "org/name"])
    with pytest.raises(UsageError, match=r"^--output_dir \. is where the command runs"):
        check_output_folder(Path(), [])


def test_only_a_folder_that_a_stage_made_is_replaced(tmp_path):
    folder = tmp_path / "model"
    check_output_folder(folder, [])
    folder.mkdir()
    check_output_folder(folder, [])
    assert not is_made(folder, RECIPE)
    (folder / "weights").write_text("1234")
    with pytest.raises(StaleError, match="no manifest tells that a stage made it"):
        check_output_folder(folder, [])
    write_manifest(folder, RECIPE)
    check_output_folder(folder, [])
    (folder / "README.md").write_text("a card may be written later")
    assert is_made(folder, RECIPE)
    (folder / "weights").unlink()
    with pytest.raises(StaleError, match="has changed since its manifest was written"):
        is_made(folder, RECIPE)


@pytest.mark.parametrize("content", ["{", "[]", '{"recipe": 1}'])
def test_a_manifest_that_is_none(made, content):
    manifest_path(made).write_text(content)
    with pytest.raises(DataError, match="Delete it to use its file without a manifest"):
        check_inputs([made])
