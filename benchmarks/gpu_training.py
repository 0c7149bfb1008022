"""Training a reranker of the size of bge-reranker-v2-m3 on a GPU: grouped by query, or triplet by triplet.

python benchmarks/gpu_training.py [--steps 6] [--model FOLDER] [--output FILE]

The student is an XLM-RoBERTa large with random weights, in bfloat16 autocast, at 512 and at 4,096 tokens, with and
without gradient checkpointing. Both ways learn the same triplets in the same steps; benchmarks/training.py says how. A
row has steps and triplets a second, passes, and the peak of allocated memory, or that memory was short. With --model,
a small student's losses of 50 steps stand beside those in float32 on the CPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments
from tables import RESULTS
from training import grouped, in_order, plain

from rag_core.base.records import ScoredPair, Triplet
from rag_core.distillation.student import StudentSettings
from rag_core.distillation.train_args import parse_training_arguments
from rag_core.engines.identity import describe_model
from reranker_distillation.triplets import make_triplets

CANDIDATES, TOP_K, NEGATIVES = 30, 8, 4
LARGE = {
    "vocab_size": 250002,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "max_position_embeddings": 8194,
    "type_vocab_size": 2,  # for a tokenizer that tells query and passage apart
    "layer_norm_eps": 1e-5,
    "num_labels": 1,
}
# Tokens of a pair, and queries in a step.
CASES = ((512, 4), (4096, 1))


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a model's folder, whose tokenizer is taken")
    parser.add_argument("--model", type=Path, help="a small embedder, whose losses are compared with the CPU's")
    parser.add_argument("--layers", type=int, help="fewer than the model has, for a trial")
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu-training.json")
    args = parser.parse_args()
    content: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "rows": [],
    }
    for found in rows(args):
        content["rows"].append(found)
        print(json.dumps(found), flush=True)  # noqa: T201
        args.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def rows(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each length, way and checkpointing."""
    if args.model:
        yield compare_losses(args.model)
    with tempfile.TemporaryDirectory() as folder:
        save_large(Path(folder), args.tokenizer, args.layers)
        for length, queries in CASES:
            student = StudentSettings(describe_model(folder), length, dropout=0.0)
            for way in (grouped, plain):
                # One by one costs five times as much and more: fewer steps tell.
                steps = args.steps if way is grouped else max(2, args.steps // 3)
                for checkpointing in (False, True):
                    yield measure(student, way, length, queries, steps, checkpointing=checkpointing)


def measure(
    student: StudentSettings, way: Any, length: int, queries: int, steps: int, *, checkpointing: bool
) -> dict[str, Any]:
    """Train some steps."""
    groups = make_groups(queries * steps, length)
    batch, accumulated = (queries, 1) if way is grouped else (TOP_K * NEGATIVES, queries)
    found: dict[str, Any] = {"way": way.__name__, "tokens": length, "queries": queries, "checkpointing": checkpointing}
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        training = way(student, groups, arguments(batch, accumulated, bf16=True, checkpointing=checkpointing))
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if "out of memory" not in str(error):
            raise
        return found | {"out_of_memory": True}
    triplets = sum(map(len, groups))
    return found | {
        "steps": steps,
        "steps_per_second": steps / training.seconds,
        "triplets_per_second": triplets / training.seconds,
        "passes": training.passes,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        "losses": training.losses,
    }


def arguments(batch: int, accumulated: int, *, bf16: bool, checkpointing: bool, cpu: bool = False) -> Any:
    """Return the trainer's arguments."""
    flags = f"--per_device_train_batch_size {batch} --gradient_accumulation_steps {accumulated} --logging_steps 1"
    found = parse_training_arguments(
        CrossEncoderTrainingArguments,
        f"{flags} --learning_rate 2e-5 --save_strategy no --bf16 {bf16} --gradient_checkpointing {checkpointing} "
        f"{'--use_cpu True' if cpu else ''}".split(),
        {"report_to": "none", "num_train_epochs": 1.0},
        seed=1,
        evaluates=False,
    )
    found.batch_sampler = in_order
    return found


def make_groups(queries: int, tokens: int) -> list[list[Triplet]]:
    """Return the triplets of queries whose pairs of random words have about so many tokens."""
    generator = np.random.default_rng(0)
    page = Path(__file__).parent.parent / "docs" / "SCORING.md"
    words = [word for word in page.read_text().split() if word.isalpha()]
    groups = []
    for number in range(queries):
        query = " ".join(generator.choice(words, size=9))
        scores = generator.standard_normal(CANDIDATES)
        pairs = [
            ScoredPair(str(number), query, " ".join(generator.choice(words, size=int(tokens * 0.8))), float(score))
            for score in scores
        ]
        settings: dict[str, Any] = {"sampling": "next", "min_margin": 0.0, "generator": random.Random(0)}
        groups.append(list(make_triplets(pairs, top_k=TOP_K, num_negatives=NEGATIVES, **settings)))
    return groups


def compare_losses(model: Path) -> dict[str, Any]:
    """Return the losses of a small student's 50 steps in bfloat16 on the GPU, and in float32 on the CPU."""
    groups = make_groups(100, 64)
    student = StudentSettings(describe_model(str(model)), 96, dropout=0.0)
    here = grouped(student, groups, arguments(2, 1, bf16=True, checkpointing=False))
    there = grouped(student, groups, arguments(2, 1, bf16=False, checkpointing=False, cpu=True))
    apart = max(abs(one - other) / other for one, other in zip(here.losses, there.losses, strict=True))
    return {
        "way": "losses of 50 steps, bfloat16 on the GPU and float32 on the CPU",
        "apart": apart,
        "losses": here.losses,
        "losses_cpu": there.losses,
    }


def save_large(folder: Path, tokenizer: Path, layers: int | None) -> None:
    """Save an XLM-RoBERTa large with random weights, and a tokenizer of a smaller vocabulary."""
    from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaForSequenceClassification

    torch.manual_seed(0)
    changed = {"num_hidden_layers": layers} if layers else {}
    config = XLMRobertaConfig(**LARGE | changed, pad_token_id=0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = XLMRobertaForSequenceClassification(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer, model_max_length=8192).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
