"""Files through the stage: what is finished, what has changed, and how often each is read."""

import importlib
import json
import os
import shutil
from pathlib import Path

import pytest

from rag_core.base.errors import DataError, StaleError, UsageError
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import LOADERS
from rag_core.engines.options import EngineOptions
from rag_core.files.atomic import open_locked
from rag_core.files.jsonl import read_samples, write_records
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.scoring import scored_files, scores
from rag_core.scoring.scored_files import prepare_run, read_sources, scores_by_sample
from rag_core.scoring.settings import CHUNK_ROWS
from reranker_distillation import generate_logits
from tests.fixtures.scoring_before import teachers


def test_a_score_store_serves_other_files(tiny_data, overlap_teacher):
    flags = ["--teacher", "t", "--score_store", f"{tiny_data}/store", "--input_files"]
    (tiny_data / "again.jsonl").write_bytes((tiny_data / "train.jsonl").read_bytes())
    assert generate_logits.main([*flags, f"{tiny_data}/train.jsonl"]) == 0
    paid = len(overlap_teacher.scored)
    assert generate_logits.main([*flags, f"{tiny_data}/again.jsonl"]) == 0
    assert len(overlap_teacher.scored) == paid
    outputs = [(tiny_data / f"{name}_logits.jsonl").read_bytes() for name in ("train", "again")]
    assert outputs[0] == outputs[1]
    assert not list(tiny_data.glob("*.partial"))
    (folder,) = (tiny_data / "store").iterdir()
    assert json.loads((folder / "model.json").read_text())["model"]["name"] == "t"
    # Another prompt is another score.
    assert generate_logits.main([*flags, f"{tiny_data}/again.jsonl", "--instruction", "other", "--overwrite"]) == 0
    assert len(overlap_teacher.scored) == 2 * paid


def test_unfinished_work_on_a_finished_output_is_left_to_those_whose_it_is(tiny_data, overlap_teacher):
    """A folder of the user's by that name, and that of a run which is scoring the file again."""
    flags = ["--teacher", "t", "--input_files", f"{tiny_data}/train.jsonl"]
    assert generate_logits.main(flags) == 0
    partial = tiny_data / "train_logits.jsonl.partial"
    partial.mkdir()
    (partial / "thesis.txt").write_text("of the user")
    assert generate_logits.main(flags) == 0
    assert (partial / "thesis.txt").exists()
    (partial / "thesis.txt").rename(partial / "recipe.json")
    with open_locked(partial / "lock"):
        assert generate_logits.main(flags) == 0
        assert (partial / "recipe.json").exists()


@pytest.fixture(params=[teachers.SharedWords, teachers.Signs])
def without_weights(request, tmp_path, monkeypatch):
    """A reranker, and an embedder; return its stage's flags and what runs them, in a folder with two inputs."""
    teacher = request.param()
    monkeypatch.chdir(tmp_path)
    model = Path(teacher.folder)
    shutil.copytree(Path(teachers.__file__).parent / model, model)
    for name in ("a.jsonl", "b.jsonl"):
        shutil.copy(Path(teachers.__file__).with_name("test.jsonl"), name)
    monkeypatch.setitem(LOADERS, teachers.ENGINE, lambda *_: teacher)
    command = ["--teacher", str(model), "--engine", teachers.ENGINE, "--input_files", "a.jsonl"]
    return teacher, importlib.import_module(teacher.stage).main, command


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened, one for each time."""
    names = []
    open_ = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *args, **how: names.append(Path(path).name) or open_(path, *args, **how)
    )
    return names


def test_how_often_a_file_is_read(without_weights, opened):
    """Checked; the pairs, or queries and passages; written. Its hash is taken on the way, and the canary's pairs."""
    teacher, main, command = without_weights
    walks = 3 if isinstance(teacher, teachers.SharedWords) else 4
    assert main([*command, "b.jsonl"]) == 0
    assert (opened.count("a.jsonl"), opened.count("b.jsonl")) == (walks, walks)
    opened.clear()
    assert main([*command, "b.jsonl"]) == 0
    assert (opened.count("a.jsonl"), opened.count("b.jsonl")) == (1, 1)  # both are finished


def changing(teacher, call, change):
    """Let a file change at a call of the teacher, of those that are not the canary's."""
    name = "score" if isinstance(teacher, teachers.SharedWords) else "encode"
    compute, calls = getattr(teacher, name), 0
    call += 1 if isinstance(teacher, teachers.SharedWords) else 2

    def computing(*args):
        nonlocal calls
        calls += 1
        if calls == call:
            change()
        return compute(*args)

    setattr(teacher, name, computing)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes() + b"\n"),
        lambda path: path.write_text(path.read_text().replace("apple", "orange")),
        lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1])),
    ],
    ids=["a blank line more", "other texts", "a row less"],
)
@pytest.mark.parametrize("call", [1, "last"])
@pytest.mark.parametrize("block", [1, 2**22], ids=["before the end is read", "after it"])
def test_an_input_that_changes_while_it_is_scored(without_weights, change, call, block, monkeypatch, capsys):
    monkeypatch.setattr(scores, "_BLOCK_PAIRS", block)
    monkeypatch.setattr(scores, "_BLOCK_FLOATS", block)
    teacher, main, command = without_weights
    last = 1 if isinstance(teacher, teachers.SharedWords) else 2
    path = Path("a.jsonl")
    changing(teacher, last if call == "last" else call, lambda: change(path))
    assert main(command) == 1
    assert capsys.readouterr().err.endswith(
        "Error: a.jsonl: has changed while it was being scored. "
        "Run the same command again: the scores of texts that are still in it are kept.\n"
    )
    assert not Path("a_logits.jsonl").exists()


@pytest.mark.parametrize("store", [[], ["--score_store", "store"]], ids=["partial", "store"])
def test_what_was_scored_before_the_input_was_mended_is_kept(without_weights, store, monkeypatch):
    """Rows are found by their texts: of another file, only what is not known is computed. Also with --skip_bad_rows."""
    teacher, main, command = without_weights
    monkeypatch.setitem(CHUNK_ROWS, teachers.ENGINE, teachers.CHUNK_ROWS)

    canary = 1 if isinstance(teacher, teachers.SharedWords) else 2

    def killed():
        raise KeyboardInterrupt

    changing(teacher, 3, killed)
    assert main([*command, *store]) == 130
    paid = {row for call in teacher.calls[canary:] for row in call}
    lines = Path("a.jsonl").read_text().splitlines(keepends=True)
    Path("a.jsonl").write_text(lines[0] + "{\n" + "".join(lines[1:]).replace("garlic", "onion"))
    teacher.calls.clear()
    assert main([*command, *store, "--skip_bad_rows"]) == 0
    computed = {row for call in teacher.calls[canary:] for row in call}
    assert len(paid) > 10
    assert paid.isdisjoint(computed)
    assert any("onion" in text for row in computed for text in row)
    assert json.loads(Path("a_logits.jsonl.manifest.json").read_text())["skipped"] == {"bad_rows": 1}
    shutil.move("a.jsonl", "b.jsonl")
    assert main([*command[:-1], "b.jsonl", "--skip_bad_rows"]) == 0
    assert Path("b_logits.jsonl").read_bytes() == Path("a_logits.jsonl").read_bytes()


def test_an_input_that_is_not_the_one_of_its_manifest_is_told_before_its_bad_rows(tmp_path):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    write_records(good, [RankingSample("q", candidates=["a"])])
    bad.write_text("{\n")
    outputs = {bad: tmp_path / "1", good: tmp_path / "2"}
    with pytest.raises(DataError, match=r"bad\.jsonl:1: is not JSON"):
        read_sources(outputs, skip_bad_rows=False)
    for path in (good, bad):
        write_manifest(path, Recipe("s", {}, {}))
        path.write_bytes(path.read_bytes() + b"\n")
        with pytest.raises(StaleError, match=rf"{path.name}: has changed since its manifest was written"):
            read_sources(outputs, skip_bad_rows=False)


def test_two_inputs_of_one_output():
    with pytest.raises(UsageError, match="two input files have the same name and would have the same output"):
        read_sources({Path("x/a.jsonl"): Path("o"), Path("y/a.jsonl"): Path("o")}, skip_bad_rows=False)


def test_scores_of_a_file_by_sample(tmp_path):
    path = tmp_path / "scores.jsonl"
    pairs = [ScoredPair("1", "q", text, score) for text, score in (("b", 2.0), ("a", 1.0))]
    write_records(path, pairs)
    write_records(tmp_path / "in.jsonl", [RankingSample("q", candidates=["a", "b", "a"])])
    samples = read_samples(tmp_path / "in.jsonl")
    assert scores_by_sample(path, samples) == [[1.0, 2.0]]
    with pytest.raises(DataError, match=r"scores\.jsonl: has no score for query_id '7' and passage 'c'\. Score the"):
        scores_by_sample(path, [RankingSample("q", candidates=["c"], query_id="7")])


def test_a_file_that_another_run_finished_meanwhile_is_not_scored_again(tiny_data, overlap_teacher, monkeypatch):
    """The second run looked before the first one had finished, and takes the lock after it."""
    outputs = {tiny_data / "test.jsonl": tiny_data / "scores.jsonl"}
    settled = "transformers", EngineOptions(describe_model("t"), dtype="float32")
    first, second = (
        prepare_run(read_sources(outputs, skip_bad_rows=False), outputs, stage="test", settled=settled)
        for _ in range(2)
    )
    first.score()
    before = (tiny_data / "scores.jsonl").stat().st_mtime_ns
    monkeypatch.setattr(scored_files, "load", None)  # which is not called
    second.score()
    assert (tiny_data / "scores.jsonl").stat().st_mtime_ns == before
    assert not list(tiny_data.glob("*.partial"))
