"""What tests of exports share: pairs, texts, and when there is nothing to test."""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from rag_core.engines.exported_engine import load_exported
from tests.conftest import TINY

PAIRS = [("how are caves made", "melt water carves them"), ("how are caves made", "a cave"), ("ants", "the fence")]
TEXTS = ["how are caves made", *(text for _, text in PAIRS)]
MARKS = [
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
        reason="onnxruntime is not installed (extra export)",
    ),
    pytest.mark.filterwarnings("ignore"),  # what the exporters warn of is not ours to mend
]


def error_of(folder, exact):
    """Root mean square of the differences of scores, in standard deviations of the exact ones."""
    samples = [json.loads(line) for line in (TINY / "test.jsonl").read_text().splitlines()]
    pairs = [(sample["query"], text) for sample in samples for text in sample["positive"] + sample["negative"]]
    scores, reference = (load_exported(path).score(pairs) for path in (folder, exact))
    return float(np.sqrt(np.mean((scores - reference) ** 2)) / reference.std())
