"""The choice among ways, what a training is warned of, the pad token, and the form that is trained in."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from query_expansion_rl.learning.data import settle_form
from query_expansion_rl.learning.policy import count_parameters, set_padding
from query_expansion_rl.learning.selector import FEATURES, Selector, features_of, read_selection
from query_expansion_rl.learning.watch import is_flat, warnings_of
from query_expansion_rl.records import Ranking
from query_expansion_rl.train import main
from query_expansion_rl.writing.forms import Form, write_form
from rag_core.base.errors import DataError, EngineError, UsageError
from rag_core.files.manifest import Recipe, write_manifest
from tests.query_expansion_rl.workspaces import write_rows, write_workspace


def select(folder, *flags):
    places = ["--baselines", str(folder / "baselines"), "--output_dir", str(folder / "choice")]
    return main(["--method", "select", *places, *flags])


@pytest.fixture
def folder(tmp_path):
    """A workspace in which `a` is right for queries whose scores fall at once, and `b` for the others."""
    write_workspace(tmp_path / "baselines", queries=60)
    rows = []
    for n in range(60):
        steep = n % 3 != 0
        right, wrong = [f"d{n}", f"x{n}"], [f"x{(n + 1) % 60}", f"d{n}"]
        for method, is_right in (("a", steep), ("b", not steep)):
            passages, scores = (right if is_right else wrong), ([9.0, 1.0] if steep else [9.0, 8.0])
            rows.append({"query_id": f"q{n}", "method": method, "passages": passages, "scores": scores})
    write_rows(tmp_path / "baselines" / "rankings.jsonl", rows)
    return tmp_path


@pytest.mark.parametrize("judge", ["teacher", "qrels"])
def test_a_choice_is_learned(folder, capsys, judge):
    assert select(folder, "--reward", judge) == 0
    facts = json.loads((folder / "choice.manifest.json").read_text())
    assert facts["single"] == "a"
    assert facts["best_step"] > 0
    assert facts["dev_by_qrels"]["worse"] == 0
    assert facts["dev_by_qrels"]["better"] == 5  # of the 15 dev queries, a third is not steep
    assert "| always a" in capsys.readouterr().out
    selector = read_selection(folder / "choice")
    steep = {name: Ranking(query_id="q", method=name, passages=["p", "r"], scores=[9.0, 1.0]) for name in ("a", "b")}
    assert selector.choose("s1", steep, {"p": 1.0}) in ("a", "b")
    assert read_selection(folder / "choice" / "selection.json") == selector


def test_the_judge_does_not_choose_itself(folder, capsys):
    summary = json.loads((folder / "baselines" / "baselines.json").read_text())
    (folder / "baselines" / "baselines.json").write_text(json.dumps(summary | {"teacher": "a"}))
    assert select(folder) == 2
    assert "there is nothing to choose from. Pass --variants with two or more of: a, b." in capsys.readouterr().err
    assert select(folder, "--variants", "a", "c") == 2
    assert "--variants has 'c'. Pass some of: a, b." in capsys.readouterr().err.replace('"c"', "'c'").replace(
        " c.", " 'c'."
    )


def test_where_nothing_is_learned_step_0_is_the_best_single_way(folder, capsys):
    rows = [
        {"query_id": f"q{n}", "method": method, "passages": [f"{key}{n}"], "scores": [1.0]}
        for n in range(60)
        for method, key in (("a", "x"), ("b", "d"))
    ]
    write_rows(folder / "baselines" / "rankings.jsonl", rows)
    assert select(folder, "--reward", "qrels") == 0
    assert "No gain on the dev queries: use b." in capsys.readouterr().out
    assert json.loads((folder / "choice.manifest.json").read_text())["best_step"] == 0


def test_features_by_hand():
    rankings = [
        Ranking(query_id="q", method="a", passages=["p", "r"], scores=[4.0, 3.0]),
        Ranking(query_id="q", method="b", passages=["r"], scores=[2.0]),
    ]
    shown, length = features_of("two words", rankings, {"p": 1.0})
    assert shown.shape == (2, len(FEATURES))
    assert shown[:, 0].tolist() == [1, 0]
    assert shown[:, 1] == pytest.approx([0.1, 0.1])
    assert shown[:, 2].tolist() == [0.25, 1.0]
    assert length == pytest.approx(np.log(3))


def test_a_damaged_selection(tmp_path):
    path = tmp_path / "selection.json"
    path.write_text('{"variants": ["a"]}')
    with pytest.raises(DataError, match=r"selection.json: is no selection \(.*Run train --method select again"):
        read_selection(path)
    good = Selector(["a", "b"], [0.0] * len(FEATURES), [1.0], [0.0, 0.0], [0.0], [1.0])
    path.write_text(json.dumps(good.__dict__))
    with pytest.raises(DataError, match="its lists do not fit together"):
        read_selection(path)


@pytest.mark.slow
def test_vllm_beside_trl(monkeypatch, caplog):
    import importlib.metadata

    from query_expansion_rl.learning.training import check_vllm

    check_vllm("no")
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.32.0" if name == "vllm" else version(name))
    check_vllm("colocate")
    assert "vLLM 0.32.0 is here; trl" in caplog.text
    assert "supports 0.22.0 to 0.31.0" in caplog.text

    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    with pytest.raises(UsageError, match="--use_vllm colocate needs vLLM"):
        check_vllm("colocate")


def dev_entry(step, dev, **others):
    zeros = {"eval_dev_error": 0.01, "eval_dev_truth": 0.0, "eval_dev_cut": 0.0, "eval_dev_empty": 0.0}
    return {"step": step, "eval_dev": dev, **zeros, **others}


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            [dev_entry(0, 0.1), {"reward": 0.1}, {"reward": 0.2}, {"reward": 0.3}, dev_entry(3, 0.05)],
            "the reward rises",
        ),
        ([{"completions/clipped_ratio": 0.75}], "more than half of the answers are cut"),
        ([dev_entry(0, 0.1, eval_dev_cut=0.6)], "more than half of the answers are cut"),
        ([dev_entry(0, 0.1), dev_entry(9, 0.2, eval_dev_truth=-0.1)], "and the qrels do not"),
        ([dev_entry(0, 0.1), dev_entry(9, 0.1, eval_dev_empty=0.7)], "more than half of the answers are empty"),
        ([dev_entry(0, 0.1), {"reward": 0.1}, {"reward": 0.2}, {"reward": 0.3}, dev_entry(3, 0.095)], None),
    ],
)
def test_warnings(log, words):
    found = warnings_of(log)
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_training_without_variance_stops():
    assert not is_flat([{"frac_reward_zero_std": 1.0}] * 19)
    assert is_flat([{"frac_reward_zero_std": 1.0}] * 20)
    assert not is_flat([{"frac_reward_zero_std": 1.0}] * 19 + [{"frac_reward_zero_std": 0.5}])


def tokenizer(pad, end, special):
    return SimpleNamespace(
        pad_token=pad, eos_token=end, bos_token=None, all_special_tokens=special, added_tokens_decoder={}
    )


def test_the_pad_token_is_not_the_end():
    good = tokenizer("<pad>", "<end>", ["<pad>", "<end>"])
    set_padding(good, "m")
    assert good.pad_token == "<pad>"
    same = tokenizer("<end>", "<end>", ["<end>", "<unk>"])
    set_padding(same, "m")
    assert same.pad_token == "<unk>"
    with pytest.raises(EngineError, match="pads with its end token, and has no other special token"):
        set_padding(tokenizer("<end>", "<end>", ["<end>"]), "m")
    with pytest.raises(EngineError, match="has no end token"):
        set_padding(tokenizer(None, None, []), "m")


def test_parameters_are_counted_from_the_heads_of_files(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((3, 4), dtype=np.float32), "b": np.zeros(5, dtype=np.float32)}, tmp_path / "m.safetensors")
    assert count_parameters(str(tmp_path)) == 17
    assert count_parameters("no/folder") is None


def test_the_form_is_that_of_file_or_model(tmp_path):
    assert settle_form(str(tmp_path), None, None, None) == Form("keywords", 0, "completion", 24)
    assert settle_form(str(tmp_path), None, "document", 96) == Form("document", 0, "completion", 96)
    write_form(tmp_path, Form("document", 2, "completion", 50))
    assert settle_form(str(tmp_path), None, None, None) == Form("document", 0, "completion", 50)
    with pytest.raises(UsageError, match=r"--prompt is keywords, and .* is for document"):
        settle_form(str(tmp_path), None, "keywords", None)
    path = write_rows(tmp_path / "rows.jsonl", [{}])
    form = {"output": "keywords", "shots": 0, "style": "completion", "max_new_tokens": 20}
    write_manifest(path, Recipe("create_pairs", {}, {}), form=form)
    assert settle_form(str(tmp_path), path, None, None) == Form("keywords", 0, "completion", 20)


def test_a_control_learns_from_noise(folder):
    assert select(folder, "--reward", "qrels") == 0
    learned = (folder / "choice" / "selection.json").read_bytes()
    facts = json.loads((folder / "choice.manifest.json").read_text())
    assert select(folder, "--reward", "qrels", "--shuffle_rewards", "--overwrite") == 0
    control = json.loads((folder / "choice.manifest.json").read_text())
    assert (folder / "choice" / "selection.json").read_bytes() != learned
    assert control["single"] == facts["single"]
    assert control["dev_by_qrels"]["difference"] < facts["dev_by_qrels"]["difference"]
