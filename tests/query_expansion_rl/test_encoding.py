"""Expansions are embedded as the corpus was, by the very same model."""

import dataclasses
import json

import numpy as np
import pytest

from query_expansion_rl.retrieval.encoding import ExpansionEncoder
from query_expansion_rl.retrieval.workspace import read_workspace
from rag_core.base.errors import EngineError, StaleError, UsageError
from tests.conftest import write_model
from tests.query_expansion_rl.alias_workspace import write_workspace
from tests.query_expansion_rl.aliases import encode, write_embedder


def test_texts_get_the_vectors_of_queries(workspace, encoders, tmp_path):
    encoder = ExpansionEncoder(workspace, None, tmp_path / "kept")
    assert encoders == []  # nothing is loaded before something is to be embedded
    texts = ["myocardial infarction", "lupus"]
    assert np.allclose(encoder(texts), encode(texts), atol=1e-6)
    assert encoder([]).shape[0] == 0
    assert {role for role, _ in encoders[0].encoded} == {"query"}
    # Another run takes what is kept.
    again = ExpansionEncoder(workspace, None, tmp_path / "kept")
    assert np.allclose(again([*texts, "bowel"]), encode([*texts, "bowel"]), atol=1e-6)
    assert [text for _, text in encoders[1].encoded] == ["bowel"]


def test_it_is_run_as_the_corpus_was(workspace, tmp_path):
    path = workspace.folder / workspace.settings.vectors / "queries.npy.manifest.json"
    manifest = json.loads(path.read_text())
    manifest["recipe"]["flags"] |= {"max_length": 77, "dtype": "bfloat16"}
    path.write_text(json.dumps(manifest))
    options = ExpansionEncoder(workspace, None, tmp_path / "kept")._options
    assert (options.max_length, options.dtype) == (77, "bfloat16")


def test_a_moved_model_is_taken_and_another_refused(workspace, tmp_path):
    moved = write_embedder(tmp_path / "moved")
    ExpansionEncoder(workspace, str(moved), tmp_path / "kept")
    (moved / "config.json").write_text((moved / "config.json").read_text().replace("}", ', "hidden_size": 9}', 1))
    with pytest.raises(StaleError, match="moved is not the model whose vectors these are"):
        ExpansionEncoder(workspace, str(moved), tmp_path / "kept")
    write_model(tmp_path / "llm", "Qwen3ForCausalLM")
    with pytest.raises(EngineError, match="gives no vectors"):
        ExpansionEncoder(workspace, str(tmp_path / "llm"), tmp_path / "kept")


def test_without_vectors_or_a_model(tmp_path):
    workspace = read_workspace(write_workspace(tmp_path / "v", vectors=False, best="bm25"))
    with pytest.raises(UsageError, match="the workspace has no vectors, and this retriever searches by them"):
        ExpansionEncoder(workspace, None, tmp_path)
    workspace = read_workspace(write_workspace(tmp_path / "w", best="bm25"))
    settings = dataclasses.replace(workspace.settings, dense_model=None)
    unknown = dataclasses.replace(workspace, summary=dataclasses.replace(workspace.summary, retriever=settings))
    with pytest.raises(UsageError, match="nobody knows which embedder made the vectors"):
        ExpansionEncoder(unknown, None, tmp_path)
