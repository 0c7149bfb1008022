"""Embed a corpus and its queries, once per model: the teacher, the student before and after, side by side.

corpus, queries, qrels -> documents.jsonl, queries.jsonl, qrels.tsv, <model>/documents.npy, <model>/queries.npy

python -m milvus_optimization.embed_corpus --input data/scifact --model BAAI/bge-m3 --output_dir runs/milvus/vectors

A run that was stopped goes on. Another model given later is added to the folder.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from milvus_optimization.corpus.corpus import read_corpus
from milvus_optimization.corpus.folder import CorpusFolder
from milvus_optimization.corpus.sources import open_corpus
from rag_core.base.errors import EngineError, UsageError
from rag_core.base.flags import flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, run_stage
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import Recipe, check_inputs
from rag_core.scoring.engine_args import EngineArgs, check_engine, engine_options

if TYPE_CHECKING:
    from milvus_optimization.corpus.embedding import ModelRun

STAGE = "milvus_optimization.embed_corpus"

logger = logging.getLogger(__name__)


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
    check_engine(args)
    names = _folder_names(args)
    source = open_corpus(args.input, args.splits)
    # Of the other flags, those of the engines decide the vectors, and stand in their recipes.
    flags = {"splits": args.splits, "skip_bad_rows": args.skip_bad_rows}
    target = CorpusFolder(args.output_dir, Recipe(STAGE, flags, check_inputs(source.files)))
    bad_rows = BadRows(skip=args.skip_bad_rows)
    corpus = source.read(bad_rows) if args.overwrite or not target.is_finished() else None
    runs = _model_runs(args, names, source.files)  # a wrong model is told before anything is written
    if corpus:
        target.write(corpus, overwrite=args.overwrite, bad_rows=len(bad_rows))
    corpus = read_corpus(args.output_dir)
    for run in runs:
        run.embed(corpus)
    return args.output_dir


def _folder_names(args: Args) -> dict[str, str]:
    """Return folder name -> model.

    Raises:
        UsageError: two models have one, or a server is to run several.
    """
    names = {
        (Path(model) if Path(model).name.strip(".") else Path(model).resolve()).name: model for model in args.model
    }
    if len(names) < len(args.model):
        raise UsageError("two models have the same last part of their names", "Rename one: it names a folder")
    if args.engine == "server" and len(names) > 1:
        raise UsageError("a server runs one model", "Run the stage once per model, with the same --output_dir")
    return names


def _model_runs(args: Args, names: dict[str, str], files: Sequence[Path]) -> list[ModelRun]:
    """Settle engine, precision and instruction of each model, without loading any."""
    from milvus_optimization.corpus.embedding import ModelRun
    from rag_core.engines.identity import describe_models
    from rag_core.scoring.room import check_room
    from rag_core.scoring.settings import settle

    models = describe_models(list(names.values()), args.prompt_names())
    someone_takes_it = any(model.takes_instruction for model in models)
    runs = []
    for name, model in zip(names, models, strict=True):
        if model.kind != "bi-encoder":
            raise EngineError(f"{model.name} gives no vectors ({model.why}: a {model.kind})", "Pass an embedder")
        options = engine_options(args, model)
        if someone_takes_it and not model.takes_instruction:
            options = dataclasses.replace(options, instruction=None)
        engine, options = settle("auto" if args.engine == "ray" else args.engine, options, list(files))
        check_room([], options)
        runs.append(ModelRun(name, engine, options, args.output_dir, STAGE, args.score_store, args.overwrite))
    return runs


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
