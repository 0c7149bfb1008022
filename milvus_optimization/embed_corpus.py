"""Embed a corpus and its queries, once per model: the teacher, the student before and after, side by side.

corpus, queries, qrels -> documents.jsonl, queries.jsonl, qrels.tsv, <model>/documents.npy, <model>/queries.npy

python -m milvus_optimization.embed_corpus --input data/scifact --model BAAI/bge-m3 --output_dir runs/milvus/vectors

A run that was stopped goes on. Another model given later is added to the folder.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_core.base.flags import flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, run_stage
from rag_core.corpora.corpus import read_corpus
from rag_core.corpora.folder import CorpusFolder
from rag_core.corpora.openings import open_corpus
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import Recipe, check_inputs
from rag_core.scoring.engine_args import EngineArgs, check_engine

STAGE = "milvus_optimization.embed_corpus"


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, BadRowsArgs, EngineArgs):
    """Flags of the stage."""

    input: Path = flag(
        "a folder in the BEIR layout, or a file of RankingSample records, whose passages are the corpus", decides=False
    )
    splits: list[str] | None = flag("BEIR: the qrels/<split>.tsv that are read (default: all)", None)
    model: list[str] = flag("embedders; each gets a folder by the last part of its name", decides=False)
    output_dir: Path = flag("folder of the corpus and its vectors", decides=False)
    score_store: Path | None = flag("folder that keeps vectors for other runs with the same model", None, decides=False)


def run(args: Args) -> Path:
    """Write the corpus, then the vectors of each model; return the folder."""
    from rag_core.corpora.embedding import folder_names, settle_runs

    check_engine(args)
    names = folder_names(args.model, args.engine)
    source = open_corpus(args.input, args.splits)
    # Of the other flags, those of the engines decide the vectors, and stand in their recipes.
    flags = {"splits": args.splits, "skip_bad_rows": args.skip_bad_rows}
    target = CorpusFolder(args.output_dir, Recipe(STAGE, flags, check_inputs(source.files)))
    bad_rows = BadRows(skip=args.skip_bad_rows)
    corpus = source.read(bad_rows) if args.overwrite or not target.is_finished() else None
    runs = settle_runs(
        args, names, source.files, args.output_dir, STAGE, score_store=args.score_store, afresh=args.overwrite
    )  # a wrong model is told before anything is written
    if corpus:
        target.write(corpus, overwrite=args.overwrite, bad_rows=len(bad_rows))
    corpus = read_corpus(args.output_dir)
    for run in runs:
        run.embed(corpus)
    return args.output_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
