"""A file of samples that is too large to be held: checked once, then read anew whenever its samples are asked for."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError, StaleError
from rag_core.base.records import RankingSample
from rag_core.engines.canary import CANARY_PAIRS
from rag_core.engines.protocols import Pair
from rag_core.files.bad_rows import BadRows
from rag_core.files.inputs import sha256
from rag_core.files.jsonl import iterate_samples, numbered_records

logger = logging.getLogger(__name__)


class SampleFile:
    """The RankingSample records of a file.

    Attributes:
        sha256: of the file as it was first read.
        queries, pairs: how many samples, and distinct candidates of theirs, or of those that `narrow` left.
        labelled: whether a sample has labels.
        canary_pairs: from all over the file.
        bad_rows: those of this file that are left out.
        left_out: by `query_id`, why samples are left out that are good rows, but not for a model.
        longest_query: bytes of the longest one, in UTF-8.
    """

    def __init__(self, path: Path, bad_rows: BadRows) -> None:
        """Go through the file once.

        Args:
            bad_rows: empty; it decides what becomes of a bad row.

        Raises:
            DataError: as `jsonl.read_samples`.
        """
        self.path = path
        self.bad_rows = bad_rows
        self.left_out: dict[str, DataError] = {}
        self.longest_query = 0
        self.labelled = False
        self._chosen: npt.NDArray[np.bool_] | None = None
        digest = hashlib.sha256()
        samples = (sample for _, sample in iterate_samples(path, bad_rows=bad_rows, digest=digest))
        self.canary_pairs = spread_pairs(self._counted(samples), CANARY_PAIRS)
        self.sha256 = digest.hexdigest()

    def __iter__(self) -> Iterator[RankingSample]:
        """Go through the file once more, without the samples, and the candidates, that are left out.

        Raises:
            StaleError: at the end, the file is another than it was.
        """
        return self.whole() if self._chosen is None else self._narrowed(self._chosen)

    def whole(self) -> Iterator[RankingSample]:
        """Yield the samples with all their candidates; see `__iter__`."""
        return (sample for _, sample in self.numbered())

    def narrow(self, chosen: npt.NDArray[np.bool_]) -> None:
        """Leave out candidates from now on.

        Args:
            chosen: which of the distinct candidates stay, in the order of `whole`, one or more of each sample; shape
                (pairs,).
        """
        self._chosen = chosen
        self.pairs = int(chosen.sum())

    def numbered(self) -> Iterator[tuple[int, RankingSample]]:
        """Yield the samples with their line numbers; see `__iter__`."""
        digest = hashlib.sha256()
        rows = numbered_records(self.path, RankingSample, self.bad_rows.again(), digest=digest)
        yield from ((line, sample) for line, sample in rows if sample.query_id not in self.left_out)
        self._compare(digest.hexdigest())

    def leave_out(self, errors: Iterable[tuple[str, DataError]]) -> None:
        """Leave further samples out of what is counted, chosen and gone through.

        Args:
            errors: (query id, why) of each.

        Raises:
            DataError: the first of them, where bad rows are not left out, or no other sample is there.
        """
        found: dict[str, DataError] = {}
        for query_id, error in errors:
            self.bad_rows.add(error)
            logger.warning("left out: %s", error)
            found[query_id] = error
        self.left_out |= found
        if found:
            self.canary_pairs = spread_pairs(self._counted(self), CANARY_PAIRS)
            if not self.queries:
                raise next(iter(found.values()))

    def check_unchanged(self) -> None:
        """Check that the file is still the one that was read first.

        Raises:
            StaleError: it is another.
        """
        self._compare(sha256(self.path))

    def _counted(self, samples: Iterable[RankingSample]) -> Iterator[RankingSample]:
        self.queries = self.pairs = 0
        for sample in samples:
            self.queries += 1
            self.longest_query = max(self.longest_query, len(sample.query.encode()))
            self.labelled = self.labelled or sample.candidates is None
            self.pairs += sum(1 for _ in sample.passages())
            yield sample

    def _narrowed(self, chosen: npt.NDArray[np.bool_]) -> Iterator[RankingSample]:
        start = 0
        for sample in self.whole():
            passages = list(sample.passages())
            mine = chosen[start : start + len(passages)]
            if len(mine) < len(passages) or not mine.any():  # of another file
                self.check_unchanged()
            start += len(passages)
            yield _part(sample, {text for (text, _), stays in zip(passages, mine, strict=True) if stays})

    def _compare(self, found: str) -> None:
        if found != self.sha256:
            raise StaleError(
                "has changed while it was being scored",
                "Run the same command again: the scores of texts that are still in it are kept",
                path=self.path,
            )


class JoinedFiles:
    """Samples of several files, one file after another, as often as they are asked for."""

    def __init__(self, sources: Sequence[SampleFile]) -> None:
        self._sources = sources

    def __iter__(self) -> Iterator[RankingSample]:
        return chain.from_iterable(self._sources)


def is_training(name: str) -> bool:
    """Tell whether a split of this name is one to train on: `train`, `train_2016`, `my-train`."""
    return "train" in re.split(r"[^a-z]+", name.lower())


def _part(sample: RankingSample, kept: set[str]) -> RankingSample:
    """Return a sample with some of its candidates."""
    texts: dict[int | None, list[str]] = {1: [], 0: [], None: []}
    for text, label in sample.passages():
        if text in kept:
            texts[label].append(text)
    if sample.candidates is not None:
        return RankingSample(sample.query, candidates=texts[None], query_id=sample.query_id)
    return RankingSample(sample.query, texts[1], texts[0], query_id=sample.query_id)


def spread_samples(samples: Iterable[RankingSample], count: int) -> list[RankingSample]:
    """Return up to `count` samples from all over, evenly spread."""
    kept: list[RankingSample] = []
    step = 1  # every step-th sample is kept, and every other dropped again when they become too many
    for number, sample in enumerate(samples):
        if number % step == 0:
            kept.append(sample)
            if len(kept) > 4 * count:
                kept, step = kept[::2], 2 * step
    return [kept[i] for i in np.linspace(0, len(kept) - 1, num=min(len(kept), count)).astype(int)]


def spread_pairs(samples: Iterable[RankingSample], count: int) -> list[Pair]:
    """Return up to `count` distinct pairs from all over the samples: first and last candidate of evenly chosen ones."""
    chosen: dict[Pair, None] = {}
    for sample in spread_samples(samples, (count + 1) // 2):
        passages = [passage for passage, _ in sample.passages()]
        chosen |= {(sample.query, passage): None for passage in (passages[0], passages[-1])}
    return list(chosen)[:count]
