"""The user's retriever as the reward searches with it."""

from __future__ import annotations

from pathlib import Path

from query_expansion_rl.retrieval.searching import Searcher
from query_expansion_rl.retrieval.workspace import Workspace


def reward_searcher(workspace: Workspace, dense_model: str | None, folder: Path) -> Searcher:
    """Return the retriever that expansions are for; nothing is loaded before an expansion is to be embedded.

    Args:
        dense_model: the embedder, where it stands elsewhere than it did; `None` for that of the workspace.
        folder: of unfinished work, where the vectors of expansions are kept until its end.

    Raises:
        UsageError: the retriever needs an embedder, and nobody knows which.
        StaleError: the embedder is not the one whose vectors the corpus has.
    """
    name = workspace.settings.retriever
    if name == "bm25":
        return workspace.word_searcher()
    from query_expansion_rl.retrieval.encoding import ExpansionEncoder

    return workspace.searcher(name, ExpansionEncoder(workspace, dense_model, folder / "expansions"))
