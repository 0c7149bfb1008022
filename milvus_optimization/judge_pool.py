"""Make qrels of a teacher's scores: its best passages of each query stand for relevant, where nobody labelled.

ScoredPair -> qrels

python -m milvus_optimization.judge_pool --vectors runs/milvus/vectors --scores runs/milvus/pool_logits.jsonl \\
    --output_file runs/milvus/teacher.tsv

Every later stage takes it: --qrels runs/milvus/teacher.tsv
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from milvus_optimization.quality.pool import judge
from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.records import ScoredPair
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, run_stage
from rag_core.corpora.corpus import DOCUMENTS, QUERIES, read_corpus
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_groups
from rag_core.files.manifest import UNKNOWN, Recipe, check_inputs, read_manifest, write_manifest
from rag_core.files.qrels import write_qrels
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "milvus_optimization.judge_pool"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, BadRowsArgs):
    """Flags of the stage."""

    vectors: Path = flag("folder that embed_corpus made", decides=False)
    scores: Path = flag("ScoredPair records: the pool, scored by a teacher (generate_logits)", decides=False)
    output_file: Path = flag("the qrels, named .tsv", decides=False)
    top: int = flag("passages of a query that are relevant; the best has this grade, the last of them 1", 3, least=1)
    min_score: float | None = flag(
        "leave out passages below this, in the teacher's unit; an LLM reranker's 0 is as likely as not (default: none)",
        None,
    )


def run(args: Args) -> Path:
    """Judge, and write the qrels; return the output."""
    if not args.output_file.name.endswith((".tsv", ".tsv.gz")):
        raise UsageError(f"--output_file {args.output_file} is not named .tsv", "Name it so")
    files = [args.vectors / DOCUMENTS, args.vectors / QUERIES, args.scores]
    scored_by = read_manifest(args.scores) or UNKNOWN
    teacher = scored_by.model or {"name": "unknown"}
    recipe = Recipe(STAGE, decisive(args), check_inputs(files), teacher)
    if not args.overwrite and is_finished(args.output_file, recipe):
        return args.output_file
    bad_rows = BadRows(skip=args.skip_bad_rows)
    corpus = read_corpus(args.vectors)
    groups = read_groups(args.scores, ScoredPair, bad_rows=bad_rows)
    qrels = judge(groups, corpus, top=args.top, min_score=args.min_score, path=args.scores, bad_rows=bad_rows)
    if not qrels:
        what = "has no passage of the corpus" + ("" if args.min_score is None else f" that scores {args.min_score:g}")
        raise DataError(what, "Check --min_score and the file", path=args.scores)
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        rows = write_qrels(args.output_file, qrels)
        write_manifest(
            args.output_file,
            recipe,
            rows=rows,
            queries=len(qrels),
            teacher=teacher,
            score_unit=scored_by.score_unit,
            skipped={"bad_rows": len(bad_rows), "queries_without_relevant": len(groups) - len(qrels)},
        )
        work.remove()
    if scored_by.score_unit == "cosine":
        logger.warning(
            "WARNING: an embedder judges. It takes for relevant what embedders find, and dense search will look best. "
            "Let BM25 judge with it: merge_scores --bm25"
        )
    name = teacher.get("name", "unknown")
    logger.info("%s: %d judgements of %d queries by %s", args.output_file, rows, len(qrels), name)
    return args.output_file


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
