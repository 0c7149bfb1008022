"""Make the recommended collection in Milvus, fill it, and measure it again: does it keep what was promised?

recommendation.json, vectors -> a collection, Applied

python -m milvus_optimization.apply --recommendation runs/milvus/recommendation/recommendation.json \\
  --vectors runs/milvus/vectors --uri milvus.db --collection documents --output_file runs/milvus/applied.json

The collection is built under a scratch name, and takes its own when it is whole and keeps what was promised. One that
is there already is left alone; with --replace it stays until then. The token of a server is in RAG_MILVUS_TOKEN.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from milvus_optimization.backends.space import BACKEND_INDEXES
from milvus_optimization.collection.collection import Collection, check_free, has, settle, stands, take_name
from milvus_optimization.collection.connection import check_uri, connected, lite_path, said
from milvus_optimization.collection.plan import SCRATCH, scratch_name
from milvus_optimization.collection.remeasurement import (
    Material,
    format_figures,
    measure,
    outside,
    read_material,
    read_recommendation,
)
from milvus_optimization.records import Applied, Recommendation
from rag_core.base.errors import DataError, EngineError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.outside_text import quoted
from rag_core.base.stage import OverwriteArgs, run_stage, show
from rag_core.corpora.corpus import ARRAYS, DOCUMENTS, QRELS, QUERIES, choose_model
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

if TYPE_CHECKING:
    from pymilvus import MilvusClient

STAGE = "milvus_optimization.apply"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")  # Milvus'


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs):
    """Flags of the stage."""

    recommendation: Path = flag("recommendation.json that recommend made", decides=False)
    vectors: Path = flag("folder that embed_corpus made", decides=False)
    qrels: Path | None = flag("judgements to use instead of the folder's, as in tune_retrieval", None, decides=False)
    uri: str = flag("a file that ends in .db (milvus-lite), or the address of a server")
    collection: str = flag("name of the collection")
    output_file: Path = flag("the Applied record", decides=False)
    replace: bool = flag("put the new collection in the place of one with that name", False, decides=False)
    tolerance: float = flag("how far recall and nDCG may be from what was promised, above or below", 0.01, least=0)


def run(args: Args) -> Path:
    """Make the collection, and print what was promised and what was measured; return the output."""
    check_uri(args.uri)
    recommendation = read_recommendation(args.recommendation)
    _check_target(args, recommendation)
    recipe = Recipe(STAGE, decisive(args), check_inputs(_inputs(args, recommendation)))
    material = read_material(recommendation, args.vectors, args.qrels, args.recommendation)
    with connected(args.uri) as client, said(args.uri):
        finished = not args.overwrite and is_finished(args.output_file, recipe)
        if not (finished and stands(client, args.collection, len(material.texts))):
            _make(args, client, material, recipe)
    (applied,) = read_records(args.output_file, Applied)
    show(f"{format_figures(applied.figures)}\n\n{applied.sentence}")
    if not applied.kept:
        raise EngineError(applied.sentence, "Pass a larger --tolerance, or sweep and tune with this Milvus")
    return args.output_file


def _check_target(args: Args, recommendation: Recommendation) -> None:
    """Check what Milvus would take without a word, or refuse when all is inserted."""
    index = recommendation.index.index
    if lite_path(args.uri) and index not in BACKEND_INDEXES["lite"]:
        what = f"recommends {quoted(index)}, which milvus-lite does not have"
        raise DataError(what, "Run recommend with --target lite, or pass a server's --uri", path=args.recommendation)
    if not _NAME.fullmatch(args.collection) or args.collection.startswith(SCRATCH):
        what = f"--collection is {quoted(repr(args.collection))}"
        raise UsageError(what, f"Pass letters, digits and underscores, no digit first, and not {SCRATCH} first")


def _inputs(args: Args, recommendation: Recommendation) -> list[Path]:
    folder = args.vectors / choose_model(args.vectors, recommendation.model)
    texts = [args.vectors / DOCUMENTS, args.vectors / QUERIES, args.qrels or args.vectors / QRELS]
    return [args.recommendation, *texts, *(folder / name for name in ARRAYS)]


def _make(args: Args, client: MilvusClient, material: Material, recipe: Recipe) -> None:
    """Build the collection, let it take its name, and write the output; go on where a run was killed."""
    scratch, rows = scratch_name(args.collection), len(material.texts)
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite, afresh=args.overwrite) as work:
        measured = work.directory / "measured.json"
        applied = _read_measured(measured)
        # The scratch is gone where it has taken its name already.
        renamed = applied is not None and not has(client, scratch) and stands(client, args.collection, rows)
        if not renamed:
            check_free(client, args.collection, replace=args.replace)
        if applied is None or not (renamed or stands(client, scratch, rows)):
            measured.unlink(missing_ok=True)
            settle(client, scratch, args.collection)
            applied = _build(args, client, scratch, material)
            write_records(measured, [applied])
        if applied.kept:
            take_name(client, scratch, args.collection)
        write_records(args.output_file, [applied])
        write_manifest(args.output_file, recipe, rows=rows)
        work.remove()


def _read_measured(path: Path) -> Applied | None:
    """Return what a run that was killed has measured; `None` where that is not there whole."""
    if not path.exists():
        return None
    try:
        (applied,) = read_records(path, Applied)
    except (DataError, ValueError):
        return None
    return applied


def _build(args: Args, client: MilvusClient, scratch: str, material: Material) -> Applied:
    """Build the collection under a scratch name, and measure it."""
    recommendation, texts = material.recommendation, material.texts
    collection = Collection(client, scratch, material.plan, lite_path(args.uri))
    collection.make()
    collection.insert(list(texts), list(texts.values()), material.vectors.documents)
    seen = collection.build(len(texts))
    figures = measure(collection, material)
    faults = outside(figures, args.tolerance)
    if faults:
        told = f"{'; '.join(faults)}: the collection is left as {scratch}"
    else:
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
