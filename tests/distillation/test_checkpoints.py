"""What is measured while training, and which flags of selection contradict each other."""

import numpy as np
import pytest
from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments
from sklearn.metrics import ndcg_score

from rag_core.base.errors import UsageError
from rag_core.base.records import ScoredPair
from rag_core.distillation.checkpoints import Selection
from rag_core.distillation.dev_set import DevSet, graded_ndcg
from rag_core.distillation.trainer import decisive_settings, parse_training_arguments
from rag_core.files.jsonl import write_records


def pairs(scores, labels=None):
    labels = labels or [None] * len(scores)
    return [ScoredPair("1", "q", f"p{i}", *row) for i, row in enumerate(zip(scores, labels, strict=True))]


def test_graded_ndcg_by_hand_and_by_another_library():
    # Gains 0, 1, 0.5; the student puts them in the order 0.5, 0, 1.
    value = graded_ndcg([0.2, 0.1, 0.3], pairs([-4.0, 0.0, -2.0]))
    assert value == pytest.approx((0.5 + 1 / 2) / (1 + 0.5 / np.log2(3)))
    generator = np.random.default_rng(4)
    for size in (2, 9, 30):
        teacher, student = generator.normal(size=(2, size))
        gains = (teacher - teacher.min()) / np.ptp(teacher)
        assert graded_ndcg(student, pairs(teacher.tolist())) == pytest.approx(ndcg_score([gains], [student], k=10))


@pytest.fixture
def dev_sets(tmp_path):
    write_records(tmp_path / "a.jsonl", pairs([0.1, 0.2], [1, 0]))
    write_records(tmp_path / "b.jsonl", pairs([0.1, 0.2]))
    return [DevSet.read(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]


def test_dev_is_the_mean_over_queries_and_files_stand_beside_it(dev_sets, monkeypatch):
    monkeypatch.setattr("rag_core.distillation.dev_set.student_scores", lambda *_: [np.array([0.5, 0.7])])
    values = Selection(dev_sets).evaluator(4)(None)
    assert values == {"dev": 0.75, "a_MAP": 0.5, "b_tau": 1.0, "b_NDCG@10": 1.0}


def parse(*flags, selection, evaluates=False):
    return parse_training_arguments(
        CrossEncoderTrainingArguments, flags, {"save_steps": 0.1}, seed=1, evaluates=evaluates, selection=selection
    )


def test_patience_keeps_the_best_and_what_is_saved_when_then_has_a_say(dev_sets):
    asked = Selection(dev_sets, early_stopping_patience=2)
    arguments = parse(selection=asked)
    assert arguments.load_best_model_at_end
    assert arguments.metric_for_best_model == "dev"
    assert arguments.greater_is_better
    assert decisive_settings(arguments, asked)["save_steps"] == 0.1
    plain = Selection(dev_sets)
    assert "save_steps" not in decisive_settings(parse(selection=plain), plain)


def test_as_many_checkpoints_are_kept_as_are_averaged():
    arguments = parse("--save_total_limit", "2", selection=Selection(average_checkpoints=4))
    assert arguments.save_total_limit == 4


@pytest.mark.parametrize(
    ("flags", "selection", "sentence"),
    [
        ("", {"early_stopping_patience": 0}, "--early_stopping_patience is 0. Pass 1 or more, or leave it out."),
        ("--metric_for_best_model MAP", {}, "--metric_for_best_model MAP is not measured. Pass one of dev, a_MAP"),
        ("--load_best_model_at_end --save_steps 0.2", {}, "the best evaluation may have no checkpoint. Pass --save"),
        ("", {"average_checkpoints": 1}, "--average_checkpoints is 1. Pass 2 or more, or leave it out."),
        ("--load_best_model_at_end", {"average_checkpoints": 2}, "the best checkpoint is wanted, and the mean of"),
        ("--save_strategy no", {"average_checkpoints": 2}, "--save_strategy no has no last checkpoints. Pass steps"),
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
