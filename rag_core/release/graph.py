"""A trained student as one graph, with pooling and head in it, that runs without torch: ONNX, or OpenVINO.

ONNX comes from torch's own exporter; OpenVINO converts that graph, so that both compute the same and nothing but the
graph, a tokenizer and `export.json` is needed beside them.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_core.base.errors import EngineError
from rag_core.base.outside_text import first_line
from rag_core.engines.exported_engine import ABOUT, GRAPHS, Format, Precision
from rag_core.engines.identity import ModelInfo
from rag_core.engines.pretrained import load_sentence_transformers
from rag_core.engines.protocols import Pair, Role
from rag_core.engines.role_prompts import prompt_of
from rag_core.engines.special_tokens import behind
from rag_core.release.quantization import Batch, products_in, quantise_onnx, quantise_openvino

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino", "nncf"),
}
_UNCALIBRATED: dict[Format, str] = {"onnx": "dynamic", "openvino": "weights"}
_CALIBRATION_BATCH = 8
_LARGEST_FILE = 1_900_000_000  # bytes; a protobuf holds 2 GiB


def check_packages(form: Format) -> None:
    """See that the packages of a format are installed.

    Raises:
        EngineError: a package is not.
    """
    import importlib.util

    missing = [name for name in _PACKAGES[form] if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(f"{missing[0]} is not installed", "Run: pip install 'rag-optimization[export]'")


class PlainGraph:
    """A student as ONNX in float32, from which exports are written.

    Args:
        model: the student.
        folder: where the graph stands as long as it is needed.
        calibration: pairs for static int8; without any, onnxruntime sets the ranges of activations at run time
            (dynamic), and OpenVINO leaves activations in float32 (weights only).

    Raises:
        EngineError: the model is an LLM, or cannot be loaded.
    """

    def __init__(self, model: ModelInfo, folder: Path, calibration: Sequence[Pair] = ()) -> None:
        self.model, self._student = model, _load(model)
        inputs = _encode(self._student, [("a query", "a passage of some words"), ("another query", "a passage")])
        self._inputs = list(inputs)
        self.path = folder / GRAPHS["onnx"]
        folder.mkdir(parents=True, exist_ok=True)
        _to_onnx(self._student, inputs, self.path, model.name)
        self._batches: list[Batch] = [
            {
                name: values.numpy()
                for name, values in _encode(self._student, calibration[start:][:_CALIBRATION_BATCH]).items()
            }
            for start in range(0, len(calibration), _CALIBRATION_BATCH)
        ]

    def write(self, folder: Path, form: Format, precision: Precision, exclude: Sequence[str] = ()) -> None:
        """Write graph, tokenizer and `export.json` into `folder`.

        Args:
            exclude: parts of the paths of modules whose products stay in float32, see `quantization.products_in`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target, excluded = folder / GRAPHS[form], products_in(self.path, exclude)
        if form == "openvino":
            import openvino

            int8 = precision == "int8"
            graph = quantise_openvino(self.path, self._batches, excluded) if int8 else openvino.convert_model(self.path)
            openvino.save_model(graph, target, compress_to_fp16=False)
        elif precision == "int8":
            quantise_onnx(self.path, target, self._batches, excluded)
        else:
            for path in self.path.parent.iterdir():  # weights that are too large for the graph's file stand beside it
                shutil.copyfile(path, folder / path.name)
        tokenizer = self._student.tokenizer
        fast = tokenizer.backend_tokenizer
        fast.enable_truncation(self._student.max_seq_length)
        fast.enable_padding(pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
        fast.save(str(folder / "tokenizer.json"))
        reranker = self.model.kind == "cross-encoder"
        prompts = {} if reranker else dict(self._student.prompts or {})
        about = {
            "kind": self.model.kind,
            "source": Path(self.model.name).name,
            "format": form,
            "precision": precision,
            "quantisation": None if precision == "fp32" else "static" if self._batches else _UNCALIBRATED[form],
            "left_in_fp32": list(exclude),
            "inputs": self._inputs,
            "output": "raw score (logit), shape (pairs,)" if reranker else "vectors of length 1",
            "max_length": self._student.max_seq_length,
            "prompts": prompts,
        }
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _load(model: ModelInfo) -> CrossEncoder | SentenceTransformer:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    if model.kind == "llm-reranker":
        raise EngineError(f"{model.name} is an LLM ({model.why})", "Pass --model with a cross-encoder or an embedder")
    model_class: type[CrossEncoder | SentenceTransformer] = SentenceTransformer
    if model.kind == "cross-encoder":
        model_class = CrossEncoder
    loaded = load_sentence_transformers(
        model, model_class, dtype="float32", device="cpu", model_settings={"attn_implementation": "eager"}
    )
    if loaded.transformers_model is None:
        raise EngineError(
            f"{model.name} has no transformer ({model.why}), and needs no export",
            "Serve it with sentence-transformers: it is a table of vectors",
        )
    return loaded.eval()


def _encode(student: Any, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the model's inputs: the pairs of a cross-encoder, all texts of an embedder's with their prompts."""
    import torch
    from sentence_transformers import CrossEncoder

    roles: tuple[Role, Role] = ("query", "passage")
    rows: list[Any] = list(pairs)
    if not isinstance(student, CrossEncoder):
        before = [prompt_of(student.prompts or {}, role) for role in roles]
        rows = [behind(student, prompt, text) for pair in pairs for prompt, text in zip(before, pair, strict=True)]
    return {name: values for name, values in student.preprocess(rows).items() if isinstance(values, torch.Tensor)}


def _to_onnx(student: Any, inputs: dict[str, Any], path: Path, name: str) -> None:
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
        try:
            program: Any = torch.onnx.export(  # never None with dynamo
                Graph(),
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=["output"],
                dynamo=True,
                dynamic_shapes=(tuple(free for _ in inputs),),
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise EngineError(
                f"{name} cannot be written as ONNX: {type(student.transformers_model).__name__} has parts that torch's "
                f"exporter does not know ({first_line(error, 120)})",
                "Choose another student, or serve it with sentence-transformers",
            ) from error
    for node in program.model.graph.all_nodes():  # a graph is passed on, the paths of this machine are not
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    program.save(path, external_data=_bytes(student) > _LARGEST_FILE)


def _bytes(student: Any) -> int:
    return sum(values.numel() * values.element_size() for values in student.parameters())
