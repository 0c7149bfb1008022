"""Embed a corpus and its queries, once per model: the teacher, the student before and after, side by side.

corpus, queries, qrels -> documents.jsonl, queries.jsonl, qrels.tsv, <model>/*.npy

python -m milvus_optimization.embed_corpus --input data/scifact --model all-MiniLM-L6-v2 --output_dir runs/milvus/vectors

A run that was stopped goes on. Another model given later is added to the folder.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from milvus_optimization.corpus import DOCUMENTS, QRELS, QUERIES, Corpus
from milvus_optimization.corpus_input import open_input
from rag_core.base.errors import UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, run_stage
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import Recipe, check_inputs, sha256, write_manifest
from rag_core.files.qrels import write_qrels
from rag_core.files.unfinished import UnfinishedWork, is_finished
from rag_core.scoring.engine_args import EngineArgs, check_engine, engine_options

if TYPE_CHECKING:
    from rag_core.engines.options import EngineOptions

STAGE = "milvus_optimization.embed_corpus"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, BadRowsArgs, EngineArgs):
    """Flags of the stage."""

    input: Path = flag(
        "a folder in the BEIR layout, or a file of RankingSample records, whose passages are the corpus", decides=False
    )
    splits: list[str] | None = flag("BEIR: the qrels/<split>.tsv that are read (default: all)", None)
    filter_field: str | None = flag(
        "BEIR: a field of the corpus, such as a year, by which searches are filtered later", None
    )
    model: list[str] = flag("embedders; each gets a folder by the last part of its name", decides=False)
    output_dir: Path = flag("folder of the outputs", decides=False)
    score_store: Path | None = flag("folder that keeps vectors for other runs with the same model", None, decides=False)


def run(args: Args) -> Path:
    """Write the corpus, then the vectors of each model; return the folder."""
    check_engine(args)
    names = {Path(model).name: model for model in args.model}
    if len(names) < len(args.model):
        raise UsageError("two models have the same folder name", "Rename one: it names the folder of its vectors")
    _write_corpus(args)
    for name, model in names.items():
        _embed(args, name, model)
    return args.output_dir


def _write_corpus(args: Args) -> None:
    source = open_input(args.input, args.splits, args.filter_field)
    recipe = Recipe(
        STAGE,
        {name: getattr(args, name) for name in ("splits", "filter_field", "skip_bad_rows")},
        check_inputs(source.files),
    )
    output = args.output_dir / DOCUMENTS
    if not args.overwrite and is_finished(output, recipe):
        return
    bad_rows = BadRows(skip=args.skip_bad_rows)
    corpus = source.read(bad_rows)
    with UnfinishedWork(output, recipe, overwrite=args.overwrite) as work:
        write_records(args.output_dir / QUERIES, corpus.query_records())
        if corpus.qrels:
            write_qrels(args.output_dir / QRELS, corpus.qrels)
        else:
            (args.output_dir / QRELS).unlink(missing_ok=True)
        rows = write_records(output, corpus.documents.values())
        write_manifest(output, recipe, rows=rows, queries=len(corpus.queries), skipped={"bad_rows": len(bad_rows)})
        work.remove()
    logger.info("%s: %d documents, %d queries, %d judged", args.output_dir, rows, len(corpus.queries), len(corpus.qrels))
