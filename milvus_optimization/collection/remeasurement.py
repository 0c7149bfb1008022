"""What a collection does, measured again with the queries, beside what was promised."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from milvus_optimization.collection.collection import Collection, Hits
from milvus_optimization.collection.plan import CollectionPlan, check_lengths, make_plan
from milvus_optimization.quality.judged import Judged
from milvus_optimization.quality.measures import mean
from milvus_optimization.quality.recall import Neighbours, true_scores
from milvus_optimization.records import Promise, Recommendation
from rag_core.base.errors import DataError, StaleError
from rag_core.base.outside_text import quoted
from rag_core.base.tables import format_rows
from rag_core.corpora.corpus import QRELS, Vectors, read_corpus, read_vectors
from rag_core.files.inputs import read_whole
from rag_core.metrics.ranking import measure_places
from rag_core.retrieval.dense import nearest

Places = npt.NDArray[np.int64]

_AGAIN = "Run recommend again"
_RESULTS = 10  # of nDCG@10


def read_recommendation(path: Path) -> Recommendation:
    """Read what `recommend` wrote.

    Raises:
        DataError: it is no recommendation.
    """
    try:
        return TypeAdapter(Recommendation).validate_json(read_whole(path, _AGAIN))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"is no recommendation ({quoted('.'.join(map(str, first['loc'])))}: {quoted(first['msg'])})"
        raise DataError(what, _AGAIN, path=path) from error


@dataclasses.dataclass(frozen=True)
class Material:
    """What a collection is made from and measured with.

    Attributes:
        texts: of the documents, by id.
    """

    recommendation: Recommendation
    judged: Judged
    vectors: Vectors
    texts: dict[str, str]
    plan: CollectionPlan


def read_material(recommendation: Recommendation, folder: Path, qrels: Path | None, path: Path) -> Material:
    """Read the texts and vectors, once the recommendation is seen to be of them.

    Args:
        path: of the recommendation.

    Raises:
        StaleError: it is of other documents, vectors or queries.
        DataError, UsageError: a text does not fit a field, or a parameter is out of bounds.
    """
    corpus = read_corpus(folder, qrels)
    judged = Judged.of(corpus, qrels or folder / QRELS, recommendation.tune_fraction)
    vectors = read_vectors(folder, recommendation.model, corpus)
    index = recommendation.index
    for what, asked, there in (
        ("documents", index.rows, len(corpus.documents)),
        ("dimensions", index.dimensions, vectors.documents.shape[1]),
        ("queries to report on", recommendation.report_queries, len(judged.halves.report)),
    ):
        if asked != there:
            told = f"was made for {asked:,} {what}, and the folder of --vectors has {there:,}"
            raise StaleError(told, "Pass the folder that it was made from, or run recommend again", path=path)
    texts = dict(zip(corpus.documents, corpus.texts(), strict=True))
    check_lengths(texts)
    plan = make_plan(recommendation, corpus, max(_RESULTS, index.k))
    plan.check(len(texts))
    return Material(recommendation, judged, vectors, texts, plan)


def measure(collection: Collection, material: Material) -> dict[str, Promise]:
    """Search all judged queries by the index, those of the report half by all that Milvus does, and compare."""
    found: dict[str, Promise] = {}
    judged, vectors = material.judged, material.vectors
    corpus, report = judged.corpus, judged.halves.report
    index, retrieval = material.recommendation.index, material.recommendation.first_stage
    place_of = {key: place for place, key in enumerate(corpus.documents)}
    lost = 0.0
    if retrieval.fusion != "bm25":
        queries = np.asarray(vectors.queries[judged.rows])
        places = _places(collection.nearest(queries, index.k), place_of, index.k)
        _, exact = nearest(queries, vectors.documents, index.k)
        recall = Neighbours.of(exact).recall(true_scores(queries, vectors.documents, places))
        found[f"recall@{index.k}"] = Promise(index.recall or 0.0, round(recall, 6))
        lost = index.loss.difference if index.loss else 0.0
    row_of = dict(zip(judged.ids, judged.rows, strict=True))
    rows = [row_of[key] for key in report]
    hits = collection.ranked(np.asarray(vectors.queries[rows]), [corpus.queries[key] for key in report], _RESULTS)
    places = _places(hits, place_of, _RESULTS)
    by_query = measure_places(corpus.qrels, report, list(corpus.documents), places, ("NDCG@10",))["NDCG@10"]
    found["nDCG@10"] = Promise(round(retrieval.ndcg + lost, 6), round(mean(by_query, report), 6))
    return found


def _places(hits: Sequence[Hits], place_of: Mapping[str, int], results: int) -> Places:
    places = np.full((len(hits), results), -1, dtype=np.int64)
    for row, found in zip(places, hits, strict=True):
        row[: len(found)] = [place_of[hit["id"]] for hit in found]
    return places


def outside(figures: Mapping[str, Promise], tolerance: float) -> list[str]:
    """Say which figures are further from what was promised, above or below: 1.000 where less is due is no index."""
    return [
        f"{name} is {figure.measured:.4f}, and {figure.promised:.4f} was promised"
        for name, figure in figures.items()
        if abs(figure.measured - figure.promised) > tolerance
    ]


def format_figures(figures: Mapping[str, Promise]) -> str:
    """Return a Markdown table: promised, measured, difference."""
    rows = [["", "promised", "measured", "difference"]]
    for name, figure in figures.items():
        told = (figure.promised, figure.measured)
        rows.append([name, *(f"{value:.4f}" for value in told), f"{told[1] - told[0]:+.4f}"])
    return format_rows(rows)
