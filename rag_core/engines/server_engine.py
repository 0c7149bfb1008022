"""Teachers of every kind on an HTTP server: vLLM's OpenAI-compatible one, or text-embeddings-inference (TEI).

We send token ids to LLMs, so that they read the same prompts as in the other engines, and text to cross-encoders and
other embedders; the server cuts it to `max_length`. No text that is sent spells a special token (`ServerTexts`).
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from rag_core.base.errors import EngineError, UsageError
from rag_core.engines.canary import check_finite
from rag_core.engines.embedding_prompt import EmbeddingPrompt, query_prompt
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import Floats, Pair, PairScorer, Role, ScoreUnit, TextEncoder
from rag_core.engines.reranker_prompt import load_prompt
from rag_core.engines.server import Server
from rag_core.engines.server_answers import LOGPROBS, POOLING, RERANK, SCORE, embeddings
from rag_core.engines.server_texts import ServerTexts
from rag_core.engines.tokenizer import tokenise_ahead

_LOWEST_LOGPROB = -9999  # vLLM's stand-in for minus infinity, which JSON lacks


def connect(options: EngineOptions) -> Server:
    """Ask a server which model it has.

    Raises:
        UsageError: none is named.
        EngineError: it does not answer, or does not have the model.
    """
    if options.server is None:
        raise UsageError("--engine server needs a server", "Pass --server_url http://host:port")
    return Server(options.model.name, options.server, options.batch_size)


def load(options: EngineOptions) -> PairScorer | TextEncoder:
    """Connect to a server.

    Raises:
        EngineError: it does not answer, or cannot run the model.
    """
    server = connect(options)
    if options.model.kind == "bi-encoder":
        options.model.warn_of_unused_prompts()
        return ServerEncoder(server, options)
    if options.model.kind == "cross-encoder":
        return ServerCrossEncoder(server, options)
    return (ServerClassifier if options.model.question.is_classifier else ServerYesNoScorer)(server, options)


class _ServerScorer(abc.ABC):
    score_unit: ScoreUnit
    truncated: int | None

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs; shape (pairs,), float32.

        Raises:
            EngineError: as `score_chunks`.
        """
        ((_, scores),) = self.score_chunks([pairs])
        return scores

    def score_chunks(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, Floats]]:
        """Score chunks of pairs; yield (number of the chunk, scores) in their order.

        Raises:
            EngineError: the server gives no answer, a score is missing or not finite, or a query leaves no room for
                its passage.
        """
        for number, values, truncated in self._compute(chunks):
            with np.errstate(over="ignore"):  # what is too large is infinite
                scores = np.array(values, dtype=np.float32)
            check_finite(scores)
            if self.truncated is not None:
                self.truncated += truncated
            yield number, scores

    @abc.abstractmethod
    def _compute(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, list[float], int]]:
        """Yield (number of the chunk, scores, cut passages)."""


class _ServerPromptScorer(_ServerScorer):
    score_unit: ScoreUnit = "log-odds"
    answer = 0  # tokens that it writes

    def __init__(self, server: Server, options: EngineOptions) -> None:
        """Prepare the prompt.

        Raises:
            EngineError: the server is TEI or reads too little, or the model does not fit the prompt.
        """
        if server.is_tei:
            raise EngineError(
                f"the server {server.url} is TEI, which cannot score with an LLM reranker",
                "Serve the teacher with vllm serve",
            )
        self.truncated = 0
        self._server, self._prompt = server, load_prompt(options)
        check_room(server, options.max_length, answer=self.answer)

    def _compute(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, list[float], int]]:
        return self._server.compute(tokenise_ahead(chunks, self._prompt.token_ids), self._ask)

    @abc.abstractmethod
    def _ask(self, prompts: Sequence[list[int]]) -> list[float]:
        """Return the score after each prompt."""


class ServerClassifier(_ServerPromptScorer):
    """What the head of a reranker that was converted to sequence classification gives, from vLLM's /pooling."""

    def _ask(self, prompts: Sequence[list[int]]) -> list[float]:
        body = {"model": self._server.model, "input": prompts, "task": "classify", "use_activation": False}
        return self._server.ask(POOLING, body, len(prompts))


class ServerYesNoScorer(_ServerPromptScorer):
    """log p(yes) - log p(no) at the token after the prompt, from vLLM's /v1/completions."""

    answer = 1

    def __init__(self, server: Server, options: EngineOptions) -> None:
        """Prepare the prompt.

        Raises:
            EngineError: the server gives no log-probabilities or reads too little, or the model does not fit the
                prompt, or has one answer only.
        """
        if len(options.model.question.answers) == 1:
            raise EngineError(
                f"the score of {options.model.name} is the logit of one token, and a server gives its log-probability",
                "Pass --engine vllm or transformers",
            )
        super().__init__(server, options)

    def _ask(self, prompts: Sequence[list[int]]) -> list[float]:
        # `logprobs` is needed beside the ids, and 0, so that a server that does not know the ids gives no top list
        # that has both answers most of the time.
        body = {
            "model": self._server.model,
            "prompt": prompts,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 0,
            "logprob_token_ids": list(self._prompt.answers),
            "return_tokens_as_token_ids": True,
        }
        return [self._difference(logprobs) for logprobs in self._server.ask(LOGPROBS, body, len(prompts))]

    def _difference(self, logprobs: dict[str, float]) -> float:
        answers = {token_id: logprobs.get(f"token_id:{token_id}") for token_id in self._prompt.answers}
        yes, no = answers.values()
        if yes is None or no is None:
            missing = min(token_id for token_id, logprob in answers.items() if logprob is None)
            raise EngineError(
                f"the server {self._server.url} gave no log-probability for the answer with token id {missing}",
                "Serve the teacher with the version of vLLM that the extra vllm names",
            )
        return float("nan") if min(yes, no) <= _LOWEST_LOGPROB else yes - no


class ServerCrossEncoder(_ServerScorer):
    """A cross-encoder's raw output, before any sigmoid, from vLLM's /score or TEI's /rerank."""

    score_unit: ScoreUnit = "logit"
    truncated: int | None = None

    def __init__(self, server: Server, options: EngineOptions) -> None:
        """Settle how pairs are cut.

        Raises:
            EngineError: the server reads more than `max_length`, and cannot be told to cut there.
        """
        self._server, self._cut = server, _cut(server, options.max_length)
        self._texts = ServerTexts(options.model.name)

    def _compute(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, list[float], int]]:
        ask = self._ask_tei if self._server.is_tei else self._ask_vllm
        return self._server.compute(self._texts.of_pairs(chunks), ask)

    def _ask_vllm(self, pairs: Sequence[Pair]) -> list[float]:
        queries, passages = zip(*pairs, strict=True)
        body = {"model": self._server.model, "text_1": queries, "text_2": passages, "use_activation": False}
        return self._server.ask(SCORE, body | self._cut, len(pairs))

    def _ask_tei(self, pairs: Sequence[Pair]) -> list[float]:
        scores: list[float] = []
        for query, group in groupby(pairs, key=lambda pair: pair[0]):
            texts = [passage for _, passage in group]
            body = {"query": query, "texts": texts, "raw_scores": True}
            scores += self._server.ask(RERANK, body | self._cut, len(texts))
        return scores


class ServerEncoder:
    """Vectors of length 1, from /v1/embeddings or TEI's /embed."""

    score_unit: ScoreUnit = "cosine"

    def __init__(self, server: Server, options: EngineOptions) -> None:
        """Embed a text, to learn the length of a vector.

        Raises:
            EngineError: the server cannot embed, or does not read `max_length` tokens.
        """
        self._server, self._texts = server, ServerTexts(options.model.name)
        self._prompt: EmbeddingPrompt | None = None
        self._cut: dict[str, Any] = {}
        self.truncated: int | None = None
        # TEI makes text of token ids, and tokens of that with another end token.
        if options.model.is_llm and not server.is_tei:
            self._prompt, self.truncated = EmbeddingPrompt.for_model(options), 0
            check_room(server, self._prompt.max_length)
        else:
            declared = options.model.max_length or options.max_length
            self._cut = _cut(server, min(options.max_length, declared))
        roles: tuple[Role, ...] = ("query", "passage")
        self._before = {role: options.model.prompt(role) for role in roles}
        if options.instruction and options.model.takes_instruction:
            self._before["query"] = query_prompt(options.instruction)
        self._endpoint = embeddings(of_tei=server.is_tei, dimensions=None)
        ((_, rows, _),) = self._compute([["text"]], "passage")
        self.dimensions = len(rows[0])
        self._endpoint = embeddings(of_tei=server.is_tei, dimensions=self.dimensions)

    def encode(self, texts: Sequence[str], role: Role) -> Floats:
        """Embed texts; shape (texts, dimensions), L2-normalised in float32.

        Raises:
            EngineError: the server gives no answer.
        """
        ((_, vectors),) = self.encode_chunks([texts], role)
        return vectors

    def encode_chunks(self, chunks: Iterable[Sequence[str]], role: Role) -> Iterator[tuple[int, Floats]]:
        """Embed chunks of texts; yield (number of the chunk, vectors) in their order.

        Raises:
            EngineError: the server gives no answer.
        """
        for number, rows, truncated in self._compute(chunks, role):
            vectors = np.empty((len(rows), self.dimensions), dtype=np.float32)
            if rows:
                vectors[:] = rows
                vectors /= _lengths(vectors)
            if self.truncated is not None:
                self.truncated += truncated
            yield number, vectors

    def _compute(self, chunks: Iterable[Sequence[str]], role: Role) -> Iterator[tuple[int, list[Floats], int]]:
        if self._prompt is not None:
            return self._server.compute(tokenise_ahead(chunks, partial(self._prompt.token_ids, role=role)), self._ask)
        return self._server.compute(self._texts.behind(self._before[role], chunks), self._ask)

    def _ask(self, rows: Sequence[list[int]] | Sequence[str]) -> list[Floats]:
        body: dict[str, Any] = {"model": self._server.model, "input": rows, "encoding_format": "base64"}
        if self._server.is_tei:
            body = {"inputs": rows, "normalize": False}
        return self._server.ask(self._endpoint, body | self._cut, len(rows))


def check_room(server: Server, tokens: int, *, answer: int = 0) -> None:
    """Check that a server reads so many tokens.

    Raises:
        EngineError: it reads fewer.
    """
    if server.reads is not None and server.reads < tokens + answer:
        raise EngineError(
            f"the server {server.url} reads {server.reads} tokens, where --max_length {tokens} needs {tokens + answer}",
            f"Pass --max_length {server.reads - answer}, or start it with --max-model-len {tokens + answer}",
        )


def _cut(server: Server, max_length: int) -> dict[str, Any]:
    """Return what a request says about texts that are too long."""
    if not server.is_tei:
        return {"truncate_prompt_tokens": min(max_length, server.reads or max_length)}
    if server.reads is not None and server.reads > max_length:
        raise EngineError(
            f"the server {server.url} is TEI, which cuts a text at its own {server.reads} tokens, not at {max_length}",
            f"Pass --max_length {server.reads}, or more",
        )
    return {"truncate": True}


def _lengths(vectors: Floats) -> Floats:
    """Return the L2 norm of each row; shape (rows, 1).

    Raises:
        EngineError: a row has none to divide by.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = int((~(np.isfinite(norms) & (norms > 0))).sum())
    if wrong:
        raise EngineError(
            f"{wrong} of {len(norms)} vectors of the server are all zeros or not finite",
            "Start the server with --dtype float32, or check its model",
        )
    return norms
