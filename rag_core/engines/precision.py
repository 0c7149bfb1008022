"""Which floating-point type a model computes in."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]


def resolve_dtype(asked: Literal["auto"] | Precision) -> Precision:
    """Return the type asked for; "auto" is the fastest that the processor computes in natively.

    That is bfloat16 on GPUs since Ampere and on CPUs with AMX or AVX512-BF16, float16 on older GPUs,
    and float32 elsewhere.
    """
    if asked != "auto":
        return asked
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"
