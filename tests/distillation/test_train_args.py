"""Which flags of a training contradict each other, and which have a say in the weights."""

import pytest

from embedding_distillation import train as train_embedder
from rag_core.base.errors import UsageError
from rag_core.distillation.checkpoints import Selection
from rag_core.distillation.train_args import decisive_settings
from reranker_distillation import train as train_reranker
from tests.distillation.test_checkpoints import parse


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
    ("flags", "sentence"),
    [
        (["--learning_rate", "nan"], "--learning_rate is nan. Pass 0 or more."),
        (["--learning_rate", "-1"], "--learning_rate is -1. Pass 0 or more."),
        (["--num_train_epochs", "0"], "--num_train_epochs is 0. Pass a number above 0."),
        (["--per_device_train_batch_size", "0"], "--per_device_train_batch_size is 0. Pass 1 or more."),
        (["--gradient_accumulation_steps", "0"], "--gradient_accumulation_steps is 0. Pass 1 or more."),
        (["--warmup_steps", "inf"], "--warmup_steps is inf. Pass a finite number."),
    ],
)
def test_numbers_of_the_trainer_that_it_would_take_as_they_are(flags, sentence):
    with pytest.raises(UsageError) as error:
        parse(*flags, selection=Selection())
    assert str(error.value) == sentence


@pytest.mark.parametrize(("stage", "name"), [(train_reranker, "triplets"), (train_embedder, "scores")])
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--lora_alpha", "8"], "--lora_alpha has no effect without --lora_rank. Pass both, or neither."),
        (["--lora_rank", "0"], "--lora_rank is 0. Pass 1 or more, or leave it out."),
        (
            ["--lora_rank", "2", "--average_checkpoints", "2"],
            "adapters have no mean: the product of mean factors is not the mean of their products. "
            "Pass --average_checkpoints or --lora_rank, not both.",
        ),
    ],
)
def test_flags_of_adapters_that_contradict_each_other(flags, sentence, stage, name, tmp_path, capsys):
    content = {
        "triplets": '{"query_id": "1", "query": "a", "positive": "b", "negative": "c", "score": 0.25}\n',
        "scores": '{"query_id": "1", "query": "a", "passages": ["b", "c"], "scores": [0.5, 0.25]}\n',
    }
    (tmp_path / "t.jsonl").write_text(content[name])
    command = ["--train_file", f"{tmp_path}/t.jsonl", "--output_dir", f"{tmp_path}/m", "--student", "x"]
    assert stage.main([*command, *flags]) == 2
    assert capsys.readouterr().err == f"Error: {sentence}\n"
    assert not (tmp_path / "m.partial").exists()
