"""Which floating-point type a model computes in."""

from __future__ import annotations

from typing import Any, Literal

Dtype = Literal["float32", "bfloat16", "float16"]


def resolve_dtype(name: Literal["auto"] | Dtype) -> Dtype:
    """Return the type asked for; "auto" is the smallest that this machine computes in natively.

    That is bfloat16 on CUDA devices from Ampere on and on CPUs with AVX512-BF16 or AMX, float16 on older CUDA
    devices, float32 on other CPUs, where half precision is emulated and slower.
    """
    if name != "auto":
        return name
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if native else "float32"


def keep_head_in_float32(model: Any) -> None:
    """Let a cross-encoder's last layer compute in float32, whatever the rest does.

    bfloat16 has 8 bits: a fine ranking would come out as a handful of different scores, and ties.
    """
    from torch.nn import Linear

    heads = [name for name, module in model.named_modules() if isinstance(module, Linear) and module.out_features == 1]
    model.set_keep_in_fp32_modules(heads)
