"""An exported student at work: onnxruntime or OpenVINO, and a tokenizer; no torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rag_core.base.errors import EngineError
from rag_core.engines.model_files import read_json
from rag_core.engines.model_folder import loading
from rag_core.engines.protocols import Floats, Pair, Role, ScoreUnit
from rag_core.engines.role_prompts import prompt_of
from rag_core.engines.special_tokens import read_literally, spaced

Format = Literal["onnx", "openvino"]
Precision = Literal["fp32", "int8"]

ABOUT = "export.json"
GRAPHS: dict[Format, str] = {"onnx": "model.onnx", "openvino": "model.xml"}


class _Exported:
    truncated: int | None = None

    def __init__(self, folder: Path, about: dict[str, Any], max_length: int | None, batch_size: int) -> None:
        from tokenizers import Tokenizer

        self._folder, self.about = str(folder), about
        graph = folder / GRAPHS[self.about["format"]]
        load = _onnx if self.about["format"] == "onnx" else _openvino
        with loading(self._folder):
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._run = load(graph)
        self._as_text = partial(spaced, read_literally(self._tokenizer, "\n".join(about["prompts"].values())))
        if max_length and max_length < about["max_length"]:
            self._tokenizer.enable_truncation(max_length)
        self._batch_size = batch_size

    def _compute(self, rows: Sequence[Any]) -> list[Any]:
        """Return the outputs of rows, in their order; like lengths together."""
        encodings = self._tokenizer.encode_batch_fast([*rows])
        lengths = [sum(encoding.attention_mask) for encoding in encodings]
        order = np.argsort([-length for length in lengths], kind="stable")
        outputs: list[Any] = [None] * len(rows)
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            width = max(lengths[i] for i in batch)
            values = {
                "input_ids": [encodings[i].ids[:width] for i in batch],
                "attention_mask": [encodings[i].attention_mask[:width] for i in batch],
                "token_type_ids": [encodings[i].type_ids[:width] for i in batch],
            }
            inputs = {name: np.array(values[name], dtype=np.int64) for name in self.about["inputs"]}
            with loading(self._folder):
                found = self._run(inputs)
            for i, row in zip(batch, found, strict=True):
                outputs[i] = row
        return outputs


class ExportedScorer(_Exported):
    """A cross-encoder: the raw output of its head."""

    score_unit: ScoreUnit = "logit"

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs; shape (pairs,)."""
        return np.array(self._compute([tuple(map(self._as_text, pair)) for pair in pairs]), dtype=np.float32)


class ExportedEncoder(_Exported):
    """An embedder: vectors of length 1."""

    score_unit: ScoreUnit = "cosine"
    dimensions = 0

    def encode(self, texts: Sequence[str], role: Role) -> Floats:
        """Embed texts, with the prompt that the source puts before those of a role; shape (texts, dimensions)."""
        before = prompt_of(self.about["prompts"], role)
        vectors: Floats = np.array(self._compute([before + self._as_text(text) for text in texts]), dtype=np.float32)
        self.dimensions = vectors.shape[1]
        return vectors


def load_exported(
    folder: Path, max_length: int | None = None, batch_size: int = 32
) -> ExportedScorer | ExportedEncoder:
    """Load an exported student.

    Args:
        max_length: tokens that it reads, at most; it never reads more than its source did.

    Raises:
        EngineError: the folder is no export.
    """
    about: dict[str, Any] | None = read_json(str(folder), ABOUT)
    if about is None:
        raise EngineError(f"{folder} is no exported model: it has no {ABOUT}", "Pass one of rag_core.export")
    return (ExportedScorer if about["kind"] == "cross-encoder" else ExportedEncoder)(
        folder, about, max_length, batch_size
    )


def threads() -> int:
    """Return how many OMP_NUM_THREADS asks for (a number for each level of nesting), 0 for the runtime's own choice."""
    return int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or 0)


def _onnx(graph: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def _openvino(graph: Path) -> Any:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 1}
    if threads():
        settings["INFERENCE_NUM_THREADS"] = threads()
    compiled = openvino.Core().compile_model(graph, "CPU", settings)
    return lambda inputs: compiled(inputs)[0]
