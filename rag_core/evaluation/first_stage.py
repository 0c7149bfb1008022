"""The first stage of a report: what scored the candidates before the reranker, and the mix of the two."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample
from rag_core.engines.options import EngineOptions
from rag_core.evaluation.first_stage_args import BM25_NAME, FirstStageArgs
from rag_core.evaluation.mixing import Mixing, choose_weight, weight_curve, with_first_stage
from rag_core.evaluation.rankers import FileEvaluation, Ranker, check_labelled, check_scores, read_labelled
from rag_core.evaluation.score_folder import ScoreFolder
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import UNKNOWN, read_manifest
from rag_core.release.mix import FirstStage, Mix, markdown, write_mix
from rag_core.retrieval.analyser import Analyser, settle_analyser
from rag_core.retrieval.bm25 import bm25_scores
from rag_core.scoring.scored_files import scores_by_sample

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DevFile:
    """The labelled samples that choose the weight."""

    path: Path
    samples: list[RankingSample]
    analyser: Analyser


def first_stage_model(args: FirstStageArgs) -> dict[Ranker, str]:
    """Return the first stage's place among the models of a report; nothing where there is none."""
    return {"first stage": _name(args)} if args.first_stage else {}


def mixed_model(mixing: Mixing | None) -> dict[Ranker, str]:
    """Return the mix's place among the models of a report; nothing where there is none."""
    return {"mixed": mixing.formula} if mixing is not None and mixing.formula else {}


def _name(args: FirstStageArgs) -> str:
    """Return what the first stage is called: its model, the one that its files were scored by, or BM25."""
    if not args.first_stage_files:
        return args.first_stage_model or "BM25"
    return _scored_by(args).get("name") or args.first_stage_files[0].name


def _scored_by(args: FirstStageArgs) -> Mapping[str, str]:
    return (read_manifest(args.first_stage_files[0]) or UNKNOWN).model or {}


def read_dev_file(
    args: FirstStageArgs, asked: Analyser, hashes: Mapping[str, str], files: Sequence[Path], bad_rows: BadRows
) -> DevFile | None:
    """Read what chooses the weight, and check the first stage's score files, before any model is loaded.

    Args:
        asked: the analyser of the flags.
        hashes: path -> SHA-256 of all inputs.
        files: that are evaluated.

    Raises:
        PipelineError: as `read_labelled`, `check_scores` and `settle_analyser`, or it is one of the evaluated files.
    """
    for path in [*args.first_stage_files, *filter(None, [args.mix_dev_first_stage])]:
        check_scores(path)
    if args.mix_dev is None:
        return None
    for path in files:
        if hashes[str(path)] == hashes[str(args.mix_dev)]:
            raise DataError(
                f"holds the same as {path}, on which the mix is measured",
                "Pass other labelled samples as --mix_dev, or --mix WEIGHT",
                path=args.mix_dev,
            )
    analyser = settle_analyser(asked, args.mix_dev)
    return DevFile(args.mix_dev, read_labelled([args.mix_dev], bad_rows)[args.mix_dev], analyser)


def settle_mixing(
    args: FirstStageArgs,
    dev: DevFile | None,
    options: Mapping[Ranker, EngineOptions],
    folder: ScoreFolder,
    bad_rows: BadRows,
) -> Mixing | None:
    """Return how the two are mixed, by the weight that was asked for, or by the best on the dev file.

    `None` without a first stage.

    Args:
        options: how "after", and a first stage that is a model, run.

    Raises:
        PipelineError: as `ScoreFolder.score`, or a first stage's file lacks a pair of the dev file.
    """
    if not args.first_stage:
        return None
    if dev is None:
        return Mixing(_name(args), args.fixed_weight)
    scored = {ranker: options[ranker] for ranker in ("after", "first stage") if ranker in options}
    made = folder.score({ranker.replace(" ", "_"): by_model for ranker, by_model in scored.items()}, [dev.path])
    samples = folder.without_left_out(dev.path, dev.samples, bad_rows)
    check_labelled(dev.path, samples)
    by_after = scores_by_sample(made["after"][dev.path], samples)
    if args.mix_dev_first_stage or "first_stage" in made:
        by_first = scores_by_sample(args.mix_dev_first_stage or made["first_stage"][dev.path], samples)
    else:
        by_first = bm25_scores(samples, dev.analyser)
    curve = weight_curve(samples, by_first, by_after)
    weight = choose_weight(curve)
    by_weight = {one: float(np.nanmean(values)) for one, values in curve.items()}
    logger.info("%s: the mix ranks best with weight %g of the reranker", dev.path, weight)
    return Mixing(_name(args), weight, str(dev.path), int(np.isfinite(curve[weight]).sum()), by_weight)


def mixed_evaluations(evaluations: list[FileEvaluation], mixing: Mixing | None) -> list[FileEvaluation]:
    """Return the evaluations with the rows of the first stage and of the mix, as far as there are such."""
    if mixing is None:
        return evaluations
    return [with_first_stage(evaluation, mixing.weight) for evaluation in evaluations]


def keep_mix(
    folder: Path,
    args: FirstStageArgs,
    mixing: Mixing | None,
    options: Mapping[Ranker, EngineOptions],
    analyser: Analyser,
) -> dict[str, str]:
    """Keep weight and first stage in the reranker's folder, and return the section of its card, by name.

    Args:
        analyser: BM25's.
    """
    if mixing is None or mixing.weight is None:
        return {}
    if args.first_stage == [BM25_NAME]:
        first = FirstStage.bm25(analyser)
    elif args.first_stage_files:
        first = FirstStage.model({"name": mixing.first_stage, **_scored_by(args)})
    else:
        first = FirstStage.model(options["first stage"].model.identity)
    mix = Mix(mixing.weight, first, None if mixing.dev_file is None else Path(mixing.dev_file).name)
    return {"mix": markdown(mix, folder.resolve().name)} if write_mix(folder, mix) else {}
