"""Queries with their expansions on the way to a search engine: gated, and as texts to search for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from query_expansion_rl.records import ServedQuery
from query_expansion_rl.retrieval.judging import hybrid_gains
from query_expansion_rl.retrieval.searching import ExpandedQuery, Searcher
from query_expansion_rl.retrieval.workspace import DEPTH
from query_expansion_rl.rewards.gate import passes
from rag_core.retrieval.fusion import fuse

Fuse = Literal["concat", "rrf"]


@dataclass(frozen=True)
class Gatekeeper:
    """What decides which expansions are let through.

    Attributes:
        searcher: the user's retriever.
        hybrid: whose first `top` passages are the teacher's.
    """

    searcher: Searcher
    hybrid: Searcher
    top: int
    fuse: Fuse
    query_weight: float

    def let_through(self, queries: Sequence[str], expansions: Sequence[str]) -> list[str]:
        """Return the expansions, "" for each that the teacher does not like better than the query alone."""
        rows = [row for row, text in enumerate(expansions) if text]
        kept = [""] * len(queries)
        if not rows:
            return kept
        asked = [ExpandedQuery(queries[row]) for row in rows]
        alone = self.searcher.search(asked, DEPTH)[0]
        expanded = self.searcher.search(
            [ExpandedQuery(queries[row], expansions[row], self.query_weight) for row in rows], DEPTH
        )[0]
        if self.fuse == "rrf":
            expanded = fuse([alone, expanded], DEPTH)[0]
        gains = hybrid_gains(self.hybrid, [queries[row] for row in rows], self.top)
        for row, passed in zip(rows, passes(alone, expanded, gains), strict=True):
            kept[row] = expansions[row] if passed else ""
        return kept


def served(
    queries: Mapping[str, str], expansions: Sequence[str], fuse_by: Fuse, query_weight: int
) -> list[ServedQuery]:
    """Return what is to be searched for; a query without an expansion by itself.

    Args:
        queries: query id -> query.
        query_weight: how often the query stands before its expansion, as in query2doc (Wang et al. 2023).
    """
    return [
        ServedQuery(
            query_id=query_id, query=query, expansion=text, searches=_searches(query, text, fuse_by, query_weight)
        )
        for (query_id, query), text in zip(queries.items(), expansions, strict=True)
    ]


def _searches(query: str, expansion: str, fuse_by: Fuse, query_weight: int) -> list[str]:
    if not expansion:
        return [query]
    both = " ".join([*[query] * query_weight, expansion])
    return [both] if fuse_by == "concat" else [query, both]
