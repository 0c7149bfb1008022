"""Rewards of a file: the rows, the table that says what they are good for, and what is refused."""

import json

import pytest

from query_expansion_rl.records import Rewarded
from query_expansion_rl.score_expansions import main
from rag_core.files.jsonl import read_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from tests.query_expansion_rl.workspaces import expansion, write_rows, write_samples, write_workspace


@pytest.fixture
def folder(tmp_path):
    write_workspace(tmp_path / "baselines")
    write_samples(tmp_path / "samples.jsonl")
    return tmp_path


def score(folder, *flags):
    files = ["--input_file", str(folder / "samples.jsonl"), "--output_file", str(folder / "rewarded.jsonl")]
    return main(["--baselines", str(folder / "baselines"), *files, *flags])


def read(folder):
    return list(read_records(folder / "rewarded.jsonl", Rewarded))


def table(capsys):
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return {row[1].strip(): row[2].strip() for row in rows}


def test_rewards_of_a_file(folder, capsys):
    assert score(folder) == 0
    rows = read(folder)
    assert [row.sample for row in rows[:4]] == [0, 1, 2, 3]
    beside, finds, another, none = rows[:4]
    assert beside.reward == none.reward == 0
    assert finds.reward > 0
    assert another.reward > 0
    assert finds.base < 1
    shown = table(capsys)
    assert shown["samples of queries"] == "48 of 12"
    assert shown["groups without variance"] == "0.00 (0 of 12)"
    assert shown["reward has the sign of the true change"] == "1.00 (24 of 24)"
    assert shown["nDCG@10, best sample by the reward"].endswith("better 12, worse 0")


def test_a_finished_file_is_left_alone_and_shown_again(folder, capsys):
    score(folder)
    first = capsys.readouterr().out
    written = (folder / "rewarded.jsonl").stat().st_mtime_ns
    assert score(folder) == 0
    assert capsys.readouterr().out == first
    assert (folder / "rewarded.jsonl").stat().st_mtime_ns == written


def test_other_rewards_are_other_files(folder, capsys):
    score(folder)
    assert score(folder, "--query_weight", "2") == 1
    assert "made with other settings: --query_weight (was 5.0, is 2.0)" in capsys.readouterr().err
    assert score(folder, "--query_weight", "2", "--overwrite") == 0


def test_qrels_reward(folder, capsys):
    assert score(folder, "--reward", "qrels") == 0
    assert read(folder)[1].base == 0
    assert "true change" not in capsys.readouterr().out


def test_without_qrels_nothing_is_said_of_truth(folder, capsys):
    write_workspace(folder / "baselines", qrels=False)
    assert score(folder) == 0
    assert "true change" not in capsys.readouterr().out
    assert score(folder, "--reward", "qrels", "--overwrite") == 1
    assert "has no query whose passages qrels have judged. Pass another --reward." in capsys.readouterr().err


def test_a_query_that_nobody_knows(folder, capsys):
    with (folder / "samples.jsonl").open("a") as file:
        file.write(json.dumps(expansion("q99", "a text")) + "\n")
    assert score(folder) == 1
    assert capsys.readouterr().err == (
        f"Error: {folder}/samples.jsonl:49: query_id 'q99' is not in topics.jsonl. "
        "Pass --baselines with the folder that the file was made for.\n"
    )
    assert score(folder, "--skip_bad_rows") == 0
    assert json.loads((folder / "rewarded.jsonl.manifest.json").read_text())["skipped"]["bad_rows"] == 1


def test_a_sample_that_stands_twice(folder, capsys):
    write_rows(folder / "samples.jsonl", [expansion("q1", "a"), expansion("q1", "b")])
    assert score(folder) == 1
    assert "samples.jsonl:2: query_id 'q1' has sample 0 by 'keywords' twice." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["topics.jsonl", "documents.jsonl"])
def test_samples_of_another_workspace(folder, capsys, name):
    source = folder / "baselines" / name
    recipe = Recipe("generate_expansions", {}, check_inputs([source]))
    write_manifest(folder / "samples.jsonl", recipe)
    assert score(folder) == 0
    source.write_text(source.read_text().replace("s1", "s01"))
    assert score(folder, "--overwrite") == 1
    assert f"samples.jsonl: was made from another {name} than {source}. Pass --baselines" in capsys.readouterr().err


def test_rewards_that_tell_nothing_apart(folder, capsys):
    write_rows(folder / "samples.jsonl", [expansion("q1", "xyzzy", 0), expansion("q1", "plugh", 1)])
    assert score(folder) == 1
    assert capsys.readouterr().err.endswith(
        "Error: the samples of each of the 1 queries have one reward, so there is nothing to learn from. Write more "
        "different ones (generate_expansions --temperature 1.2), let moves below rank 10 count (--rank_shaping 0.2), "
        "or let the expansion weigh more (--query_weight 2).\n"
    )
    assert not (folder / "rewarded.jsonl").exists()


def test_one_sample_of_each_query_is_scored(folder, capsys):
    write_rows(folder / "samples.jsonl", [expansion("q1", "xyzzy")])
    assert score(folder) == 0
    assert table(capsys)["groups without variance"] == "-"
