"""Whose unfinished work a folder has, and what takes its place."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from embedding_distillation import generate_scores
from rag_core import merge_scores, prepare
from rag_core.base.errors import StaleError, UsageError
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.files.atomic import exchange
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import Recipe, check_output_folder, manifest_path, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished, save_together, save_whole
from reranker_distillation import create_triplets

RECIPE = Recipe(stage="s", flags={"dtype": "float32"}, inputs={"a.jsonl": "00"}, model={"name": "m"})


def work_on(tmp_path, recipe=RECIPE, overwrite=False):
    return UnfinishedWork(tmp_path / "out.jsonl", recipe, overwrite=overwrite)


def test_unfinished_work_of_other_settings_stands_in_the_way_until_overwrite(tmp_path):
    with work_on(tmp_path) as work:
        (work.directory / "kept").touch()
    other = Recipe(stage="s", flags={"dtype": "bfloat16"}, inputs={"a.jsonl": "01"}, model={"name": "m"})
    with pytest.raises(StaleError) as error, work_on(tmp_path, other):
        pass
    assert str(error.value) == (
        f"{tmp_path / 'out.jsonl.partial'}: holds unfinished work made with other settings: "
        "--dtype (was 'float32', is 'bfloat16'); the content of the input. "
        "Use the former settings to go on, or pass --overwrite to start afresh."
    )
    with work_on(tmp_path, overwrite=True) as work:
        assert (work.directory / "kept").exists()  # the same recipe: nothing to gain from starting afresh
    with work_on(tmp_path, other, overwrite=True) as work:
        assert not (work.directory / "kept").exists()
        assert json.loads((work.directory / "recipe.json").read_text())["flags"] == {"dtype": "bfloat16"}


def test_what_else_stands_against_going_on(tmp_path):
    def work(overwrite=False):
        return UnfinishedWork(tmp_path / "out", RECIPE, overwrite=overwrite, conflicts=["the moon (was full, is new)"])

    with work() as begun:  # there is nothing to go on with
        (begun.directory / "kept").touch()
    with pytest.raises(StaleError) as error, work():
        pass
    assert str(error.value) == (
        f"{tmp_path / 'out.partial'}: holds unfinished work made with other settings: the moon (was full, is new). "
        "Use the former settings to go on, or pass --overwrite to start afresh."
    )
    with work(overwrite=True) as afresh:
        assert not (afresh.directory / "kept").exists()


def test_what_is_kept_by_its_texts_goes_on_with_another_input(tmp_path):
    flags = {"dtype": "float32", "skip_bad_rows": False}
    first = Recipe(stage="s", flags=flags, inputs={"a.jsonl": "00"}, model={"name": "m"})
    mended = Recipe(stage="s", flags=flags | {"skip_bad_rows": True}, inputs={"a.jsonl": "01"}, model={"name": "m"})
    other = Recipe(stage="s", flags=flags | {"dtype": "bfloat16"}, inputs={"a.jsonl": "02"}, model={"name": "m"})

    def work(recipe, **settings):
        settings = {"overwrite": False, "ignoring": ("inputs", "skip_bad_rows")} | settings
        return UnfinishedWork(tmp_path / "out", recipe, **settings)

    with work(first) as begun:
        (begun.directory / "kept").touch()
    with work(mended) as going_on:
        assert (going_on.directory / "kept").exists()
        assert json.loads((going_on.directory / "recipe.json").read_text())["inputs"] == {"a.jsonl": "01"}
    with work(first, overwrite=True):
        assert (going_on.directory / "kept").exists()
    with pytest.raises(StaleError) as error, work(other):
        pass
    assert "settings: --dtype (was 'float32', is 'bfloat16'). Use the former" in str(error.value)
    with work(other, overwrite=True):
        assert not (going_on.directory / "kept").exists()


def test_a_second_process_on_the_same_output(tmp_path):
    with work_on(tmp_path), pytest.raises(StaleError, match="another process is working on this output"):
        work_on(tmp_path).__enter__()


def test_of_the_processes_of_torchrun_the_first_holds_the_lock(tmp_path, monkeypatch):
    with work_on(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with work_on(tmp_path):
            pass


def test_what_a_kill_left_of_the_recipe_is_no_recipe(tmp_path):
    with work_on(tmp_path) as work:
        (work.directory / "recipe.json").write_text("{")
        (work.directory / "kept").mkdir()
    with pytest.raises(StaleError, match=r"made with other settings: recipe\.json is damaged"), work_on(tmp_path):
        pass
    with work_on(tmp_path, overwrite=True) as work:
        assert sorted(path.name for path in work.directory.iterdir()) == ["lock", "recipe.json"]
        work.remove()
    assert not any(tmp_path.iterdir())


def test_a_folder_is_replaced_whole(tmp_path):
    output = tmp_path / "folder" / "model"

    def write(name):
        return lambda folder: (folder / name).write_text("weights")

    save_whole(output, tmp_path / "beside", write("old"))
    manifest_path(output).write_text("of the old one")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "half").touch()  # of a run that was killed
    save_whole(output, tmp_path / "beside", write("new"))
    assert [path.name for path in output.iterdir()] == ["new"]
    assert [path.name for path in output.parent.iterdir()] == ["model"]
    assert not (tmp_path / "beside").exists()


def test_a_folder_whose_writing_fails_leaves_the_old_one(tmp_path):
    output = tmp_path / "model"
    output.mkdir()
    (output / "old").touch()

    def fail(folder):
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        save_whole(output, tmp_path / "beside", fail)
    assert [path.name for path in output.iterdir()] == ["old"]


@pytest.mark.parametrize("spelling", ["out.jsonl", "../{0}/out.jsonl", "link.jsonl", "twin.jsonl"])
def test_an_output_that_is_an_input_is_refused(tmp_path, spelling):
    output = tmp_path / "out.jsonl"
    output.write_text("of the user")
    (tmp_path / "link.jsonl").symlink_to(output)
    (tmp_path / "twin.jsonl").hardlink_to(output)
    path = tmp_path / spelling.format(tmp_path.name)
    recipe = Recipe(stage="s", flags={}, inputs={str(path): "00"})
    with pytest.raises(UsageError, match="is input and output"), work_on(tmp_path, recipe, overwrite=True):
        pass
    assert output.read_text() == "of the user"
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_a_folder_of_others_is_not_emptied(tmp_path):
    folder = tmp_path / "out.jsonl.partial"
    folder.mkdir()
    (folder / "thesis.txt").write_text("of the user")
    with pytest.raises(StaleError) as error, work_on(tmp_path, overwrite=True):
        pass
    assert str(error.value) == (
        f"{folder}: has files that are of no run of ours (thesis.txt), and would be emptied. "
        "Move it, or choose another output."
    )
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    with work_on(tmp_path / "elsewhere") as work:  # even to one that is ours
        (work.directory / "kept").touch()
    (tmp_path / "out.jsonl.partial").symlink_to(work.directory)
    with pytest.raises(StaleError, match="is a link, which is not followed"), work_on(tmp_path, overwrite=True):
        pass
    assert (work.directory / "kept").exists()


def test_a_link_within_a_folder_is_removed_and_not_followed(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one").touch()
    with work_on(tmp_path) as work:
        (work.directory / "album").symlink_to(tmp_path / "photos")
    work.remove()
    assert (tmp_path / "photos" / "one").exists()


def test_a_kill_at_any_moment_of_the_removal_leaves_a_folder_that_is_ours(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    for survived in range(4):
        with work_on(tmp_path) as work:
            for name in ("a", "z"):
                (work.directory / name).touch()
        left = [survived]
        original = Path.unlink

        def unlink(path, left=left, original=original, **settings):
            if left[0] == 0:
                killed()
            left[0] -= 1
            original(path, **settings)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", unlink)
            patch.setattr("shutil.rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                work.remove()
        with work_on(tmp_path):
            pass
    assert not work.directory.exists()


def test_what_a_kill_after_the_manifest_left_behind_is_removed(tmp_path):
    output = tmp_path / "out.jsonl"
    with work_on(tmp_path) as work:
        output.write_text("made")
        write_manifest(output, RECIPE)
        assert is_finished(output, RECIPE)
        assert work.directory.exists(), "another process is about to remove it"
    assert is_finished(output, RECIPE)
    assert not work.directory.exists()
    assert is_finished(output, RECIPE)


STAGES = {
    "create_triplets": (create_triplets, "scored.jsonl", "--input_files", "scored.jsonl", "--output_suffix", "_t"),
    "generate_scores": (generate_scores, "scored.jsonl", "--input_files", "scored.jsonl", "--output_suffix", "_t"),
    "merge_scores": (merge_scores, "m.jsonl", "--input_files", "scored.jsonl", "--bm25", "--output_file", "m.jsonl"),
    "prepare": (
        prepare,
        "d/s.jsonl",
        "--source",
        "jsonl",
        "--input",
        "samples.jsonl",
        "--splits",
        "s=1",
        "--output_dir",
        "d",
    ),
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_clean_up_behind_a_kill(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage, output, *flags = STAGES[name]
    rows = [ScoredPair(query, query, f"passage {i} of {query}", score=-float(i)) for query in "ab" for i in range(5)]
    write_records(tmp_path / "scored.jsonl", rows)
    write_records(tmp_path / "samples.jsonl", [RankingSample("a hen", ["an egg"], ["a loan"])])
    made = {"scored.jsonl": "scored_t.jsonl"}.get(output, output)
    with monkeypatch.context() as patch:
        patch.setattr("rag_core.files.unfinished._remove", lambda directory: None)  # as a kill right before it
        assert stage.main(flags) == 0
    partial = tmp_path / f"{made}.partial"
    assert partial.exists()
    assert stage.main(flags) == 0
    assert not partial.exists()


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("create_triplets", ["--output_suffix", ""]),
        ("generate_scores", ["--output_suffix", ""]),
        ("merge_scores", ["--output_file", "./d/../scored.jsonl"]),
    ],
)
def test_no_stage_writes_over_what_it_reads(name, flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    stage, _, *usual = STAGES[name]
    write_records(tmp_path / "scored.jsonl", [ScoredPair("a", "a", f"passage {i}", -float(i)) for i in range(5)])
    before = (tmp_path / "scored.jsonl").read_bytes()
    assert stage.main([*usual[:-2], *flags, "--overwrite"]) == 2
    assert "is input and output" in capsys.readouterr().err
    assert (tmp_path / "scored.jsonl").read_bytes() == before


def test_at_every_moment_a_whole_folder_stands_there(tmp_path, monkeypatch):
    """The old one or the new, whatever file operation is the last."""
    output, unfinished = tmp_path / "m", tmp_path / "m.partial" / "model"
    output.mkdir()
    for name in ("a", "b"):
        (output / name).write_text("old")
    seen = []

    def look(event, _):
        if event.startswith(("os.", "shutil.", "ctypes.")) and looking:
            looking.clear()
            seen.append({path.name: path.read_text() for path in output.iterdir()})
            looking.append(True)

    def write(folder):
        for name in ("a", "b"):
            (folder / name).write_text("new")

    looking = [True]
    sys.addaudithook(look)  # for good, so it is switched off below
    try:
        save_whole(output, unfinished, write)
    finally:
        looking.clear()
    whole = [{"a": "old", "b": "old"}, {"a": "new", "b": "new"}]
    assert seen[0] == whole[0]
    assert seen[-1] == whole[1]
    assert all(state in whole for state in seen)
    assert not unfinished.exists()


def test_work_that_fails_before_anything_is_done_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), work_on(tmp_path) as work:
        raise KeyError
    assert not work.directory.exists()
    with pytest.raises(KeyError), work_on(tmp_path) as work:
        (work.directory / "kept").touch()
        raise KeyError
    assert (work.directory / "kept").exists()


NAMES = ("report", "table")


def save_report(output, content, tmp_path):
    def write(folder):
        for name in NAMES:
            (folder / name).write_text(content)

    save_together(output, tmp_path / "beside", write, names=NAMES, kept="scores")
    assert not (tmp_path / "beside").exists()


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def report_folder(tmp_path):
    """A folder with kept scores and a report."""
    output = tmp_path / "r"
    (output / "scores" / "a.partial").mkdir(parents=True)
    (output / "scores" / "a.partial" / "chunk").write_text("kept")
    save_report(output, "old", tmp_path)
    return output


@pytest.mark.parametrize("links", [True, False])
def test_files_that_belong_together_are_replaced_in_one_step(report_folder, tmp_path, monkeypatch, links):
    def refuse(*_):
        raise OSError

    if not links:
        monkeypatch.setattr("os.link", refuse)
    old = report_folder.stat().st_ino
    save_report(report_folder, "new", tmp_path)
    assert report_folder.stat().st_ino != old
    assert contents(report_folder) == {"report": "new", "table": "new", "scores/a.partial/chunk": "kept"}


@pytest.mark.parametrize("why", ["a file of others", "someone stands in it"])
def test_a_folder_with_files_of_others_stays_where_it_is(report_folder, tmp_path, monkeypatch, why):
    if why == "a file of others":
        (report_folder / "album").mkdir()
        (report_folder / "album" / "photo").write_text("of the user")
    else:
        monkeypatch.chdir(report_folder / "scores")
    others, old, seen = contents(report_folder), report_folder.stat().st_ino, []
    rename = Path.rename

    def look(path, target):
        seen.append([contents(report_folder).get(name) for name in NAMES])
        rename(path, target)

    monkeypatch.setattr(Path, "rename", look)
    save_report(report_folder, "new", tmp_path)
    assert report_folder.stat().st_ino == old
    assert contents(report_folder) == others | {"report": "new", "table": "new"}
    assert seen == [[None, None], [None, "new"]]  # what comes first tells that all are there


def test_a_file_that_comes_while_a_report_is_written_moves_along(report_folder, tmp_path, monkeypatch):
    def late(one, other):
        (report_folder / "notes").write_text("of the user")
        exchange(one, other)

    monkeypatch.setattr("rag_core.files.unfinished.exchange", late)
    save_report(report_folder, "new", tmp_path)
    assert contents(report_folder)["notes"] == "of the user"


def test_the_recipe_stays_where_it_alone_tells_whose_an_output_is(tmp_path):
    """A run was killed between output and manifest, and the next one is stopped before it has done anything."""
    (tmp_path / "out.jsonl.partial").mkdir()
    (tmp_path / "out.jsonl.partial" / "recipe.json").write_text(json.dumps(dataclasses.asdict(RECIPE)))
    (tmp_path / "out.jsonl").write_text("made")
    with pytest.raises(KeyboardInterrupt), work_on(tmp_path):
        raise KeyboardInterrupt
    assert not is_finished(tmp_path / "out.jsonl", RECIPE)  # and no StaleError
    with work_on(tmp_path) as work:
        write_manifest(tmp_path / "out.jsonl", RECIPE)
    assert not work.directory.exists()


def test_work_that_is_to_replace_an_output_is_not_what_its_run_left_behind(tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_text("made")
    write_manifest(output, RECIPE)
    other = dataclasses.replace(RECIPE, flags={"dtype": "bfloat16"})
    with work_on(tmp_path, other, overwrite=True) as work:
        (work.directory / "kept").touch()
    assert is_finished(output, RECIPE)
    assert (work.directory / "kept").exists()


def test_an_output_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "m").symlink_to(tmp_path / "disk")
    with pytest.raises(StaleError, match=r"is a link, .*\. Name the folder that it leads to"):
        check_output_folder(tmp_path / "m", [])


@pytest.mark.parametrize("written", [False, True])
def test_a_run_that_fails_between_output_and_manifest_is_known_to_be_ours(tmp_path, written):
    """What somebody else has put there is not, where nothing was written."""
    output = tmp_path / "out.jsonl"
    output.write_text("theirs")
    with pytest.raises(OSError), UnfinishedWork(output, Recipe("s", {}, {}), overwrite=True):
        if written:
            output.unlink()
            output.write_text("ours, longer")
        raise OSError
    assert output.with_name("out.jsonl.partial").exists() == written
