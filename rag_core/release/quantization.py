"""int8 for the CPU: an ONNX graph through onnxruntime's quantiser, OpenVINO's through NNCF."""

from __future__ import annotations

import contextlib
import logging
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rag_core.base.errors import UsageError

Batch = dict[str, Any]  # by the name of the input, numpy arrays of shape (rows, tokens)

_LAYER_GROUPS = 6


def saturates() -> bool:
    """Tell whether this processor adds two products of 8 bits in 16 bits, where the sum may not fit.

    x86 does without its VNNI instructions (Intel, "Lower Numerical Precision Deep Learning Inference and Training",
    2018). Weights of 7 bits always fit. With 8 bits, on an AMD EPYC that has AVX2 alone, scores of the tests' model
    were off by up to 1.4 of their standard deviations.
    """
    import torch

    return platform.machine().lower() in ("x86_64", "amd64") and not torch.cpu._is_vnni_supported()


def quantise_onnx(source: Path, target: Path, batches: Sequence[Batch], nodes: Sequence[str]) -> None:
    """Write a graph in int8.

    Args:
        batches: inputs by which the ranges of activations are set once; without any they are set as it runs.
        nodes: products that stay in float32.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    settings: dict[str, Any] = {
        "op_types_to_quantize": ["MatMul", "Gemm"],
        "per_channel": True,
        "weight_type": QuantType.QInt8,
        "reduce_range": saturates(),
        "nodes_to_exclude": list(nodes),
        "use_external_data_format": source.with_name(f"{source.name}.data").exists(),
        "extra_options": {"MatMulConstBOnly": True},
    }

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            self._batches: Iterator[Batch] = iter(batches)

        def get_next(self) -> Batch | None:
            return next(self._batches, None)

    logging.getLogger().addFilter(_not_the_quantiser)
    try:
        if batches:
            form = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8}
            quantize_static(source, target, Reader(), **form, **settings)
        else:
            quantize_dynamic(source, target, **settings)
    finally:
        logging.getLogger().removeFilter(_not_the_quantiser)


def _not_the_quantiser(record: logging.LogRecord) -> bool:
    """Drop what onnxruntime's quantiser says of tensors, and its advice to fuse the graph, which loses their names."""
    return "onnxruntime" not in record.pathname


def products_in(graph: Path, parts: Sequence[str]) -> list[str]:
    """Return the names of the graph's matrix products in modules whose path has one of `parts` in it.

    Args:
        parts: names that follow each other in a path, e.g. layer.0 or output.dense; * stands for any one name.

    Raises:
        UsageError: a part is in no path.
    """
    products = {node.name: _modules(node) for node, _ in _products(graph)}
    found: dict[str, None] = {}
    for part in parts:
        names = [r"\w+" if name == "*" else re.escape(name) for name in part.strip(".").split(".")]
        pattern = re.compile(rf"\b{'[.]'.join(names)}\b")
        inside = [name for name, modules in products.items() if pattern.search(modules)]
        if not inside:
            known = ", ".join(dict.fromkeys(chain.from_iterable(parts_of(graph))))
            raise UsageError(f"--exclude {part} matches no matrix product", f"Pass parts of their paths: {known}")
        found |= dict.fromkeys(inside)
    return list(found)


def parts_of(graph: Path) -> list[list[str]]:
    """Return what may be left in float32 together, as `products_in` takes it: kinds of sublayers, groups of layers."""
    modules = [re.findall(r"'(\S+\.\S+)'", _modules(node)) for node, weighted in _products(graph) if weighted]
    # E.g. student.0.model.encoder.layer.3.attention.self.query: the layer and, without the last module, its sublayer.
    paths = [re.match(r".*\.(\w+)\.(\d+)\.(\S+)\.\w+$", names[-1]) for names in modules if names]
    found = [(f"{path[1]}.{path[2]}", f"{path[1]}.*.{path[3]}") for path in paths if path]
    layers = list(dict.fromkeys(layer for layer, _ in found))
    size = max(1, -(-len(layers) // _LAYER_GROUPS))
    kinds = dict.fromkeys(kind for _, kind in found)
    return [[kind] for kind in kinds] + [layers[start:][:size] for start in range(0, len(layers), size)]


def _products(graph: Path) -> list[tuple[Any, bool]]:
    """Return a graph's matrix products, and whether each has weights."""
    import onnx

    content = onnx.load(graph, load_external_data=False).graph
    weights = {tensor.name for tensor in content.initializer}
    return [(node, node.input[1] in weights) for node in content.node if node.op_type in ("MatMul", "Gemm")]


def _modules(node: Any) -> str:
    return str({entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", ""))


def quantise_openvino(graph: Path, batches: Sequence[Batch], nodes: Sequence[str]) -> Any:
    """Return an ONNX graph as an OpenVINO model in int8; without batches only its weights are.

    The products within attention, of no weights, stay in float32: for a MiniLM that is faster, and a third of int8's
    error is theirs (0.050 to 0.034 of the spread of its cosines).

    Args:
        batches, nodes: as of `quantise_onnx`.
    """
    with contextlib.redirect_stdout(sys.stderr):  # nncf talks there, and stdout is for the stage's result
        return _quantise_openvino(graph, batches, nodes)


def _quantise_openvino(graph: Path, batches: Sequence[Batch], nodes: Sequence[str]) -> Any:
    import nncf
    import openvino

    nncf.set_log_level(logging.WARNING)
    within_attention = [node.name for node, weighted in _products(graph) if not weighted]
    ignored = nncf.IgnoredScope(patterns=[f"{name}(/.*)?" for name in (*nodes, *within_attention)], validate=False)
    model = openvino.convert_model(graph)
    if not batches:
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=ignored)
    overflow_fix = nncf.OverflowFix.ENABLE if saturates() else nncf.OverflowFix.FIRST_LAYER
    return nncf.quantize(
        model,
        nncf.Dataset(batches),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(batches),
        ignored_scope=ignored,
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow_fix),
    )
