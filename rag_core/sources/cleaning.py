"""Cleaning and counting the samples of a split."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence

from rag_core.base.errors import UsageError
from rag_core.base.records import RankingSample


def clean_samples(samples: Sequence[RankingSample], dropped: Counter[str]) -> list[RankingSample]:
    """Take out passages that a sample has twice, and those that are the query itself; add to `dropped` how many.

    Listed as positive and as negative, a passage is a positive. A sample without any passage left is dropped.
    """
    cleaned = []
    for sample in samples:
        positive = _clean(sample.positive, sample.query, dropped)
        negative = _clean(sample.negative, sample.query, dropped)
        candidates = _clean(sample.candidates, sample.query, dropped)
        if positive and negative:
            known = set(positive)
            only_negative = [text for text in negative if text not in known]
            dropped["negatives_that_are_positives"] += len(negative) - len(only_negative)
            negative = only_negative
        if positive or negative or candidates:
            cleaned.append(dataclasses.replace(sample, positive=positive, negative=negative, candidates=candidates))
        else:
            dropped["queries_without_passages"] += 1
    return cleaned


def _clean(texts: list[str] | None, query: str, dropped: Counter[str]) -> list[str] | None:
    if texts is None:
        return None
    distinct = dict.fromkeys(texts)
    other = [text for text in distinct if text.strip() != query.strip()]
    dropped["duplicate_passages"] += len(texts) - len(distinct)
    dropped["passages_equal_to_query"] += len(distinct) - len(other)
    return other


def parse_limits(words: Sequence[str], splits: Sequence[str]) -> dict[str, int]:
    """Read `50`, which is for every split, or `train=500 test=50`.

    Raises:
        UsageError: a word is malformed, or names no split.
    """
    limits: dict[str, int] = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        if not number.isdecimal() or int(number) == 0:
            raise UsageError(f"--limit {word!r} is not a number above 0", "Write e.g. 500, or train=500 test=50")
        if equals and name not in splits:
            raise UsageError(f"--limit names {name!r}, which is no split", f"The splits are {', '.join(splits)}")
        limits |= dict.fromkeys([name] if equals else splits, int(number))
    return limits


def draw_samples(samples: list[RankingSample], limit: int | None, seed: int) -> list[RankingSample]:
    """Return at most `limit` samples (`None`: all), drawn at random, in their order."""
    if limit is None or len(samples) <= limit:
        return samples
    return [samples[i] for i in sorted(random.Random(seed).sample(range(len(samples)), limit))]


def count_samples(samples: Sequence[RankingSample]) -> dict[str, int]:
    """Count queries, passages by label, pairs, and distinct passages."""
    pairs = [(text, label) for sample in samples for text, label in sample.passages()]
    labels = Counter(label for _, label in pairs)
    return {
        "queries": len(samples),
        "positives": labels[1],
        "negatives": labels[0],
        "unlabelled": labels[None],
        "pairs": len(pairs),
        "distinct_passages": len({text for text, _ in pairs}),
    }
