"""Make the recommended collection in Milvus, fill it, and measure it again: does it keep what was promised?

recommendation.json, vectors -> a collection, Applied

python -m milvus_optimization.apply --recommendation runs/milvus/recommendation/recommendation.json \\
  --vectors runs/milvus/vectors --uri milvus.db --collection documents --output_file runs/milvus/applied.json

The collection is built under a scratch name, and takes its own when it is whole and keeps what was promised. One that
is there already is left alone; with --replace it stays until then. The token of a server is in RAG_MILVUS_TOKEN.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from milvus_optimization.collection_plan import check_lengths, make_plan, scratch_name
from milvus_optimization.connection import check_uri, connected, is_lite, said
from milvus_optimization.corpus import DOCUMENTS, QRELS, QUERIES
from milvus_optimization.index_space import BACKEND_INDEXES
from milvus_optimization.records import Applied, Recommendation
from milvus_optimization.remeasurement import Material, format_figures, measure, outside, read_material
from rag_core.base.errors import DataError, EngineError, StaleError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.outside_text import quoted
from rag_core.base.stage import OverwriteArgs, run_stage, show
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

if TYPE_CHECKING:
    from pymilvus import MilvusClient

STAGE = "milvus_optimization.apply"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs):
    """Flags of the stage."""

    recommendation: Path = flag("recommendation.json that recommend made", decides=False)
    vectors: Path = flag("folder that embed_corpus made", decides=False)
    uri: str = flag("a file that ends in .db (milvus-lite), or the address of a server")
    collection: str = flag("name of the collection")
    output_file: Path = flag("the Applied record", decides=False)
    replace: bool = flag("put the new collection in the place of one with that name", False, decides=False)
    tolerance: float = flag("how far recall and nDCG may be from what was promised, above or below", 0.01, least=0)


def run(args: Args) -> Path:
    """Make the collection, and print what was promised and what was measured; return the output."""
    check_uri(args.uri)
    recommendation = _read_recommendation(args.recommendation)
    _check_target(args, recommendation)
    material = read_material(recommendation, args.vectors, args.recommendation)
    texts = dict(zip(material.corpus.documents, material.corpus.texts(), strict=True))
    check_lengths(texts)
    output = args.output_file
    recipe = Recipe(STAGE, decisive(args), check_inputs(_inputs(args, recommendation)))
    with connected(args.uri) as client:
        if not args.overwrite and is_finished(output, recipe) and _stands(client, args.collection, len(texts)):
            applied = next(iter(read_records(output, Applied)))
        else:
            _check_free(client, args)
            with UnfinishedWork(output, recipe, overwrite=True) as work:
                with said(args.uri):
                    applied = _make(args, client, material, texts)
                write_records(output, [applied])
                write_manifest(output, recipe, rows=applied.rows)
                work.remove()
    show(f"{format_figures(applied.figures)}\n\n{applied.sentence}")
    if not applied.kept:
        raise EngineError(
            applied.sentence, f"Pass a larger --tolerance, or sweep and tune on this Milvus; see {output}"
        )
    return output


def _read_recommendation(path: Path) -> Recommendation:
    (found,) = list(read_records(path, Recommendation))[:1]
    return found


def _check_target(args: Args, recommendation: Recommendation) -> None:
    """Check what Milvus would take without a word, or refuse when all is inserted."""
    index = recommendation.index.index
    if is_lite(args.uri) and index not in BACKEND_INDEXES["lite"]:
        what = f"recommends {quoted(index)}, which milvus-lite does not have"
        raise DataError(
            what, "Run recommend with --target lite, or pass the --uri of a server", path=args.recommendation
        )
    if args.collection == scratch_name(args.collection):
        raise UsageError(f"--collection is {args.collection}", "Choose another name: that one is for work in progress")


def _inputs(args: Args, recommendation: Recommendation) -> list[Path]:
    arrays = [args.vectors / recommendation.model / f"{name}.npy" for name in ("documents", "queries")]
    return [args.recommendation, *(args.vectors / name for name in (DOCUMENTS, QUERIES, QRELS)), *arrays]


def _stands(client: MilvusClient, name: str, rows: int) -> bool:
    """Tell whether a collection that was made before is still there, whole."""
    return name in client.list_collections() and int(client.get_collection_stats(name)["row_count"]) == rows


def _check_free(client: MilvusClient, args: Args) -> None:
    there = client.list_collections()
    if client.has_collection(args.collection) and args.collection not in there:
        raise UsageError(f"{quoted(args.collection)} is an alias at {quoted(args.uri)}", "Name a collection")
    if args.collection in there and not args.replace:
        what = f"there is a collection {quoted(args.collection)} at {quoted(args.uri)} already"
        raise StaleError(what, "Pass --replace to put the new one in its place, or name another --collection")


def _make(args: Args, client: MilvusClient, material: Material, texts: dict[str, str]) -> Applied:
    """Build it under a scratch name, measure it, and give it its own name where it keeps what was promised."""
    from milvus_optimization.collection import Collection, give_name, settle

    recommendation, scratch = material.recommendation, scratch_name(args.collection)
    settle(client, scratch, args.collection)
    collection = Collection(
        client, scratch, make_plan(recommendation, material.corpus, max(10, recommendation.index.k))
    )
    collection.make()
    collection.insert(list(texts), list(texts.values()), material.vectors.documents)
    seen = collection.build(len(texts))
    figures = measure(collection, material)
    faults = outside(figures, args.tolerance)
    if faults:
        told = f"{'; '.join(faults)}: the collection is left as {scratch}"
    else:
        give_name(client, scratch, args.collection)
        told = f"{args.collection} keeps what was promised, within {args.tolerance:g}"
    if recommendation.retrieval.reranker:
        told += ". The reranker is no part of Milvus, and is left out of both figures"
    version = str(client.get_server_version())
    name = scratch if faults else args.collection
    return Applied(name, version, len(texts), seen, figures, args.tolerance, not faults, f"{told}.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
