"""An embedder over texts: each is embedded once, and its vector kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import EngineError
from rag_core.base.records import RankingSample
from rag_core.engines.canary import CANARY_PAIRS
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import ChunkTextEncoder, Floats, Role, TextEncoder
from rag_core.files.chunk_store import ChunkStore, row_key
from rag_core.scoring.chunks import Chunks, Work, keep_values
from rag_core.scoring.samples import spread_pairs
from rag_core.scoring.settings import CHUNK_ROWS, describe_store, load, scope_of, settle


@dataclass(frozen=True)
class TextVectors:
    """Vectors of texts by role, each of length 1, read from disk when they are asked for."""

    stores: Mapping[Role, ChunkStore]
    scope: str
    dimensions: int

    def of(self, texts: Sequence[tuple[Role, str]]) -> Floats:
        """Return the vectors of (role, text) pairs; shape (texts, dimensions)."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for role, store in self.stores.items():
            mine = [i for i, (of, _) in enumerate(texts) if of == role]
            if mine:
                vectors[mine] = store.read([row_key(self.scope, role, texts[i][1]) for i in mine])
        return vectors


@dataclass(frozen=True)
class TextRows:
    """The vectors of texts of a role, read from disk when they are asked for; shape (texts, dimensions)."""

    vectors: TextVectors
    role: Role
    texts: Sequence[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, places: slice | npt.NDArray[np.int64]) -> Floats:
        """Return the rows of a slice, or at places; shape (*places, dimensions)."""
        if isinstance(places, slice):
            return self.vectors.of([(self.role, text) for text in self.texts[places]])
        distinct, where = np.unique(places, return_inverse=True)
        return self.vectors.of([(self.role, self.texts[place]) for place in distinct])[where.reshape(places.shape)]


def embed_samples(samples: Iterable[RankingSample], work: Work, *, pairs: int | None = None) -> TextVectors:
    """Embed all queries of samples, then all passages; return their vectors.

    The samples are gone through twice: of one role after the other, so that one window of texts is in memory at a
    time, and the batches are the same whatever the other role has. Those of several files may be given at once: a text
    that stands in two is embedded once, and long texts share their batches.
    """
    assert isinstance(work.model, TextEncoder)
    queries = embed_texts((sample.query for sample in samples), "query", work)
    passages = (passage for sample in samples for passage, _ in sample.passages())
    stores: dict[Role, ChunkStore] = {"query": queries, "passage": embed_texts(passages, "passage", work, total=pairs)}
    return TextVectors(stores, work.scope, work.model.dimensions)


def embed_texts(texts: Iterable[str], role: Role, work: Work, *, total: int | None = None) -> ChunkStore:
    """Embed texts of a role, each once, the longest of a window first; return the store of their vectors.

    Its keys are `row_key(scope, role, text)`.
    """
    assert isinstance(work.model, TextEncoder)
    model, store = work.model, ChunkStore(work.folders, role)
    chunks = Chunks(texts, lambda text: row_key(work.scope, role, text), store, work.chunk_rows, by_length=True)
    if isinstance(model, ChunkTextEncoder):
        values = model.encode_chunks(chunks, role)
    else:
        values = ((number, model.encode(chunk, role)) for number, chunk in enumerate(chunks))
    keep_values(chunks, values, role, total)
    return store


def embed_for_training(
    options: EngineOptions, texts: Mapping[Role, set[str]], folder: Path, *, store: Path | None = None
) -> TextVectors:
    """Embed texts by role with an embedder; what is in `folder` from an earlier run is taken from there.

    Args:
        store: score store (as of generate_logits) where the vectors are found as well, and new ones go to.

    Raises:
        EngineError: the model is no embedder, or as the engine raises.
    """
    name, options = settle("sentence-transformers", options, [])  # vLLM would keep the GPU memory
    query, passages = min(texts["query"] or texts["passage"]), sorted(texts["passage"])
    tried = [RankingSample(query, candidates=[text]) for text in passages[:: max(1, len(passages) // CANARY_PAIRS)]]
    model = load(name, options, spread_pairs(tried, CANARY_PAIRS))
    if not isinstance(model, TextEncoder):
        raise EngineError(f"{options.model.name} gives no vectors", "Pass an embedder")
    scope = scope_of(name, options)
    folders = [*([store / scope] if store else []), folder / scope]  # vectors of one width each
    for one in folders:
        one.mkdir(parents=True, exist_ok=True)
    if store:
        describe_store(folders[0], name, options)
    work = Work(model, scope, folders, CHUNK_ROWS[name])
    return TextVectors({role: embed_texts(texts[role], role, work) for role in texts}, work.scope, model.dimensions)
