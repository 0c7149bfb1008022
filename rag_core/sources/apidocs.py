"""Docstrings of installed packages as a retrieval set: real text that every Python machine has.

The summary line of a docstring is the query, the rest of it the passage that answers, and the BM25
neighbours among all passages of the same domain are the other candidates. The sources are parsed, not
imported, so the result depends on the installed versions alone.
"""

from __future__ import annotations

import ast
import importlib.util
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rag_core.errors import DataError
from rag_core.records import RankingSample
from rag_core.sources.bm25 import nearest_passages

IN_DOMAIN = ("numpy", "scipy", "pandas", "sklearn", "torch")
OUT_OF_DOMAIN = ("transformers", "huggingface_hub", "datasets")

_MIN_QUERY_WORDS = 4
_MIN_PASSAGE_CHARACTERS = 120
_MAX_PASSAGE_CHARACTERS = 1200

logger = logging.getLogger(__name__)


def read_samples(packages: tuple[str, ...], num_candidates: int) -> list[RankingSample]:
    """Make one sample a docstring: 1 positive and `num_candidates - 1` BM25 neighbours as negatives.

    Summaries and passages that stand more than once (inherited methods) are left out on every side: no
    one passage would be their answer.

    Raises:
        DataError: a package is not installed.
    """
    entries = [entry for package in packages for entry in _read_package(package)]
    summaries = Counter(summary.lower() for _, summary, _ in entries)
    bodies = Counter(body for _, _, body in entries)
    unique = [entry for entry in entries if summaries[entry[1].lower()] == 1 and bodies[entry[2]] == 1]
    logger.info("%s: %d docstrings, %d with a text of their own", ", ".join(packages), len(entries), len(unique))
    queries = [summary for _, summary, _ in unique]
    passages = [body for _, _, body in unique]
    neighbours = nearest_passages(queries, passages, num_candidates)
    return [
        RankingSample(
            query_id=name,
            query=query,
            positive=[passage],
            negative=[passages[i] for i in near if passages[i] != passage][: num_candidates - 1],
        )
        for (name, query, passage), near in zip(unique, neighbours, strict=True)
    ]


def _read_package(package: str) -> Iterator[tuple[str, str, str]]:
    """Yield (qualified name, summary, rest) of every public docstring that has both parts."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the package {package} is not installed", f"pip install {package}")
    root = Path(spec.submodule_search_locations[0])
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root.parent).with_suffix("")
        if any(part.startswith(("_test", "test", "conftest")) for part in relative.parts):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's docstrings
            tree = ast.parse(path.read_text(encoding="utf-8"))
        for name, docstring in _docstrings(tree, ".".join(relative.parts).removesuffix(".__init__")):
            summary, _, rest = docstring.partition("\n\n")
            query, passage = " ".join(summary.split()), " ".join(rest.split())[:_MAX_PASSAGE_CHARACTERS]
            long_enough = len(query.split()) >= _MIN_QUERY_WORDS and len(passage) >= _MIN_PASSAGE_CHARACTERS
            if long_enough and name not in seen:
                seen.add(name)
                yield name, query, passage


def _docstrings(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            name = f"{prefix}.{child.name}"
            docstring = ast.get_docstring(child)
            if docstring:
                yield name, docstring
            if isinstance(child, ast.ClassDef):
                yield from _docstrings(child, name)
