"""Samples on their way from a source to files: cleaned, drawn, compared for leaks, and counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rag_core.base.errors import DataError
from rag_core.base.tables import counts_table, listed
from rag_core.files.bad_rows import BadRows
from rag_core.sources.cleaning import clean_samples, count_samples, draw_samples
from rag_core.sources.protocols import Source
from rag_core.sources.splits import Leak, Splits, find_leaks, without_leaks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """Splits that are ready to be written, and what their manifests say of them.

    Attributes:
        counts: by split, see `count_samples`.
        dropped: what was left out, by reason.
    """

    splits: Splits
    counts: Mapping[str, Mapping[str, int]]
    leaks: list[Leak]
    dropped: Counter[str]
    bad_rows: BadRows

    @property
    def skipped(self) -> dict[str, int]:
        """What was left out, with the bad rows."""
        return {"bad_rows": len(self.bad_rows)} | +self.dropped

    def log(self) -> None:
        """Log the table of counts, the leaks, and what was left out."""
        for line in counts_table(self.counts).splitlines():
            logger.info("%s", line)
        for leak in self.leaks:
            logger.log(
                logging.WARNING if leak.queries else logging.INFO,
                "%s and %s share %d queries exactly, %d nearly, and %d passages",
                *(leak.split, leak.other, len(leak.exact), len(leak.near), leak.passages),
            )
        logger.info("Left out: %s", listed(self.dropped))
        if self.bad_rows:
            noun = "bad row" if len(self.bad_rows) == 1 else "bad rows"
            logger.warning("Left out %d %s, the first: %s", len(self.bad_rows), noun, self.bad_rows.errors[0])


def prepare_splits(
    source: Source, bad_rows: BadRows, *, limits: Mapping[str, int], drop_leaks: bool, seed: int
) -> Prepared:
    """Read a source, clean its samples, draw at most `limits` of each split, and find what the splits share.

    Args:
        drop_leaks: leave out training queries that duplicate a query of another split.

    Raises:
        DataError: as the source raises, or nothing is left of a split.
        EngineError: the dense model cannot be used.
    """
    dropped: Counter[str] = Counter()
    splits = {
        split: draw_samples(clean_samples(samples, dropped), limits.get(split), seed)
        for split, samples in source.read(dropped, bad_rows).items()
    }
    leaks = find_leaks(splits)
    if drop_leaks:
        kept = without_leaks(splits, leaks)
        dropped["leaking_queries"] = sum(len(splits[split]) - len(kept[split]) for split in splits)
        splits = kept
    for split, samples in splits.items():
        if not samples:
            raise DataError(f"nothing is left of the split {split} ({listed(dropped)})", "Check the input")
    counts = {split: count_samples(samples) for split, samples in splits.items()}
    return Prepared(splits, counts, leaks, dropped, bad_rows)
