"""What is learned from, and the control, which differs by its choice alone."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_expansion_rl import create_pairs, score_expansions
from query_expansion_rl.create_pairs import main
from query_expansion_rl.records import Demonstration, Preference, Rewarded
from query_expansion_rl.rewards.pairs import choose_pairs
from rag_core.files.jsonl import read_records
from tests.query_expansion_rl.workspaces import long_name, write_samples, write_workspace


@pytest.fixture
def folder(tmp_path):
    write_workspace(tmp_path / "baselines")
    write_samples(tmp_path / "samples.jsonl")
    files = ["--input_file", str(tmp_path / "samples.jsonl"), "--output_file", str(tmp_path / "rewarded.jsonl")]
    assert score_expansions.main(["--baselines", str(tmp_path / "baselines"), *files]) == 0
    return tmp_path


def create(folder, name, *flags):
    places = ["--input_file", str(folder / "rewarded.jsonl"), "--output_dir", str(folder / name)]
    return main(["--baselines", str(folder / "baselines"), *places, *flags])


def read(folder, name):
    return (
        list(read_records(folder / name / "demonstrations.jsonl", Demonstration)),
        list(read_records(folder / name / "preferences.jsonl", Preference)),
    )


def test_best_and_worst_of_the_train_queries(folder, capsys):
    capsys.readouterr()
    assert create(folder, "best", "--best", "1") == 0
    shown, pairs = read(folder, "best")
    assert [row.query_id for row in shown] == ["q0", "q1", "q4", "q5", "q8", "q9"]
    assert shown[1].prompt == "Query: s1\nKeywords:"
    assert all(row.completion.startswith(long_name(int(row.query_id[1:]))) for row in shown)
    assert pairs[1].chosen == shown[1].completion
    assert pairs[1].rejected == "bridges"
    assert all(row.margin == shown[0].reward > 0 for row in pairs)
    assert "| demonstrations | 6    | 0                     |" in capsys.readouterr().out


def test_the_control_differs_by_its_choice_alone(folder):
    create(folder, "best")
    create(folder, "random", "--choose", "random")
    create(folder, "other", "--choose", "random", "--seed", "1")
    best, control, other = (read(folder, name) for name in ("best", "random", "other"))
    for number in (0, 1):
        assert Counter(row.query_id for row in control[number]) == Counter(row.query_id for row in best[number])
        assert [row.prompt for row in control[number]] == [row.prompt for row in best[number]]
        assert control[number] != best[number] != other[number] != control[number]
    assert any(row.margin < 0 for row in control[1])


def test_no_pair_is_far_enough_apart(folder, capsys):
    assert create(folder, "best", "--min_margin", "0.9") == 1
    assert "rewards are 0.9 or more apart. Lower --min_margin, or write" in capsys.readouterr().err


@pytest.mark.parametrize("writes", [0, 1])
def test_a_killed_run_goes_on_to_the_same_bytes(folder, monkeypatch, writes):
    class Killed(BaseException):
        pass

    manifest = create_pairs.write_manifest
    done = []

    def kill(path, *given, **facts):
        if len(done) == writes:
            raise Killed
        done.append(manifest(path, *given, **facts))

    assert create(folder, "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(create_pairs, "write_manifest", kill)
        with pytest.raises(Killed):
            create(folder, "killed")
    assert create(folder, "killed") == 0
    for name in ("demonstrations.jsonl", "preferences.jsonl"):
        assert (folder / "killed" / name).read_bytes() == (folder / "whole" / name).read_bytes()
        assert (folder / "killed" / f"{name}.manifest.json").exists()
        assert not (folder / "killed" / f"{name}.partial").exists()


def test_the_form_is_that_of_the_expansions(folder):
    manifest = folder / "rewarded.jsonl.manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"prompt": "document"}))
    assert create(folder, "best") == 0
    assert read(folder, "best")[0][0].prompt == "Query: s0\nPassage:"
    assert json.loads((folder / "best" / "demonstrations.jsonl.manifest.json").read_text())["form"]["shots"] == 0


def test_no_train_query(folder, capsys):
    write_workspace(folder / "baselines", splits=("test",))
    (folder / "rewarded.jsonl.manifest.json").unlink()
    assert create(folder, "best") == 1
    assert "has no expansion of a train query. Run generate_expansions --split train." in capsys.readouterr().err


ROWS = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.sampled_from([-0.1, 0.0, 0.1, 0.3])), min_size=1
)


@given(st.lists(ROWS, min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 3))
def test_what_is_chosen(texts, best, seed):
    groups = {
        f"q{query}": [
            Rewarded(query_id=f"q{query}", method="m", sample=i, text=text, tokens=1, reward=reward, parts={}, base=0.0)
            for i, (text, reward) in enumerate(rows)
        ]
        for query, rows in enumerate(texts)
    }
    found, control = (
        choose_pairs(groups, str.upper, choice, best=best, min_margin=0.2, seed=seed) for choice in ("best", "random")
    )
    assert found.left_out == control.left_out
    assert all(row.reward >= 0 for row in found.demonstrations)
    for made in (found, control):
        told = [(row.query_id, row.completion) for row in made.demonstrations]
        assert len(told) == len(set(told))
        assert all(row.completion for row in made.demonstrations)
        assert all(row.chosen != row.rejected for row in made.preferences)
        assert Counter(key for key, _ in told).most_common(1) == [] or max(Counter(k for k, _ in told).values()) <= best
    assert all(row.margin >= 0.2 for row in found.preferences)
    assert [row.query_id for row in found.preferences] == [row.query_id for row in control.preferences]
