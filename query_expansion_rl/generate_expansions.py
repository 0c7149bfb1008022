"""Let a language model write texts to search for beside each query.

topics of rank_baselines -> Expansion

python -m query_expansion_rl.generate_expansions --baselines runs/expansion/baselines \\
    --model models/SmolLM2-135M-Instruct --output_file runs/expansion/expansions.jsonl

A run that was stopped goes on: finished chunks are kept.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

from query_expansion_rl.records import SPLITS, Expansion, Topic
from query_expansion_rl.retrieval.workspace import TOPICS, read_topics
from query_expansion_rl.writing.form_choice import FormArgs, choose_form, recipe_of
from query_expansion_rl.writing.forms import VERSION, Form, read_form
from query_expansion_rl.writing.sampling import Census, write_expansions
from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import OverwriteArgs, SeedArgs, run_stage
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.kept_times import KeptTimes
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "query_expansion_rl.generate_expansions"

_CHUNK = 32  # queries

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(FormArgs, SeedArgs, OverwriteArgs):
    """Flags of the stage."""

    baselines: Path = flag("folder that rank_baselines made", decides=False)
    model: str = flag("language model that writes", decides=False)
    output_file: Path = flag("the expansions, named .jsonl", decides=False)
    split: list[str] = flag("queries of which splits: train, dev, test", ["train", "dev"], choices=SPLITS)
    limit: int | None = flag("queries of each split, drawn (default: all)", None, least=1)
    num_samples: int = flag("expansions of a query; at temperature 0 there is one", 8, decides=False, least=1)
    temperature: float = flag("0 takes the most probable word each time", 1.0, least=0)
    top_p: float = flag(
        "words are drawn from the most probable ones that together have this probability", 0.95, least=0.01, most=1
    )
    method: str | None = flag(
        "name of the expansions in tables (default: --prompt, or a trained model's folder)", None, decides=False
    )
    engine: Literal["auto", "vllm", "transformers", "server"] = flag(
        "what runs the model (auto: vllm where there is a GPU)", "auto", decides=False
    )
    server_url: str | None = flag("server engine: http://host:port of vLLM's server", None, decides=False)
    max_length: int = flag("tokens of prompt and answer", 1024, least=1)
    batch_size: int = flag("answers that are written at once (vLLM makes its own batches)", 64, decides=False, least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of the model", "auto")


def run(args: Args) -> Path:
    """Write the expansions; return the output."""
    if len(set(args.split)) < len(args.split):
        raise UsageError("--split names one twice", "Name each once")
    from tqdm import tqdm

    from rag_core.engines.generation import Sampling
    from rag_core.engines.identity import describe_model
    from rag_core.engines.loading import load_generator
    from rag_core.engines.model_files import template_file
    from rag_core.engines.options import EngineOptions, ServerOptions, check_server_flags

    check_server_flags(args.engine, args.server_url, args.dtype)
    hashes = check_inputs([args.baselines / TOPICS])
    topics = _topics(args)
    form = choose_form(args, args.model)
    model = describe_model(args.model)
    method = args.method or (Path(args.model).name if read_form(Path(args.model)) else form.output)
    num_samples = args.num_samples if args.temperature else 1
    settled = {**recipe_of(form), "num_samples": num_samples, "method": method}
    template = template_file(args.model) if form.style == "chat" else {}
    recipe = Recipe(STAGE, decisive(args) | settled, hashes, {**model.identity, **template, "prompt": VERSION})
    if not args.overwrite and is_finished(args.output_file, recipe):
        return args.output_file
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        starts = range(0, len(topics), _CHUNK)
        chunks = {start: work.directory / f"expansions-{start:09}-{_CHUNK}.jsonl" for start in starts}
        todo = [(start, path) for start, path in chunks.items() if not path.exists()]
        if todo and form.style == "chat":
            _check_template(args, form)
        options = EngineOptions(
            model,
            max_length=args.max_length,
            batch_size=args.batch_size,
            dtype=args.dtype,
            server=ServerOptions(args.server_url) if args.server_url else None,
        )
        sampling = Sampling(form.max_new_tokens, args.temperature, args.top_p, args.seed, num_samples, form.stop)
        generator = load_generator(args.engine, options) if todo else None
        times = KeptTimes(work.directory)
        for start, path in tqdm(todo, unit="chunk", desc="write expansions", disable=None):
            assert generator is not None  # for mypy
            # A chunk has the seeds that its queries would have without chunks.
            drawn = dataclasses.replace(sampling, seed=args.seed + start * num_samples)
            started = time.perf_counter()
            found = list(write_expansions(generator, form, topics[start : start + _CHUNK], drawn, method))
            times.keep(path.name, (time.perf_counter() - started) * 1000)
            write_records(path, found)
        census = Census()
        written = chain.from_iterable(read_records(path, Expansion) for path in chunks.values())
        rows = write_records(args.output_file, census.counted(written))
        spent = sum(times.get(path.name) or 0.0 for path in chunks.values())
        write_manifest(
            args.output_file,
            recipe,
            rows=rows,
            queries=len(topics),
            milliseconds_per_expansion=round(spent / rows, 3),
            counts=dataclasses.asdict(census),
        )
        work.remove()
    for warning in census.warnings(form):
        logger.warning("WARNING: %s", warning)
    logger.info(
        "%s: %d expansions of %d queries, %.0f%% of them distinct, %.1f tokens each",
        args.output_file, rows, len(topics), 100 * census.distinct / rows, census.tokens / rows,
    )  # fmt: skip
    return args.output_file


def _check_template(args: Args, form: Form) -> None:
    """Check that a chat can be made of a query, before the weights are read.

    Raises:
        EngineError: it cannot.
    """
    from rag_core.engines.generation import token_ids
    from rag_core.engines.tokenizer import load_tokenizer

    token_ids(load_tokenizer(args.model), [form.prompt("query")], args.max_length - form.max_new_tokens)


def _topics(args: Args) -> list[Topic]:
    """Return the topics of the splits, split by split, in the order of the file.

    Raises:
        DataError: there are none.
    """
    path = args.baselines / TOPICS
    topics = read_topics(path)
    found = []
    for split in args.split:
        of_split = [topic for topic in topics if topic.split == split]
        count = min(args.limit or len(of_split), len(of_split))
        drawn = sorted(random.Random(args.seed).sample(range(len(of_split)), count))
        found += [of_split[place] for place in drawn]
    if not found:
        raise DataError(f"has no queries for {' and '.join(args.split)}", "Pass another --split", path=path)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
