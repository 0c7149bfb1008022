"""The recommendation as a program: pymilvus code that makes the collection and searches it."""

from __future__ import annotations

import textwrap
from typing import Any

from milvus_optimization.backends.milvus_errors import TOKEN
from milvus_optimization.backends.space import milvus_build
from milvus_optimization.collection.plan import CollectionPlan, make_plan
from milvus_optimization.records import Recommendation
from rag_core.base.outside_text import quoted, visible
from rag_core.corpora.corpus import Corpus
from rag_core.retrieval.analyser import stop_words_of

_RESULTS = 10
_WIDTH = 116


def collection_code(recommendation: Recommendation, corpus: Corpus) -> str:
    """Return the program. What it quotes of others' names stands in literals and comments, never as code.

    Raises:
        DataError: as `make_plan`.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("milvus_optimization.collection", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["py"] = repr
    plan = make_plan(recommendation, corpus, _RESULTS)
    words_in_client = bool(plan.analyser.bm25_stemmer or plan.analyser.bm25_stop_words)
    values: dict[str, Any] = {
        "plan": plan,
        "build": milvus_build(plan.index_parameters),
        "model": recommendation.model,
        "rows": len(corpus.documents),
        "notes": _notes(recommendation),
        "token": TOKEN,
        "results": _RESULTS,
        "imports": ", ".join(_imports(plan)),
        "words_in_client": words_in_client,
        "words_field": "words" if words_in_client else "text",
        "query_words": "words(query)" if words_in_client else "query",
        "stemmer": plan.analyser.bm25_stemmer,
        "stop_words": _stop_words(plan),
        "ranker": _ranker(plan),
    }
    return environment.get_template("collection.py.jinja").render(**values)


def _notes(recommendation: Recommendation) -> list[str]:
    told = [recommendation.sentence]
    if recommendation.retrieval.reranker:
        name = quoted(recommendation.retrieval.reranker)
        told.append(
            f"The first {recommendation.retrieval.reranker_depth} are then ordered by {name}, which is no part of "
            "Milvus: sentence_transformers.CrossEncoder does it."
        )
    # A line end would end the comment, and what follows would be run.
    return [line for text in told for line in textwrap.wrap(" ".join(visible(text).split()), _WIDTH)]


def _imports(plan: CollectionPlan) -> list[str]:
    names = ["DataType", "MilvusClient"]
    if plan.uses_words:
        names += ["Function", "FunctionType"]
    if plan.is_fused:
        names += ["AnnSearchRequest", "RRFRanker" if plan.fusion == "rrf" else "WeightedRanker"]
    return sorted(names)


def _ranker(plan: CollectionPlan) -> str:
    if plan.fusion == "rrf":
        return f"RRFRanker({plan.parameter:g})"
    normalised = plan.normalisation == "arctan"
    return f"WeightedRanker({plan.parameter:g}, {round(1 - plan.parameter, 9):g}, norm_score={normalised})"


def _stop_words(plan: CollectionPlan) -> str | None:
    found = stop_words_of(plan.analyser.bm25_stop_words)
    return f"set({' '.join(sorted(found))!r}.split())" if found else None
