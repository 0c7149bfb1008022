"""Scoring pairs with an LLM reranker: as model cards and a public recipe have it, or with each engine here.

OMP_NUM_THREADS=1 python benchmarks/scoring.py [--queries 8] [--layers 12] [--hidden 768]

The model is a Qwen3 with random weights, which cost what trained ones do. All ways have the same pairs, in the file's
order, and the same precision; models are loaded and warm before the clock starts, and vLLM's prefix cache is emptied.

- model card: transformers, 8 pairs a batch, padded on the left, logits of the whole vocabulary at every position;
- best batching: transformers as here (by length, a budget of tokens, two rows of the head), but no prefix read once;
- public recipe: vLLM, 8 pairs a call, the log-probabilities of the 20 most probable tokens, vLLM's own block size.

Needs vLLM (the CPU build will do), and the vocabulary from the packages dashscope and tiktoken.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measurement import Run, by_turns, fill_in, finish, make_parser, row
from random_qwen import make_tokenizer, save_reranker

from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import resolve_dtype
from rag_core.engines.protocols import Floats, Pair
from rag_core.engines.transformers_engine import YesNoScorer as TransformersScorer
from rag_core.engines.yes_no_prompt import YesNoPrompt
from rag_core.files.jsonl import read_samples
from rag_core.scoring.plan import UTILISATION, Architecture, matmul_peak

OF_OTHERS = 8  # pairs in a batch, or call
MAX_LENGTH = 512
THEIRS = {
    "model card": "transformers, 8 a batch, all logits",
    "public recipe": "vLLM, 8 a call, top 20",
    "best batching": "transformers, best batching",
    "transformers": "--engine transformers",
}


class Tokens:
    """What went through a model in its last run."""

    def __init__(self) -> None:
        self.computed = 0  # padding included
        self.cached = 0


def main() -> int:
    """Measure, print and write."""
    parser = make_parser(__doc__, "scoring")
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    args = parser.parse_args()
    if args.model is None:
        args.model = args.work_dir / f"qwen3-{args.layers}x{args.hidden}"
        if not args.model.exists():
            make_reranker(args.model, args.layers, args.hidden)
    settings = fill_in(args)
    samples = read_samples(args.input_file)[: args.queries]
    pairs = [(sample.query, passage) for sample in samples for passage, _ in sample.passages()]
    options = EngineOptions(describe_model(str(args.model)), max_length=MAX_LENGTH, dtype=resolve_dtype("auto"))
    tokens = {name: Tokens() for name in (*THEIRS, "generate", "pooling")}
    ways = {
        "model card": model_card(options, tokens["model card"]),
        "best batching": transformers_engine(options, tokens["best batching"], prefix=False),
        "transformers": transformers_engine(options, tokens["transformers"], prefix=True),
        "public recipe": public_recipe(options, tokens["public recipe"]),
        **{name: vllm_engine(options, name, tokens[name]) for name in ("generate", "pooling")},
    }
    for way in ways.values():
        way(pairs[:OF_OTHERS])
    runs = by_turns({name: partial(way, pairs) for name, way in ways.items()}, args.repeats)
    rows = compare(runs, tokens, options, pairs)
    finish(args.output, settings | {"pairs": len(pairs), "dtype": options.dtype}, rows)
    return 0


def make_reranker(folder: Path, layers: int, hidden: int) -> None:
    """Save a Qwen3 of the shape of the large ones."""
    heads = hidden // 64
    config = {
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": 64,
        "max_position_embeddings": 2 * MAX_LENGTH,
    }
    save_reranker(folder, make_tokenizer(), config)


def compare(
    runs: dict[str, list[Run[Floats]]], tokens: dict[str, Tokens], options: EngineOptions, pairs: Sequence[Pair]
) -> list[dict[str, Any]]:
    """Return the rows, each with how well the processor was used and what the plan of `--dry_run` says."""
    prompts, _ = YesNoPrompt.for_model(options).token_ids(pairs)
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.float64)
    architecture, peak = Architecture.of(options.model), matmul_peak(options.dtype)  # type: ignore[arg-type]

    def facts(name: str) -> dict[str, float]:
        seconds = float(np.median([run.seconds for run in runs[name]]))
        share = tokens[name].cached / lengths.sum()
        operations = architecture.operations(lengths, np.zeros(len(lengths))).sum() * (1 - share)
        return {
            "tokens_per_second": lengths.sum() / seconds,
            "padding": tokens[name].computed / (lengths.sum() - tokens[name].cached) - 1,
            "cached": share,
            "of_peak": operations / seconds / peak,
            "planned_seconds": operations / peak / UTILISATION["cpu"],
            "seconds": seconds,
        }

    rows = []
    for theirs, ours in (
        ("model card", "transformers"),
        ("model card", "generate"),
        ("model card", "pooling"),
        ("best batching", "transformers"),
        ("best batching", "generate"),
        ("best batching", "pooling"),
        ("public recipe", "generate"),
        ("public recipe", "pooling"),
    ):
        mine = f"--engine vllm --vllm_runner {ours}" if ours in ("generate", "pooling") else THEIRS[ours]
        found = row(
            f"score with an LLM, {options.dtype}",
            (THEIRS[theirs], runs[theirs]),
            (mine, runs[ours]),
            len(pairs),
            "pairs",
        )
        both = facts(theirs), facts(ours)
        apart = float(np.abs(runs[theirs][0].value - runs[ours][0].value).max())
        found["result"] = f"scores differ by at most {apart:.2g}; " + "; ".join(
            f"{words} {both[0][name]:.0%}, {both[1][name]:.0%}"
            for name, words in (("padding", "padding"), ("cached", "from the cache"), ("of_peak", "of the peak"))
        )
        rows.append(found | {"facts_theirs": both[0], "facts_ours": both[1], "peak_flops": peak})
    return rows


def model_card(options: EngineOptions, tokens: Tokens) -> Callable[[Sequence[Pair]], Floats]:
    """Return the way of the model's card, with our prompt."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(options.model.name, dtype=options.dtype).eval()
    prompt = YesNoPrompt.for_model(options)

    def score(pairs: Sequence[Pair]) -> Floats:
        tokens.computed = 0
        scores: list[float] = []
        for start in range(0, len(pairs), OF_OTHERS):
            rows = [torch.tensor(ids) for ids in prompt.token_ids(pairs[start : start + OF_OTHERS])[0]]
            longest = max(map(len, rows))
            padded = torch.stack([torch.nn.functional.pad(ids, (longest - len(ids), 0)) for ids in rows])
            mask = torch.stack([(torch.arange(longest) >= longest - len(ids)).long() for ids in rows])
            tokens.computed += padded.numel()
            with torch.inference_mode():
                logits = model(input_ids=padded, attention_mask=mask).logits[:, -1, :]
            answers = torch.log_softmax(logits[:, [prompt.no, prompt.yes]].float(), dim=1)
            scores += (answers[:, 1] - answers[:, 0]).tolist()
        return np.array(scores, dtype=np.float32)

    return score


def transformers_engine(options: EngineOptions, tokens: Tokens, *, prefix: bool) -> Callable[[Sequence[Pair]], Floats]:
    """Return ours through transformers, or what it would be without the prefix that is read once."""
    scorer = TransformersScorer(options)
    if not prefix:
        scorer._read_prefix = lambda prompts: None  # type: ignore[method-assign]

    def count(module: Any, args: Any, inputs: dict[str, Any]) -> None:
        rows, width = inputs["input_ids"].shape
        tokens.computed += rows * width
        tokens.cached += rows * (inputs["attention_mask"].shape[1] - width)

    scorer._model.register_forward_pre_hook(count, with_kwargs=True)

    def score(pairs: Sequence[Pair]) -> Floats:
        tokens.computed = tokens.cached = 0
        return scorer.score(pairs)

    return score


def public_recipe(options: EngineOptions, tokens: Tokens) -> Callable[[Sequence[Pair]], Floats]:
    """Return the public recipe's way, with our prompt and with its default for an answer that is missing."""
    from rag_core.engines.vllm_package import import_vllm

    vllm = import_vllm()
    llm = vllm.LLM(options.model.name, dtype=options.dtype, max_model_len=MAX_LENGTH + 1, enforce_eager=True)
    prompt = YesNoPrompt.for_model(options)
    sampling = vllm.SamplingParams(temperature=0, max_tokens=1, logprobs=20, allowed_token_ids=[prompt.yes, prompt.no])

    def score(pairs: Sequence[Pair]) -> Floats:
        llm.reset_prefix_cache()
        tokens.computed = tokens.cached = 0
        scores = []
        for start in range(0, len(pairs), OF_OTHERS):
            ids, _ = prompt.token_ids(pairs[start : start + OF_OTHERS])
            for output in llm.generate(
                [vllm.TokensPrompt(prompt_token_ids=one) for one in ids], sampling, use_tqdm=False
            ):
                found = output.outputs[0].logprobs[0]
                yes, no = (found[i].logprob if i in found else -10.0 for i in (prompt.yes, prompt.no))
                scores.append(yes - no)
                count(tokens, output)
        return np.array(scores, dtype=np.float32)

    return score


def vllm_engine(options: EngineOptions, runner: str, tokens: Tokens) -> Callable[[Sequence[Pair]], Floats]:
    """Return ours through vLLM."""
    from rag_core.engines.vllm_engine import PoolingScorer, YesNoScorer

    scorer = YesNoScorer(options) if runner == "generate" else PoolingScorer(options)
    name = "generate" if runner == "generate" else "encode"
    call = getattr(scorer._llm, name)

    def counting_call(*args: Any, **settings: Any) -> Any:
        outputs = call(*args, **settings)
        for output in outputs:
            count(tokens, output)
        return outputs

    setattr(scorer._llm, name, counting_call)

    def score(pairs: Sequence[Pair]) -> Floats:
        scorer._llm.reset_prefix_cache()
        tokens.computed = tokens.cached = 0
        return scorer.score(pairs)

    return score


def count(tokens: Tokens, output: Any) -> None:
    """Add what vLLM says of a prompt."""
    cached = output.num_cached_tokens or 0
    tokens.cached += cached
    tokens.computed += len(output.prompt_token_ids) - cached


if __name__ == "__main__":
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB, for each of the three engines
    sys.exit(main())
