"""The language model that is trained: loaded with a pad token that is not its end, and saved as an ordinary folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from query_expansion_rl.writing.forms import Form, write_form
from rag_core.base.errors import EngineError
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import Dtype
from rag_core.engines.tokenizer import load_tokenizer

_ANY_LENGTH = 1  # a model that reads this much is not refused

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on all linear layers: Hu et al. 2021, arXiv:2106.09685, through peft."""

    rank: int
    alpha: float

    def config(self) -> Any:
        """Return them as peft takes them."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        )


@dataclass(frozen=True)
class Policy:
    """A causal language model of transformers and its tokenizer."""

    model: Any
    tokenizer: Any


def training_dtype() -> Dtype:
    """Return in what weights are held: bfloat16 on a GPU that has it.

    On CPUs bfloat16 was slower in training where it is native (13 CPU-s a step of 16 examples, float32 7).
    """
    import torch

    on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if on_gpu else "float32"


def load_policy(name: str) -> Policy:
    """Load a causal language model to be trained.

    Raises:
        EngineError: it cannot be loaded, or has no token to pad with beside the end token.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from rag_core.engines.transformers_engine import load_transformers

    tokenizer = load_tokenizer(name)
    set_padding(tokenizer, name)
    options = EngineOptions(describe_model(name), max_length=_ANY_LENGTH, dtype=training_dtype())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Policy(load_transformers(AutoModelForCausalLM, options, device), tokenizer)


def set_padding(tokenizer: Any, name: str) -> None:
    """Give a tokenizer a pad token that is not its end token.

    Collators mask what is padded, and with it the end: the model would never learn to stop.

    Raises:
        EngineError: it has no end token, or no other special token.
    """
    end = tokenizer.eos_token
    if end is None:
        raise EngineError(f"the tokenizer of {name} has no end token", "Set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token not in (None, end):
        return
    others = [token for token in dict.fromkeys(tokenizer.all_special_tokens) if token not in (end, tokenizer.bos_token)]
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special and str(token) != end]
    candidates = [*others, *(token for token in added if token != tokenizer.bos_token)]
    if not candidates:
        raise EngineError(
            f"the tokenizer of {name} pads with its end token, and has no other special token: the model would not "
            "learn to stop",
            "Set pad_token in its tokenizer_config.json",
        )
    tokenizer.pad_token = candidates[0]
    logger.info("%s pads with %s: with its end token it would not learn to stop", name, candidates[0])


def save_policy(policy: Policy, form: Form, folder: Path, *, trained: bool) -> None:
    """Write a model with adapters as an ordinary folder, with the form that it was trained in.

    Args:
        policy: its model is one of peft.
        trained: whether the adapters are merged into the weights, or left out.
    """
    peft_model = policy.model
    plain = peft_model.merge_and_unload() if trained else peft_model.unload()
    plain.__dict__.pop("forward", None)  # the trainers' own, which is of no use elsewhere
    plain.config.use_cache = True
    plain.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    write_form(folder, form)


def count_parameters(folder: str) -> int | None:
    """Return the number of a model's parameters, from the heads of its files; `None` where they do not tell."""
    from safetensors import safe_open

    paths = sorted(Path(folder).glob("*.safetensors"))
    total = 0
    for path in paths:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  # it is no dict
                size = 1
                for dimension in file.get_slice(name).get_shape():
                    size *= dimension
                total += size
    return total or None
