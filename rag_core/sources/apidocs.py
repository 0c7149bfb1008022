"""Docstrings of installed packages as a retrieval set: real text that every Python machine has.

The summary sentence of a docstring is the query, the rest of it the passage that answers, and the nearest
others among all passages of the same domain are the other candidates. The sources are parsed, not
imported, so the result depends on the installed versions alone.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from rag_core.base.errors import DataError
from rag_core.base.outside_text import is_writable, reason
from rag_core.base.records import RankingSample
from rag_core.files.bad_rows import BadRows
from rag_core.retrieval.analyser import fold, words
from rag_core.sources.mining import Asked, Mining, mine_candidates
from rag_core.sources.splits import Splits, duplicate_groups, similar_pairs, split_samples

IN_DOMAIN = ("numpy", "scipy", "pandas", "sklearn", "torch")
OUT_OF_DOMAIN = ("transformers", "huggingface_hub", "datasets")
# The second is for choices that must not be made on the first, such as how much of the training is kept.
OUT_OF_DOMAIN_SPLITS = {"out_of_domain": 0.8, "out_of_domain_dev": 0.2}

_DISTRIBUTIONS = {"sklearn": "scikit-learn"}
# Internals that no user reads about, and half of the time it takes to parse the packages.
_INTERNAL = {
    "_decomp", "_dynamo", "_export", "_external", "_functorch", "_higher_order_ops", "_inductor", "_lib", "_refs",
    "_vendor", "distutils", "externals",
}  # fmt: skip
# Tests, and the sources of which transformers generates its modeling files, docstrings included.
_SKIPPED = ("_test", "test", "conftest", "modular_")
_QUERY_WORDS = range(4, 41)
_MIN_PASSAGE_CHARACTERS = 120
# A beginning: what two CPU cores can score and train on in minutes.
_MAX_PASSAGE_CHARACTERS = 160
_PASSAGE_GRAM = 3  # words
_SAME_PASSAGE = 0.6

logger = logging.getLogger(__name__)


class ApiDocs:
    """The numeric packages, split by `fractions`, and out of their domain: the packages around language models."""

    instruction = "Given a summary of what a function does, retrieve its documentation"
    inputs: Sequence[Path] = ()

    def __init__(self, fractions: Mapping[str, float], mining: Mining) -> None:
        self._fractions, self._mining = fractions, mining
        self.mined: Counter[str] = Counter()
        self.splits = [*fractions, *OUT_OF_DOMAIN_SPLITS]
        versions = {package: _version(package) for package in (*IN_DOMAIN, *OUT_OF_DOMAIN)}
        self.flags = {"splits": dict(fractions), "packages": versions, **mining.flags}

    def read(self, dropped: Counter[str], bad_rows: BadRows) -> Splits:
        """Make the samples of both domains."""
        domains = ((IN_DOMAIN, self._fractions), (OUT_OF_DOMAIN, OUT_OF_DOMAIN_SPLITS))
        splits: Splits = {}
        for packages, fractions in domains:
            samples = read_samples(packages, self._mining, self.mined)
            splits |= split_samples(samples, fractions, self._mining.seed)
        return splits


def read_samples(packages: Sequence[str], mining: Mining, mined: Counter[str]) -> list[RankingSample]:
    """Make one sample per docstring: 1 positive and `num_candidates - 1` neighbours as negatives.

    Summaries and passages that stand more than once (inherited methods) are left out on every side: no
    one passage would be their answer. A neighbour of the positive's own name (`numpy.fft.fft` and
    `scipy.fft.fft`), one that says nearly what it says, or one whose summary is nearly the query, would be a
    false negative and is passed over.

    Args:
        mined: counts what found the neighbours.

    Raises:
        DataError: a package is not installed.
        EngineError: a dense model cannot be loaded, or is no embedder.
    """
    entries = [entry for package in packages for entry in _read_package(package)]
    summaries = Counter(summary.lower() for _, summary, _ in entries)
    bodies = Counter(body for _, _, body in entries)
    unique = [entry for entry in entries if summaries[entry[1].lower()] == 1 and bodies[entry[2]] == 1]
    logger.info("%s: %d docstrings, %d with a text of their own", ", ".join(packages), len(entries), len(unique))
    queries = [summary for _, summary, _ in unique]
    passages = [body for _, _, body in unique]
    alike = _alike([name.rpartition(".")[2] for name, _, _ in unique], queries, passages)
    most = max((len(others) for others in alike.values()), default=0)
    found = mine_candidates(
        [Asked(query, mining.num_candidates - 1, frozenset({i, *alike[i]})) for i, query in enumerate(queries)],
        passages,
        mining,
        depth=mining.num_candidates + most,
        instruction=ApiDocs.instruction,
    )
    mined.update(origin for near in found for origin in near.values())
    return [
        RankingSample(query_id=name, query=query, positive=[passage], negative=[passages[place] for place in near])
        for (name, query, passage), near in zip(unique, found, strict=True)
    ]


def _alike(names: Sequence[str], queries: Sequence[str], passages: Sequence[str]) -> defaultdict[int, set[int]]:
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(names):
        groups[name].append(i)
    alike: defaultdict[int, set[int]] = defaultdict(set)
    for group in (*groups.values(), *duplicate_groups(queries)):
        for i in group:
            alike[i].update(group)
    for i, j in similar_pairs([_word_grams(passage) for passage in passages], _SAME_PASSAGE):
        alike[i].add(j)
        alike[j].add(i)
    return alike


def _word_grams(text: str) -> frozenset[str]:
    found = words(fold(text))
    return frozenset(" ".join(found[i : i + _PASSAGE_GRAM]) for i in range(max(1, len(found) - _PASSAGE_GRAM + 1)))


def _root(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the package {package} is not installed", f"pip install {_DISTRIBUTIONS.get(package, package)}"
        )
    return Path(spec.submodule_search_locations[0])


def _version(package: str) -> str:
    _root(package)
    return metadata.version(_DISTRIBUTIONS.get(package, package))


def _read_package(package: str) -> Iterator[tuple[str, str, str]]:
    """Yield (qualified name, summary, rest) of every public docstring that has both parts."""
    root = _root(package)
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root.parent).with_suffix("")
        if any(part.startswith(_SKIPPED) or part in _INTERNAL for part in relative.parts):
            continue
        try:
            tree = _parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError) as error:
            logger.warning("left out: %s is not Python (%s)", path, reason(error, 100))
            continue
        for name, docstring in _docstrings(tree, ".".join(relative.parts).removesuffix(".__init__")):
            summary, _, rest = docstring.partition("\n\n")
            query, passage = " ".join(summary.split()), " ".join(rest.split())[:_MAX_PASSAGE_CHARACTERS]
            if name not in seen and _is_sentence(query) and _answers(query, passage):
                seen.add(name)
                yield name, query, passage


def _parse(source: bytes) -> ast.Module:
    # A syntax tree is so many objects that the garbage collector would take a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's docstrings
            return ast.parse(source)
    finally:
        if collecting:
            gc.enable()


def _is_sentence(text: str) -> bool:
    """Tell a summary from a signature (`where(condition, [x, y], /)`), a heading, or a whole essay."""
    pieces = text.split()
    return (
        len(pieces) in _QUERY_WORDS
        and text[0].isalpha()
        and "(" not in pieces[0]
        and not any(mark in text for mark in ("::", ">>>", "---", "===", " -> "))
    )


def _answers(query: str, passage: str) -> bool:
    # A passage that repeats its summary word by word is found by any ranker.
    return len(passage) >= _MIN_PASSAGE_CHARACTERS and query.lower().rstrip(".") not in passage.lower()


def _docstrings(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            name = f"{prefix}.{child.name}"
            docstring = ast.get_docstring(child)
            if docstring and is_writable(docstring):
                yield name, docstring
            if isinstance(child, ast.ClassDef):
                yield from _docstrings(child, name)
