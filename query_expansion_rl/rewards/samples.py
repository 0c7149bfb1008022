"""The expansions of a file, held against the workspace that they were made for."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from query_expansion_rl.records import Expansion
from query_expansion_rl.retrieval.workspace import TOPICS, Workspace
from rag_core.base.errors import DataError, StaleError
from rag_core.base.outside_text import quoted
from rag_core.corpora.corpus import DOCUMENTS
from rag_core.files.bad_rows import BadRows
from rag_core.files.inputs import sha256
from rag_core.files.jsonl import numbered_records
from rag_core.files.manifest import UNKNOWN, read_manifest

E = TypeVar("E", bound=Expansion)


def read_expansions(path: Path, record_type: type[E], workspace: Workspace, bad_rows: BadRows) -> list[E]:
    """Read the rows of a file in order.

    Raises:
        DataError: a row is bad, of an unknown query, or stands twice, and is not left out.
        StaleError: the file was made from other topics, or another corpus.
    """
    check_made_for(path, workspace)
    known = {topic.query_id for topic in workspace.topics}
    seen: set[tuple[str, str, int]] = set()
    rows = []
    for line, row in numbered_records(path, record_type, bad_rows):
        key = (row.query_id, row.method, row.sample)
        if row.query_id not in known:
            what = f"query_id {quoted(repr(row.query_id))} is not in {TOPICS}"
            remedy = "Pass --baselines with the folder that the file was made for"
            bad_rows.add(DataError(what, remedy, path=path, line=line))
        elif key in seen:
            what = f"query_id {quoted(repr(row.query_id))} has sample {row.sample} by {quoted(repr(row.method))} twice"
            bad_rows.add(DataError(what, "Keep one of them", path=path, line=line))
        else:
            seen.add(key)
            rows.append(row)
    if not rows:
        what, remedy = "has no row of a query of the workspace", "Pass --baselines with the folder that it was made for"
        raise DataError(what, remedy, path=path)
    return rows


def check_made_for(path: Path, workspace: Workspace) -> None:
    """Check that a file was made from the topics and the corpus of a workspace, where its manifest tells.

    Raises:
        StaleError: it was made from others.
    """
    inputs = (read_manifest(path) or UNKNOWN).recipe.get("inputs") or {}
    for name in (TOPICS, DOCUMENTS):
        made_from = {digest for source, digest in inputs.items() if Path(source).name == name}
        if made_from and sha256(workspace.folder / name) not in made_from:
            raise StaleError(
                f"was made from another {name} than {workspace.folder / name}",
                "Pass --baselines with the folder that it was made for, or make it again",
                path=path,
            )
