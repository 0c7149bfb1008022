"""What is measured while training, and which flags of selection contradict each other."""

import json

import numpy as np
import pytest
from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

from rag_core.base.errors import UsageError
from rag_core.distillation.checkpoints import Selection, other_processes
from rag_core.distillation.dev_set import Candidates
from rag_core.distillation.train_args import parse_training_arguments


def test_dev_is_the_mean_over_queries_and_files_stand_beside_it(dev_sets, monkeypatch):
    monkeypatch.setattr(Candidates, "scores", lambda *_: [np.array([0.5, 0.7])])
    values = Selection(dev_sets).evaluator(4)(None)
    assert values == {"dev": 0.75, "a_MAP": 0.5, "b_tau": 1.0, "b_NDCG@10": 1.0}


def parse(*flags, selection, evaluates=False):
    return parse_training_arguments(
        CrossEncoderTrainingArguments, flags, {"save_steps": 0.1}, seed=1, evaluates=evaluates, selection=selection
    )


@pytest.mark.parametrize(
    ("flags", "selection", "sentence"),
    [
        ("", {"early_stopping_patience": 0}, "--early_stopping_patience is 0. Pass 1 or more, or leave it out."),
        ("--metric_for_best_model MAP", {}, "--metric_for_best_model MAP is not measured. Pass one of dev, a_MAP"),
        ("--load_best_model_at_end --save_steps 0.2", {}, "the best weights may be in no checkpoint. Pass --save"),
        ("", {"average_checkpoints": 1}, "--average_checkpoints is 1. Pass 2 or more, or leave it out."),
        ("--load_best_model_at_end", {"average_checkpoints": 2}, "--load_best_model_at_end keeps one checkpoint, and"),
        ("--save_strategy no", {"average_checkpoints": 2}, "--save_strategy no leaves no checkpoints to average."),
    ],
)  # fmt: skip
def test_flags_that_contradict_each_other_are_usage_errors(dev_sets, flags, selection, sentence):
    with pytest.raises(UsageError) as caught:
        parse(*flags.split(), selection=Selection(dev_sets, **selection))
    assert str(caught.value).startswith(sentence)


def test_without_anything_to_measure_nothing_can_be_selected(dev_sets):
    with pytest.raises(UsageError, match="the save and eval strategy to match"):
        parse(selection=Selection(early_stopping_patience=1))
    assert parse(selection=Selection(early_stopping_patience=1), evaluates=True).metric_for_best_model == "loss"
    with pytest.raises(UsageError, match="two dev files have the same name"):
        parse(selection=Selection([dev_sets[0]] * 2))


@pytest.mark.parametrize(
    ("written", "batch", "found"),
    [
        (["rng_state.pth"], 4, []),
        (["rng_state_0.pth", "rng_state_1.pth", "rng_state_2.pth"], 4, ["the number of processes (was 3, is 1)"]),
        (["rng_state.pth"], 8, ["the number of GPUs of a process (was 2, is 1)"]),
        (["rng_state_0.pth"], 4, []),  # killed before the others wrote theirs
        ([], 4, []),  # --save_only_model
        ([], None, []),
    ],
)
def test_which_processes_wrote_the_checkpoints(tmp_path, written, batch, found):
    arguments = parse("--per_device_train_batch_size", "4", selection=Selection())
    assert other_processes(tmp_path, arguments) == []
    for step, files in (("5", written), ("10", written[:1])):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        (folder / "trainer_state.json").write_text(json.dumps({"train_batch_size": batch} if batch else {}))
    (tmp_path / "checkpoint-15").mkdir()
    (tmp_path / "checkpoint-15" / "rng_state_7.pth").touch()  # not whole
    assert other_processes(tmp_path, arguments) == found
