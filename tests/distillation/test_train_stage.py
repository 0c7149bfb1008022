"""The body of both train stages: what their recipes hold, and what they read once."""

import json

import pytest
from sentence_transformers.base.training_args import BaseTrainingArguments

from embedding_distillation import train as train_embedder
from rag_core.distillation import train_stage
from rag_core.engines import identity
from rag_core.files.jsonl import write_records
from reranker_distillation import train as train_reranker
from tests.embedding_distillation.test_training import dev_set, groups
from tests.reranker_distillation.test_training import triplet_groups

# What both recipes hold of the flags that both stages have.
SHARED = {
    "average_checkpoints": None,
    "dropout": None,
    "early_stopping_patience": None,
    "init_layers": None,
    "lora_alpha": None,
    "lora_rank": None,
    "mini_batch_size": 32,
    "skip_bad_rows": False,
}
# Of the trainer's settings: what is set here, and what the pipelines do not leave to the trainer.
TRAINER = {
    "bf16": False,
    "gradient_accumulation_steps": 1,
    "learning_rate": 2e-5,
    "max_steps": 1,
    "num_train_epochs": 1.0,
    "per_device_eval_batch_size": 16,
    "per_device_train_batch_size": 16,
    "restore_callback_states_from_checkpoint": False,
    "seed": 42,
    "warmup_steps": 0.05,
}
WITHOUT_SAY = {"output_dir", "logging_steps", "save_steps", "save_total_limit", "report_to", "run_name", "disable_tqdm"}
RERANKER = {
    "loss": "margin_mse",
    "margin_scale": 1.0,
    "max_length": 4096,
    "mse_weight": 0.1,
    "score_scaling": "none",
    "student_temperature": 1.0,
    "teacher_temperature": None,
    "weighting": "none",
}
EMBEDDER = {
    "anchor_weight": 0.0,
    "anchors_per_query": 2,
    "contrastive_weight": 0.1,
    "loss": "kl",
    "matryoshka_dims": None,
    "max_length": 512,
    "merge": "auto",
    "retrieval_dev_passages": None,
    "student_temperature": 0.05,
    "teacher_temperature": 0.25,
}


@pytest.fixture
def commands(tmp_path, tiny_encoder, tiny_cross_encoder):
    """The smallest commands of both stages, by student."""
    write_records(tmp_path / "triplets.jsonl", [triplet for group in triplet_groups(4) for triplet in group])
    write_records(tmp_path / "scores.jsonl", groups(4))
    common = ["--output_dir", f"{tmp_path}/m", "--max_steps", "1", "--bf16", "false", "--train_file"]
    return {
        tiny_cross_encoder: (train_reranker, [*common, f"{tmp_path}/triplets.jsonl", "--student", tiny_cross_encoder]),
        tiny_encoder: (train_embedder, [*common, f"{tmp_path}/scores.jsonl", "--student", tiny_encoder]),
    }


def recipe_of(folder):
    return json.loads((folder / "m.manifest.json").read_text())["recipe"]


@pytest.mark.parametrize(
    ("student", "further", "expected"),
    [
        ("tiny_cross_encoder", [], RERANKER),
        ("tiny_cross_encoder", ["--margin_scale", "3", "--init_layers", "1"], {"margin_scale": 3.0, "init_layers": 1}),
        ("tiny_encoder", ["--teacher_temperature", "0.25"], EMBEDDER),
        (
            "tiny_encoder",
            ["--temperature", "0.5", "--merge", "0.25", "--matryoshka_dims", "32", "8"],
            {"student_temperature": 0.5, "teacher_temperature": 0.5, "merge": 0.25, "matryoshka_dims": [32, 8]},
        ),
    ],
)
def test_a_recipe_holds_the_flags_that_decide(student, further, expected, commands, tmp_path, request):
    """A change here makes somebody train again: see docs/ARCHITECTURE.md, "What a manifest holds"."""
    name = request.getfixturevalue(student)
    stage, command = commands[name]
    assert stage.main([*command, *further]) == 0
    recipe = recipe_of(tmp_path)
    of_the_trainer = BaseTrainingArguments.__dataclass_fields__.keys()
    own = {flag: value for flag, value in recipe["flags"].items() if flag not in of_the_trainer}
    assert own == SHARED | (RERANKER if stage is train_reranker else EMBEDDER) | expected
    assert recipe["flags"].items() >= TRAINER.items()
    assert recipe["flags"].keys().isdisjoint(WITHOUT_SAY)
    assert recipe["stage"] == stage.__name__
    assert recipe["model"] == identity.describe_model(name).identity
    assert list(recipe["inputs"]) == [command[-3]]


def test_of_what_is_saved_when_the_recipe_tells_where_it_has_a_say(commands, tmp_path, tiny_cross_encoder):
    stage, command = commands[tiny_cross_encoder]
    steps = ["--save_steps", "1", "--max_steps", "2"]
    assert stage.main([*command, *steps, "--average_checkpoints", "2"]) == 0
    flags = recipe_of(tmp_path)["flags"]
    assert (flags["average_checkpoints"], flags["save_strategy"], flags["save_steps"]) == (2, "steps", 1)


def test_the_folder_of_each_model_is_read_once(commands, tmp_path, tiny_encoder, tiny_wide_encoder, monkeypatch):
    read = []
    original = identity.ModelFiles.read
    monkeypatch.setattr(identity.ModelFiles, "read", lambda name: read.append(name) or original(name))
    dev_set(tmp_path / "dev.jsonl")
    (tmp_path / "anchors.jsonl").write_text('{"query": "a hen", "candidates": ["an egg"]}\n')
    stage, command = commands[tiny_encoder]
    further = ["--loss", "mse", "--teacher", tiny_wide_encoder, "--anchor_files", f"{tmp_path}/anchors.jsonl"]
    assert stage.main([*command, *further, "--dev_files", f"{tmp_path}/dev.jsonl"]) == 0
    assert read == [tiny_encoder, tiny_wide_encoder]
    assert recipe_of(tmp_path)["model"]["teacher"] == identity.describe_model(tiny_wide_encoder).identity
    assert recipe_of(tmp_path)["flags"]["anchor_weight"] == 30.0


@pytest.mark.parametrize("student", ["tiny_cross_encoder", "tiny_encoder"])
def test_what_is_finished_is_not_trained_again_and_another_recipe_is_refused(
    student, commands, tmp_path, request, monkeypatch, capsys
):
    stage, command = commands[request.getfixturevalue(student)]
    assert stage.main(command) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "m").iterdir()}
    monkeypatch.setattr(train_stage, "UnfinishedWork", None)  # nothing is begun
    capsys.readouterr()
    assert stage.main(command) == 0
    assert f"{tmp_path}/m is finished already" in capsys.readouterr().err
    assert stage.main([*command, "--learning_rate", "1e-3"]) == 1
    assert "exists already, made with other settings: --learning_rate (was 2e-05, is 0.001)" in capsys.readouterr().err
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "m").iterdir()} == before
