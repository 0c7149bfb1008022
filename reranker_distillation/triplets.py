"""Triplets from a teacher's ranking: which two candidates of a query are compared, and by what margin."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import Literal

from rag_core.base.records import SMALLEST_MARGIN, ScoredPair, Triplet

Sampling = Literal["next", "random", "stratified"]


def make_triplets(
    pairs: Sequence[ScoredPair],
    *,
    top_k: int,
    num_negatives: int | None,
    sampling: Sampling,
    min_margin: float,
    generator: random.Random,
) -> Iterator[Triplet]:
    """Yield the triplets of one query, best positive first; labels are not looked at.

    Candidates are ranked by score, ties by their order in the file. Each of the `top_k` best is the positive
    of `num_negatives` triplets, whose negatives stand below it: the next ones in the ranking, random ones among
    all below, or stratified: the ranking below is cut into `num_negatives` parts of equal size (the quantiles of
    the teacher's scores), and one of each is drawn, from near ones to the easiest. `num_negatives=None` pairs
    every two candidates: n(n-1)/2 triplets, whatever `top_k`. A triplet whose margin is not above `min_margin`
    is left out (and never one without any margin).

    Args:
        min_margin: in the unit of the score, at least 0.
    """
    ranking = sorted(pairs, key=lambda pair: -pair.score)
    for better, worse in _ranks(len(ranking), top_k, num_negatives, sampling, generator):
        margin = ranking[better].score - ranking[worse].score
        if margin > min_margin and margin >= SMALLEST_MARGIN:
            yield Triplet(
                query_id=ranking[better].query_id,
                query=ranking[better].query,
                positive=ranking[better].passage,
                negative=ranking[worse].passage,
                score=margin,
            )


def _ranks(
    count: int, top_k: int, num_negatives: int | None, sampling: Sampling, generator: random.Random
) -> Iterator[tuple[int, int]]:
    if num_negatives is None:
        yield from combinations(range(count), 2)
        return
    for better in range(min(top_k, count)):
        below = range(better + 1, count)
        chosen = min(num_negatives, len(below))
        if sampling == "next":
            worse: Sequence[int] = below[:chosen]
        elif sampling == "random":
            worse = sorted(generator.sample(below, chosen))
        else:
            bounds = [len(below) * part // chosen for part in range(chosen + 1)] if chosen else []
            worse = [generator.choice(below[start:end]) for start, end in pairwise(bounds)]
        yield from ((better, rank) for rank in worse)
