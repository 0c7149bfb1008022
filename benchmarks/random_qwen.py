"""Qwen3 rerankers with random weights and the real Qwen vocabulary: of any size, and with nothing to download.

The vocabulary comes with the package dashscope. Random weights cost the same time as trained ones.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Of Qwen3, in the order of their ids, which start behind the vocabulary at 151,643; the first 14 are "special".
ADDED_TOKENS = """
    <|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|>
    <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>
    <tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|>
    <tool_response> </tool_response> <think> </think>
"""
SPECIAL = 14

# Of Qwen2 and Qwen3: as cl100k's, but every digit by itself.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

QWEN = {
    "vocab_size": 151936,
    "max_position_embeddings": 1024,
    "initializer_range": 0.05,
    "bos_token_id": None,
    "eos_token_id": 151645,
    "pad_token_id": None,  # whose embedding would be zero, and <|endoftext|> is read as well
}


def has_vocabulary() -> bool:
    """Tell whether the packages are there that the vocabulary is made from."""
    return find_spec("dashscope") is not None and find_spec("tiktoken") is not None


def make_tokenizer() -> Any:
    """Return the tokenizer of Qwen3's language models."""
    from tokenizers import AddedToken, normalizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    folder = Path(find_spec("dashscope").origin).parent
    backend = TikTokenConverter(str(folder / "resources" / "qwen.tiktoken"), pattern=PATTERN).converted()
    backend.normalizer = normalizers.NFC()
    backend.add_tokens(
        [AddedToken(name, normalized=False, special=i < SPECIAL) for i, name in enumerate(ADDED_TOKENS.split())]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )


def save_reranker(folder: Path, tokenizer: Any, config: dict[str, Any]) -> None:
    """Save a Qwen3ForCausalLM in float32, its output head untied as in the 8B."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    Qwen3ForCausalLM(Qwen3Config(**QWEN | config, tie_word_embeddings=False)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
