"""A graph computes what its source does, with its prompts, and however large it is."""

import numpy as np
import pytest

from rag_core.engines.exported_engine import load_exported
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions
from rag_core.release import graph
from rag_core.release.graph import PlainGraph
from rag_core.release.saving import save_model
from tests.exports import MARKS, PAIRS, TEXTS, error_of

pytestmark = MARKS


def write(model, folder, precision="fp32"):
    PlainGraph(describe_model(model), folder / "graph").write(folder, "onnx", precision)
    return folder


def test_an_embedder_embeds_either_role(tiny_encoder, tmp_path):
    source = load_model("sentence-transformers", EngineOptions(describe_model(tiny_encoder), dtype="float32"), PAIRS)
    exported = load_exported(write(tiny_encoder, tmp_path))
    texts = ["one text", "another, which is longer than the first"]
    for role in ("query", "passage"):
        found = exported.encode(texts, role)
        np.testing.assert_allclose(found, source.encode(texts, role), rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompts", [{"query": "how are "}, {"document": "a fence of "}, {"passage": "a fence of "}])
def test_prompts_stand_before_the_texts_of_their_role(prompts, tiny_encoder, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(tiny_encoder, prompts=prompts)
    save_model(model, tmp_path / "model")
    found = load_exported(write(str(tmp_path / "model"), tmp_path / "out"))
    for role, exact in (("query", model.encode_query(TEXTS)), ("passage", model.encode_document(TEXTS))):
        unit = exact / np.linalg.norm(exact, axis=1, keepdims=True)
        np.testing.assert_allclose(found.encode(TEXTS, role), unit, rtol=0, atol=1e-5)


def test_weights_of_a_large_model_stand_beside_the_graph(sharp_cross_encoder, tmp_path, monkeypatch):
    exact = write(sharp_cross_encoder, tmp_path / "exact")
    monkeypatch.setattr(graph, "_LARGEST_FILE", 0)
    large = PlainGraph(describe_model(sharp_cross_encoder), tmp_path / "graph")
    for precision, most in (("fp32", 1e-4), ("int8", 0.5)):
        out = tmp_path / precision
        large.write(out, "onnx", precision)
        assert {"model.onnx", "model.onnx.data"} <= {path.name for path in out.iterdir()}
        assert error_of(out, exact) < most
