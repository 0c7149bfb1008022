"""The model that is trained: how it is loaded, how many of its layers it keeps, and whether adapters are trained.

A shallow student keeps evenly spaced layers, the first and the last among them: Shleifer and Rush 2020, "Pre-trained
Summarization Distillation", arXiv:2010.13002. DistilBERT (Sanh et al. 2019, arXiv:1910.01108) keeps every second one.

LoRA: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, through peft.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import nn

from rag_core.base.errors import EngineError, UsageError
from rag_core.engines.identity import ModelInfo
from rag_core.engines.pretrained import load_sentence_transformers

M = TypeVar("M", CrossEncoder, SentenceTransformer)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on all linear layers: their rank, and alpha, where alpha / rank is the factor on them."""

    rank: int
    alpha: float


@dataclass(frozen=True)
class StudentSettings:
    """Which model is trained, and how it starts and reads while it is.

    Attributes:
        max_length: tokens that it reads while it is trained.
        dropout: `None` for the one in its own configuration.
        mini_batch_size: pairs (cross-encoder) or texts (bi-encoder) in one forward pass.
        init_layers: how many layers it keeps, `None` for all.
        lora: adapters that are trained instead of the weights, `None` for the weights.
    """

    model: ModelInfo
    max_length: int
    dropout: float | None = None
    mini_batch_size: int = 32
    init_layers: int | None = None
    lora: LoraSettings | None = None


def load_model(student: StudentSettings, model_type: type[M]) -> M:
    """Load a student's model with its dropout and its layers.

    Raises:
        EngineError: it cannot be loaded.
        UsageError: it has fewer than `init_layers` layers.
    """
    rate = student.dropout
    model = load_sentence_transformers(
        student.model,
        model_type,
        dtype="float32",  # small updates are lost in the eight bits of bfloat16; the trainer computes in what is asked
        # PyTorch's fused attention trains slower than the plain one on a CPU.
        model_settings={} if torch.cuda.is_available() else {"attn_implementation": "eager"},
        config={} if rate is None else {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate},
    )
    if student.model.dtype not in (None, "float32"):
        logger.info("%s was saved in %s; it is trained and saved in float32", student.model.name, student.model.dtype)
    if model.transformers_model is None and (student.init_layers is not None or student.lora):
        raise UsageError(
            f"{student.model.name} has no layers ({student.model.why})", "Leave out --init_layers and --lora_rank"
        )
    if student.init_layers is not None:
        keep_layers(model.transformers_model, student.init_layers)
    return model


@contextmanager
def in_training(model: CrossEncoder | SentenceTransformer, student: StudentSettings) -> Iterator[None]:
    """Let a model read `max_length` tokens, and train its adapters where it has any; it leaves as an ordinary one.

    It then reads as many tokens as before: short training texts are no reason to cut the user's.
    """
    if model.transformers_model is None:  # a static embedder, which reads all of a text
        yield
        return
    own_length, model.max_seq_length = model.max_seq_length, min(student.max_length, model.max_seq_length)
    adapters = student.lora and Adapters(model.transformers_model, student.lora)
    yield
    if adapters:
        adapters.merge()
    model.max_seq_length = own_length


def spaced_layers(depth: int, count: int) -> list[int]:
    """Return `count` of the indices 0 ... depth - 1, evenly spaced and with both ends; a single one is the first."""
    return [i * (depth - 1) // max(1, count - 1) for i in range(count)]


def keep_layers(model: Any, count: int) -> None:
    """Cut a transformers model down to `count` of its layers, in place; its config says so.

    Raises:
        UsageError: the model has fewer layers, or they do not stand in one list.
    """
    config = model.config
    depth = getattr(config, "num_hidden_layers", None)
    stacks = [
        (owner, name, layers)
        for owner in model.modules()
        for name, layers in owner.named_children()
        if isinstance(layers, nn.ModuleList) and len(layers) == depth
    ]
    if depth is None or len(stacks) != 1:
        raise UsageError(f"the layers of a {type(model).__name__} do not stand in one list", "Leave out --init_layers")
    if not 1 <= count <= depth:
        raise UsageError(f"--init_layers is {count}, and the student has {depth} layers", f"Pass 1 to {depth}")
    ((owner, name, layers),) = stacks
    kept = spaced_layers(depth, count)
    setattr(owner, name, nn.ModuleList(layers[i] for i in kept))
    for place, i in enumerate(kept):
        for module in layers[i].modules():
            if hasattr(module, "layer_idx"):  # its place in a cache of keys and values
                module.layer_idx = place  # type: ignore[assignment]  # a module may have any attribute
    if getattr(config, "layer_types", None):  # full or sliding attention, layer by layer
        config.layer_types = [config.layer_types[i] for i in kept]
    config.num_hidden_layers = count
    logger.info("the student starts with layers %s of %d", ", ".join(str(i + 1) for i in kept), depth)


class Adapters:
    """Low-rank adapters in a transformers model. Its own weights are then not trained; a scoring head still is."""

    def __init__(self, model: Any, settings: LoraSettings) -> None:
        """Put adapters into the model, in place.

        Raises:
            EngineError: peft is not installed.
        """
        try:
            from peft import LoraConfig, LoraModel
        except ImportError as error:
            raise EngineError("--lora_rank needs peft", "pip install -c constraints.txt peft") from error
        config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear")
        self._lora = LoraModel(model.base_model, config, "default")

    def merge(self) -> None:
        """Add the adapters to the weights beside them: the model is an ordinary one again."""
        self._lora.merge_and_unload()
