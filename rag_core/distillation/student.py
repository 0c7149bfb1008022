"""What of a student is there and is trained: some of the layers of a deeper model, low-rank adapters on its weights.

Layers at equal distances, the first and the last among them: Shleifer and Rush 2020, "Pre-trained Summarization
Distillation", arXiv:2010.13002; after DistilBERT (Sanh et al. 2019, arXiv:1910.01108), which takes every second one.

LoRA: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685, through peft.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import nn

from rag_core.base.errors import EngineError, UsageError

logger = logging.getLogger(__name__)


def spaced_layers(depth: int, count: int) -> list[int]:
    """Return `count` of the indices 0 ... depth - 1, evenly spaced, with both ends; of one, the first."""
    return [i * (depth - 1) // max(1, count - 1) for i in range(count)]


def keep_layers(model: Any, count: int) -> None:
    """Cut a transformers model down to `count` of its layers, in place, with a config that says so.

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


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters on all linear layers: their rank, and alpha, where alpha / rank is the factor on them."""

    rank: int
    alpha: float


class Adapters:
    """Low-rank adapters in a transformers model, whose own weights are then not trained; a scoring head still is."""

    def __init__(self, model: Any, settings: LoraSettings) -> None:
        """Put them into the model, in place.

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
        """Add them to the weights they stand beside: the model is an ordinary one again."""
        self._lora.merge_and_unload()
