"""Evaluating a model on a labelled file: the evaluators of sentence-transformers, or what the stage evaluate does.

OMP_NUM_THREADS=1 python benchmarks/evaluation.py [--queries 150]

From file and folder to MAP, MRR@10 and NDCG@10, loading included, each with its own defaults and then, ours, in
float32 as theirs. Ours keeps every score in a file, and ranks by BM25, too. An embedder, and a reranker: a
cross-encoder that is grown from it, with a fresh head. Only queries with a positive and a negative are in the file:
for the others the reranker's evaluator counts 0 or 1, where ours and the embedder's leave them out.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from measurement import by_turns, fill_in, finish, make_parser, row
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.sentence_transformer.evaluation import RerankingEvaluator
from transformers import set_seed

from rag_core.distillation.student import StudentSettings
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.precision import resolve_dtype
from rag_core.evaluation.evaluate import EvaluateArgs
from rag_core.evaluation.rankers import evaluate_file, read_labelled
from rag_core.evaluation.score_folder import ScoreFolder
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_samples, write_records
from reranker_distillation.training import load_student

DEFAULTS = {field.name: field.default for field in dataclasses.fields(EvaluateArgs)}
EVALUATORS = {"embedder": RerankingEvaluator, "reranker": CrossEncoderRerankingEvaluator}


def main() -> int:
    """Measure, print and write."""
    parser = make_parser(__doc__, "evaluation")
    parser.add_argument("--queries", type=int, default=150)
    args = parser.parse_args()
    settings = fill_in(args)
    samples = [sample for sample in read_samples(args.input_file) if sample.positive and sample.negative]
    samples = samples[: args.queries]
    pairs = sum(1 for sample in samples for _ in sample.passages())
    with tempfile.TemporaryDirectory() as folder:
        labelled, reranker = Path(folder) / "labelled.jsonl", Path(folder) / "reranker"
        write_records(labelled, samples)
        set_seed(args.seed)
        student = StudentSettings(describe_model(str(args.model)), DEFAULTS["max_length"])
        load_student(student).save_pretrained(str(reranker))
        rows = [
            *compare("embedder", args.model, labelled, pairs, args.repeats),
            *compare("reranker", reranker, labelled, pairs, args.repeats),
        ]
    finish(args.output, settings, rows)
    return 0


def compare(kind: str, model: Path, labelled: Path, pairs: int, repeats: int) -> list[dict[str, Any]]:
    """Return the rows of a model: against ours at its default, and in float32."""
    default = DEFAULTS["dtype"]
    ways = {"theirs": partial(theirs, model, labelled, kind)}
    ways |= {dtype: partial(ours, model, labelled, dtype) for dtype in (default, "float32")}
    runs = by_turns(ways, repeats)
    evaluator = f"{EVALUATORS[kind].__name__}, default (float32)"
    expected = runs["theirs"][0].value
    rows = []
    for dtype, name in ((default, f"default ({resolve_dtype(default)})"), ("float32", "float32")):
        found = runs[dtype][0].value
        apart = (f"{metric} {value:.4f} {found[metric] - value:+.4f}" for metric, value in expected.items())
        rows.append(
            row(f"evaluate, {kind}", (evaluator, runs["theirs"]), (name, runs[dtype]), pairs, "pairs")
            | {"result": ", ".join(apart), "metrics_theirs": expected, "metrics_ours": found}
        )
    return rows


def theirs(model: Path, labelled: Path, kind: str) -> dict[str, float]:
    """Return the metrics by sentence-transformers."""
    samples = [
        {"query": sample.query, "positive": sample.positive, "negative": sample.negative}
        for sample in read_samples(labelled)
    ]
    model_class = SentenceTransformer if kind == "embedder" else CrossEncoder
    found = EVALUATORS[kind](samples)(model_class(str(model)))
    return {name.upper(): float(value) for name, value in found.items()}


def ours(model: Path, labelled: Path, dtype: str) -> dict[str, float]:
    """Return the metrics as the stage evaluate has them."""
    (samples,) = read_labelled([labelled], BadRows(skip=False)).values()
    options = EngineOptions(
        describe_model(str(model)), max_length=DEFAULTS["max_length"], batch_size=DEFAULTS["batch_size"], dtype=dtype
    )
    with tempfile.TemporaryDirectory() as folder:
        scores = ScoreFolder(Path(folder), stage="benchmark", skip_bad_rows=False).score({"after": options}, [labelled])
        evaluation = evaluate_file(labelled, "in-domain", samples, {"after": scores["after"][labelled]})
    return {str(metric): value for metric, value in evaluation.means()["after"].items()}


if __name__ == "__main__":
    sys.exit(main())
