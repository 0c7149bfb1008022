"""A part of the report: words, a table, pictures and queries, before they are a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from rag_core.base.figures import Picture


@dataclasses.dataclass(frozen=True)
class QueryChange:
    """A query and its nDCG@10 before and after."""

    query: str
    old: float
    new: float


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        rows: a table, its head first; empty for none.
        chosen: the row of the table that is the choice; 0 for none.
        queries: heading -> queries.
    """

    title: str
    notes: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    chosen: int = 0
    pictures: Sequence[Picture] = ()
    queries: Mapping[str, Sequence[QueryChange]] = dataclasses.field(default_factory=dict)
