"""What a scoring run would cost: pairs, tokens, GPU minutes and money, told before any of it is spent.

A decoder's or encoder's forward pass over a sequence of n tokens of which c are cached takes about
2 N (n - c) + 2 L d (n^2 - c^2) operations where attention is causal, with N the weights without the embedding
table, L the layers and d the width of all heads together; twice the second term where it is not (Kaplan et al. 2020,
"Scaling Laws for Neural Language Models", arXiv:2001.08361, section 2.1, for the first).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import EngineError
from rag_core.base.records import RankingSample
from rag_core.engines.embedding_prompt import EmbeddingPrompt
from rag_core.engines.identity import ModelInfo
from rag_core.engines.model_files import load_config
from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import Dtype, resolve_dtype
from rag_core.engines.protocols import Role
from rag_core.engines.reranker_prompt import load_prompt
from rag_core.engines.special_tokens import read_literally
from rag_core.engines.tokenizer import load_tokenizer
from rag_core.files.chunk_store import ChunkStore, row_key
from rag_core.scoring.samples import SampleFile, spread_samples

GpuName = Literal["A10", "A100", "H100", "H200", "B200", "L4", "L40S", "RTX4090", "cpu"]

# Dense bfloat16 tensor-core peak with float32 accumulation, in TFLOP/s, and memory in GB, from the makers' data sheets.
_GPUS: dict[str, tuple[float, int]] = {
    "A10": (125, 24),
    "A100": (312, 80),
    "H100": (989, 80),
    "H200": (989, 141),
    "B200": (2250, 180),
    "L4": (121, 24),
    "L40S": (362, 48),
    "RTX4090": (165, 24),
}

# Share of the peak that prompts reach. On an H100 an 8B reranker in transformers reached 0.35 to 0.49, one of 0.6B 0.05
# to 0.13 (benchmarks/gpu_scoring.py); vLLM was not measured on one. The CPU's is of benchmarks/scoring.py.
UTILISATION = {"gpu": 0.4, "cpu": 0.3}

_BLOCK = 16  # tokens of vLLM's prefix cache that are shared or not as one
_SAMPLED_QUERIES = 100

_BYTES: dict[Dtype, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Plan:
    """The work of a run.

    Attributes:
        unit: what is computed: "pairs", or "texts" of an embedder.
        rows: distinct ones; `found` of them were computed by an earlier run.
        tokens: of the rows to compute; vLLM reads `cached` of them once, in full blocks shared with the prompt before.
        operations: floating-point operations of the rows to compute, without the cached tokens.
        weights: number of parameters.
        seconds: on the hardware that was named.
    """

    queries: int
    pairs: int
    unit: str
    rows: int
    found: int
    tokens: float
    cached: float
    operations: float
    weights: int
    seconds: float
    gpu: GpuName
    peak: float
    dtype: Dtype

    def lines(self, price: float | None) -> list[str]:
        """Return it as text; `price` is that of the GPU by the hour."""
        share = UTILISATION["cpu" if self.gpu == "cpu" else "gpu"]
        hardware = "this CPU" if self.gpu == "cpu" else f"one {self.gpu}"
        speed = f"{share:.0%} of {self.peak / 1e12:.3g} TFLOP/s"
        gigabytes = self.weights * _BYTES[self.dtype] / 1e9
        text = [
            f"queries          {self.queries:,} with {self.pairs:,} candidates",
            f"to compute       {self.rows - self.found:,} {self.unit} of {self.rows:,} distinct ones"
            + (f" ({self.found:,} are there already)" if self.found else ""),
            f"tokens           {self.tokens:,.0f}, of which {self.cached / max(self.tokens, 1):.0%} in a shared prefix",
            f"teacher          {self.weights / 1e9:.2f} billion weights, {gigabytes:.1f} GB in {self.dtype}",
            f"operations       {self.operations:.3g} FLOP",
            f"estimated time   {duration(self.seconds)} on {hardware}, at {speed}",
        ]
        if price is not None:
            text.append(f"estimated cost   {self.seconds / 3600 * price:,.2f} at {price:g} an hour")
        if self.gpu != "cpu" and gigabytes > 0.9 * _GPUS[self.gpu][1]:
            text.append(f"WARNING: the weights do not fit into the {_GPUS[self.gpu][1]} GB of one {self.gpu}")
        return text


def make_plan(
    sources: Sequence[SampleFile],
    options: EngineOptions,
    folders: Sequence[Path],
    scope: str,
    gpu: GpuName,
    *,
    most: int | None = None,
) -> Plan:
    """Estimate from a hundred of the queries; the numbers of rows are exact, but with `most` those expected.

    Args:
        options: settled: with precision and instruction.
        folders: where rows of earlier runs are found, by keys of `scope`.
        most: candidates of a query that are scored, whichever they are; `None` for all.

    Raises:
        EngineError: tokenizer or configuration of the model cannot be loaded.
    """
    embeds = options.model.kind == "bi-encoder"
    rows, found = _count_rows(sources, scope, folders, most, embeds=embeds)
    prompts = _prompts(spread_samples(chain.from_iterable(sources), _SAMPLED_QUERIES), options, most)
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.float64)
    decoder = options.model.kind == "llm-reranker"  # what vLLM runs with a prefix cache
    cached = cached_tokens(prompts) if decoder else np.zeros(len(prompts))
    model = Architecture.of(options.model)
    per_row = model.operations(lengths, cached).mean()
    dtype = resolve_dtype(options.dtype)
    peak = matmul_peak(dtype) if gpu == "cpu" else _GPUS[gpu][0] * 1e12
    todo = rows - found
    return Plan(
        queries=sum(source.queries for source in sources),
        pairs=_count_pairs(sources, most),
        unit="texts" if embeds else "pairs",
        rows=rows,
        found=found,
        tokens=todo * float(lengths.mean()),
        cached=todo * float(cached.mean()),
        operations=todo * per_row,
        weights=model.weights,
        seconds=todo * per_row / peak / UTILISATION["cpu" if gpu == "cpu" else "gpu"],
        gpu=gpu,
        peak=peak,
        dtype=dtype,
    )


@functools.cache  # another measurement would be another figure
def matmul_peak(dtype: Dtype) -> float:
    """Return the operations per second of this machine's best matrix products, measured for about two seconds."""
    import torch

    size = 2048
    left, right = (torch.randn(size, size).to(getattr(torch, dtype)) for _ in range(2))
    left @ right
    best = float("inf")
    end = time.perf_counter() + 2
    while (started := time.perf_counter()) < end:
        left @ right
        best = min(best, time.perf_counter() - started)
    return float(2 * size**3 / best)


@dataclass(frozen=True)
class Architecture:
    """What a forward pass costs.

    Attributes:
        weights: number of parameters without an output head; `weights_in_products` without the embedding table, too.
        width: of all attention heads together.
    """

    weights: int
    weights_in_products: int
    layers: int
    width: int
    causal: bool

    @classmethod
    def of(cls, described: ModelInfo) -> Architecture:
        """Read it from a model's configuration.

        Raises:
            EngineError: the model has no transformer.
        """
        import torch
        from transformers import AutoModel

        config = load_config(described.name)
        if config is None:
            raise EngineError(f"{described.name} has no transformer ({described.why})", "Leave out --dry_run")
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        text = config.get_text_config()
        weights = sum(parameter.numel() for parameter in model.parameters())
        heads = text.num_attention_heads
        return cls(
            weights=weights,
            weights_in_products=weights - model.get_input_embeddings().weight.numel(),
            layers=text.num_hidden_layers,
            width=heads * (getattr(text, "head_dim", None) or text.hidden_size // heads),
            causal=described.is_llm,
        )

    def operations(self, lengths: npt.NDArray[np.float64], cached: npt.NDArray[np.float64]) -> Any:
        """Return the operations of sequences of `lengths` tokens, the first `cached` of which are there already."""
        attention = 2 * self.layers * self.width * (lengths**2 - cached**2)
        return 2 * self.weights_in_products * (lengths - cached) + attention * (1 if self.causal else 2)


def _count_pairs(sources: Sequence[SampleFile], most: int | None) -> int:
    if most is None:
        return sum(source.pairs for source in sources)
    return sum(min(most, sum(1 for _ in sample.passages())) for sample in chain.from_iterable(sources))


def _count_rows(
    sources: Sequence[SampleFile], scope: str, folders: Sequence[Path], most: int | None, *, embeds: bool
) -> tuple[int, int]:
    """Count distinct pairs (or texts of a role), and those whose rows are there.

    With `most`, each candidate of a query is as likely as any other to be among those that are scored.
    """
    unasked: dict[str, dict[bytes, float]] = {"query": {}, "passage": {}} if embeds else {"pair": {}}
    for sample in chain.from_iterable(sources):  # of each row, the chance that no sample asks for it
        passages = [passage for passage, _ in sample.passages()]
        chance = 1 - min(1, most / len(passages)) if most else 0.0
        if embeds:
            unasked["query"][row_key(scope, "query", sample.query)] = 0.0
        kind, known = ("passage", unasked["passage"]) if embeds else ("pair", unasked["pair"])
        for passage in passages:
            key = row_key(scope, kind if embeds else sample.query, passage)
            known[key] = known.get(key, 1.0) * chance
    rows = missing = 0.0
    for kind, known in unasked.items():
        asked = 1 - np.fromiter(known.values(), np.float64)
        rows += asked.sum()
        missing += asked[ChunkStore(folders, kind).missing(list(known))].sum()
    return round(rows), round(rows) - round(missing)


def _prompts(samples: Sequence[RankingSample], options: EngineOptions, most: int | None) -> list[list[int]]:
    pairs = [(sample.query, passage) for sample in samples for passage in _spread(sample, most)]
    if options.model.kind == "llm-reranker":
        return load_prompt(options).token_ids(pairs)[0]
    if options.model.is_llm:
        prompt = EmbeddingPrompt.for_model(options)
        texts: dict[Role, list[str]] = {"query": list(dict(pairs)), "passage": [passage for _, passage in pairs]}
        return [ids for role in texts for ids in prompt.token_ids(texts[role], role)[0]]
    tokenizer = load_tokenizer(options.model.name)
    limit = min(options.max_length, tokenizer.model_max_length)
    columns = (
        [*zip(*pairs, strict=True)]
        if options.model.kind == "cross-encoder"
        else [[text for pair in pairs for text in pair]]
    )
    read_literally(tokenizer)
    encoded: list[list[int]] = tokenizer(*map(list, columns), truncation=True, max_length=limit)["input_ids"]
    return encoded


def _spread(sample: RankingSample, most: int | None) -> list[str]:
    """Return the candidates of a sample, or `most` of them from all over."""
    passages = [passage for passage, _ in sample.passages()]
    places = np.linspace(0, len(passages) - 1, num=min(len(passages), most or len(passages))).astype(int)
    return [passages[place] for place in places]


def cached_tokens(prompts: Sequence[list[int]]) -> npt.NDArray[np.float64]:
    """Return how many tokens each prompt shares with the prompt before it, counted in full blocks from its start."""
    shared = [0]
    for before, prompt in pairwise(prompts):
        same = 0
        while prompt[same : same + _BLOCK] == before[same : same + _BLOCK] and same + _BLOCK < len(prompt):
            same += _BLOCK
        shared.append(same)
    return np.array(shared, dtype=np.float64)


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} hours"
