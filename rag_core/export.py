"""Turn a trained student into a graph that runs without torch, in float32 or int8, and prove that it ranks the same.

model folder -> folder with graph, tokenizer, export.json, proof.json and a card

python -m rag_core.export --model models/student --precision int8 --dataset data/test.jsonl --output_dir models/int8
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import DataError, EngineError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage, show
from rag_core.engines.role_prompts import PromptArgs
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_samples
from rag_core.files.manifest import Recipe, check_inputs, check_output_folder, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

if TYPE_CHECKING:
    from rag_core.base.records import RankingSample
    from rag_core.release.graph import PlainGraph

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(SeedArgs, OverwriteArgs, BadRowsArgs, PromptArgs):
    """Flags of the stage."""

    model: str = flag("trained cross-encoder or embedder", decides=False)
    output_dir: Path = flag("folder for the export", decides=False)
    dataset: Path = flag(
        "RankingSample records to compare both on: by MAP if labelled, else by the order of candidates",
        decides=False,
    )
    format: Literal["onnx", "openvino"] = flag("graph for onnxruntime or for OpenVINO", "onnx")
    precision: Literal["fp32", "int8"] = flag("of weights and, in int8, of matrix products", "fp32")
    calibration_file: Path | None = flag(
        "int8: RankingSample records for static quantization; without it onnx sets the ranges of activations at run "
        "time (dynamic), and openvino quantizes weights only",
        None,
        decides=False,
    )
    calibration_pairs: int = flag("int8: pairs to take from --calibration_file", 128)
    exclude: list[str] = flag(
        "int8: modules to keep in float32, by part of their path, e.g. layer.0 or 'layer.*.output'; * is any name", []
    )
    max_map_drop: float = flag("largest loss of MAP to accept", 0.005)
    max_length: int | None = flag(
        "tokens of a pair or text in the comparison (default: as many as the model reads)", None, least=1
    )


def run(args: Args) -> Path:
    """Export, compare, and keep the folder if the export ranks as its source does.

    Raises:
        PipelineError: it does not, or as the steps raise.
    """
    if args.precision == "fp32" and (args.calibration_file or args.exclude):
        raise UsageError("--calibration_file and --exclude are for int8", "Pass --precision int8, or leave them out")
    if args.calibration_pairs < 1 or args.max_map_drop < 0:
        raise UsageError(
            "--calibration_pairs or --max_map_drop is too small",
            "Pass --calibration_pairs 1 or more, and --max_map_drop 0 or more",
        )
    hashes = check_inputs([args.dataset, *filter(None, [args.calibration_file])])
    bad_rows = BadRows(skip=args.skip_bad_rows)
    samples = read_samples(args.dataset, bad_rows=bad_rows)
    if all(len(list(sample.passages())) < 2 for sample in samples):
        raise DataError(
            "has no query with two candidates, so nothing is ranked",
            "Pass a --dataset with two or more candidates per query",
            path=args.dataset,
        )
    calibration = read_samples(args.calibration_file, bad_rows=bad_rows) if args.calibration_file else []
    from rag_core.base.tables import format_rows
    from rag_core.engines.identity import describe_model
    from rag_core.files.unfinished import save_whole
    from rag_core.release.graph import PlainGraph, check_packages
    from rag_core.release.proof import prove
    from rag_core.scoring.samples import spread_pairs

    check_packages(args.format)
    model = describe_model(args.model, args.prompt_names())
    recipe = Recipe(
        stage="rag_core.export",
        flags=decisive(args),
        inputs=hashes,
        model=model.identity,
    )
    check_output_folder(args.output_dir, [*hashes, args.model])
    if not args.overwrite and is_finished(args.output_dir, recipe):
        return args.output_dir
    with UnfinishedWork(args.output_dir, recipe, overwrite=True, afresh=True) as work:
        if not args.overwrite and is_finished(args.output_dir, recipe):  # by another run, in the meantime
            return args.output_dir

        def write(folder: Path) -> None:
            pairs = spread_pairs(calibration, args.calibration_pairs)
            graph = PlainGraph(model, work.directory / "graph", pairs)
            graph.write(folder, args.format, args.precision, args.exclude)
            proof = prove(model, folder, samples, args.max_length, args.seed)
            show(format_rows(proof.rows()))
            if fault := proof.fault(args.precision, args.max_map_drop):
                remedy = _remedy(args, graph, samples, work.directory / "attempt")
                work.remove()  # nothing in it is of use to the next attempt, which has other flags
                raise EngineError(fault, remedy)
            (folder / "proof.json").write_text(json.dumps(proof.as_dict(), indent=2) + "\n", encoding="utf-8")
            _write_card(args, folder, format_rows(proof.rows()))

        save_whole(args.output_dir, work.directory / "export", write)
        proof = json.loads((args.output_dir / "proof.json").read_text(encoding="utf-8"))
        write_manifest(args.output_dir, recipe, proof=proof, skipped={"bad_rows": len(bad_rows)})
        work.remove()
    return args.output_dir


def _write_card(args: Args, folder: Path, table: str) -> None:
    """Write the card of the export from its source's, and copy the files of a calibration."""
    from rag_core.release.model_card import CALIBRATION, RELIABILITY, write_export_card

    for name in (CALIBRATION, RELIABILITY):
        if (Path(args.model) / name).is_file():
            shutil.copyfile(Path(args.model) / name, folder / name)
    facts = {"name": args.output_dir.name, "form": args.format, "precision": args.precision}
    write_export_card(folder, Path(args.model), **facts, proof=table)


def _remedy(args: Args, graph: PlainGraph, samples: Sequence[RankingSample], folder: Path) -> str:
    """Return the remedy for a refused export; for int8, after measuring the error that each part of it causes."""
    from rag_core.base.tables import format_rows
    from rag_core.release.proof import errors_without

    if args.precision == "fp32":
        return "Pass the other --format, and report this as a bug: the graph computes something else"
    errors = errors_without(graph, samples, folder, form=args.format, exclude=args.exclude, max_length=args.max_length)
    rows = [["--exclude", "error of scores, in standard deviations of the source's"]]
    show(format_rows([*rows, *([parts, f"{error:.4f}"] for parts, error in errors.items())]))
    best = min(errors, key=errors.__getitem__)
    if best == " ".join(args.exclude):
        return "Pass a --calibration_file of the domain with more --calibration_pairs, or --precision fp32"
    return f"Pass --exclude {shlex.join(best.split())}, or --precision fp32"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
