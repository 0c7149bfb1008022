"""Have an LLM write a search query for each of some passages, where there is no log of queries.

passages -> queries, for prepare --source corpus --queries

python -m rag_core.write_queries --model Qwen/Qwen3-8B --input passages.jsonl --output queries.jsonl

Resumable: what was written is kept in chunks.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from rag_core.errors import DataError, UsageError
from rag_core.jsonl import read_records, write_records
from rag_core.manifest import Recipe, check_inputs, is_made, write_manifest
from rag_core.records import Query
from rag_core.sources.beir import passage_text
from rag_core.sources.corpus import Passage
from rag_core.stage import StageArgs, flag, run_stage
from rag_core.unfinished import UnfinishedWork

_CHUNK = 256  # passages

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(StageArgs):
    """Flags of the stage."""

    model: str = flag("LLM that follows instructions")
    input: Path = flag("passages: text, and title where there is one, a row")
    output: Path = flag("the queries, one a row")
    num_queries: int = flag("passages that are drawn to have a query written for", 10_000)
    engine: Literal["auto", "vllm", "transformers"] = flag(
        "what runs the model (auto: vllm where there is a GPU)", "auto"
    )
    max_length: int = flag("tokens of prompt and answer; the passage is cut to fit", 2048)
    batch_size: int = flag("passages in a batch (vLLM makes its own batches)", 32)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of the model", "auto")


def run(args: Args) -> Path:
    """Write the queries of the drawn passages; return the output."""
    if args.num_queries < 1:
        raise UsageError(f"--num_queries is {args.num_queries}", "Pass at least 1")
    from tqdm import tqdm

    from rag_core.engines import EngineOptions, load_query_writer, query_prompt
    from rag_core.engines.identity import model_identity

    hashes = check_inputs([args.input])
    bad_rows: list[DataError] = []
    passages = _draw(args, bad_rows if args.skip_bad_rows else None)
    recipe = Recipe(
        stage="rag_core.write_queries",
        flags={name: getattr(args, name) for name in ("num_queries", "max_length", "dtype", "seed", "skip_bad_rows")},
        inputs=hashes,
        model=model_identity(args.model) | {"prompt": query_prompt.VERSION},
    )
    if not args.overwrite and is_made(args.output, recipe):
        logger.info("%s is finished already", args.output)
        return args.output
    with UnfinishedWork(args.output, recipe, overwrite=args.overwrite) as work:
        options = EngineOptions(args.model, max_length=args.max_length, batch_size=args.batch_size, dtype=args.dtype)
        writer = load_query_writer(args.engine, options)
        chunks = [work.directory / f"queries-{start:09}.jsonl" for start in range(0, len(passages), _CHUNK)]
        for number, chunk in enumerate(tqdm(chunks, unit="chunk", desc="write queries", disable=None)):
            if not chunk.exists():
                queries = writer.write(passages[number * _CHUNK :][:_CHUNK])
                write_records(chunk, (Query(query) for query in queries if query))
        rows = write_records(args.output, _distinct(chunks))
        write_manifest(
            args.output,
            recipe,
            rows=rows,
            skipped={"bad_rows": len(bad_rows), "passages_without_a_query": len(passages) - rows},
        )
        work.remove()
    logger.info("%s: %d queries of %d passages", args.output, rows, len(passages))
    return args.output


def _draw(args: Args, bad_rows: list[DataError] | None) -> list[str]:
    read = read_records(args.input, Passage, skipped=bad_rows)
    texts = list(dict.fromkeys(passage_text(passage.title, passage.text) for passage in read))
    if not texts:
        raise DataError("has no passages", "Pass a file with some", path=args.input)
    return random.Random(args.seed).sample(texts, min(args.num_queries, len(texts)))


def _distinct(chunks: Sequence[Path]) -> Iterator[Query]:
    seen: set[str] = set()
    for chunk in filter(lambda path: path.stat().st_size, chunks):  # of some, no answer was a query
        for query in read_records(chunk, Query):
            if query.text not in seen:
                seen.add(query.text)
                yield query


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
