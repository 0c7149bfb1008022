"""Learners on tiny models: each moves the way it should, the best step is kept, and a killed run goes on."""

import json
import shutil
from pathlib import Path

import pytest

from query_expansion_rl.records import Demonstration, Preference
from query_expansion_rl.train import main
from query_expansion_rl.writing.forms import read_form
from tests.query_expansion_rl.workspaces import long_name, write_rows, write_workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_workspace(folder / "baselines")
    train = [n for n in range(12) if n % 4 < 2]
    prompts = {n: f"Query: s{n}\nKeywords:" for n in train}
    shown = [
        {"query_id": f"q{n}", "prompt": prompts[n], "completion": f"{long_name(n)}, river", "reward": 0.5}
        for n in train
    ]
    pairs = [
        {"query_id": f"q{n}", "prompt": prompts[n], "chosen": long_name(n), "rejected": "bridges", "margin": 0.5}
        for n in train
    ]
    write_rows(folder / "demonstrations.jsonl", shown)
    write_rows(folder / "preferences.jsonl", pairs)
    return folder


@pytest.fixture(scope="module")
def tiny_writer(tmp_path_factory):
    """Folder of a two-layer Qwen3 with random weights that reads bytes and pads with its end token."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("tiny-writer")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_tokens([AddedToken(name, special=True) for name in ("<|endoftext|>", "<|im_end|>")])
    end = "<|im_end|>"
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end, pad_token=end).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 258, "max_position_embeddings": 256}
    config = Qwen3Config(**sizes, **heads, bos_token_id=None, eos_token_id=257, pad_token_id=None)
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return str(folder)


FEW = ["--dev_every", "2", "--dev_queries", "2", "--max_new_tokens", "8", "--lora_rank", "4", "--log_level", "warning"]


def train(folder, method, model, output, *flags):
    files = {"rft": ["demonstrations.jsonl"], "dpo": ["preferences.jsonl"], "grpo": []}[method]
    given = ["--train_file", str(folder / files[0])] if files else []
    places = ["--baselines", str(folder / "baselines"), "--model", model, "--output_dir", str(output)]
    return main(["--method", method, *places, *given, *FEW, *flags])


def log_of(output):
    return json.loads((Path(output) / "training_log.json").read_text())


@pytest.mark.slow
def test_rft_learns_and_is_saved_as_an_ordinary_model(folder, tiny_writer, tmp_path, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from query_expansion_rl.learning import dev_queries

    values = iter([0.0, 0.1, 0.2, 0.3])
    measure = dev_queries.DevQueries.measure
    monkeypatch.setattr(
        dev_queries.DevQueries, "measure", lambda self, *given: measure(self, *given) | {"dev": next(values)}
    )
    output = tmp_path / "rft"
    assert train(folder, "rft", tiny_writer, output, "--max_steps", "4", "--learning_rate", "0.01") == 0
    log = log_of(output)
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]
    assert [entry["step"] for entry in log if "eval_dev" in entry] == [0, 2, 4]
    assert read_form(output).max_new_tokens == 8
    assert read_form(output).shots == 0
    assert not (output / "adapter_config.json").exists()
    facts = json.loads((tmp_path / "rft.manifest.json").read_text())
    assert facts["best_step"] == 4
    assert not (tmp_path / "rft.partial").exists()
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    before, after = (AutoModelForCausalLM.from_pretrained(name, dtype="float32") for name in (tiny_writer, str(output)))
    ids = tokenizer("Query: s1\nKeywords: becece, river<|im_end|>", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert after(ids, labels=ids).loss < before(ids, labels=ids).loss - 0.01
    assert after.config.use_cache


@pytest.mark.slow
def test_where_step_0_is_best_the_start_is_kept(folder, tiny_writer, tmp_path, capsys, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM

    from query_expansion_rl.learning import dev_queries

    values = iter([0.5, 0.1, 0.2])
    measure = dev_queries.DevQueries.measure
    monkeypatch.setattr(
        dev_queries.DevQueries, "measure", lambda self, *given: measure(self, *given) | {"dev": next(values)}
    )
    assert train(folder, "rft", tiny_writer, tmp_path / "rft", "--max_steps", "4", "--learning_rate", "0.01") == 0
    start, kept = (AutoModelForCausalLM.from_pretrained(name) for name in (tiny_writer, str(tmp_path / "rft")))
    assert all(torch.equal(a, b) for a, b in zip(start.parameters(), kept.parameters(), strict=True))
    assert "no step is better on the dev queries than the start (0.5000)" in capsys.readouterr().err

    values = iter([0.5, 0.1, 0.2])
    last = tmp_path / "last"
    assert train(folder, "rft", tiny_writer, last, "--max_steps", "4", "--learning_rate", "0.01", "--keep", "last") == 0
    kept = AutoModelForCausalLM.from_pretrained(last)
    assert not all(torch.equal(a, b) for a, b in zip(start.parameters(), kept.parameters(), strict=True))


@pytest.mark.slow
def test_dpo_parts_what_it_is_shown(folder, tiny_writer, tmp_path):
    one = (folder / "preferences.jsonl").read_text().splitlines()[0]
    (tmp_path / "preferences.jsonl").write_text(one + "\n")
    shutil.copytree(folder / "baselines", tmp_path / "baselines")
    flags = ["--max_steps", "4", "--learning_rate", "0.01", "--patience", "9"]
    assert train(tmp_path, "dpo", tiny_writer, tmp_path / "dpo", *flags) == 0
    margins = [entry["rewards/margins"] for entry in log_of(tmp_path / "dpo") if "rewards/margins" in entry]
    assert margins[0] == 0
    assert margins[-1] > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of vLLM, which GRPO's trainer imports where it is installed
def test_grpo_runs(folder, tiny_writer, tmp_path, capsys):
    flags = ["--max_steps", "2", "--num_generations", "4", "--per_device_train_batch_size", "4", "--beta", "0.1"]
    assert train(folder, "grpo", tiny_writer, tmp_path / "grpo", *flags) == 0
    steps = [entry for entry in log_of(tmp_path / "grpo") if "reward" in entry]
    assert len(steps) == 2
    assert {"completions/clipped_ratio", "frac_reward_zero_std", "kl", "entropy", "distinct_1"} <= steps[0].keys()
    assert all(entry["frac_reward_zero_std"] == 1 for entry in steps)  # bytes at random find nothing
    assert all(entry["loss"] == 0 for entry in steps)  # so there is no advantage
    assert "more than half of the answers are cut" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(folder, tiny_writer, tmp_path, monkeypatch):
    from transformers import TrainerCallback

    from query_expansion_rl.learning import watch

    flags = ["--max_steps", "4", "--per_device_train_batch_size", "2", "--learning_rate", "0.01"]
    assert train(folder, "rft", tiny_writer, tmp_path / "whole", *flags) == 0

    class Killed(BaseException):
        pass

    def kill(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(watch.Watch, "on_step_begin", TrainerCallback.on_step_begin)
        patch.setattr(watch.Watch, "on_log", kill)
        with pytest.raises(Killed):
            train(folder, "rft", tiny_writer, tmp_path / "killed", *flags)
    assert (tmp_path / "killed.partial" / "checkpoint-2").is_dir()
    assert train(folder, "rft", tiny_writer, tmp_path / "killed", *flags) == 0
    whole, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
    losses = [[entry["loss"] for entry in log_of(tmp_path / name) if "loss" in entry] for name in ("whole", "killed")]
    assert losses[0] == losses[1]


def test_flags_that_contradict(folder, capsys, tmp_path):
    def told(*flags):
        given = ["--baselines", str(folder / "baselines"), "--output_dir", str(tmp_path / "out"), *flags]
        assert main(given) == 2
        return capsys.readouterr().err

    assert "--method dpo needs what create_pairs made. Pass --train_file." in told("--method", "dpo", "--model", "m")
    assert "--method grpo needs a model to start from. Pass --model." in told("--method", "grpo")
    assert "--model has no effect on --method select." in told("--method", "select", "--model", "m")
    assert "--variants has no effect on --method grpo." in told(
        "--method", "grpo", "--model", "m", "--variants", "bm25"
    )
    files = ["--train_file", str(folder / "preferences.jsonl")]
    assert "--method grpo learns from its own samples." in told("--method", "grpo", "--model", "m", *files)


def test_demonstrations_of_a_test_query(tmp_path, capsys, folder):
    from query_expansion_rl.learning.data import read_training_rows
    from query_expansion_rl.retrieval.workspace import read_workspace
    from rag_core.base.errors import DataError
    from rag_core.files.bad_rows import NoBadRows

    row = {"query_id": "q3", "prompt": "Query: s3\nKeywords:", "completion": "a", "reward": 0.5}
    path = write_rows(tmp_path / "rows.jsonl", [row])
    workspace = read_workspace(folder / "baselines")
    with pytest.raises(DataError, match=r"rows.jsonl:1: query_id 'q3' is no train query of .* Run create_pairs again"):
        read_training_rows(path, "rft", workspace, NoBadRows())


def test_records_are_what_trl_reads(folder):
    from query_expansion_rl.learning.trainers import _example
    from query_expansion_rl.writing.forms import untrained_form
    from rag_core.files.jsonl import read_records

    form = untrained_form("keywords", style="completion", shots=0)
    shown = next(read_records(folder / "demonstrations.jsonl", Demonstration))
    pair = next(read_records(folder / "preferences.jsonl", Preference))
    assert _example(shown, form) == {"prompt": "Query: s0\nKeywords:", "completion": " bababa, river"}
    assert _example(pair, form)["chosen"] == " bababa"
    assert _example(pair, form)["rejected"] == " bridges"
