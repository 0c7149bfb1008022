"""The queries of a corpus in three parts, of which no two share a query or a near duplicate of one."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from query_expansion_rl.records import SPLITS, Split, Topic
from rag_core.base.errors import DataError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.corpora.corpus import Corpus
from rag_core.files.bad_rows import BadRows
from rag_core.files.qrels import read_qrels
from rag_core.sources.beir import find_qrels
from rag_core.sources.splits import assign_splits, duplicates_of, parse_fractions

FRACTIONS = ("train=0.5", "dev=0.1", "test=0.4")

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Splitting:
    """How queries come into their splits.

    Attributes:
        files: split -> qrels whose queries are all of it; the other queries are split by the fractions of the rest.
        fractions: of train, dev and test.
    """

    files: Mapping[Split, Path]
    fractions: Mapping[Split, float]
    seed: int

    def topics(self, corpus: Corpus, bad_rows: BadRows) -> tuple[list[Topic], int]:
        """Return the topics in the order of the queries, and how many were left out as duplicates of a later split.

        Of what the files have apart, a query that is in two, or nearly, stays in the later: test, then dev, then train.

        Raises:
            DataError: a split would be empty.
        """
        split_of = self._given(corpus, bad_rows)
        free = [query_id for query_id in corpus.queries if query_id not in split_of]
        kept = self._without_duplicates(corpus, split_of, free)
        left = {split: share for split, share in self.fractions.items() if split not in self.files}
        free = [query_id for query_id in free if query_id in kept]
        if left:
            shares: dict[str, float] = {split: share / sum(left.values()) for split, share in left.items()}
            names = assign_splits([corpus.queries[query_id] for query_id in free], shares, self.seed)
            split_of |= dict(zip(free, names, strict=True))  # type: ignore[arg-type]
        found = [
            Topic(query_id, query, split_of[query_id], _judged(corpus, query_id))
            for query_id, query in corpus.queries.items()
            if query_id in split_of and query_id in kept
        ]
        for split in SPLITS:
            if not any(topic.split == split for topic in found):
                what = f"{len(corpus.queries)} queries are too few: {split} would be empty"
                raise DataError(what, "Add queries, or pass other --fractions")
        return found, len(corpus.queries) - len(found)

    def _given(self, corpus: Corpus, bad_rows: BadRows) -> dict[str, Split]:
        split_of: dict[str, Split] = {}
        for split in reversed(SPLITS):
            if split in self.files:
                judged = read_qrels(
                    self.files[split], queries=corpus.queries, documents=corpus.documents, bad_rows=bad_rows.again()
                )
                split_of = dict.fromkeys(judged, split) | split_of
        return split_of

    def _without_duplicates(self, corpus: Corpus, split_of: Mapping[str, Split], free: Sequence[str]) -> set[str]:
        parts = [[key for key, name in split_of.items() if name == split] for split in reversed(SPLITS)]
        kept: list[str] = []
        for part in (*parts, free):
            mine, theirs = ([corpus.queries[key] for key in keys] for keys in (part, kept))
            doubles = duplicates_of(mine, theirs) if theirs else set()
            kept += [key for position, key in enumerate(part) if position not in doubles]
        return set(kept)


def settle_splitting(
    folder: Path, splits: Sequence[str] | None, test_split: str | None, fractions: Sequence[str], seed: int
) -> Splitting:
    """Find out how the queries of an input are split.

    Args:
        folder: in the BEIR layout, or a file of samples.
        splits: those of the folder that are read; `None` for all.
        test_split: whose queries are the test queries; "none" for the fractions, `None` to find out.

    Raises:
        UsageError: the fractions or the split do not fit.
    """
    shares = parse_fractions(fractions, "--fractions")
    if set(shares) != set(SPLITS):
        raise UsageError(f"--fractions names {', '.join(shares)}", f"Name train, dev and test: {' '.join(FRACTIONS)}")
    known = {name: path for name, path in find_qrels(folder).items() if name in (splits or [name])}
    if test_split is None:
        test_split = "test" if "test" in known and len(known) > 1 else "none"
    files: dict[Split, Path] = {}
    if test_split != "none":
        if test_split not in known or len(known) < 2:
            there = ", ".join(known) or "none"
            what = f"{folder} has no qrels/{quoted(test_split)}.tsv beside others (there: {there})"
            raise UsageError(what, "Leave --test_split out, or pass none to split by --fractions")
        files["test"] = known[test_split]
        if "dev" in known and test_split != "dev" and len(known) > 2:
            files["dev"] = known["dev"]
    return Splitting(files, {split: shares[split] for split in SPLITS}, seed)


def _judged(corpus: Corpus, query_id: str) -> dict[str, int] | None:
    judged = corpus.qrels.get(query_id)
    return None if judged is None else dict(judged)
