"""Which weights are kept: of the best checkpoint, or the mean of the last ones; also after a kill."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_transformers import CrossEncoder

from rag_core.base.errors import UsageError
from rag_core.base.records import ScoredPair
from rag_core.distillation.checkpoints import Selection
from rag_core.distillation.dev_set import Candidates, DevSet
from rag_core.distillation.student import LoraSettings
from rag_core.files.jsonl import read_groups, write_records
from tests.reranker_distillation.test_training import losses_of, triplet_groups

FLAGS = ["--per_device_train_batch_size", "4", "--max_steps", "8", "--save_steps", "2"]


def unlabelled_rows():
    rows = []
    for group in triplet_groups(8, (5,)):
        passages = dict.fromkeys(text for triplet in group for text in (triplet.positive, triplet.negative))
        rows += [ScoredPair(group[0].query_id, group[0].query, text, float(i)) for i, text in enumerate(passages)]
    return rows


@pytest.fixture
def dev_set(tmp_path, tiny_cross_encoder):
    """Scores with which the student agrees best at step 4: they are its own."""
    write_records(tmp_path / "dev.jsonl", unlabelled_rows())
    groups = read_groups(tmp_path / "dev.jsonl", ScoredPair)
    _, output = losses_of(tmp_path / "before", tiny_cross_encoder, *FLAGS)
    then = CrossEncoder(str(partial(output) / "checkpoint-4"), model_kwargs={"attn_implementation": "eager"})
    then.max_seq_length = 64
    rows = [
        ScoredPair(pair.query_id, pair.query, pair.passage, float(score))
        for group, scores in zip(groups, Candidates(groups).scores(then, 4), strict=True)
        for pair, score in zip(group, scores, strict=True)
    ]
    write_records(tmp_path / "dev.jsonl", rows)
    return DevSet.read(tmp_path / "dev.jsonl")


def partial(output):
    return output.with_name(output.name + ".partial")


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert np.array_equal(value, expected[name]), name


def test_the_best_checkpoint_is_kept_also_after_a_kill(tmp_path, tiny_cross_encoder, dev_set):
    flags = [*FLAGS, "--eval_steps", "2", "--load_best_model_at_end", "--save_total_limit", "2"]

    def run(name):
        return losses_of(tmp_path / name, tiny_cross_encoder, *flags, selection=Selection([dev_set]))[1]

    output = run("a")
    log = json.loads((output / "training_log.json").read_text())
    values = {entry["step"]: entry["eval_dev"] for entry in log if "eval_dev" in entry}
    assert list(values) == [2, 4, 6, 8]
    assert values[4] == pytest.approx(1) != max(values[step] for step in (2, 6, 8))
    assert {"eval_dev_tau", "eval_dev_NDCG@10"} <= next(entry for entry in log if "eval_dev" in entry).keys()
    assert_equal(weights(output), weights(partial(output) / "checkpoint-4"))

    # After the end of training, and before it.
    shutil.copytree(partial(output), tmp_path / "b" / partial(output).name)
    assert_equal(weights(run("b")), weights(output))
    shutil.copytree(partial(output), tmp_path / "c" / partial(output).name)
    shutil.rmtree(tmp_path / "c" / partial(output).name / "checkpoint-8")
    assert_equal(weights(run("c")), weights(output))


def test_training_stops_early_also_after_a_kill(tmp_path, tiny_cross_encoder, dev_set):
    flags = ["--per_device_train_batch_size", "4", "--max_steps", "20", "--save_steps", "2", "--eval_steps", "2"]
    flags += ["--lr_scheduler_type", "constant"]  # as with 8 steps

    def run(name):
        asked = Selection([dev_set], early_stopping_patience=2)
        _, output = losses_of(tmp_path / name, tiny_cross_encoder, *flags, selection=asked)
        log = json.loads((output / "training_log.json").read_text())
        return output, [entry["step"] for entry in log if "eval_dev" in entry]

    output, steps = run("a")
    whole = weights(output)
    assert steps[-1] < 20
    for name, gone in (("b", []), ("c", steps[-1:]), ("d", steps[-2:])):
        folder = tmp_path / name / partial(output).name
        shutil.copytree(partial(output), folder)
        for step in gone:
            shutil.rmtree(folder / f"checkpoint-{step}")
        resumed, found = run(name)
        assert found == steps
        assert_equal(weights(resumed), whole)


def test_the_mean_of_the_last_checkpoints_is_kept_also_after_a_kill(tmp_path, tiny_cross_encoder):
    def run():
        return losses_of(tmp_path, tiny_cross_encoder, *FLAGS, selection=Selection(average_checkpoints=3))[1]

    output = run()
    checkpoints = [weights(partial(output) / f"checkpoint-{step}") for step in (4, 6, 8)]
    found = weights(output)
    for name, value in found.items():
        assert value == pytest.approx(np.mean([tensors[name] for tensors in checkpoints], axis=0), abs=1e-6), name
    assert not np.array_equal(found["classifier.weight"], checkpoints[-1]["classifier.weight"])
    shutil.rmtree(output)
    shutil.rmtree(partial(output) / "checkpoint-8")
    assert_equal(weights(run()), found)


def test_a_training_that_saves_too_few_checkpoints_is_refused_before_its_first_step(tmp_path, tiny_cross_encoder):
    with pytest.raises(UsageError, match="--average_checkpoints is 5, and 4 will be saved"):
        losses_of(tmp_path, tiny_cross_encoder, *FLAGS, selection=Selection(average_checkpoints=5))


@pytest.mark.parametrize("start", ["tiny_encoder", "tiny_cross_encoder"])
def test_adapters_leave_an_ordinary_model_also_after_a_kill(tmp_path, request, start, dev_set):
    pytest.importorskip("peft")
    student = request.getfixturevalue(start)
    flags = [*FLAGS, "--eval_steps", "2", "--load_best_model_at_end", "--save_total_limit", "4"]

    def run(lora):
        return losses_of(tmp_path / "a", student, *flags, selection=Selection([dev_set]), lora=lora)[1]

    output = run(LoraSettings(4, 8.0))
    found = weights(output)
    kept = load_file(partial(output) / "checkpoint-8" / "trained.safetensors")
    assert not [name for name in kept if "lora_" not in name and "classifier" not in name and "2.linear" not in name]
    before = weights(Path(student))
    own = {
        name.removeprefix("bert."): value
        for name, value in found.items()
        if name.find("classifier") + name.find("pooler") == -2
    }
    for name, value in own.items():
        same = np.array_equal(value, before.get(name, before.get(f"bert.{name}")))
        assert same == ("embeddings" in name or "LayerNorm" in name or name.endswith("bias")), name
    shutil.rmtree(output)
    shutil.rmtree(partial(output) / "checkpoint-8")
    assert_equal(weights(run(LoraSettings(4, 8.0))), found)
    CrossEncoder(str(output)).predict([("a query", "a passage")])
