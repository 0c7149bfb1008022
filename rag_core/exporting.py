"""A trained student as one graph, with pooling and head in it, that runs without torch: ONNX, or OpenVINO.

ONNX comes from torch's own exporter; OpenVINO converts that graph, so that both compute the same and nothing but the
graph, a tokenizer and `export.json` is needed beside them.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rag_core.engines.identity import model_kind
from rag_core.engines.protocols import Pair
from rag_core.errors import EngineError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

Format = Literal["onnx", "openvino"]
Precision = Literal["fp32", "int8"]

ABOUT = "export.json"
GRAPHS: dict[Format, str] = {"onnx": "model.onnx", "openvino": "model.xml"}
_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino", "nncf"),
}
_CALIBRATION_BATCH = 8
_LARGEST_FILE = 1_900_000_000  # bytes; a protobuf holds 2 GiB


def check_packages(form: Format) -> None:
    """See that what a format needs is installed.

    Raises:
        EngineError: a package is not.
    """
    import importlib.util

    missing = [name for name in _PACKAGES[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(f"{missing[0]} is not installed", "Run: pip install 'rag-optimization[export]'")


def export_model(
    model: str,
    folder: Path,
    form: Format,
    precision: Precision,
    *,
    calibration: Sequence[Pair] = (),
    exclude: Sequence[str] = (),
) -> None:
    """Write graph, tokenizer and `export.json` into `folder`.

    Args:
        calibration: pairs by which the ranges of activations are set; without any, onnxruntime sets them as it runs
            (dynamic), and OpenVINO keeps activations as they are (weights only).
        exclude: parts of the paths of modules whose products stay in float32, e.g. layer.0 or output.dense.

    Raises:
        EngineError: the model is an LLM, or cannot be loaded.
    """
    student = _load(model)
    tokenizer = student.tokenizer
    inputs = _encode(student, [("a query", "a passage of some words"), ("another query", "a passage")])
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "plain" / GRAPHS["onnx"]
    plain.parent.mkdir()
    _to_onnx(student, inputs, plain)
    batches = [
        {name: values.numpy() for name, values in _encode(student, calibration[start:][:_CALIBRATION_BATCH]).items()}
        for start in range(0, len(calibration), _CALIBRATION_BATCH)
    ]
    if form == "openvino":
        _to_openvino(plain, folder / GRAPHS[form], precision, batches, _nodes(plain, exclude))
    elif precision == "int8":
        _quantise_onnx(plain, folder / GRAPHS[form], batches, _nodes(plain, exclude))
    else:
        for path in plain.parent.iterdir():  # weights that are too large for the graph's file stand beside it
            path.rename(folder / path.name)
    shutil.rmtree(plain.parent)
    fast = tokenizer.backend_tokenizer
    fast.enable_truncation(student.max_seq_length)
    fast.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    fast.save(str(folder / "tokenizer.json"))
    prompts = {} if _is_reranker(model) else {name: text for name, text in (student.prompts or {}).items() if text}
    about = {
        "kind": model_kind(model)[0],
        "source": Path(model).name,
        "format": form,
        "precision": precision,
        "quantisation": None if precision == "fp32" else "static" if batches else "dynamic",
        "left_in_fp32": list(exclude),
        "inputs": list(inputs),
        "output": "raw score (logit), shape (pairs,)" if _is_reranker(model) else "vectors of length 1",
        "max_length": student.max_seq_length,
        "prompts": prompts,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _is_reranker(model: str) -> bool:
    return model_kind(model)[0] == "cross-encoder"


def _load(model: str) -> CrossEncoder | SentenceTransformer:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    kind, evidence = model_kind(model)
    if kind == "llm-reranker":
        raise EngineError(f"{model} is an LLM ({evidence})", "Export a student: a cross-encoder or an embedder")
    try:
        loaded = (CrossEncoder if kind == "cross-encoder" else SentenceTransformer)(
            model, device="cpu", model_kwargs={"dtype": "float32", "attn_implementation": "eager"}
        )
    except (OSError, ValueError) as error:
        raise EngineError(f"cannot load {model!r} ({str(error).splitlines()[0]})", "Check the folder") from error
    return loaded.eval()


def _encode(student: Any, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the model's inputs: the pairs of a cross-encoder, all texts of the pairs of an embedder."""
    import torch
    from sentence_transformers import CrossEncoder

    rows = list(pairs) if isinstance(student, CrossEncoder) else [text for pair in pairs for text in pair]
    return {name: values for name, values in student.preprocess(rows).items() if isinstance(values, torch.Tensor)}


def _to_onnx(student: Any, inputs: dict[str, Any], path: Path) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.student = student

        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            outputs = self.student(dict(zip(inputs, values, strict=True)))
            if isinstance(self.student, CrossEncoder):
                return outputs["scores"].flatten()  # type: ignore[no-any-return]
            return torch.nn.functional.normalize(outputs["sentence_embedding"], dim=1)

    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # of what the exporter will no longer do one day
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            Graph(),
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=["output"],
            dynamo=True,
            dynamic_shapes=(tuple(free for _ in inputs),),
            external_data=_bytes(student) > _LARGEST_FILE,
            verbose=False,
        )


def _bytes(student: Any) -> int:
    return sum(values.numel() * values.element_size() for values in student.parameters())


def _quantise_onnx(source: Path, target: Path, batches: Sequence[dict[str, Any]], nodes: Sequence[str]) -> None:
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
        "nodes_to_exclude": list(nodes),
        "use_external_data_format": source.with_name(f"{source.name}.data").exists(),
        "extra_options": {"MatMulConstBOnly": True},
    }
    logging.getLogger().addFilter(_no_preprocessing)
    if batches:

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
            def __init__(self) -> None:
                self._batches: Iterator[dict[str, Any]] = iter(batches)

            def get_next(self) -> dict[str, Any] | None:
                return next(self._batches, None)

        form = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8}
        quantize_static(source, target, Reader(), **form, **settings)
    else:
        quantize_dynamic(source, target, **settings)
    logging.getLogger().removeFilter(_no_preprocessing)


def _no_preprocessing(record: logging.LogRecord) -> bool:
    """Drop onnxruntime's advice to fuse the graph first, which would lose the names of modules."""
    return "pre-processing" not in record.getMessage()


def _nodes(graph: Path, parts: Sequence[str]) -> list[str]:
    """Return the names of the graph's products in modules whose path has one of `parts` in it, e.g. layer.0."""
    import onnx

    found = []
    for node in onnx.load(graph, load_external_data=False).graph.node:
        modules = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
        if node.op_type in ("MatMul", "Gemm") and any(part in modules for part in parts):
            found.append(node.name)
    return found


def _to_openvino(
    source: Path, target: Path, precision: Precision, batches: Sequence[dict[str, Any]], nodes: Sequence[str]
) -> None:
    import openvino

    model = openvino.convert_model(source)
    if precision == "int8":
        import nncf

        ignored = nncf.IgnoredScope(patterns=[f"{name}(/.*)?" for name in nodes], validate=False)
        if batches:
            model = nncf.quantize(
                model,
                nncf.Dataset(batches),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(batches),
                ignored_scope=ignored,
            )
        else:
            model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=ignored)
    openvino.save_model(model, target, compress_to_fp16=False)
