"""Probes with tiny students: what is tried, chosen, kept over a kill, and said."""

import json

import numpy as np
import pytest

from embedding_distillation import train as train_embedder
from embedding_distillation import training as embedder_training
from rag_core.base.records import SoftLabels, Triplet
from rag_core.distillation import probes
from rag_core.distillation.dev_set import DevSet
from rag_core.distillation.probing import choose_rate
from rag_core.evaluation.training_record import read_training
from rag_core.files.jsonl import write_records
from reranker_distillation import train as train_reranker
from tests.embedding_distillation.test_training import dev_set, groups, weights
from tests.reranker_distillation.test_training import triplet_groups

RATES = [3.3e-5, 1e-4, 3e-4]  # of a student with few parameters
AUTO = ["--learning_rate", "auto", "--num_train_epochs", "auto"]


def scores_for(order):
    """A student that scores passages by their first character."""
    return lambda model, size, advance=None: [np.array(row, dtype=np.float32) for row in order]


def test_held_out_queries_are_measured_by_what_the_teacher_says_of_them(tmp_path, monkeypatch):
    lists = [
        SoftLabels("1", "q", ["a", "b", "c"], [3.0, 2.0, 1.0]),
        SoftLabels("2", "r", ["a", "b"], [1.0, 1.0]),  # says nothing
    ]
    (held_out,) = DevSet.held_out(tmp_path / "s.jsonl", lists)
    monkeypatch.setattr(held_out.candidates, "scores", scores_for([[3, 1, 2]]))
    assert held_out.measure == "Kendall's tau"
    assert held_out.values(None, 1) == pytest.approx([1 / 3])
    triplets = [
        [Triplet("1", "q", "a", "b", 1.0), Triplet("1", "q", "a", "c", 2.0), Triplet("1", "q", "b", "c", 1.0)],
        [Triplet("2", "r", "a", "b", 1.0)],
    ]
    (held_out,) = DevSet.held_out(tmp_path / "t.jsonl", triplets)
    monkeypatch.setattr(held_out.candidates, "scores", scores_for([[3, 1, 2], [0, 0]]))
    assert held_out.measure == "Kendall's tau"
    assert held_out.values(None, 1) == pytest.approx([1 / 3, 0])
    assert DevSet.held_out(tmp_path / "s.jsonl", lists[1:]) == []


@pytest.fixture
def embedder(tmp_path, tiny_encoder):
    """The command of an embedder that is trained for 20 steps, each probe for 5."""
    write_records(tmp_path / "scores.jsonl", groups(16))
    dev_set(tmp_path / "dev.jsonl")
    command = ["--train_file", f"{tmp_path}/scores.jsonl", "--student", tiny_encoder, "--bf16", "false", *AUTO]
    return [*command, "--per_device_train_batch_size", "4", "--output_dir", f"{tmp_path}/m"]


def manifest(folder):
    return json.loads(folder.with_name(f"{folder.name}.manifest.json").read_text())


def test_an_embedder_finds_its_rate_on_the_dev_files(embedder, tmp_path, capsys):
    command = [*embedder, "--dev_files", f"{tmp_path}/dev.jsonl", "--eval_steps", "0.5", "--save_steps", "0.5"]
    assert train_embedder.main(command) == 0
    said = capsys.readouterr().err
    assert "probes: 3 x 5 steps of the run's 20, on 4 of 16 queries; measured on 6 queries of the dev files" in said
    assert "probe 2 of 3: learning rate 0.0001: MAP 0." in said
    made = manifest(tmp_path / "m")
    assert {made["recipe"]["flags"][name] for name in ("learning_rate", "num_train_epochs")} == {"auto"}
    assert made["steps"] == 20
    assert made["best_step"] <= 20
    found = made["learning_rate_probes"]
    assert [row["learning_rate"] for row in found["probes"]] == RATES
    assert {row["alpha"] for row in found["probes"]} <= {0.5, 1.0}
    assert (found["measure"], found["queries"], found["steps"], found["run_steps"]) == ("MAP", 6, 5, 20)
    kept = json.loads((tmp_path / "m" / "probes.json").read_text())["values"]
    values = {name: np.array(row) for name, row in kept.items()}
    untouched = values.pop("untouched")
    assert untouched.mean() == pytest.approx(found["untouched"])
    assert choose_rate({float(rate): row for rate, row in values.items()}, untouched)[0] == found["chosen"]
    log = json.loads((tmp_path / "m" / "training_log.json").read_text())
    settled = {"learning_rate": found["chosen"], "num_train_epochs": 5.0}
    assert log[0] == {"step": 0, "learning_rate_probes": found, **settled}
    assert made.items() >= settled.items()
    facts = read_training(tmp_path / "m", []).facts
    assert facts.items() >= settled.items()
    assert max(entry["learning_rate"] for entry in log if "loss" in entry) <= found["chosen"]
    card = (tmp_path / "m" / "README.md").read_text()
    assert f"`--learning_rate auto` took `{found['chosen']:g}`: {found['reason']}." in card
    assert f"| 0.0001 | {found['probes'][1]['alpha']:g} | {found['probes'][1]['dev']:.4f} |" in card
    assert not (tmp_path / "m.partial").exists()
    assert train_embedder.main(command) == 0
    assert "m is finished already" in capsys.readouterr().err
    assert train_embedder.main([*command, "--output_dir", f"{tmp_path}/n"]) == 0
    assert manifest(tmp_path / "n")["learning_rate_probes"] == found
    for name, value in weights(tmp_path / "m").items():
        assert (weights(tmp_path / "n")[name] == value).all(), name


def test_a_kill_between_probes_repeats_none(embedder, tmp_path, monkeypatch):
    """Without dev files: measured are queries that no probe learns from."""
    ran = []

    def watched(data, loss, anchors, merge, run, train=embedder_training.train):
        if run.measure and len(ran) == 2:
            ran.append("killed")
            raise KeyboardInterrupt
        ran.append((run.arguments.learning_rate, run.arguments.max_steps, len(data.train), bool(run.measure)))
        return train(data, loss, anchors, merge, run)

    monkeypatch.setattr(embedder_training, "train", watched)
    loads = []
    load = train_embedder._Embedder.load
    monkeypatch.setattr(train_embedder._Embedder, "load", lambda self, of: loads.append(of) or load(self, of))
    assert train_embedder.main(embedder) == 130
    assert train_embedder.main(embedder) == 0
    found = manifest(tmp_path / "m")["learning_rate_probes"]
    whole = (found["chosen"], -1, 16, False)
    assert ran == [(RATES[0], 5, 4, True), (RATES[1], 5, 4, True), "killed", (RATES[2], 5, 4, True), whole]
    assert len(loads) == 1
    assert (found["measure"], found["queries"]) == ("Kendall's tau", 12)
    assert {row["alpha"] for row in found["probes"]} == {0.5}  # as the run will be merged


def test_a_reranker_finds_its_rate_and_one_that_diverges_is_none(tmp_path, tiny_cross_encoder, monkeypatch):
    write_records(tmp_path / "triplets.jsonl", [triplet for group in triplet_groups(16) for triplet in group])
    command = ["--train_file", f"{tmp_path}/triplets.jsonl", "--student", tiny_cross_encoder, "--bf16", "false", *AUTO]
    command += ["--per_device_train_batch_size", "4", "--output_dir", f"{tmp_path}/m"]
    monkeypatch.setattr(probes, "rates_to_try", lambda *_, **__: [1e-4, 3e-4, 1e30])
    assert train_reranker.main(command) == 0
    found = manifest(tmp_path / "m")["learning_rate_probes"]
    assert [row.get("diverged", False) for row in found["probes"]] == [False, False, True]
    assert found["chosen"] in (1e-4, 3e-4)
    assert (found["measure"], found["queries"]) == ("Kendall's tau", 12)
    assert "| 1e+30 | | diverged |" in (tmp_path / "m" / "README.md").read_text()


def test_a_short_run_takes_the_rate_in_the_middle(embedder, tmp_path):
    assert train_embedder.main([*embedder, "--num_train_epochs", "1"]) == 0
    found = manifest(tmp_path / "m")["learning_rate_probes"]
    reason = "a run of 4 steps over 16 queries is too short for probes"
    assert found == {"chosen": 1e-4, "reason": reason, "run_steps": 4}
    assert f"took `0.0001`: {reason}." in (tmp_path / "m" / "README.md").read_text()


def test_what_auto_does_not_go_with_is_said(embedder, capsys):
    assert train_embedder.main([*embedder, "--max_steps", "3"]) == 2
    assert "--num_train_epochs auto has no effect beside --max_steps. Leave one" in capsys.readouterr().err
    assert train_embedder.main([*embedder, "--learning_rate", "automatic"]) == 2
    assert "--learning_rate is automatic. Pass a number or auto." in capsys.readouterr().err
