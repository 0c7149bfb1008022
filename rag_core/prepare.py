"""Turn a public set, your own files or documents into samples: cleaned, and split without leaks.

anything -> RankingSample

python -m rag_core.prepare --source apidocs --output_dir data/apidocs
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal, assert_never

from rag_core.base.errors import PipelineError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage
from rag_core.files.atomic import sync_directory
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import Recipe, check_inputs, is_made, unfinished_folder, write_manifest
from rag_core.files.unfinished import UnfinishedWork, check_apart, remove_left_behind
from rag_core.scoring.samples import is_training
from rag_core.sources.apidocs import ApiDocs
from rag_core.sources.beir import BeirFolder, find_qrels
from rag_core.sources.candidate_args import MiningArgs, settle_mining
from rag_core.sources.cleaning import parse_limits
from rag_core.sources.corpus import Corpus, QueryFrom
from rag_core.sources.mining import Mining
from rag_core.sources.mteb import MtebSet
from rag_core.sources.own_files import OwnFiles
from rag_core.sources.prepared import prepare_splits
from rag_core.sources.protocols import Source
from rag_core.sources.splits import parse_fractions

logger = logging.getLogger(__name__)

_SPLITS = ["train=0.8", "dev=0.1", "test=0.1"]
_CORPUS_SPLITS = ["train=0.9", "dev=0.1"]  # unlabelled: nothing to test on
_NUM_CANDIDATES = 20
_NUM_QUERIES = 10_000
_MINING = (
    *("num_candidates", "bm25_stemmer", "bm25_stop_words", "dense_model", "query_prompt_name", "passage_prompt_name"),
    *("dense_max_length", "score_store", "random_share", "prefer"),
)
# The flags that each source reads; the first one is required.
_FLAGS = {
    "mteb": ("name", "hub"),
    "beir": ("input", *_MINING),
    "jsonl": ("input", "splits"),
    "apidocs": ("splits", *_MINING),
    "corpus": ("input", "queries", "query_from", "num_queries", "splits", *_MINING),
}


@dataclasses.dataclass(kw_only=True)
class Args(SeedArgs, OverwriteArgs, BadRowsArgs, MiningArgs):
    """Flags of the stage."""

    source: Literal["mteb", "beir", "jsonl", "apidocs", "corpus"] = flag("where the samples come from")
    # What a source alone reads decides through `Source.flags`, which has it settled.
    name: str | None = flag(
        "mteb: name of the set, e.g. askubuntudupquestions, or a local folder of its files", None, decides=False
    )
    input: list[Path] | None = flag(
        "beir: a folder; jsonl: a file to split, or files that are splits already; corpus: a file of passages "
        "(.jsonl, .jsonl.gz; jsonl and corpus also .csv, .tsv, .parquet)",
        None,
        decides=False,
    )
    output_dir: Path = flag("folder of the outputs, one <split>.jsonl each", decides=False)
    splits: list[str] | None = flag(
        f"jsonl (one file), apidocs, corpus: fraction of the queries of each split (default: {' '.join(_SPLITS)}; "
        f"corpus: {' '.join(_CORPUS_SPLITS)})",
        None,
        decides=False,
    )
    num_candidates: int | None = flag(
        f"beir, apidocs, corpus: passages of each query, the positives among them (default: {_NUM_CANDIDATES})",
        None,
        decides=False,
    )
    queries: Path | None = flag(
        "corpus: a log of queries, one per row (key query or text); without it, queries are made", None, decides=False
    )
    query_from: QueryFrom | None = flag(
        "corpus without a log: a query is a sentence cut out of a passage, or the passage's title (default: sentence)",
        None,
        decides=False,
    )
    num_queries: int | None = flag(
        f"corpus without a log: how many queries are made (default: {_NUM_QUERIES})", None, decides=False
    )
    limit: list[str] | None = flag(
        "at most this many queries, drawn at random, in each output (50) or in those named (train=500 test=50)", None
    )
    drop_leaks: bool = flag("leave out training queries that duplicate a query of another split", False)
    hub: Literal["huggingface", "modelscope"] | None = flag(
        "mteb: the hub it is fetched from (default: huggingface)", None, decides=False
    )


def run(args: Args) -> Path:
    """Write one file per split; return the folder."""
    _check_flags(args)
    source = _open(args)
    outputs = {split: args.output_dir / f"{split}.jsonl" for split in source.splits}
    if args.drop_leaks and not any(map(is_training, outputs)):
        raise UsageError(f"--drop_leaks: no split of {', '.join(outputs)} is a training split", "Leave it out")
    limits = parse_limits(args.limit or [], source.splits)
    recipe = Recipe(
        stage="rag_core.prepare", flags={**decisive(args), **source.flags}, inputs=check_inputs(list(source.inputs))
    )
    for output in outputs.values():
        check_apart(output, recipe)
    if _is_finished(args, outputs.values(), recipe):
        return args.output_dir
    with contextlib.ExitStack() as stack:
        # What is kept are vectors, which are found by their texts.
        works = [
            UnfinishedWork(output, recipe, overwrite=args.overwrite, ignoring=("inputs", "skip_bad_rows"))
            for output in outputs.values()
        ]
        for work in works:
            stack.enter_context(work)
        if _is_finished(args, outputs.values(), recipe):  # by another run, before this one took the locks
            return args.output_dir
        try:
            bad_rows = BadRows(skip=args.skip_bad_rows)
            prepared = prepare_splits(source, bad_rows, limits=limits, drop_leaks=args.drop_leaks, seed=args.seed)
        except PipelineError:
            for work in works:
                work.remove()  # the next attempt has another input or other flags
            raise
        prepared.log()
        whole = {work.directory / "rows.jsonl": output for work, output in zip(works, outputs.values(), strict=True)}
        for split, path in zip(outputs, whole, strict=True):
            write_records(path, prepared.splits[split])
        for path, output in whole.items():  # together, since one split beside another's former one may leak
            path.replace(output)
        sync_directory(args.output_dir)
        facts: dict[str, Any] = {"instruction": source.instruction} if source.instruction else {}
        if source.mined:
            facts["mined"] = dict(source.mined)
            logger.info("Mined: %s", ", ".join(f"{number} {found_by}" for found_by, number in source.mined.items()))
        for split, output in outputs.items():
            write_manifest(
                output,
                recipe,
                **facts,
                rows=prepared.counts[split]["queries"],
                counts=prepared.counts[split],
                skipped=prepared.skipped,
                leaks=[leak.counts() for leak in prepared.leaks],
            )
        for work in works:
            work.remove()
    return args.output_dir


def _is_finished(args: Args, outputs: Collection[Path], recipe: Recipe) -> bool:
    """Tell whether all outputs are made, as `unfinished.is_finished` does of one."""
    made = [not args.overwrite and is_made(output, recipe) for output in outputs]
    if not all(made):
        return False
    logger.info("%s is finished already", args.output_dir)
    for output in outputs:
        remove_left_behind(output, recipe)
    return True


def _check_flags(args: Args) -> None:
    own = _FLAGS[args.source]
    for name in dict.fromkeys(chain.from_iterable(_FLAGS.values())):
        if getattr(args, name) is not None and name not in own:
            raise UsageError(f"--{name} has no effect with --source {args.source}", "Leave it out")
    if own[0] in ("name", "input") and getattr(args, own[0]) is None:
        raise UsageError(f"--source {args.source} needs --{own[0]}", f"Pass --{own[0]}")
    if args.num_candidates is not None and args.num_candidates < 2:
        raise UsageError(f"--num_candidates is {args.num_candidates}", "Pass at least 2: one leaves nothing to rank")
    if args.num_queries is not None and args.num_queries < 1:
        raise UsageError(f"--num_queries is {args.num_queries}", "Pass at least 1")
    if args.queries and (args.query_from or args.num_queries):
        raise UsageError("--query_from and --num_queries have no effect with --queries", "Leave them out")


def _open(args: Args) -> Source:
    fractions = parse_fractions(args.splits or (_CORPUS_SPLITS if args.source == "corpus" else _SPLITS))
    paths = args.input or []
    if args.source == "mteb":
        return MtebSet(args.name or "", args.hub or "huggingface")
    if args.source == "apidocs":
        return ApiDocs(fractions, _mining(args, fractions))
    if args.source == "corpus":
        if len(paths) > 1:
            raise UsageError(f"--input names {len(paths)} files", "Pass one file of passages")
        return Corpus(
            paths[0],
            args.queries,
            _mining(args, fractions),
            query_from=args.query_from or "sentence",
            num_queries=args.num_queries or _NUM_QUERIES,
            fractions=fractions,
        )
    if args.source == "beir":
        if len(paths) > 1:
            raise UsageError(f"--input names {len(paths)} folders", "Pass one: --source beir reads one corpus")
        return BeirFolder(paths[0], _mining(args, find_qrels(paths[0])))
    if args.source == "jsonl":
        files = OwnFiles(paths, fractions, args.seed)
        if args.splits and len(files.inputs) > 1:
            what = "--splits has no effect on several files: each is a split"
            raise UsageError(what, "Leave it out, or pass one file")
        return files
    assert_never(args.source)


def _mining(args: Args, splits: Collection[str]) -> Mining:
    first = next(iter(splits), "")  # the vectors are kept beside the first output until all are made
    vectors = unfinished_folder(args.output_dir / f"{first}.jsonl") / "vectors"
    return settle_mining(args, args.num_candidates or _NUM_CANDIDATES, args.seed, vectors)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
