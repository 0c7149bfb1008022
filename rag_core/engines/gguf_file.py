"""A language model in a GGUF file, which only llama.cpp runs, made an ordinary folder of float32 weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rag_core.base.errors import UsageError


def check_gguf() -> None:
    """Check that GGUF files can be read.

    Raises:
        UsageError: the library is missing.
    """
    if importlib.util.find_spec("gguf") is None:
        raise UsageError("a GGUF file needs gguf, which is not installed", 'Run: pip install "rag-optimization[gguf]"')


def convert(source: Path, folder: Path, *, pad_token: str) -> None:
    """Write the model and the tokenizer of a GGUF file into a folder.

    Args:
        pad_token: must not be the end token: whoever masks the padding in what a model learns from masks its ends, too,
            and it never learns to stop.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # The weights are plain now; transformers still holds the model for a quantised one, which it does not save.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.pad_token = pad_token
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
