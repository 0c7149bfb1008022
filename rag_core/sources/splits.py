"""Splitting by query without leakage, and finding leakage between files that exist already.

Two queries are duplicates when they are equal but for case, spelling in Unicode and punctuation (exact), or when
the sets of their words' character 4-grams have a Jaccard similarity of at least 0.8 (near). All pairs at or above
the threshold are found, none by chance: the index is the prefix filter of Chaudhuri et al. 2006, not a hash.

Symbols make a question another one, however few they are: `in C++` and `in C#`, `a > b` and `a < b`. So leaks, which
may be dropped, are queries with the same symbols. A split that is made keeps together what differs by symbols only:
that loses no query.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import regex

from rag_core.base.errors import DataError, UsageError
from rag_core.base.records import RankingSample
from rag_core.retrieval.analyser import fold, without_needless_spaces, words
from rag_core.scoring.samples import is_training

NEAR = 0.8
_GRAM = 4

_SUPERSCRIPT = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207f]+")  # NFKC would make 52 of 5²
_IN_WORDS = regex.compile(r"(?<=\p{L}\p{M}*)/(?=\p{L})")  # TCP/IP is TCP IP
# Words; a sign before a word or number, as of -5, --force and .NET; operators, which brackets and quotes end.
_PARTS = regex.compile(
    r"(?P<word>[\p{L}\p{N}_][\p{L}\p{M}\p{N}_]*)|(?<![\p{L}\p{M}\p{N}_.\-])(?P<sign>\.|--?)(?=[\p{L}\p{N}])"
    r"|(?P<operator>(?V1)[[\p{S}\p{P}]--[\p{Ps}\p{Pe}\p{Pi}\p{Pf}\"'`©®]]+)"
)
_SYMBOL = regex.compile(r"[\p{S}#%&@*/\\]")
_SENTENCE_ENDS = ".,;:!?\u3001\u3002"

Splits = dict[str, list[RankingSample]]


@dataclasses.dataclass(frozen=True)
class Leak:
    """What two splits share.

    Attributes:
        exact: positions in `split` of queries that stand in `other`, too.
        near: positions in `split` of queries that have a near duplicate, but no exact one, in `other`.
        passages: how many distinct passages stand in both.
    """

    split: str
    other: str
    exact: list[int]
    near: list[int]
    passages: int

    @property
    def queries(self) -> list[int]:
        """The positions of both kinds of duplicates."""
        return self.exact + self.near

    def counts(self) -> dict[str, str | int]:
        """Return the numbers for a manifest."""
        return {
            "between": f"{self.split} and {self.other}",
            "queries_exact": len(self.exact),
            "queries_near": len(self.near),
            "passages": self.passages,
        }


def parse_fractions(words: Sequence[str], flag: str = "--splits") -> dict[str, float]:
    """Read `train=0.8 dev=0.1 test=0.1`.

    Args:
        flag: whose words they are, for the error.

    Raises:
        UsageError: a word is malformed, a name comes twice, or the fractions do not sum to 1.
    """
    fractions: dict[str, float] = {}
    for word in words:
        match = re.fullmatch(r"([A-Za-z]\w*)=(0?\.\d+|1(?:\.0*)?)", word)
        if match is None or float(match[2]) == 0:
            raise UsageError(f"{flag} {word!r} is not name=fraction", "Write e.g. train=0.8 dev=0.1 test=0.1")
        if match[1] in fractions:
            raise UsageError(f"{flag} names {match[1]!r} twice", "Give each split a name of its own")
        fractions[match[1]] = float(match[2])
    if not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise UsageError(f"the {flag} fractions sum to {sum(fractions.values()):g}", "Make them sum to 1")
    return fractions


def split_samples(samples: Sequence[RankingSample], fractions: Mapping[str, float], seed: int) -> Splits:
    """Split in input order within each split; duplicate queries, and duplicates of those, stay together.

    Raises:
        DataError: a split would get no query.
    """
    names = assign_splits([sample.query for sample in samples], fractions, seed)
    splits: Splits = {name: [] for name in fractions}
    for sample, name in zip(samples, names, strict=True):
        splits[name].append(sample)
    for name, part in splits.items():
        if not part:
            raise DataError(
                f"{len(samples)} queries are too few for --splits {name}={fractions[name]:g}: it would be empty",
                "Leave that split out, raise its fraction, or add queries",
            )
    return splits


def assign_splits(queries: Sequence[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """Return the split of each query: the groups in random order, each to the split that lacks most queries."""
    groups = duplicate_groups(queries)
    random.Random(seed).shuffle(groups)
    lacking = {name: fraction * len(queries) for name, fraction in fractions.items()}
    names = [""] * len(queries)
    for group in groups:
        name = max(lacking, key=lambda name: lacking[name])
        lacking[name] -= len(group)
        for i in group:
            names[i] = name
    return names


def duplicate_groups(queries: Sequence[str]) -> list[list[int]]:
    """Return the connected components of the duplicate relation, as ascending positions, by first position.

    Symbols do not tell queries apart here.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    keys = [_without_symbols(query) for query in queries]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    pairs = [(first[left], first[right]) for left, right in _near_keys(list(dict.fromkeys(keys)))]
    pairs += [(i, first[key]) for i, key in enumerate(keys)]
    if not pairs:
        return []
    rows, columns = zip(*pairs, strict=True)
    edges = coo_array(([True] * len(pairs), (rows, columns)), shape=(len(queries), len(queries)))
    groups: dict[int, list[int]] = {}
    for i, label in enumerate(connected_components(edges, directed=False)[1]):
        groups.setdefault(int(label), []).append(i)
    return list(groups.values())


def find_leaks(splits: Splits) -> list[Leak]:
    """Compare every two splits, the training split (see `is_training`) as the first of its pairs."""
    names = sorted(splits, key=lambda name: not is_training(name))
    keys = {name: [normalize(sample.query) for sample in splits[name]] for name in names}
    near: dict[str, set[str]] = defaultdict(set)
    for left, right in _near_keys(list(dict.fromkeys(key for name in names for key in keys[name]))):
        near[left].add(right)
        near[right].add(left)
    passages = {name: {text for sample in splits[name] for text, _ in sample.passages()} for name in names}
    leaks = []
    for position, name in enumerate(names):
        for other in names[position + 1 :]:
            there = set(keys[other])
            leaks.append(
                Leak(
                    split=name,
                    other=other,
                    exact=[i for i, key in enumerate(keys[name]) if key in there],
                    near=[
                        i for i, key in enumerate(keys[name]) if key not in there and not near[key].isdisjoint(there)
                    ],
                    passages=len(passages[name] & passages[other]),
                )
            )
    return leaks


def duplicates_of(queries: Sequence[str], others: Sequence[str]) -> set[int]:
    """Return the positions of the queries that have a duplicate, exact or near, among the others."""
    keys, there = [normalize(query) for query in queries], {normalize(query) for query in others}
    near: set[str] = set()
    for left, right in _near_keys(list(dict.fromkeys([*keys, *sorted(there)]))):
        near |= {key for key, other in ((left, right), (right, left)) if other in there}
    return {i for i, key in enumerate(keys) if key in there or key in near}


def without_leaks(splits: Splits, leaks: Sequence[Leak]) -> Splits:
    """Take the queries out of the training splits that duplicate a query of a split that is none.

    Shared passages stay: splits share a corpus wherever one corpus is searched, and what must not be known
    before the test is which of them answers a query.
    """
    kept = dict(splits)
    for split in filter(is_training, splits):
        leaking = {i for leak in leaks if leak.split == split and not is_training(leak.other) for i in leak.queries}
        kept[split] = [sample for i, sample in enumerate(splits[split]) if i not in leaking]
    return kept


def normalize(query: str) -> str:
    """Return the words and symbols of a query, folded as for BM25, or the query where it has none (`???`)."""
    text = _SUPERSCRIPT.sub(r"^\g<0>", query).replace("\u2212", "-")
    text = _IN_WORDS.sub(" ", without_needless_spaces(fold(text)))
    parts = []
    for part in _PARTS.finditer(text):
        operator = (part["operator"] or "").rstrip(_SENTENCE_ENDS)
        if part["operator"] is None:
            parts.append(part[0])
        elif _SYMBOL.search(operator):
            parts.append(operator)
    return " ".join(parts) or fold(query).strip()


def similar_pairs(sets: Sequence[frozenset[str]], threshold: float) -> Iterator[tuple[int, int]]:
    """Yield every (i, j), i < j, of non-empty sets with a Jaccard similarity of at least `threshold`.

    Two such sets share one of their `|x| - ceil(threshold |x|) + 1` rarest elements, so only these are indexed.
    """
    frequency = Counter(element for elements in sets for element in elements)
    index: dict[str, list[int]] = defaultdict(list)
    for j, elements in enumerate(sets):
        rarest = sorted(elements, key=lambda element: (frequency[element], element))
        prefix = rarest[: len(rarest) - math.ceil(threshold * len(rarest) - 1e-9) + 1]
        for i in sorted({i for element in prefix for i in index[element]}):
            shared = len(sets[i] & elements)
            if shared >= threshold * (len(sets[i]) + len(elements) - shared) - 1e-9:
                yield i, j
        for element in prefix:
            index[element].append(j)


def _without_symbols(query: str) -> str:
    return " ".join(words(without_needless_spaces(fold(query)))) or fold(query).strip()


def _near_keys(keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the normalized queries whose words are nearly the same, and whose symbols are the same."""
    symbols = [[part for part in key.split() if not re.search(r"\w", part)] for key in keys]
    texts = [" ".join(part for part in key.split() if re.search(r"\w", part)) or key for key in keys]
    grams = [frozenset(text[i : i + _GRAM] for i in range(max(1, len(text) - _GRAM + 1))) for text in texts]
    return ((keys[i], keys[j]) for i, j in similar_pairs(grams, NEAR) if symbols[i] == symbols[j])
