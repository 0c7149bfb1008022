"""Cross-encoders and bi-encoders through sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from rag_core.base.errors import EngineError
from rag_core.engines.embedding_prompt import query_prompt
from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import keep_head_in_float32, resolve_dtype
from rag_core.engines.pretrained import load_sentence_transformers
from rag_core.engines.protocols import Floats, Pair, Role, ScoreUnit

M = TypeVar("M")
Row = TypeVar("Row", Pair, str)


class CrossEncoderScorer:
    """A cross-encoder's raw output, before any sigmoid."""

    score_unit: ScoreUnit = "logit"
    truncated: int | None = None

    def __init__(self, options: EngineOptions) -> None:
        """Load the model.

        Raises:
            EngineError: the model cannot be loaded, or has more than one output.
        """
        from sentence_transformers import CrossEncoder

        self._model = _load(CrossEncoder, options)
        self._batch_size = options.batch_size
        if self._model.num_labels != 1:
            raise EngineError(
                f"{options.model.name} has {self._model.num_labels} outputs, a reranker has 1", "Choose another model"
            )
        keep_head_in_float32(self._model)

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs; shape (pairs,)."""
        from torch.nn import Identity

        def predict(batch: list[Pair]) -> Floats:
            scores: Floats = self._model.predict(
                batch, batch_size=self._batch_size, activation_fn=Identity(), show_progress_bar=False
            )
            return scores

        return _in_batches(predict, pairs, _token_counts(self._model, *zip(*pairs, strict=True)), self._batch_size)


class BiEncoder:
    """A sentence-transformers embedder with the prompts that it declares for queries and passages.

    An instruction takes the place of the one in a query prompt that is declared as "Instruct: ...\\nQuery:".
    """

    score_unit: ScoreUnit = "cosine"
    truncated: int | None = None

    def __init__(self, options: EngineOptions) -> None:
        """Load the model.

        Raises:
            EngineError: the model cannot be loaded.
        """
        from sentence_transformers import SentenceTransformer

        self._model = _load(SentenceTransformer, options)
        self._batch_size = options.batch_size
        self._query_prompt: str | None = None  # the model's own
        if options.instruction and options.model.takes_instruction:
            self._query_prompt = query_prompt(options.instruction)
        self.dimensions: int = self._model.get_embedding_dimension()

    def encode(self, texts: Sequence[str], role: Role) -> Floats:
        """Embed texts; shape (texts, dimensions), L2-normalised in float32."""
        encode = self._model.encode_query if role == "query" else self._model.encode_document

        def embed(batch: list[str]) -> Floats:
            vectors = encode(
                batch,
                prompt=self._query_prompt if role == "query" else None,
                batch_size=self._batch_size,
                show_progress_bar=False,
                convert_to_tensor=True,
            ).float()
            normalised: Floats = (vectors / vectors.norm(dim=1, keepdim=True)).cpu().numpy()
            return normalised

        return _in_batches(embed, texts, _token_counts(self._model, texts), self._batch_size)


def _in_batches(
    compute: Callable[[list[Row]], Floats], rows: Sequence[Row], token_counts: Sequence[int], batch_size: int
) -> Floats:
    """Compute rows in batches of like length, the longest first; return their values in the order given.

    sentence-transformers goes by characters, of which a token of code or names has few and one of prose many: a
    third of what it computes may be padding.
    """
    order = sorted(range(len(rows)), key=lambda row: -token_counts[row])
    values = [
        compute([rows[row] for row in order[start : start + batch_size]]) for start in range(0, len(order), batch_size)
    ]
    return np.concatenate(values)[np.argsort(order)].astype(np.float32, copy=False)


def _token_counts(model: Any, *texts: Sequence[str]) -> list[int]:
    """Count the tokens of each text or, of two sequences, of each pair."""
    if not callable(model.tokenizer):  # a static embedder's, which pads nothing
        return [sum(map(len, row)) for row in zip(*texts, strict=True)]
    tokenized = model.tokenizer(*map(list, texts), verbose=False)
    return [min(len(token_ids), model.max_seq_length) for token_ids in tokenized["input_ids"]]


def _load(model_class: type[M], options: EngineOptions) -> M:
    model: Any = load_sentence_transformers(options.model, model_class, dtype=resolve_dtype(options.dtype))
    if model.transformers_model is not None:
        model.max_seq_length = min(options.max_length, model.max_seq_length or options.max_length)
    return model  # type: ignore[no-any-return]
