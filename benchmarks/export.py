"""A student as a graph against itself in sentence-transformers: pairs (or passages) a second, and what it costs in MAP.

OMP_NUM_THREADS=1 python benchmarks/export.py [--model FOLDER] [--input_file FILE] [--queries 40]

int8 is dynamic in ONNX, and static in OpenVINO, its ranges set by 128 pairs of the file's other queries. Models are
loaded and warm.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
from measurement import Run, by_turns, fill_in, finish, make_parser, row

from rag_core.base.records import RankingSample
from rag_core.engines.canary import score_once
from rag_core.engines.exported_engine import load_exported
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.protocols import Floats
from rag_core.files.jsonl import read_samples
from rag_core.metrics.ranking import measure
from rag_core.metrics.significance import paired_change
from rag_core.release.graph import PlainGraph
from rag_core.scoring.samples import spread_pairs

EXPORTS = [(form, precision) for form in ("onnx", "openvino") for precision in ("fp32", "int8")]


def main() -> int:
    """Measure, print and write."""
    parser = make_parser(__doc__, "export")
    parser.add_argument("--queries", type=int, default=40)
    args = parser.parse_args()
    settings = fill_in(args)
    samples = read_samples(args.input_file)
    samples, others = samples[: args.queries], samples[args.queries :]
    pairs = [(sample.query, passage) for sample in samples for passage, _ in sample.passages()]
    models: dict[str, Any] = {}
    described = describe_model(str(args.model))
    for dtype in ("float32", "bfloat16"):
        options = EngineOptions(described, max_length=512, dtype=dtype)  # type: ignore[arg-type]
        models[f"sentence-transformers, {dtype}"] = load_model("sentence-transformers", options, pairs)
    for form, precision in EXPORTS:
        folder = args.work_dir / "exports" / args.model.name / f"{form}-{precision}"
        calibration = spread_pairs(others, 128) if (form, precision) == ("openvino", "int8") else []
        graph = PlainGraph(described, folder / "graph", calibration)
        graph.write(folder, form, precision)  # type: ignore[arg-type]
        models[f"{form}, {precision}"] = load_exported(folder)
    for model in models.values():
        score_once(model, pairs[:8])
    runs = by_turns({name: partial(score_once, model, pairs) for name, model in models.items()}, args.repeats)
    first, *ours = models
    theirs = (first, runs[first])
    work = f"a student of {args.model.name}"
    rows = [compare(row(work, theirs, (name, runs[name]), len(pairs), "pairs"), runs, name, samples) for name in ours]
    finish(args.output, settings | {"pairs": len(pairs)}, rows)
    return 0


def compare(
    found: dict[str, Any], runs: dict[str, list[Run[Floats]]], name: str, samples: list[RankingSample]
) -> dict[str, Any]:
    """Add to a row how the metrics and the scores differ."""
    ends = np.cumsum([sum(1 for _ in sample.passages()) for sample in samples])[:-1]
    before, after = (runs[way][0].value for way in (found["theirs"], name))
    old, new = (measure(samples, np.split(scores, ends))["MAP"] for scores in (before, after))
    change = paired_change(old, new, 1)
    found["result"] = (
        f"MAP {np.nanmean(old):.4f} {change.difference:+.4f} [{change.low:+.4f}, {change.high:+.4f}], "
        f"scores differ by up to {np.abs(before - after).max():.2g}"
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
