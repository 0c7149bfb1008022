"""Let a language model write texts to search for beside each query.

topics of rank_baselines -> Expansion

python -m query_expansion_rl.generate_expansions --baselines runs/expansion/baselines \\
    --model models/SmolLM2-135M-Instruct --output_file runs/expansion/expansions.jsonl

A run that was stopped goes on: finished chunks are kept.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from query_expansion_rl.records import SPLITS, Topic
from query_expansion_rl.retrieval.workspace import TOPICS, read_topics
from query_expansion_rl.writing.form_choice import recipe_of
from query_expansion_rl.writing.forms import read_form
from query_expansion_rl.writing.sampling import Census
from query_expansion_rl.writing.writer import Writer, WriterArgs
from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import OverwriteArgs, SeedArgs, run_stage
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "query_expansion_rl.generate_expansions"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(WriterArgs, SeedArgs, OverwriteArgs):
    """Flags of the stage."""

    baselines: Path = flag("folder that rank_baselines made", decides=False)
    output_file: Path = flag("the expansions, named .jsonl", decides=False)
    split: list[str] = flag("queries of which splits: train, dev, test", ["train", "dev"], choices=SPLITS)
    limit: int | None = flag("queries of each split, drawn (default: all)", None, least=1)
    num_samples: int = flag("expansions of a query; at temperature 0 there is one", 8, decides=False, least=1)
    temperature: float = flag("0 takes the most probable word each time", 1.0, least=0)
    top_p: float = flag(
        "words are drawn from the most probable ones that together have this probability", 0.95, least=0.01, most=1
    )
    method: str | None = flag(
        "name of the expansions in tables (default: --prompt, or a trained model's folder)", None, decides=False
    )


def run(args: Args) -> Path:
    """Write the expansions; return the output."""
    if len(set(args.split)) < len(args.split):
        raise UsageError("--split names one twice", "Name each once")
    from rag_core.engines.generation import Sampling

    hashes = check_inputs([args.baselines / TOPICS])
    topics = _topics(args)
    writer = Writer.of(args)
    form = writer.form
    method = args.method or (Path(args.model).name if read_form(Path(args.model)) else form.output)
    num_samples = args.num_samples if args.temperature else 1
    settled = {**recipe_of(form), "num_samples": num_samples, "method": method}
    recipe = Recipe(STAGE, decisive(args) | settled, hashes, writer.identity)
    if not args.overwrite and is_finished(args.output_file, recipe):
        return args.output_file
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        sampling = Sampling(form.max_new_tokens, args.temperature, args.top_p, args.seed, num_samples, form.stop)
        written = writer.write(topics, sampling, method, work.directory)
        census = Census()
        rows = write_records(args.output_file, census.counted(written.rows()))
        write_manifest(
            args.output_file,
            recipe,
            rows=rows,
            queries=len(topics),
            milliseconds_per_expansion=round(written.milliseconds / rows, 3),
            counts=dataclasses.asdict(census),
        )
        work.remove()
    for warning in census.warnings(form):
        logger.warning("WARNING: %s", warning)
    logger.info(
        "%s: %d expansions of %d queries, %.0f%% of them distinct, %.1f tokens each",
        args.output_file, rows, len(topics), 100 * census.distinct / rows, census.tokens / rows,
    )  # fmt: skip
    return args.output_file


def _topics(args: Args) -> list[Topic]:
    """Return the topics of the splits, split by split, in the order of the file.

    Raises:
        DataError: there are none.
    """
    path = args.baselines / TOPICS
    topics = read_topics(path)
    found = []
    for split in args.split:
        of_split = [topic for topic in topics if topic.split == split]
        count = min(args.limit or len(of_split), len(of_split))
        drawn = sorted(random.Random(args.seed).sample(range(len(of_split)), count))
        found += [of_split[place] for place in drawn]
    if not found:
        raise DataError(f"has no queries for {' and '.join(args.split)}", "Pass another --split", path=path)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
