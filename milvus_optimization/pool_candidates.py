"""Pool what dense search, BM25 and their fusion find for each query, for a teacher to judge where there are no labels.

vectors -> RankingSample

python -m milvus_optimization.pool_candidates --vectors runs/milvus/vectors --output_file runs/milvus/pool.jsonl

Then `generate_logits` of either pipeline scores the pool, and `judge_pool` makes qrels of the scores.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rag_core.base.flags import decisive, flag
from rag_core.base.records import RankingSample
from rag_core.base.stage import OverwriteArgs, run_stage
from rag_core.corpora.corpus import ARRAYS, DOCUMENTS, QUERIES, choose_models, read_corpus, read_vectors
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import UNKNOWN, Recipe, check_inputs, read_manifest, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished
from rag_core.retrieval.analyser import Analyser, Stemmer, StopWords

STAGE = "milvus_optimization.pool_candidates"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs):
    """Flags of the stage."""

    vectors: Path = flag("folder that embed_corpus made", decides=False)
    model: list[str] | None = flag("whose vectors, one or several of the folder (default: all)", None, decides=False)
    output_file: Path = flag("the RankingSample records", decides=False)
    depth: int = flag("results of each way to search that go into the pool", 10, least=1)
    bm25_stemmer: Stemmer | None = flag(
        "BM25: reduce words to their stems by Snowball's rules for this language", None, metavar="LANGUAGE"
    )
    bm25_stop_words: StopWords | None = flag(
        "BM25: leave out the stop words of this language", None, metavar="LANGUAGE"
    )


def run(args: Args) -> Path:
    """Search, and write the pool; return the output."""
    models = choose_models(args.vectors, args.model)
    analyser = Analyser(args.bm25_stemmer, args.bm25_stop_words)
    texts = [args.vectors / DOCUMENTS, args.vectors / QUERIES]
    arrays = [args.vectors / model / name for model in models for name in ARRAYS]
    recipe = Recipe(STAGE, decisive(args) | {"model": models} | analyser.recipe, check_inputs([*texts, *arrays]))
    if not args.overwrite and is_finished(args.output_file, recipe):
        return args.output_file
    from milvus_optimization.quality.pool import pool

    corpus = read_corpus(args.vectors)
    vectors = [read_vectors(args.vectors, model, corpus) for model in models]
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        pairs = 0

        def counted(samples: Iterator[RankingSample]) -> Iterator[RankingSample]:
            nonlocal pairs
            for sample in samples:
                pairs += len(sample.candidates or ())
                yield sample

        rows = write_records(args.output_file, counted(pool(corpus, vectors, args.depth, analyser)))
        instruction = (read_manifest(texts[0]) or UNKNOWN).instruction
        write_manifest(args.output_file, recipe, rows=rows, pairs=pairs, instruction=instruction)
        work.remove()
    logger.info("%s: %d queries, %d pairs for a teacher to score", args.output_file, rows, pairs)
    return args.output_file


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
