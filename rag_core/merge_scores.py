"""Let several teachers teach together: merge their scores of the same pairs.

ScoredPair (one file per teacher) -> ScoredPair

python -m rag_core.merge_scores --input_files llm/train.jsonl embedder/train.jsonl --output_file both/train.jsonl

With --method standardised_mean the teachers' scores may have any unit. A single file is standardised per query. The
order of the pairs and their labels come from the first file.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.outside_text import quoted
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, run_stage
from rag_core.distillation.teachers import SCORE_UNITS, Method, merge
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_groups, write_records
from rag_core.files.manifest import UNKNOWN, Recipe, check_inputs, read_manifest, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished
from rag_core.retrieval.analyser import PLAIN, Analyser, AnalyserArgs, settle_analyser

logger = logging.getLogger(__name__)

Groups = list[list[ScoredPair]]


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, BadRowsArgs, AnalyserArgs):
    """Flags of the stage."""

    input_files: list[Path] = flag("ScoredPair files over the same pairs, one per teacher", decides=False)
    output_file: Path = flag("the merged ScoredPair records", decides=False)
    method: Method = flag(
        "weighted mean of the scores, standardised per query, or reciprocal rank fusion: sum of weight / (60 + rank)",
        "standardised_mean",
    )
    bm25: bool = flag("add BM25 over all passages of the files as the last teacher", False)
    weights: list[float] = flag("weight of each teacher, in the order of the files (default: equal)", [])


def run(args: Args) -> Path:
    """Merge the files; return the output."""
    members = len(args.input_files) + args.bm25
    weights = args.weights or [1.0] * members
    if len(weights) != members:
        raise UsageError(f"{len(weights)} weights for {members} teachers", "Pass one for each file, and one for --bm25")
    if min(weights) < 0 or not any(weights):
        raise UsageError(f"--weights are {' '.join(f'{w:g}' for w in weights)}", "Pass 0 or more, and one above 0")
    if args.output_file in args.input_files:
        raise UsageError(f"{args.output_file} is both input and output", "Choose another --output_file")
    if (args.bm25_stemmer or args.bm25_stop_words) and not args.bm25:
        raise UsageError("--bm25_stemmer and --bm25_stop_words are for --bm25", "Pass --bm25, or leave them out")
    hashes = check_inputs(args.input_files)
    if len(hashes) < len(args.input_files):
        raise UsageError("an input file is given twice", "Pass each once, and --weights")
    analyser = settle_analyser(args.analyser, args.input_files[0]) if args.bm25 else PLAIN
    recipe = Recipe(
        stage="rag_core.merge_scores",
        # The files in order, since weights and labels go by it.
        flags=decisive(args)
        | {"weights": weights, "files": list(hashes.values())}
        | (analyser.recipe if args.bm25 else {}),
        inputs=hashes,
        model=_teacher(args),
    )
    if not args.overwrite and is_finished(args.output_file, recipe):
        return args.output_file
    bad_rows = BadRows(skip=args.skip_bad_rows)
    groups, *others = (read_groups(path, ScoredPair, bad_rows=bad_rows) for path in args.input_files)
    scores = [_scores(groups)]
    for path, other in zip(args.input_files[1:], others, strict=True):
        scores.append(_aligned(groups, other, path, args.input_files[0]))
    if args.bm25:
        scores.append(_bm25(groups, analyser))
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        rows = write_records(
            args.output_file, _merged(groups, scores, weights, args.method, _unscored(groups, *others))
        )
        write_manifest(
            args.output_file,
            recipe,
            rows=rows,
            score_unit=SCORE_UNITS[args.method],
            skipped={"bad_rows": len(bad_rows)},
            **_prescreened(args),
        )
        work.remove()
    logger.info("%s: %d pairs of %d queries from %d teachers", args.output_file, rows, len(groups), members)
    return args.output_file


def _teacher(args: Args) -> dict[str, Any]:
    manifests = [read_manifest(path) or UNKNOWN for path in args.input_files]
    models = [manifest.model or {"name": "unknown"} for manifest in manifests]
    models += [{"name": "BM25"}] if args.bm25 else []
    return {"name": " + ".join(model.get("name", "unknown") for model in models), "members": models}


def _prescreened(args: Args) -> dict[str, Any]:
    """Return what the manifests of the files say of a prescreening, which all of them had, for that of the output."""
    told = [(read_manifest(path) or UNKNOWN).facts.get("prescreen") for path in args.input_files]
    return {"prescreen": next(filter(None, told))} if any(told) else {}


def _scores(groups: Groups) -> list[list[float]]:
    return [[pair.score for pair in group] for group in groups]


def _aligned(groups: Groups, others: Groups, path: Path, first: Path) -> list[list[float]]:
    """Return another file's scores in the order of the first.

    Raises:
        DataError: the files do not hold the same pairs.
    """
    remedy = "Score the same samples with each teacher"
    if any(pair.unscored for group in chain(groups, others) for pair in group):
        remedy += (
            ": candidates were left out by --prescreen, so give --prescreen, --prescreen_keep, --prescreen_random and "
            "--seed alike to generate_logits of each, or to none"
        )
    score_of = {(pair.query_id, pair.query, pair.passage): pair.score for group in others for pair in group}
    wanted = [[(pair.query_id, pair.query, pair.passage) for pair in group] for group in groups]
    for key in (key for keys in wanted for key in keys if key not in score_of):
        raise DataError(
            f"has no score for query_id {quoted(repr(key[0]))} ({quoted(repr(key[1]), 40)}) "
            f"and passage {quoted(repr(key[2]), 40)} of {first}",
            remedy,
            path=path,
        )
    surplus = len(score_of) - sum(map(len, wanted))
    if surplus:
        raise DataError(f"has {surplus} pairs that {first} has not", remedy, path=path)
    return [[score_of[key] for key in keys] for keys in wanted]


def _bm25(groups: Groups, analyser: Analyser) -> list[list[float]]:
    from rag_core.retrieval.bm25 import bm25_scores, unmatched_note

    samples = [RankingSample(group[0].query, candidates=[pair.passage for pair in group]) for group in groups]
    scores = bm25_scores(samples, analyser)
    unmatched = sum(not any(found) for found in scores)
    if unmatched:
        consequence = "BM25 has no say in their scores"
        logger.warning("%s", unmatched_note(unmatched, len(groups), "any of their candidates", consequence))
    return scores


def _unscored(*files: Groups) -> dict[str, list[str]]:
    """Return the candidates that a prescreening left unscored, by query id."""
    found: dict[str, dict[str, None]] = {}
    for pair in chain.from_iterable(chain.from_iterable(files)):
        found.setdefault(pair.query_id, {}).update(dict.fromkeys(pair.unscored or ()))
    return {query_id: list(texts) for query_id, texts in found.items() if texts}


def _merged(
    groups: Groups,
    scores: list[list[list[float]]],
    weights: Sequence[float],
    method: Method,
    unscored: Mapping[str, list[str]],
) -> Iterator[ScoredPair]:
    for group, *members in zip(groups, *scores, strict=True):
        left_out = unscored.get(group[0].query_id)
        for pair, score in zip(group, merge(members, weights, method).tolist(), strict=True):
            yield dataclasses.replace(pair, score=score, unscored=left_out)
            left_out = None  # the first row tells it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
