"""Show how a model ranks the passages of a query, and what moved against another model.

passages, or a RankingSample -> a table on the screen

python -m rag_core.rank --model models/student --before BAAI/bge-m3 --query "how do I sort" --passages passages.txt
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag
from rag_core.base.outside_text import quoted
from rag_core.base.records import RankingSample
from rag_core.base.stage import BadRowsArgs, run_stage, show
from rag_core.engines.role_prompts import PromptArgs
from rag_core.files.bad_rows import BadRows
from rag_core.files.formats import is_table
from rag_core.files.jsonl import read_lines, read_samples
from rag_core.files.manifest import check_inputs

if TYPE_CHECKING:
    from rag_core.engines.identity import ModelInfo
    from rag_core.engines.protocols import Floats

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(BadRowsArgs, PromptArgs):
    """Flags of the stage."""

    model: str = flag("cross-encoder, embedder or LLM reranker, a folder or a hub's name")
    before: str | None = flag("another model, to see what moved against it", None)
    passages: Path = flag("one passage per line (.txt), or RankingSample records (.jsonl, .jsonl.gz)")
    query: str | None = flag("the query (default: that of the sample)", None)
    query_id: str | None = flag("which sample of the file (default: the first)", None)
    instruction: str | None = flag(
        "task instruction for a model that takes one (default: as in generate_logits)", None, decides=False
    )
    max_length: int = flag("tokens, as in generate_logits", 4096, least=1)
    batch_size: int = flag("pairs in a batch", 32, least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision", "auto")


def run(args: Args) -> list[Path]:
    """Print the table; nothing is written."""
    sample = _sample(args)
    from rag_core.base.tables import format_ranking
    from rag_core.engines.identity import describe_models
    from rag_core.scoring.ranking_table import ranking_rows

    models = describe_models([args.model, *([args.before] if args.before else [])], args.prompt_names())
    scores, before, *_ = [*(_scores(model, sample, args) for model in models), None]
    rows = ranking_rows(list(sample.passages()), scores, before)
    width = shutil.get_terminal_size((120, 24)).columns
    show(f"{' '.join(sample.query.split())}\n\n{format_ranking(rows, width)}")
    return []


def _sample(args: Args) -> RankingSample:
    """Return the query with its candidates.

    Raises:
        PipelineError: the file has no passages, or not the sample, or there is no query.
    """
    if is_table(args.passages) or args.passages.name.endswith((".json", ".json.gz")):
        raise UsageError(
            f"{args.passages} is neither .jsonl nor lines of text", "Convert it, or name it .txt or .jsonl"
        )
    if not args.passages.name.endswith((".jsonl", ".jsonl.gz")):
        if args.query_id:
            raise UsageError("--query_id names a sample, and the passages are lines of text", "Leave out --query_id")
        if not args.query or not args.query.strip():
            raise UsageError("lines of text have no query", "Pass --query QUERY")
        return RankingSample(args.query, candidates=_read_lines(args.passages, BadRows(skip=args.skip_bad_rows)))
    if args.query is not None and not args.query.strip():
        raise UsageError("--query is empty", "Pass a query, or leave out --query")
    samples = read_samples(args.passages, bad_rows=BadRows(skip=args.skip_bad_rows))
    chosen = [sample for sample in samples if args.query_id in (None, sample.query_id)]
    if not chosen:
        what = f"has no query_id {quoted(repr(args.query_id))}"
        raise DataError(what, "Leave out --query_id for the first", path=args.passages)
    return dataclasses.replace(chosen[0], query=args.query or chosen[0].query)


def _read_lines(path: Path, bad_rows: BadRows) -> list[str]:
    check_inputs([path])
    passages = [line.rstrip("\r\n") for _, line in read_lines(path, bad_rows=bad_rows)]
    if not passages:
        raise DataError("holds no passages", "Write one passage per line", path=path)
    return passages


def _scores(model: ModelInfo, sample: RankingSample, args: Args) -> Floats:
    """Score the candidates, without the canary of long runs: a single passage is no error."""
    from rag_core.engines.loading import choose_engine, scores_of
    from rag_core.engines.options import EngineOptions

    options = EngineOptions(
        model=model,
        instruction=args.instruction,
        max_length=args.max_length,
        batch_size=args.batch_size,
        dtype=args.dtype,
    )
    engine, _ = choose_engine(options.model, "auto")
    if options.model.note:
        logger.warning("WARNING: %s", options.model.note)
    return scores_of(engine, options, [(sample.query, passage) for passage, _ in sample.passages()])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
