import pytest

from rag_core.engines.precision import resolve_dtype


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_what_is_asked_for_is_taken(name):
    assert resolve_dtype(name) == name


@pytest.mark.parametrize(
    ("cuda", "cuda_bf16", "avx512_bf16", "amx", "expected"),
    [
        (True, True, False, False, "bfloat16"),
        (True, False, True, True, "float16"),
        (False, False, True, False, "bfloat16"),
        (False, False, False, True, "bfloat16"),
        (False, False, False, False, "float32"),
    ],
)
def test_auto_is_what_the_machine_computes_in(monkeypatch, cuda, cuda_bf16, avx512_bf16, amx, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: cuda_bf16 or including_emulation)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    assert resolve_dtype("auto") == expected
