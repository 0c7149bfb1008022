"""Turn a student's scores into probabilities, and carry a running system's cut-offs over to it.

ScoredPair -> model folder with calibration.json

python -m rag_core.calibrate --model models/student --input_files data/dev_logits.jsonl --output_dir models/calibrated

Fits on half of the queries and measures on the others. A cross-encoder's last layer takes the scaling in, so that its
`predict` gives probabilities; for an embedder, calibration.json says how a cosine becomes one.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import EngineError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, run_stage, show
from rag_core.engines.role_prompts import PromptArgs
from rag_core.files.atomic import atomic_write
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_groups, write_records
from rag_core.files.manifest import (
    UNKNOWN,
    Recipe,
    check_inputs,
    check_output_folder,
    read_manifest,
    write_manifest,
)
from rag_core.files.unfinished import UnfinishedWork, is_finished

if TYPE_CHECKING:
    from rag_core.engines.identity import ModelInfo
    from rag_core.release.calibration import Calibration

STAGE = "rag_core.calibrate"

# What is not copied where the weights are written anew: beside them, other weights would be in the way.
_REPLACED = ("*.safetensors", "*.bin", "*.index.json", "adapter_config.json", "*.py")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, BadRowsArgs, PromptArgs):
    """Flags of the stage."""

    model: str = flag("the student: cross-encoder or embedder", decides=False)
    input_files: list[Path] = flag(
        "a teacher's ScoredPair records, with labels if you have any; not the training data", decides=False
    )
    output_dir: Path = flag("folder for the calibrated model", decides=False)
    target: Literal["auto", "teacher", "labels"] = flag(
        "what to fit to; auto takes the teacher's probabilities if it is an LLM reranker, else the labels", "auto"
    )
    method: Literal["platt", "temperature"] = flag(
        "platt fits sigmoid(a * score + b), temperature leaves out b", "platt"
    )
    old_scores: list[Path] = flag("the old model's ScoredPair records of the same pairs", [], decides=False)
    cut_offs: list[float] = flag("the old model's cut-offs to carry over (default: those at nine pass rates)", [])
    max_length: int = flag("tokens of query and passage together", 4096, least=1)
    batch_size: int = flag("pairs in a batch", 32, decides=False, least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of the student", "auto")


def run(args: Args) -> Path:
    """Write the calibrated model and return its folder."""
    if args.cut_offs and not args.old_scores:
        raise UsageError("--cut_offs need the scores of the old model", "Pass --old_scores, too")
    hashes = check_inputs([*args.input_files, *args.old_scores])
    check_output_folder(args.output_dir, [*hashes, args.model])
    from rag_core.release.calibration_data import read_calibration_data
    from rag_core.scoring.prescreen import check_all_scored

    bad_rows = BadRows(skip=args.skip_bad_rows)
    by_file = {path: read_groups(path, ScoredPair, bad_rows=bad_rows) for path in args.input_files}
    for path, of_file in by_file.items():
        check_all_scored(path, chain.from_iterable(of_file))
    groups = [group for of_file in by_file.values() for group in of_file]
    units = {(read_manifest(path) or UNKNOWN).score_unit for path in args.input_files}
    data = read_calibration_data(groups, units, args.target, args.old_scores, bad_rows)
    from rag_core.engines.identity import describe_model
    from rag_core.files.unfinished import save_whole

    model = describe_model(args.model, args.prompt_names())
    if model.kind == "llm-reranker":
        raise EngineError(
            f"{args.model} is an LLM reranker ({model.why})",
            "Its score is a log-odds: take the sigmoid",
        )
    if model.kind == "cross-encoder" and model.export_precision:
        raise EngineError(
            f"{args.model} is an export, whose head is fixed",
            "Calibrate the exported model, then export it",
        )
    recipe = Recipe(stage=STAGE, flags=decisive(args) | {"target": data.target}, inputs=hashes, model=model.identity)
    if not args.overwrite and is_finished(args.output_dir, recipe):
        return args.output_dir
    with UnfinishedWork(args.output_dir, recipe, overwrite=True) as work:  # its scores say themselves whose they are
        if not args.overwrite and is_finished(args.output_dir, recipe):  # by another run, in the meantime
            return args.output_dir
        scores = _student_scores(args, model, groups, work.directory)
        calibration = data.calibrate(
            scores, args.method, args.cut_offs, unit="cosine" if model.kind == "bi-encoder" else "logit"
        )
        save_whole(args.output_dir, work.directory / "model", partial(_write_model, model, calibration, data.pairs))
        source = read_manifest(Path(args.model)) or UNKNOWN
        write_manifest(
            args.output_dir,
            recipe,
            teacher=source.teacher,
            skipped={"bad_rows": len(bad_rows)},
            source=args.model,
        )
        work.remove()
    return args.output_dir


def _student_scores(args: Args, model: ModelInfo, groups: list[list[ScoredPair]], folder: Path) -> list[float]:
    """Score the pairs with the student, in their order; a run that was killed goes on."""
    from rag_core.engines.options import EngineOptions
    from rag_core.scoring.scored_files import score_files, scores_by_sample

    samples = [
        RankingSample(group[0].query, candidates=[pair.passage for pair in group], query_id=str(number))
        for number, group in enumerate(groups)
    ]
    sample_file, scored = folder / "sample.jsonl", folder / "scores.jsonl"
    write_records(sample_file, samples)
    options = EngineOptions(model, max_length=args.max_length, batch_size=args.batch_size, dtype=args.dtype)
    score_files({sample_file: scored}, stage=STAGE, engine="auto", options=options, replace_stale=True)
    return [score for by_sample in scores_by_sample(scored, samples) for score in by_sample]


def _write_model(model: ModelInfo, calibration: Calibration, pairs: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write model, calibration.json, reliability.svg, and the section of the card."""
    from rag_core.release.calibration import fold_into_head, markdown
    from rag_core.release.model_card import CALIBRATION, RELIABILITY, write_section
    from rag_core.release.reliability import reliability_diagram

    if Path(model.name).is_dir():
        ignored = shutil.ignore_patterns(*_REPLACED) if calibration.folded else None
        shutil.copytree(model.name, folder, dirs_exist_ok=True, ignore=ignored)
    if calibration.folded:
        fold_into_head(model, calibration.scaling, folder, pairs[:20])
    elif not Path(model.name).is_dir():
        from sentence_transformers import SentenceTransformer

        from rag_core.engines.pretrained import load_sentence_transformers
        from rag_core.release.saving import save_model

        save_model(load_sentence_transformers(model, SentenceTransformer, dtype="float32"), folder)
    with atomic_write(folder / CALIBRATION) as file:
        file.write(json.dumps(dataclasses.asdict(calibration), indent=2).encode() + b"\n")
    with atomic_write(folder / RELIABILITY) as file:
        file.write(reliability_diagram(calibration.reliability, calibration.target).svg.encode())
    section = markdown(calibration)
    write_section(folder, "calibrate", section)
    show(section)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
