"""Training with a tiny student: the trajectory of the loss, and what must have no influence on it."""

import itertools
import json
import random
import subprocess

import pytest
from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

from rag_core.base.records import Triplet
from rag_core.distillation.checkpoints import NO_SELECTION
from rag_core.distillation.student import StudentSettings
from rag_core.distillation.train_args import parse_training_arguments
from rag_core.distillation.trainer import TrainingRun
from rag_core.engines.identity import describe_model
from rag_core.files.jsonl import write_records
from reranker_distillation.loss_settings import LossSettings, TrainingData
from reranker_distillation.training import load_student, train
from tests.conftest import TINY

GOLDEN = TINY.parent.parent / "tests" / "golden" / "train_losses.json"


MARGIN_MSE = LossSettings("margin_mse")


def triplet_groups(queries=16, triplets=(3,)):
    generator = random.Random(7)
    texts = sorted({text for path in TINY.glob("*.jsonl") for text in path.read_text().split('"') if len(text) > 20})
    groups = []
    for query_id in range(queries):
        chosen = generator.sample(texts, triplets[query_id % len(triplets)] + 1)
        groups.append(
            [
                Triplet(str(query_id), texts[query_id], better, worse, generator.uniform(0.1, 3.0))
                for better, worse in itertools.pairwise(chosen)
            ]
        )
    return groups


def losses_of(tmp_path, student, *flags, groups=None, loss=MARGIN_MSE, selection=NO_SELECTION, **options):
    arguments = parse_training_arguments(
        CrossEncoderTrainingArguments,
        ["--bf16", "false", "--logging_steps", "1", "--learning_rate", "1e-3", *flags],
        {},
        seed=1,
        evaluates=False,
        selection=selection,
    )
    output = tmp_path / "-".join(["model", *(flag.strip("-") for flag in flags)])
    arguments.output_dir = str(output.with_name(output.name + ".partial"))
    settings = StudentSettings(describe_model(student), 64, **options)
    train(TrainingData(groups or triplet_groups()), loss, TrainingRun(settings, arguments, output, selection=selection))
    log = json.loads((output / "training_log.json").read_text())
    return [entry["loss"] for entry in log if "loss" in entry], output


BATCHES_OF_8 = ["--per_device_train_batch_size", "8", "--num_train_epochs", "2"]


def test_the_loss_of_four_steps(tmp_path, tiny_cross_encoder):
    losses, _ = losses_of(tmp_path, tiny_cross_encoder, *BATCHES_OF_8)
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-3)


# Queries have different numbers of triplets, and the last step of an epoch has fewer queries than the others.
RAGGED = {"queries": 14, "triplets": (1, 5, 2)}
# Adam blows up the rounding of gradients that are zero, such as those of the head's bias.
PLAIN_SGD = ["--optim", "sgd", "--max_grad_norm", "0", "--learning_rate", "1e-2"]


def test_accumulated_small_batches_equal_a_large_one(tmp_path, tiny_cross_encoder):
    groups = triplet_groups(**RAGGED)
    large, large_model = losses_of(tmp_path, tiny_cross_encoder, *BATCHES_OF_8, *PLAIN_SGD, groups=groups)
    batches = ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2", "--num_train_epochs", "2"]
    small, small_model = losses_of(tmp_path, tiny_cross_encoder, *batches, *PLAIN_SGD, groups=groups)
    assert small == pytest.approx(large, rel=1e-5)
    assert_same_weights(small_model, large_model)


def assert_same_weights(model, other):
    from safetensors.numpy import load_file

    expected = load_file(other / "model.safetensors")
    for name, values in load_file(model / "model.safetensors").items():
        assert values == pytest.approx(expected[name], abs=1e-5), name


@pytest.mark.slow
def test_two_processes_of_torchrun_train_as_one(tmp_path, tiny_cross_encoder, warm_python):
    groups = triplet_groups(triplets=RAGGED["triplets"])
    write_records(tmp_path / "t.jsonl", [triplet for group in groups for triplet in group])
    command = ["-m", "reranker_distillation.train", "--train_file", f"{tmp_path}/t.jsonl"]
    command += ["--student", tiny_cross_encoder, "--max_steps", "4", "--bf16", "false", "--logging_steps", "1"]
    command += ["--max_length", "64", *PLAIN_SGD]
    losses = {}
    for name, launch, size in (("one", [warm_python.executable], "8"), ("two", warm_python.twice, "4")):
        where = ["--output_dir", f"{tmp_path}/{name}", "--per_device_train_batch_size", size]
        found = subprocess.run(
            [*launch, *command, *where],
            cwd=TINY.parent.parent,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert found.stdout == f"{tmp_path}/{name}\n"
        log = json.loads((tmp_path / name / "training_log.json").read_text())
        losses[name] = [entry["loss"] for entry in log if "loss" in entry]
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-5)
    assert_same_weights(tmp_path / "two", tmp_path / "one")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(("start", "length"), [("tiny_encoder", 64), ("tiny_cross_encoder", 128)])
def test_a_cross_encoder_reads_as_much_as_before(tmp_path, request, start, length):
    from sentence_transformers import CrossEncoder

    _, output = losses_of(tmp_path, request.getfixturevalue(start), *BATCHES_OF_8)  # cuts pairs to 64 tokens
    assert CrossEncoder(str(output)).max_seq_length == length


def test_the_size_of_mini_batches_has_no_influence(tmp_path, tiny_cross_encoder):
    from reranker_distillation.losses import GroupedCollator, GroupedMarginMSE, group_triplets

    model = load_student(StudentSettings(describe_model(tiny_cross_encoder), 64))
    losses = []
    for size in (1, 7, 64):
        batch = GroupedCollator(model.preprocess, mini_batch_size=size)(list(group_triplets(triplet_groups(), 1.0)))
        labels = batch.pop("label")
        losses.append(GroupedMarginMSE(model)(list(batch.values()), labels).item())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["tiny_encoder", "tiny_cross_encoder"])
def test_a_shallow_student_learns_and_is_loaded(tmp_path, request, start):
    from sentence_transformers import CrossEncoder

    flags = ["--per_device_train_batch_size", "16", "--num_train_epochs", "8"]
    losses, output = losses_of(tmp_path, request.getfixturevalue(start), *flags, init_layers=1)
    assert losses[-1] < losses[0]
    assert CrossEncoder(str(output))[0].auto_model.config.num_hidden_layers == 1


def test_a_student_grown_from_an_encoder_is_saved_and_loaded_as_it_was(tmp_path, tiny_encoder):
    from sentence_transformers import CrossEncoder

    student = load_student(StudentSettings(describe_model(tiny_encoder), 64))
    student.save_pretrained(str(tmp_path / "grown"), create_model_card=False)
    loaded = CrossEncoder(str(tmp_path / "grown"))
    pairs = [("how do I keep bread fresh", "Store a loaf in a linen bag."), ("a", "b " * 200)]
    assert loaded.predict(pairs) == pytest.approx(student.predict(pairs), abs=1e-6)
    assert loaded.max_seq_length == 64
    assert describe_model(str(tmp_path / "grown")).kind == "cross-encoder"


def test_bfloat16_does_not_make_ties(tmp_path, tiny_cross_encoder):
    from rag_core.engines.options import EngineOptions
    from rag_core.engines.sentence_transformers_engine import CrossEncoderScorer

    scorer = CrossEncoderScorer(EngineOptions(describe_model(tiny_cross_encoder), dtype="bfloat16"))
    texts = sorted({text for path in TINY.glob("*.jsonl") for text in path.read_text().split('"') if len(text) > 20})
    scores = scorer.score([("how do I keep bread fresh", text) for text in texts])
    assert len(set(scores.tolist())) == len(texts)
