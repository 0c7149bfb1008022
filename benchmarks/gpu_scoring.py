"""Scoring and embedding on a GPU with transformers: Qwen3 of the real sizes, with random weights.

python benchmarks/gpu_scoring.py [--sizes 8B 0.6B] [--pairs 2000] [--texts 5000] [--output FILE]

Random weights cost what trained ones do. They are made on the GPU, so that nothing is read but a config and a
tokenizer. Texts are random words; 30 candidates a query, pairs of 120 and of 512 tokens with the prompt. A row has
pairs and tokens a second (tokens of whole prompts, also those that are read once for all), the share of the card's
measured bfloat16 matrix product that what was computed comes to, and the peak of allocated memory.

- ours: the engine, in chunks as the stage has them, at several --batch_tokens;
- no shared prefix: the same, with each prompt read whole;
- model card: 8 pairs a batch in the file's order, padded on the left, logits of the whole vocabulary at every position.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from random_qwen import QWEN, make_tokenizer
from tables import RESULTS

from rag_core.engines import transformers_engine
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions, TransformersOptions
from rag_core.engines.protocols import Pair
from rag_core.engines.yes_no_prompt import YesNoPrompt
from rag_core.scoring.plan import Architecture
from rag_core.scoring.settings import CHUNK_ROWS

# Of Qwen3-Reranker and Qwen3-Embedding.
SIZES: dict[str, dict[str, Any]] = {
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
}
SHARED = {"num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960}
CANDIDATES = 30  # a query
LENGTHS = (120, 512)  # tokens of a pair
TEXT_IN_PAIR = 220  # tokens of a pair whose passage has about 130 by itself
CARD_PAIRS = 256
MAX_LENGTH = 4096
CHUNK = CHUNK_ROWS["transformers"]


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--texts", type=int, default=5000)
    parser.add_argument("--layers", type=int, help="fewer than the model has, for a trial")
    parser.add_argument("--batch_tokens", type=int, nargs="+", default=[8192, 16384, 65536])
    parser.add_argument("--output", type=Path, default=RESULTS / "gpu-scoring.json")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = matmul_peak(device)
    content: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "peak_flops": peak,
        "rows": [],
    }
    for size in args.sizes:
        for found in measure(size, args, peak):
            content["rows"].append(found)
            print(json.dumps(found), flush=True)  # noqa: T201
            args.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


def matmul_peak(device: str) -> float:
    """Return the operations a second of a large product in bfloat16: the median of ten."""
    size = 8192 if device == "cuda" else 512
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    for _ in range(3):
        left @ right
    seconds = [timed(lambda: left @ right)[0] for _ in range(10)]
    return 2 * size**3 / statistics.median(seconds)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that work takes, what it returned."""
    synchronize()
    started = time.perf_counter()
    found = work()
    synchronize()
    return time.perf_counter() - started, found


def synchronize() -> None:
    """Wait for what the GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a run is held against.

    Attributes:
        peak: operations a second of the card's matrix product.
    """

    architecture: Architecture
    peak: float

    def row(self, run: Callable[[], Any], lengths: Sequence[int], shared: int) -> dict[str, Any]:
        """Return seconds, tokens a second, share of the peak and memory of a run.

        Args:
            lengths: tokens of each prompt, of which the first `shared` are read once for a chunk.
        """
        torch.cuda.reset_peak_memory_stats()
        seconds, _ = timed(run)
        tokens = np.array(lengths, dtype=np.float64)
        operations = self.architecture.operations(tokens, np.full(len(tokens), float(shared))).sum()
        return {
            "seconds": seconds,
            "tokens": int(tokens.sum()),
            "tokens_per_second": tokens.sum() / seconds,
            "of_peak": operations / seconds / self.peak,
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        }


def measure(size: str, args: argparse.Namespace, peak: float) -> Iterator[dict[str, Any]]:
    """Yield the rows of one size: pairs of both lengths in every way, then texts."""
    with tempfile.TemporaryDirectory() as folder:
        config = QWEN | SIZES[size] | SHARED | ({"num_hidden_layers": args.layers} if args.layers else {})
        options = make_folder(Path(folder), config)
        with random_weights():
            scorer = transformers_engine.YesNoScorer(options)
        timing = Timing(Architecture.of(options.model), peak)
        prompt = YesNoPrompt.for_model(options)
        for length in LENGTHS:
            pairs = make_pairs(prompt, length, args.pairs)
            for way, score, taken in ways(scorer, options, pairs, args.batch_tokens):
                prompts = prompt.token_ids(taken)[0]
                shared = transformers_engine.common_beginning(prompts) if way.startswith("ours") else 0
                score(taken[:64])
                found = timing.row(partial(score, taken), [len(ids) for ids in prompts], shared)
                work = {"work": f"{size} reranker, {length} tokens", "way": way, "pairs": len(taken)}
                yield work | found | {"pairs_per_second": len(taken) / found["seconds"]}
        del scorer, score
        torch.cuda.empty_cache()
        with random_weights():
            encoder = transformers_engine.LastTokenEncoder(embedding_options(options))
        texts = [passage for _, passage in make_pairs(prompt, TEXT_IN_PAIR, args.texts)]
        encoder._batch_size = len(texts)
        encoder.encode(texts[:64], "passage")
        lengths = [len(ids) for ids in encoder._prompt.token_ids(texts, role="passage")[0]]
        found = timing.row(partial(encode, encoder, texts), lengths, 0)
        work = {"work": f"{size} embedder", "way": "ours, any sequences, 16384 tokens", "texts": len(texts)}
        yield work | found | {"texts_per_second": len(texts) / found["seconds"]}
        del encoder
        torch.cuda.empty_cache()


def make_folder(folder: Path, config: dict[str, Any]) -> EngineOptions:
    """Write config and tokenizer, and a file in the place of the weights, which nobody reads."""
    from transformers import Qwen3Config

    Qwen3Config(**config, tie_word_embeddings=False, architectures=["Qwen3ForCausalLM"]).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"")
    info = describe_model(str(folder))
    info = dataclasses.replace(info, kind="llm-reranker")
    return EngineOptions(info, max_length=MAX_LENGTH, dtype="bfloat16")


def embedding_options(options: EngineOptions) -> EngineOptions:
    """Return the same model as an embedder."""
    return dataclasses.replace(options, model=dataclasses.replace(options.model, kind="bi-encoder", is_llm=True))


@contextmanager
def random_weights() -> Iterator[None]:
    """Let the engine make a model of its config where it would load one."""
    from transformers import AutoConfig

    def make(auto_class: Any, options: EngineOptions, device: str) -> Any:
        torch.manual_seed(0)
        with torch.device(device):
            return auto_class.from_config(AutoConfig.from_pretrained(options.model.name), dtype=torch.bfloat16)

    with mock.patch.object(transformers_engine, "load_transformers", make):
        yield


def make_pairs(prompt: YesNoPrompt, tokens: int, count: int) -> list[Pair]:
    """Return pairs of random words whose prompts have about so many tokens, a third more or less."""
    generator = np.random.default_rng(0)
    words = [
        word for word in (Path(__file__).parent.parent / "docs" / "SCORING.md").read_text().split() if word.isalpha()
    ]
    sample: Callable[[int], str] = lambda n: " ".join(generator.choice(words, size=n))  # noqa: E731
    queries = [sample(9) for _ in range(-(-count // CANDIDATES))]
    around = len(prompt.token_ids([(queries[0], "word")])[0][0])
    room = max(8, tokens - around)
    return [
        (queries[number // CANDIDATES], sample(int(room / 1.15 * generator.uniform(2 / 3, 4 / 3))))
        for number in range(count)
    ]


Way = Callable[[Sequence[Pair]], Any]


def ways(
    scorer: Any, options: EngineOptions, pairs: Sequence[Pair], batch_tokens: Sequence[int]
) -> Iterator[tuple[str, Way, Sequence[Pair]]]:
    """Yield the name of a way, the way, and the pairs that it is given."""

    def score(rows: Sequence[Pair]) -> list[Any]:
        chunks = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        return [scores for _, scores in scorer.score_chunks(chunks)]

    usual = options.batch_size, TransformersOptions().batch_tokens
    for batch_size, most in [usual, *((len(pairs), most) for most in batch_tokens)]:
        scorer._batch_size, scorer._batch_tokens = batch_size, most
        yield f"ours, {batch_size if batch_size < len(pairs) else 'any'} sequences, {most} tokens", score, pairs
    scorer._batch_size, scorer._batch_tokens = len(pairs), 16384
    scorer._read_prefix = lambda prompts: None
    yield "no shared prefix, any sequences, 16384 tokens", score, pairs
    del scorer._read_prefix
    yield "model card, 8 a batch", card(scorer, options), pairs[:CARD_PAIRS]


def encode(encoder: Any, texts: Sequence[str]) -> None:
    """Embed texts in chunks, as the stage does."""
    for _ in encoder.encode_chunks([texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)], "passage"):
        pass


def card(scorer: Any, options: EngineOptions) -> Callable[[Sequence[Pair]], Any]:
    """Return the way of the model's card, with our prompt; a whole head stands in for the one of two rows."""
    prompt = YesNoPrompt.for_model(options)
    model = scorer._model
    config = model.config
    head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False, device=model.device, dtype=torch.bfloat16)

    def score(pairs: Sequence[Pair]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(pairs), 8):
            rows = [torch.tensor(ids) for ids in prompt.token_ids(pairs[start : start + 8])[0]]
            longest = max(map(len, rows))
            padded = torch.stack([torch.nn.functional.pad(ids, (longest - len(ids), 0)) for ids in rows])
            mask = torch.stack([(torch.arange(longest) >= longest - len(ids)).long() for ids in rows])
            with torch.inference_mode():
                hidden = model.base_model(padded.to(model.device), attention_mask=mask.to(model.device))[0]
                logits = head(hidden)[:, -1, :]
            scores += (logits[:, prompt.yes] - logits[:, prompt.no]).tolist()
        return scores

    return score


if __name__ == "__main__":
    sys.exit(main())
