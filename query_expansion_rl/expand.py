"""Serve queries: what is to be searched for, with the expansion of a model where it helps. The query is always kept.

Query -> ServedQuery

python -m query_expansion_rl.expand --baselines runs/expansion/baselines --model runs/expansion/dpo \\
  --input_file queries.jsonl --output_file served.jsonl

A run that was stopped goes on: finished chunks are kept.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from query_expansion_rl.records import Topic
from query_expansion_rl.report.rows import Gate
from query_expansion_rl.retrieval.encoding import ExpansionEncoder
from query_expansion_rl.retrieval.workspace import SUMMARY, TOPICS, Workspace, read_workspace
from query_expansion_rl.rewards.serving import Fuse, Gatekeeper, served
from query_expansion_rl.writing.form_choice import recipe_of
from query_expansion_rl.writing.writer import Writer, WriterArgs
from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.outside_text import quoted
from rag_core.base.records import Query
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, run_stage
from rag_core.corpora.corpus import ARRAYS, DOCUMENTS
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import numbered_records, write_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "query_expansion_rl.expand"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(WriterArgs, OverwriteArgs, BadRowsArgs):
    """Flags of the stage."""

    baselines: Path = flag("folder that rank_baselines made", decides=False)
    input_file: Path = flag("queries, one per row: query or text, and _id where there is one", decides=False)
    output_file: Path = flag("the ServedQuery records", decides=False)
    gate: Gate = flag(
        "teacher: use an expansion only where the hybrid's first passages rank better with it; it costs two searches",
        "teacher",
    )
    fuse: Fuse = flag(
        "concat: one text to search for; rrf: the query and that text, whose rankings are fused", "concat"
    )
    query_weight: int = flag("how often the query stands before its expansion", 5, least=1, most=100)
    dense_model: str | None = flag("gate: the embedder of the workspace, where it has moved", None, decides=False)


def run(args: Args) -> Path:
    """Write the queries to search for; return the output."""
    workspace = read_workspace(args.baselines)
    if args.gate == "teacher" and workspace.settings.vectors is None:
        what = "the gate asks the hybrid, and the workspace has no vectors"
        raise UsageError(what, "Pass --gate none, or run rank_baselines with --dense_model")
    if args.gate == "teacher" and workspace.settings.retriever == "hybrid":
        what = "the gate asks the hybrid, which is the retriever itself and likes no other ranking better"
        raise UsageError(what, "Pass --gate none")
    bad_rows = BadRows(skip=args.skip_bad_rows)
    queries = _read_queries(args.input_file, bad_rows)
    writer = Writer.of(args)
    recipe = Recipe(
        STAGE,
        decisive(args) | recipe_of(writer.form),
        check_inputs([args.input_file, *_files(workspace)]),
        writer.identity,
    )
    if not args.overwrite and is_finished(args.output_file, recipe):
        return args.output_file
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        written = _write(writer, queries, work.directory)
        kept = _gate(args, workspace, list(queries.values()), written, work.directory)
        rows = write_records(args.output_file, served(queries, kept, args.fuse, args.query_weight))
        counts = {
            "without_an_expansion": sum(not text for text in written),
            "gated_out": sum(bool(text) and not passed for text, passed in zip(written, kept, strict=True)),
        }
        write_manifest(args.output_file, recipe, rows=rows, counts=counts, skipped={"bad_rows": len(bad_rows)})
        work.remove()
    logger.info(
        "%s: %d queries; %d without an expansion, %d that the gate left as they were",
        args.output_file,
        rows,
        *counts.values(),
    )
    return args.output_file


def _read_queries(path: Path, bad_rows: BadRows) -> dict[str, str]:
    """Return query id -> query; one without an id has its line number.

    Raises:
        DataError: an id stands in two rows.
    """
    found: dict[str, str] = {}
    for line, query in numbered_records(path, Query, bad_rows, tables=True):
        query_id = query.id or str(line)
        if query_id in found:
            what = f"_id {quoted(repr(query_id))} stands in more than one row"
            bad_rows.add(
                DataError(
                    what, "Keep one of them, or pass --skip_bad_rows to leave such rows out", path=path, line=line
                )
            )
            continue
        found[query_id] = query.text
    return found


def _files(workspace: Workspace) -> list[Path]:
    names = [TOPICS, SUMMARY, DOCUMENTS]
    if workspace.settings.vectors:
        names += [f"{workspace.settings.vectors}/{name}" for name in ARRAYS]
    return [workspace.folder / name for name in names]


def _write(writer: Writer, queries: Mapping[str, str], folder: Path) -> list[str]:
    """Let the model write; return an expansion of each query, "" for none."""
    from rag_core.engines.generation import Sampling

    topics = [Topic(query_id, query, "test") for query_id, query in queries.items()]
    sampling = Sampling(writer.form.max_new_tokens, stop=writer.form.stop)
    return [row.text for row in writer.write(topics, sampling, writer.form.output, folder).rows()]


def _gate(args: Args, workspace: Workspace, queries: Sequence[str], texts: list[str], folder: Path) -> list[str]:
    if args.gate == "none":
        return texts
    encode = ExpansionEncoder(workspace, args.dense_model, folder / "vectors")
    keeper = Gatekeeper(
        workspace.searcher(workspace.settings.retriever, encode),
        workspace.searcher("hybrid", encode),
        workspace.summary.judge_top,
        args.fuse,
        args.query_weight,
    )
    return keeper.let_through(queries, texts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
