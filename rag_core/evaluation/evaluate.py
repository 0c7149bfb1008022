"""The stage evaluate of both pipelines: the same flags, another student before training by default."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import BadRowsArgs, SeedArgs, show
from rag_core.engines.role_prompts import PromptArgs
from rag_core.evaluation.corpus_args import CorpusArgs, NamedCorpus, files_of, open_corpora
from rag_core.evaluation.first_stage_args import FirstStageArgs, check_first_stage_flags
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import UNKNOWN, Recipe, check_inputs, read_manifest, write_manifest
from rag_core.files.unfinished import UnfinishedWork, save_together
from rag_core.retrieval.analyser import Analyser, AnalyserArgs, settle_analyser

if TYPE_CHECKING:
    from rag_core.base.records import RankingSample
    from rag_core.engines.options import EngineOptions
    from rag_core.evaluation.latency import LatencyReport
    from rag_core.evaluation.rankers import FileEvaluation, Ranker
    from rag_core.evaluation.report import FileReport, Report
    from rag_core.evaluation.score_folder import ScoreFolder

    Part = TypeVar("Part", FileReport, LatencyReport)

SCORES = "scores"  # the folder beside the report in which they are kept

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class EvaluateArgs(FirstStageArgs, SeedArgs, BadRowsArgs, AnalyserArgs, PromptArgs):
    """Flags of the stage; each pipeline has its own default for `before`."""

    before: str = flag("the student before training", decides=False)
    after: str = flag("the trained student", decides=False)
    teacher: str | None = flag("also score the files with this teacher", None, decides=False)
    teacher_scores: list[Path] = flag(
        "instead of --teacher: its ScoredPair files, one per evaluated file, in their order", [], decides=False
    )
    in_domain: list[Path] = flag("labelled samples of the training domain", decides=False)
    out_of_domain: list[Path] = flag("labelled samples of other domains", [], decides=False)
    trade_off: list[Path] = flag(
        "further trained models; their merge curves are drawn beside that of --after", [], decides=False
    )
    output_dir: Path = flag("folder for report and scores", decides=False)
    instruction: str | None = flag("task instruction for an LLM teacher (default: as in generate_logits)", None)
    batch_size: int = flag("pairs in a batch", 32, decides=False, least=1)
    max_length: int = flag("tokens of query and passage together", 4096, least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of before and after", "auto")
    latency: bool = flag("also measure time, size and memory of the models, and MAP by reranking depth", False)
    latency_queries: int = flag("queries to time, at each number of candidates", 50)
    also: list[str] = flag("--latency: further models to measure, e.g. an int8 export of --after", [], decides=False)
    expect: Path | None = flag(
        "JSON list of expected figures; a deviation, up or down, is an error", None, decides=False
    )


def evaluate(args: EvaluateArgs, stage: str) -> Path:
    """Write the report, print its table, and return the folder."""
    files = [*args.in_domain, *args.out_of_domain]
    _check_flags(args, files)
    corpora = _corpora(args, files)
    from rag_core.evaluation.expectation import check, read_expectations
    from rag_core.evaluation.first_stage import (
        keep_mix,
        mixed_evaluations,
        mixed_model,
        read_dev_file,
        settle_mixing,
    )
    from rag_core.evaluation.pages import FILES, write_report
    from rag_core.evaluation.rankers import read_labelled
    from rag_core.evaluation.report import make_report
    from rag_core.evaluation.score_folder import ScoreFolder
    from rag_core.evaluation.searches import CorpusSearch
    from rag_core.evaluation.training_record import read_training

    expectations = read_expectations(args.expect) if args.expect else []
    training = read_training(Path(args.after), args.trade_off)
    hashes = check_inputs([*files, *args.teacher_scores, *args.mixing_inputs(), *files_of(corpora)])
    analysers = {path: settle_analyser(args.analyser, path) for path in files}
    bad_rows = BadRows(skip=args.skip_bad_rows)
    labelled = read_labelled(files, bad_rows)
    search = CorpusSearch(corpora, args.analyser, skip_bad_rows=args.skip_bad_rows)
    dev_file = read_dev_file(args, args.analyser, hashes, files, bad_rows)
    _check_rows(args, labelled)
    models = _models(args)
    options = _options(args)
    store = args.store_in(args.output_dir / SCORES) if isinstance(args, CorpusArgs) else None
    embedders = search.settle(args, options)
    settled = {"models": models, "analysers": {path.name: analyser.recipe for path, analyser in analysers.items()}}
    recipe = Recipe(
        stage=stage,
        flags=decisive(args) | settled | args.mixing_recipe() | search.recipe(embedders),
        inputs=hashes,
    )
    with UnfinishedWork(args.output_dir.resolve(), recipe, overwrite=True) as work:  # what is kept are the scores
        scores = ScoreFolder(args.output_dir / SCORES, stage=stage, skip_bad_rows=args.skip_bad_rows, score_store=store)
        evaluations = _evaluations(args, list(models), options, labelled, analysers, folder=scores, bad_rows=bad_rows)
        mixing = settle_mixing(args, dev_file, options, scores, bad_rows)
        evaluations, models = mixed_evaluations(evaluations, mixing), models | mixed_model(mixing)

        def save(report: Report) -> None:
            def write(folder: Path) -> None:
                write_report(folder, report, evaluations, args.seed)
                place, skipped = args.output_dir / "report.json", {"bad_rows": len(bad_rows) + len(search.bad_rows)}
                write_manifest(folder / "report.json", recipe, place=place, skipped=skipped)

            save_together(args.output_dir, work.directory / "report", write, names=FILES, kept=SCORES)

        report = make_report(evaluations, models, training, args.seed, mixing)
        report = search.add_to(report, embedders, store, args.seed)
        save(report)
        if args.latency:
            report = _with_latency(args, options, report, evaluations, scores)
            save(report)
        if read_manifest(Path(args.after)):  # trained here
            analyser = dev_file.analyser if dev_file else next(iter(analysers.values()), args.analyser)
            _fill_card(args, report, stage, keep_mix(Path(args.after), args, mixing, options, analyser))
        work.remove()
    _show(report, evaluations)
    check(expectations, report.means())
    return args.output_dir


def _corpora(args: EvaluateArgs, files: Sequence[Path]) -> list[NamedCorpus]:
    corpora = open_corpora(args) if isinstance(args, CorpusArgs) else []
    if not files and not corpora:
        raise UsageError("there is nothing to measure on", "Pass --in_domain or --corpus")
    return corpora


def _check_rows(args: EvaluateArgs, labelled: Mapping[Path, list[RankingSample]]) -> None:
    from rag_core.evaluation.rankers import check_scores

    for path in args.teacher_scores:
        check_scores(path)
    if args.latency:
        path, samples = next(iter(labelled.items()))
        _check_latency(args, path, samples)


def _show(report: Report, evaluations: Sequence[FileEvaluation]) -> None:
    """Print the table, warn of what must not be overlooked, and end with the report in words."""
    from rag_core.evaluation.in_words import in_words
    from rag_core.evaluation.report import warnings
    from rag_core.evaluation.tables import format_table
    from rag_core.retrieval.bm25 import unmatched_note

    show(format_table(report))
    for warning in warnings(report):
        logger.warning(warning)
    for evaluation in evaluations:
        if evaluation.unmatched:
            note = unmatched_note(
                evaluation.unmatched, len(evaluation.samples), "any of their candidates", "BM25's order is chance"
            )
            logger.warning("%s: %s", evaluation.path, note)
    show("\n" + "\n".join(in_words(report)))


def _evaluations(
    args: EvaluateArgs,
    rankers: Sequence[Ranker],
    options: Mapping[Ranker, EngineOptions],
    labelled: dict[Path, list[RankingSample]],
    analysers: Mapping[Path, Analyser],
    *,
    folder: ScoreFolder,
    bad_rows: BadRows,
) -> list[FileEvaluation]:
    """Score the files with the models, and measure all rankers on what every model had room for."""
    from rag_core.evaluation.rankers import check_labelled, evaluate_file

    made = folder.score({ranker.replace(" ", "_"): by_model for ranker, by_model in options.items()}, list(labelled))
    scores: dict[Ranker, Mapping[Path, Path]] = dict(zip(options, made.values(), strict=True))
    for path, samples in labelled.items():
        labelled[path] = folder.without_left_out(path, samples, bad_rows)
        check_labelled(path, labelled[path])
    if args.teacher_scores:
        scores["teacher"] = dict(zip(labelled, args.teacher_scores, strict=True))
    if args.first_stage_files:
        scores["first stage"] = dict(zip(labelled, args.first_stage_files, strict=True))
    return [
        evaluate_file(
            path,
            "in-domain" if path in args.in_domain else "out-of-domain",
            samples,
            {ranker: scores[ranker][path] for ranker in rankers if ranker in scores},
            analysers[path],
        )
        for path, samples in labelled.items()
    ]


def _check_flags(args: EvaluateArgs, files: list[Path]) -> None:
    check_first_stage_flags(args, files)
    if len({path.name for path in files}) < len(files):
        raise UsageError("two files have the same name", "Rename one: the report names a file without its folder")
    if args.teacher and args.teacher_scores:
        raise UsageError("both --teacher and --teacher_scores are given", "Pass one of them")
    if args.teacher_scores and len(args.teacher_scores) != len(files):
        raise UsageError(
            f"{len(args.teacher_scores)} files of teacher scores for {len(files)} files",
            "Pass --teacher_scores with one file per file of --in_domain and --out_of_domain, in their order",
        )
    if args.also and not args.latency:
        raise UsageError("--also is for --latency", "Pass --latency, too")
    if args.latency and args.latency_queries < 2:
        raise UsageError(f"--latency_queries is {args.latency_queries}", "Pass --latency_queries 2 or more")
    for name in ("latency", "first_stage", "teacher"):
        if getattr(args, name) and not files:
            raise UsageError(f"--{name} is for a file of candidates", f"Pass --in_domain, or leave out --{name}")
    if args.instruction and not (args.teacher or getattr(args, "corpus_teacher", None)):
        raise UsageError(
            "--instruction is for a teacher, which is missing", "Pass --teacher, or leave out --instruction"
        )


def _check_latency(args: EvaluateArgs, path: Path, samples: list[RankingSample]) -> None:
    """See before the scoring that latency can be measured: enough passages in the first file, and models that load."""
    from rag_core.engines.identity import describe_model
    from rag_core.engines.loading import choose_engine
    from rag_core.evaluation.latency import DEPTHS

    distinct = len({text for sample in samples for text, _ in sample.passages()})
    if distinct < DEPTHS[0]:
        raise DataError(
            f"has {distinct} distinct passages, and --latency needs {DEPTHS[0]}",
            "Pass a larger file first in --in_domain, or leave out --latency",
            path=path,
        )
    for model in args.also:
        choose_engine(describe_model(model), "auto")


def _models(args: EvaluateArgs) -> dict[Ranker, str]:
    from rag_core.evaluation.first_stage import first_stage_model

    models: dict[Ranker, str] = {**first_stage_model(args), "before": args.before, "after": args.after}
    if args.teacher:
        models["teacher"] = args.teacher
    if args.teacher_scores:
        scored_by = read_manifest(args.teacher_scores[0]) or UNKNOWN
        models["teacher"] = (scored_by.model or {}).get("name", args.teacher_scores[0].name)
    return models


def _options(args: EvaluateArgs) -> dict[Ranker, EngineOptions]:
    """Return how each model runs; a teacher of which only scores are given does not."""
    from rag_core.engines.identity import describe_models
    from rag_core.engines.options import EngineOptions

    further = [name for name in (args.teacher, args.first_stage_model) if name]
    names = dict.fromkeys([args.before, args.after, *further])  # read once each
    described = dict(zip(names, describe_models(list(names), args.prompt_names()), strict=True))
    student = EngineOptions(
        described[args.after], max_length=args.max_length, batch_size=args.batch_size, dtype=args.dtype
    )
    options: dict[Ranker, EngineOptions] = {
        "before": dataclasses.replace(student, model=described[args.before]),
        "after": student,
    }
    if args.teacher:
        options["teacher"] = dataclasses.replace(
            student, model=described[args.teacher], dtype="auto", instruction=args.instruction
        )
    if args.first_stage_model:
        options["first stage"] = dataclasses.replace(student, model=described[args.first_stage_model])
    return options


def _fill_card(args: EvaluateArgs, report: Report, stage: str, further: Mapping[str, str]) -> None:
    from rag_core.evaluation.tables import format_table
    from rag_core.release.model_card import shown_command, write_figures

    # A card is passed on, folders are not.
    shown = dataclasses.replace(report, files=[_without_folder(file) for file in report.files])
    if report.latency:
        shown = dataclasses.replace(shown, latency=_without_folder(report.latency))
    write_figures(Path(args.after), format_table(shown), shown_command(stage, args), further)


def _without_folder(part: Part) -> Part:
    return dataclasses.replace(part, path=Path(part.path).name)


def _with_latency(
    args: EvaluateArgs,
    options: Mapping[Ranker, EngineOptions],
    report: Report,
    evaluations: list[FileEvaluation],
    scores: ScoreFolder,
) -> Report:
    """Measure models on the first file, and on every file how deep reranking helps."""
    from rag_core.engines.identity import describe_model
    from rag_core.evaluation.depth import measure_depths
    from rag_core.evaluation.latency import report_latency

    also = [dataclasses.replace(options["after"], model=describe_model(model)) for model in args.also]
    latency = report_latency(evaluations[0], options, also, scores, queries=args.latency_queries, seed=args.seed)
    files = [
        dataclasses.replace(file, depth=measure_depths(evaluation, args.seed))
        for file, evaluation in zip(report.files, evaluations, strict=True)
    ]
    return dataclasses.replace(report, files=files, latency=latency)
