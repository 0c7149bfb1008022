"""LLM rerankers through transformers: the plain form that every other engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.protocols import Floats, Pair, ScoreUnit
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION, YesNoPrompt
from rag_core.errors import EngineError


class YesNoScorer:
    """log p(yes) - log p(no) at the token after the prompt.

    The difference of two log-probabilities is that of their logits, so the output head is applied to the last
    position only, and of its rows only the two are used.
    """

    score_unit: ScoreUnit = "log-odds"

    def __init__(self, options: EngineOptions) -> None:
        """Load the model.

        Raises:
            EngineError: the model cannot be loaded, or caps its logits, which the two rows do not show.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.truncated: int | None = 0
        self._torch = torch
        self._batch_size = options.batch_size
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = getattr(torch, resolve_dtype(options.dtype))
        try:
            tokenizer = AutoTokenizer.from_pretrained(options.model)
            model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
        except (OSError, ValueError) as error:
            raise EngineError(
                f"cannot load the model {options.model!r} ({str(error).splitlines()[0]})",
                "Check the name or folder, and the network",
            ) from error
        if getattr(model.config, "final_logit_softcapping", None):
            raise EngineError(
                f"{options.model} caps its logits, which this engine does not reckon with", "Pass --engine vllm"
            )
        self._prompt = YesNoPrompt(tokenizer, options.instruction or DEFAULT_INSTRUCTION, options.max_length)
        self._backbone = model.get_decoder().to(self._device).eval()
        head = model.get_output_embeddings()
        rows = [self._prompt.yes, self._prompt.no]
        self._weight = head.weight.detach()[rows].float().to(self._device)  # (2, hidden)
        self._bias = None if head.bias is None else head.bias.detach()[rows].float().to(self._device)

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs, in batches of similar length; shape (pairs,)."""
        prompts, truncated = self._prompt.token_ids(pairs)
        self.truncated = (self.truncated or 0) + truncated
        scores = np.empty(len(prompts), dtype=np.float32)
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        with self._torch.inference_mode():
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                scores[batch] = self._forward([prompts[i] for i in batch])
        return scores

    def _forward(self, prompts: list[list[int]]) -> Floats:
        torch = self._torch
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long)  # padded on the right, and masked
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
        hidden = self._backbone(
            input_ids=ids.to(self._device), attention_mask=mask.to(self._device), use_cache=False
        ).last_hidden_state
        last = hidden[torch.arange(len(prompts)), lengths - 1].float()  # (batch, hidden)
        yes, no = torch.nn.functional.linear(last, self._weight, self._bias).unbind(dim=1)
        scores: Floats = (yes - no).cpu().numpy()
        return scores
