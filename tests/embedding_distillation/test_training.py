"""Training with a tiny student: the trajectory of the loss, what must have no influence on it, and what is merged."""

import json
import random
import shutil
import subprocess

import pytest
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

from embedding_distillation.collator import Anchors
from embedding_distillation.loss_settings import LossSettings, TrainingData
from embedding_distillation.training import train
from rag_core.base.errors import UsageError
from rag_core.base.records import ScoredPair, SoftLabels
from rag_core.distillation.checkpoints import NO_SELECTION, Selection
from rag_core.distillation.dev_set import Candidates, DevSet
from rag_core.distillation.student import StudentSettings
from rag_core.distillation.train_args import parse_training_arguments
from rag_core.distillation.trainer import TrainingRun
from rag_core.engines.identity import describe_model
from rag_core.files.jsonl import read_groups, write_records
from tests.conftest import TINY

GOLDEN = TINY.parent.parent / "tests" / "golden" / "train_embedder_losses.json"


def texts():
    return sorted({text for path in TINY.glob("*.jsonl") for text in path.read_text().split('"') if len(text) > 20})


def groups(queries=16, candidates=4):
    generator = random.Random(7)
    return [
        SoftLabels(
            str(i), texts()[i], generator.sample(texts(), candidates), [generator.random() for _ in range(candidates)]
        )
        for i in range(queries)
    ]


def run(
    output,
    student,
    *flags,
    merge="off",
    dev_sets=(),
    anchors=(),
    name="kl",
    teacher=None,
    init_layers=None,
    selection=NO_SELECTION,
    sizes=(),
):
    arguments = parse_training_arguments(
        SentenceTransformerTrainingArguments,
        ["--bf16", "false", "--logging_steps", "1", "--learning_rate", "1e-3", *flags],
        {"report_to": "none"},
        seed=1,
        evaluates=False,
        selection=selection,
    )
    checkpoints = output.with_name(output.name + ".partial")
    checkpoints.mkdir(exist_ok=True)
    arguments.output_dir = str(checkpoints)
    facts = train(
        TrainingData(groups()),
        LossSettings(name, 0.3, 0.1, 0.1, 1.0 if anchors else 0.0, sizes),
        Anchors(list(anchors), 2, seed=1),
        merge,
        TrainingRun(
            student=StudentSettings(describe_model(student), 64, None, 3, init_layers),
            arguments=arguments,
            output_dir=output,
            teacher=describe_model(teacher) if teacher else None,
            selection=selection,
            dev_sets=list(dev_sets),
        ),
    )
    log = json.loads((output / "training_log.json").read_text())
    return facts, [entry["loss"] for entry in log if "loss" in entry]


def weights(model):
    return {name: value.numpy() for name, value in SentenceTransformer(str(model), device="cpu").state_dict().items()}


BATCH_4 = ["--per_device_train_batch_size", "4", "--max_steps", "4"]


def test_the_loss_of_four_steps(tmp_path, tiny_encoder):
    _, losses = run(tmp_path / "m", tiny_encoder, *BATCH_4)
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4)


def test_accumulated_small_batches_equal_a_large_one(tmp_path, tiny_encoder):
    _, large = run(tmp_path / "a", tiny_encoder, "--per_device_train_batch_size", "8", "--max_steps", "2")
    small_flags = ["--per_device_train_batch_size", "1", "--gradient_accumulation_steps", "8", "--max_steps", "2"]
    _, small = run(tmp_path / "b", tiny_encoder, *small_flags)
    assert small == pytest.approx(large, rel=1e-4)


def test_a_batch_in_parts_teaches_what_the_whole_one_does(tmp_path, tiny_encoder, monkeypatch):
    flags = ["--per_device_train_batch_size", "8", "--max_steps", "2", "--optim", "sgd"]
    _, parts = run(tmp_path / "parts", tiny_encoder, *flags)
    monkeypatch.setattr(LossSettings, "is_of_lists", False)
    _, whole = run(tmp_path / "whole", tiny_encoder, *flags)
    assert parts == pytest.approx(whole, rel=1e-5)
    expected = weights(tmp_path / "whole")
    for name, value in weights(tmp_path / "parts").items():
        assert value == pytest.approx(expected[name], abs=1e-6), name


@pytest.mark.parametrize("name", ["kl", "margin_mse", "mse", "kl+contrastive"])
def test_every_loss_falls(tmp_path, tiny_encoder, tiny_wide_encoder, name):
    teacher = tiny_wide_encoder if name in ("mse", "kl+contrastive") else None
    anchors = [("passage", text) for text in texts()[:5]]
    flags = ["--per_device_train_batch_size", "16", "--max_steps", "8"]
    _, losses = run(tmp_path / "m", tiny_encoder, *flags, name=name, teacher=teacher, anchors=anchors)
    assert losses[-1] < losses[0]


def test_a_projection_goes_on_where_the_checkpoint_left_it(tmp_path, tiny_encoder, tiny_wide_encoder):
    flags = ["--per_device_train_batch_size", "4", "--max_steps", "4", "--save_steps", "2"]
    _, whole = run(tmp_path / "whole", tiny_encoder, *flags, name="mse", teacher=tiny_wide_encoder)
    run(tmp_path / "m", tiny_encoder, *flags, name="mse", teacher=tiny_wide_encoder)
    shutil.rmtree(tmp_path / "m.partial" / "checkpoint-4")
    _, resumed = run(tmp_path / "m", tiny_encoder, *flags, name="mse", teacher=tiny_wide_encoder)
    assert resumed == whole
    for key, value in weights(tmp_path / "whole").items():
        assert (weights(tmp_path / "m")[key] == value).all(), key


def dev_set(path, labels=True):
    rows = [
        ScoredPair(group.query_id, group.query, passage, score, label if labels else None)
        for group in groups(6)
        for passage, score, label in zip(group.passages, group.scores, (1, 0, 0, 1), strict=True)
    ]
    write_records(path, rows)
    return DevSet.read(path)


def test_the_best_checkpoint_is_kept_and_measuring_changes_nothing(tmp_path, tiny_encoder):
    flags = [*BATCH_4, "--save_steps", "1", "--save_total_limit", "9"]
    _, plain = run(tmp_path / "plain", tiny_encoder, *flags)
    dev_set(tmp_path / "dev.jsonl")
    asked = read_groups(tmp_path / "dev.jsonl", ScoredPair)
    then = SentenceTransformer(str(tmp_path / "plain.partial" / "checkpoint-2"))
    then.max_seq_length = 64
    rows = [
        ScoredPair(pair.query_id, pair.query, pair.passage, float(score))
        for group, scores in zip(asked, Candidates(asked).scores(then, 3), strict=True)
        for pair, score in zip(group, scores, strict=True)
    ]
    write_records(tmp_path / "dev.jsonl", rows)
    selection = Selection([DevSet.read(tmp_path / "dev.jsonl")])
    flags += ["--eval_steps", "1", "--load_best_model_at_end", "--metric_for_best_model", "dev_NDCG@10"]
    facts, losses = run(tmp_path / "m", tiny_encoder, *flags, selection=selection)
    assert losses == plain
    assert facts["best_step"] == 2
    assert [entry["step"] for entry in facts["dev"]] == [1, 2, 3, 4]
    assert max(facts["dev"], key=lambda entry: entry["dev_NDCG@10"])["step"] == 2
    expected = weights(tmp_path / "plain.partial" / "checkpoint-2")
    for name, value in weights(tmp_path / "m").items():
        assert (value == expected[name]).all(), name


def test_the_manifest_has_the_dev_values_at_each_size(tmp_path, tiny_encoder):
    dev = dev_set(tmp_path / "dev.jsonl")
    facts, _ = run(tmp_path / "m", tiny_encoder, *BATCH_4, dev_sets=[("in-domain", dev)], sizes=(32, 8))
    for size in (32, 8):
        cut = SentenceTransformer(str(tmp_path / "m"), truncate_dim=size)
        assert facts["matryoshka"]["dev.jsonl"][str(size)] == pytest.approx(dev.values(cut, 3).mean())
    with pytest.raises(UsageError, match=r"--matryoshka_dims has 33\. The student's embeddings have 1 to 32 dim"):
        run(tmp_path / "n", tiny_encoder, *BATCH_4, sizes=(33,))


def test_merged_weights_lie_between_before_and_after(tmp_path, tiny_encoder):
    run(tmp_path / "off", tiny_encoder, *BATCH_4)
    facts, _ = run(tmp_path / "merged", tiny_encoder, *BATCH_4, merge=0.25)
    assert facts["alpha"] == 0.25
    before, after, merged = (weights(path) for path in (tiny_encoder, tmp_path / "off", tmp_path / "merged"))
    for name, value in merged.items():
        assert value == pytest.approx(0.75 * before[name] + 0.25 * after[name], abs=1e-6)


def test_the_model_reads_as_much_as_before(tmp_path, tiny_encoder):
    run(tmp_path / "m", tiny_encoder, *BATCH_4)  # cuts texts to 64 tokens
    lengths = [SentenceTransformer(str(path)).max_seq_length for path in (tiny_encoder, tmp_path / "m")]
    assert lengths == [128, 128]


def test_without_dev_files_half_of_the_way_is_kept(tmp_path, tiny_encoder):
    facts, _ = run(tmp_path / "m", tiny_encoder, *BATCH_4, merge="auto")
    assert facts["alpha"] == 0.5
    assert json.loads((tmp_path / "m" / "merge.json").read_text())["reason"] == "no dev file to choose it on"


def test_a_shallow_student_learns_is_loaded_and_is_merged_with_its_own_start(tmp_path, tiny_encoder):
    facts, losses = run(tmp_path / "m", tiny_encoder, *BATCH_4, merge="auto", init_layers=1)
    assert losses[-1] < losses[0]
    assert facts["alpha"] == 1
    after, deep = weights(tmp_path / "m"), weights(tiny_encoder)
    assert not [name for name in after if "layer.1." in name]
    run(tmp_path / "merged", tiny_encoder, *BATCH_4, merge=0.25, init_layers=1)
    for name, value in weights(tmp_path / "merged").items():
        assert value == pytest.approx(0.75 * deep[name] + 0.25 * after[name], abs=1e-6)


@pytest.mark.parametrize(("labels", "measure"), [(True, "MAP"), (False, "Kendall's tau")])
def test_dev_files_choose_and_their_values_are_those_of_the_saved_model(tmp_path, tiny_encoder, labels, measure):
    inside = dev_set(tmp_path / "dev.jsonl", labels)
    outside = dev_set(tmp_path / "out.jsonl", labels)
    facts, _ = run(
        tmp_path / "m",
        tiny_encoder,
        *BATCH_4,
        merge="auto",
        dev_sets=[("in-domain", inside), ("out-of-domain", outside)],
    )
    merge = json.loads((tmp_path / "m" / "merge.json").read_text())
    assert merge["alpha"] == facts["alpha"]
    assert [(file["name"], file["domain"], file["measure"]) for file in merge["files"]] == [
        ("dev.jsonl", "in-domain", measure),
        ("out.jsonl", "out-of-domain", measure),
    ]
    chosen = merge["alphas"].index(merge["alpha"])
    value = inside.values(SentenceTransformer(str(tmp_path / "m")), 4).mean()
    assert value == pytest.approx(merge["files"][0]["values"][chosen], abs=1e-6)
    before = inside.values(SentenceTransformer(tiny_encoder, device="cpu"), 4).mean()
    assert before == pytest.approx(merge["files"][0]["values"][0], abs=1e-6)


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(tmp_path, tiny_encoder, warm_python):
    write_records(tmp_path / "s.jsonl", groups())
    command = ["-m", "embedding_distillation.train", "--train_file", f"{tmp_path}/s.jsonl", "--student", tiny_encoder]
    command += [
        "--max_steps",
        "4",
        "--merge",
        "off",
        "--bf16",
        "false",
        "--learning_rate",
        "1e-3",
        "--logging_steps",
        "1",
    ]
    root = TINY.parent.parent
    one = [*command, "--output_dir", f"{tmp_path}/one", "--per_device_train_batch_size", "8"]
    subprocess.run([warm_python.executable, *one], cwd=root, check=True)
    two = [*command, "--output_dir", f"{tmp_path}/two", "--per_device_train_batch_size", "4"]
    found = subprocess.run([*warm_python.twice, *two], cwd=root, check=True, capture_output=True, text=True)
    assert found.stdout == f"{tmp_path}/two\n"
    losses = [
        [entry["loss"] for entry in json.loads((tmp_path / name / "training_log.json").read_text()) if "loss" in entry]
        for name in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for key, value in weights(tmp_path / "one").items():
        assert weights(tmp_path / "two")[key] == pytest.approx(value, abs=1e-5), key
    assert not list(tmp_path.glob("*.partial"))
