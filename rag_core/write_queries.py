"""Let an LLM write one search query per passage, where there is no log of queries.

passages -> queries, for prepare --source corpus --queries

python -m rag_core.write_queries --model Qwen/Qwen3-8B --input passages.jsonl --output queries.jsonl

A model that does not follow instructions is shown examples instead: --prompt_style completion.
A run that was stopped goes on: finished chunks are kept.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.records import Passage, passage_text
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

if TYPE_CHECKING:
    from rag_core.sources.query_prompt import QueryPrompt

_CHUNK = 256  # passages

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(SeedArgs, OverwriteArgs, BadRowsArgs):
    """Flags of the stage."""

    model: str = flag("LLM that writes", decides=False)
    input: Path = flag("passages, one per row: text, and title where there is one", decides=False)
    output: Path = flag("the queries, one per row", decides=False)
    prompt_style: Literal["auto", "chat", "completion"] = flag(
        "chat tells the task to a model that follows instructions; completion shows examples to any model (auto: "
        "completion with --examples, else chat)",
        "auto",
        decides=False,
    )
    examples: Path | None = flag(
        "examples for the prompt, one per row: passage and query; of another domain than --input, or weak models copy "
        "them (default: three of our own for completion, none for chat)",
        None,
        decides=False,
    )
    round_trip: int = flag(
        "keep a query that finds its passage among the first so many by BM25 over all passages; 0 keeps all",
        10,
        least=0,
    )
    num_queries: int = flag("how many passages are drawn; each gets one query", 10_000, least=1)
    engine: Literal["auto", "vllm", "transformers", "server"] = flag(
        "what runs the model (auto: vllm where there is a GPU)", "auto", decides=False
    )
    server_url: str | None = flag("server engine: http://host:port of vLLM's server", None, decides=False)
    max_length: int = flag("tokens of prompt and answer; the passage is cut to fit", 2048, least=1)
    batch_size: int = flag("passages in a batch (vLLM makes its own batches)", 32, decides=False, least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of the model", "auto")


def run(args: Args) -> Path:
    """Write the queries of the drawn passages; return the output."""
    if args.num_queries < 1:
        raise UsageError(f"--num_queries is {args.num_queries}", "Pass at least 1")
    from tqdm import tqdm

    from rag_core.engines.identity import describe_model
    from rag_core.engines.loading import load_generator
    from rag_core.engines.model_files import template_file
    from rag_core.engines.options import EngineOptions, ServerOptions, check_server_flags
    from rag_core.sources.query_filter import QueryFilter, Written
    from rag_core.sources.query_prompt import VERSION, write_queries

    check_server_flags(args.engine, args.server_url, args.dtype)
    hashes = check_inputs([args.input, *([args.examples] if args.examples else [])])
    bad_rows = BadRows(skip=args.skip_bad_rows)
    passages, drawn = _draw(args, bad_rows)
    prompt = _prompt(args)
    model = describe_model(args.model)
    template = template_file(args.model) if prompt.style == "chat" else {}
    recipe = Recipe(
        stage="rag_core.write_queries",
        flags=decisive(args) | {"prompt_style": prompt.style},
        inputs=hashes,
        model={**model.identity, **template, "prompt": VERSION},
    )
    if not args.overwrite and is_finished(args.output, recipe):
        return args.output
    with UnfinishedWork(args.output, recipe, overwrite=args.overwrite, ignoring=("round_trip",)) as work:
        if not args.overwrite and is_finished(args.output, recipe):  # by another run, before this one took the lock
            return args.output
        options = EngineOptions(
            model,
            max_length=args.max_length,
            batch_size=args.batch_size,
            dtype=args.dtype,
            server=ServerOptions(args.server_url) if args.server_url else None,
        )
        generator = load_generator(args.engine, options)
        asked = [drawn[start : start + _CHUNK] for start in range(0, len(drawn), _CHUNK)]
        # The name tells whose queries they are, however the passages were cut into chunks before.
        chunks = [
            work.directory / f"queries-{number * _CHUNK:09}-{len(chunk)}.jsonl" for number, chunk in enumerate(asked)
        ]
        todo = [(path, chunk) for path, chunk in zip(chunks, asked, strict=True) if not path.exists()]
        for path, chunk in tqdm(todo, unit="chunk", desc="write queries", disable=None):
            answers = write_queries(generator, [passages[place] for place in chunk], prompt)
            write_records(path, map(Written, chunk, answers))
        kept = QueryFilter(passages, prompt.examples, args.round_trip)
        written = chain.from_iterable(read_records(path, Written) for path in chunks)
        queries = list(kept.kept(tqdm(written, total=len(drawn), unit="query", desc="filter", disable=None)))
        if not queries:
            raise DataError(
                f"leaves no query: of {len(drawn)} answers, {_reasons(kept.dropped)}",
                "Pass --prompt_style completion for a weak model, --round_trip 0 where passages and queries are of "
                "different languages, or another --model",
                path=args.input,
            )
        rows = write_records(args.output, queries)
        write_manifest(
            args.output,
            recipe,
            rows=rows,
            skipped={"bad_rows": len(bad_rows), "passages_without_a_query": len(drawn) - rows},
            dropped=dict(kept.dropped),
        )
        work.remove()
    logger.info("%s: %d queries of %d passages; %s", args.output, rows, len(drawn), _reasons(kept.dropped))
    return args.output


def _draw(args: Args, bad_rows: BadRows) -> tuple[list[str], list[int]]:
    """Return the passages, and the places of those that get a query."""
    read = read_records(args.input, Passage, bad_rows=bad_rows, tables=True)
    texts = list(dict.fromkeys(passage_text(passage.title, passage.text) for passage in read))
    if not texts:
        raise DataError("has no passages", "Pass a file with some", path=args.input)
    return texts, random.Random(args.seed).sample(range(len(texts)), min(args.num_queries, len(texts)))


def _prompt(args: Args) -> QueryPrompt:
    from rag_core.sources.query_prompt import EXAMPLES, Example, QueryPrompt

    given = tuple(read_records(args.examples, Example)) if args.examples else ()
    if args.prompt_style == "chat" or (args.prompt_style == "auto" and not given):
        return QueryPrompt("chat", given)
    return QueryPrompt("completion", given or EXAMPLES)


def _reasons(dropped: Mapping[str, int]) -> str:
    found = [f"{count} {reason.replace('_', ' ')}" for reason, count in dropped.items() if count]
    return f"dropped: {', '.join(found)}" if found else "none dropped"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
