"""Measure what ranks better without any training: RM3, feedback for vectors, hybrids; and let a teacher judge.

corpus, queries, qrels -> Topic, Ranking, Judgement, Summary in a folder, which every later stage starts from

python -m query_expansion_rl.rank_baselines --input data/scifact --dense_model sentence-transformers/all-MiniLM-L6-v2 \\
    --bm25_stemmer english --bm25_stop_words english --output_dir runs/query_expansion/baselines

Without qrels all is measured by the judge, and the table says so.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from query_expansion_rl.retrieval.judging import HYBRID, Teacher, settle_teacher
from query_expansion_rl.retrieval.workspace import RetrieverName, RetrieverSettings, read_workspace
from query_expansion_rl.topics.splitting import FRACTIONS, settle_splitting
from rag_core.base.errors import UsageError
from rag_core.base.flags import decisive, flag, flags_of
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage, show
from rag_core.base.tables import format_rows
from rag_core.corpora.corpus import ARRAYS, DOCUMENTS, QRELS, QUERIES, read_corpus
from rag_core.corpora.folder import CorpusFolder
from rag_core.corpora.openings import open_corpus
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import Recipe, check_inputs
from rag_core.retrieval.analyser import AnalyserArgs, Stemmer, StopWords
from rag_core.retrieval.bm25 import K1, B
from rag_core.scoring.engine_args import EngineArgs, check_engine

if TYPE_CHECKING:
    from rag_core.corpora.embedding import ModelRun

STAGE = "query_expansion_rl.rank_baselines"


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, BadRowsArgs, SeedArgs, AnalyserArgs, EngineArgs):
    """Flags of the stage."""

    input: Path = flag(
        "a folder in the BEIR layout, or a file of RankingSample records, whose passages are the corpus", decides=False
    )
    output_dir: Path = flag("folder of the corpus, its vectors, the rankings and judgements", decides=False)
    splits: list[str] | None = flag("BEIR: the qrels/<split>.tsv that are read (default: all)", None)
    test_split: str | None = flag(
        "BEIR: the qrels/<split>.tsv whose queries are the test queries; none splits all by --fractions (default: "
        "test, where it stands beside another)",
        None,
    )
    fractions: list[str] = flag(
        "shares of the queries for train, dev and test; where the test queries are given, of the others",
        list(FRACTIONS),
        metavar="NAME=SHARE",
    )
    retriever: RetrieverName = flag("the one that is to rank better", "bm25")
    dense_model: str | None = flag(
        "embedder, a folder or a hub's name; without it there are no dense ways", None, decides=False
    )
    bm25_k1: float = flag("BM25: how much a word counts that comes again", K1, least=0)
    bm25_b: float = flag("BM25: how much the length of a passage is held against it", B, least=0, most=1)
    bm25_stemmer: Stemmer | None = flag(
        "BM25: reduce words to their stems by Snowball's rules for this language", None, metavar="LANGUAGE"
    )
    bm25_stop_words: StopWords | None = flag(
        "BM25: leave out the stop words of this language", None, metavar="LANGUAGE"
    )
    teacher: str = flag(
        "who judges without labels: hybrid, or an embedder, a cross-encoder or an LLM reranker by folder or name",
        "hybrid",
        decides=False,
    )
    teacher_depth: int = flag("a model as teacher: first passages of BM25 and of dense that it judges", 50, least=1)
    teacher_max_length: int | None = flag(
        "a model as teacher: tokens that it reads (default: --max_length)", None, decides=False, least=1
    )
    judge_top: int = flag("first passages of the teacher that have a gain", 10, least=1, most=100)
    force: bool = flag("go on even where the teacher ranks worse than the retriever", False, decides=False)
    score_store: Path | None = flag(
        "folder that keeps vectors and a teacher's scores for other runs", None, decides=False
    )


def run(args: Args) -> Path:
    """Write the folder, and print the table; return the folder."""
    from query_expansion_rl.report.baseline_run import BaselineRun
    from query_expansion_rl.report.baselines import notes, with_times

    _check(args)
    splitting = settle_splitting(args.input, args.splits, args.test_split, args.fractions, args.seed)
    source = open_corpus(args.input, args.splits)
    flags = {"splits": args.splits, "skip_bad_rows": args.skip_bad_rows}
    target = CorpusFolder(args.output_dir, Recipe(STAGE, flags, check_inputs(source.files)))
    judging = dataclasses.replace(args, max_length=args.teacher_max_length or args.max_length)
    teacher = None if args.teacher == HYBRID else settle_teacher(args.teacher, judging, source.files)
    name, embedders = _embedders(args, source.files, beside_teacher=teacher is not None)
    bad_rows = BadRows(skip=args.skip_bad_rows)
    if args.overwrite or not target.is_finished():
        target.write(source.read(bad_rows), overwrite=args.overwrite, bad_rows=len(bad_rows))
    corpus = read_corpus(args.output_dir)
    for embedder in embedders:
        embedder.embed(corpus)
    settings = RetrieverSettings(
        retriever=args.retriever,
        k1=args.bm25_k1,
        b=args.bm25_b,
        bm25_stemmer=args.bm25_stemmer,
        bm25_stop_words=args.bm25_stop_words,
        vectors=name,
        dense_model=args.dense_model,
    )
    recipe = _recipe(args, settings, teacher, source.files)
    BaselineRun(
        folder=args.output_dir,
        corpus=corpus,
        settings=settings,
        teacher=teacher,
        teacher_depth=args.teacher_depth,
        judge_top=args.judge_top,
        force=args.force,
        seed=args.seed,
        score_store=args.score_store,
    ).make(splitting, recipe, bad_rows.again(), overwrite=args.overwrite)
    workspace = read_workspace(args.output_dir)
    table = with_times(workspace.summary.table, workspace.milliseconds())
    show("\n\n".join(filter(None, [format_rows(table), notes(table), workspace.summary.advice])))
    return args.output_dir


def _check(args: Args) -> None:
    """Check that the flags go together.

    Raises:
        UsageError: they do not.
    """
    check_engine(args)
    if args.dense_model is None:
        for name, value in (("--retriever", args.retriever), ("--teacher", args.teacher)):
            if value in ("dense", HYBRID):
                raise UsageError(f"{name} {value} needs an embedder", "Pass --dense_model, or another " + name)
    if args.teacher == args.retriever or (args.retriever == "dense" and args.teacher == args.dense_model):
        what = f"--teacher {args.teacher} is the retriever itself, which agrees with itself already"
        raise UsageError(what, "Pass a model that ranks better as --teacher")


def _embedders(args: Args, files: Sequence[Path], *, beside_teacher: bool) -> tuple[str | None, Sequence[ModelRun]]:
    """Return the folder of the embedder's vectors, and what makes them, where there is an embedder.

    Args:
        beside_teacher: whether engine and instruction that are asked for are those of a teacher.
    """
    from rag_core.corpora.embedding import folder_names, settle_runs

    if args.dense_model is None:
        return None, []
    asked = dataclasses.replace(args, engine="auto", server_url=None, instruction=None) if beside_teacher else args
    names = folder_names([args.dense_model], asked.engine)
    store, afresh = args.score_store, args.overwrite
    runs = settle_runs(asked, names, files, args.output_dir, STAGE, score_store=store, afresh=afresh)
    return next(iter(names)), runs


def _recipe(args: Args, settings: RetrieverSettings, teacher: Teacher | None, files: Sequence[Path]) -> Recipe:
    """Return what decides the outputs; of the flags of the engines the teacher's, since the vectors are inputs."""
    flags = decisive(args) | {"teacher": "model" if teacher else HYBRID} | args.analyser.recipe
    for field in flags_of(EngineArgs):
        flags.pop(field.name, None)
    scored_by, model = teacher.recipe if teacher else ({}, {})
    texts = [args.output_dir / name for name in (DOCUMENTS, QUERIES, QRELS)]
    arrays = [args.output_dir / settings.vectors / name for name in ARRAYS] if settings.vectors else []
    inputs = check_inputs([*(path for path in texts if path.exists()), *arrays, *files])
    return Recipe(STAGE, flags | scored_by, inputs, model)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
