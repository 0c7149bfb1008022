"""The embedder of a workspace for its expansions: run as the corpus was embedded, and loaded when first needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from query_expansion_rl.retrieval.searching import Floats
from query_expansion_rl.retrieval.workspace import Workspace
from rag_core.base.errors import DataError, EngineError, StaleError, UsageError
from rag_core.files.manifest import UNKNOWN, manifest_path, read_manifest
from rag_core.files.manifest_shape import shape_fault

if TYPE_CHECKING:
    from rag_core.engines.options import EngineName, EngineOptions
    from rag_core.engines.protocols import TextEncoder

_SERVERS = "the server's"  # precision of vectors that a server made: none of ours


@with_config(ConfigDict(extra="ignore"))
class _How(TypedDict, total=False):
    """How a corpus was embedded, as far as its expansions are embedded the same way."""

    instruction: str | None
    max_length: Annotated[int, Field(ge=1)]
    dtype: Literal["auto", "float32", "bfloat16", "float16", "the server's"]
    vllm_runner: Literal["generate", "pooling"]
    quantization: str | None


_HOW = TypeAdapter(_How)


class ExpansionEncoder:
    """Gives texts the vectors of queries; an `Encode`.

    What is given a vector is kept in a folder, so that a run that was killed goes on.
    """

    def __init__(
        self, workspace: Workspace, model: str | None, folder: Path, *, batch_size: int = 32, store: Path | None = None
    ) -> None:
        """Find out how the corpus was embedded, without loading anything.

        Args:
            model: the embedder, where it is another folder than it was; `None` for that of the workspace.
            folder: where vectors are kept until the work is done.
            store: where they are kept for good.

        Raises:
            UsageError: the workspace has no embedder, or it is not known where it is.
            StaleError: the model is not the one whose vectors the corpus has.
        """
        settings = workspace.settings
        if settings.vectors is None:
            raise UsageError(
                "the workspace has no vectors, and this retriever searches by them",
                "Run rank_baselines with --dense_model, or choose bm25",
            )
        name = model or settings.dense_model
        if name is None:
            raise UsageError("nobody knows which embedder made the vectors", "Pass --dense_model")
        self._engine, self._options = _settle(workspace.folder / settings.vectors / "queries.npy", name, batch_size)
        self._canary_queries = [topic.query for topic in workspace.topics]
        self._canary_texts = workspace.corpus.texts
        self._folder, self._store = folder, store
        self._model: TextEncoder | None = None

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Return the vectors of texts; shape (texts, dimensions), each of length 1.

        Raises:
            PipelineError: as the engine and its canary raise.
        """
        from rag_core.files.chunk_store import row_key
        from rag_core.scoring.chunks import Work
        from rag_core.scoring.settings import CHUNK_ROWS, describe_store, scope_of
        from rag_core.scoring.vectors import embed_texts

        scope = scope_of(self._engine, self._options)
        folders = [*([self._store / scope] if self._store else []), self._folder]
        for one in folders:
            one.mkdir(parents=True, exist_ok=True)
        if self._store:
            describe_store(folders[0], self._engine, self._options)
        work = Work(self._loaded(), scope, folders, CHUNK_ROWS[self._engine])
        kept = embed_texts(texts, "query", work, total=len(texts))
        return np.asarray(kept.read([row_key(scope, "query", text) for text in texts]), dtype=np.float32)

    def _loaded(self) -> TextEncoder:
        if self._model is None:
            from rag_core.engines.canary import CANARY_PAIRS
            from rag_core.engines.protocols import TextEncoder
            from rag_core.scoring.settings import load

            pairs = list(dict.fromkeys(zip(self._canary_queries, self._canary_texts(), strict=False)))[:CANARY_PAIRS]
            model = load(self._engine, self._options, pairs)
            if not isinstance(model, TextEncoder):
                raise EngineError(f"{self._options.model.name} gives no vectors", "Pass an embedder")
            self._model = model
        return self._model


def _settle(vectors: Path, name: str, batch_size: int) -> tuple[EngineName, EngineOptions]:
    from rag_core.engines.identity import describe_model
    from rag_core.engines.options import EngineOptions, VllmOptions
    from rag_core.scoring.settings import settle

    made = read_manifest(vectors) or UNKNOWN
    model = describe_model(name)
    if model.kind != "bi-encoder":
        raise EngineError(f"{name} gives no vectors ({model.why})", "Pass an embedder")
    if made.model and _exact(made.model) != _exact(model.identity):
        raise StaleError(
            f"{name} is not the model whose vectors these are ({made.model.get('name')})",
            "Pass --dense_model with that model, or run rank_baselines again",
            path=vectors,
        )
    if fault := shape_fault(dict(made.flags), _HOW):
        what = f"does not tell how the corpus was embedded ({fault})"
        raise DataError(what, "Run rank_baselines again", path=manifest_path(vectors))
    flags = {key: made.flags[key] for key in _How.__annotations__ if key in made.flags}
    if flags.get("dtype") == _SERVERS:
        del flags["dtype"]
    vllm = VllmOptions(**{key: flags.pop(key) for key in ("vllm_runner", "quantization") if key in flags})
    options = dataclasses.replace(EngineOptions(model, batch_size=batch_size, vllm=vllm), **flags)
    return settle("auto", options, [])


def _exact(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells the weights apart, wherever they are; the version of a prompt is not the model's."""
    return {key: value for key, value in identity.items() if key not in ("name", "prompt")}
