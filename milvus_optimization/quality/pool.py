"""Judgement where nobody labelled: what the ways to search find is pooled, and a teacher's best of it is relevant.

Pooling is TREC's (Spärck Jones and van Rijsbergen 1975): what no way finds is taken as not relevant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.corpora.corpus import Corpus, Vectors
from rag_core.files.bad_rows import BadRows
from rag_core.retrieval.analyser import Analyser
from rag_core.retrieval.bm25 import BM25
from rag_core.retrieval.dense import nearest
from rag_core.retrieval.fusion import rank_shares, take_turns

_FUSED = 100  # of each ranking: as many as a default hybrid search fuses


def pool(corpus: Corpus, vectors: Sequence[Vectors], depth: int, analyser: Analyser) -> Iterator[RankingSample]:
    """Yield each query with the distinct texts that any way to search has among its first `depth`.

    The ways are exact search by each model, BM25, and reciprocal rank fusion of BM25 with each model.
    """
    from tqdm import tqdm

    texts = corpus.texts()
    count = max(_FUSED, depth)
    bm25 = BM25(texts, analyser)
    found = [nearest(np.asarray(one.queries), one.documents, min(count, len(texts)))[0].tolist() for one in vectors]
    for number, (query_id, query) in enumerate(tqdm(corpus.queries.items(), desc="pool", unit="query", disable=None)):
        words, _ = bm25.nearest(query, count)
        dense = [places[number] for places in found]
        rankings = [*dense, words, *(_fused([ranking, words]) for ranking in dense)]
        places = take_turns([ranking[:depth] for ranking in rankings], len(texts))
        candidates = list(dict.fromkeys(texts[place] for place in places))
        yield RankingSample(query_id=query_id, query=query, candidates=candidates)


def _fused(rankings: Sequence[Sequence[int]]) -> list[int]:
    scores: defaultdict[int, float] = defaultdict(float)
    for ranking in rankings:
        for place, share in zip(ranking, rank_shares(np.arange(1, len(ranking) + 1)).tolist(), strict=True):
            scores[place] += share
    return sorted(scores, key=lambda place: (-scores[place], place))


def judge(
    groups: Sequence[Sequence[ScoredPair]],
    corpus: Corpus,
    *,
    top: int,
    min_score: float | None,
    path: Path,
    bad_rows: BadRows,
) -> dict[str, dict[str, int]]:
    """Return query id -> document id -> grade of the passages that a teacher scores best.

    The best has grade `top`, the next one less, down to 1; equal scores have the higher grade. A text that several
    documents have is a judgement of each.

    Args:
        groups: pairs of one query each.
        min_score: passages below it have no grade, however few are above.
        path: of the pairs, for errors.
        bad_rows: decides what becomes of a query or passage that the corpus lacks.
    """
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for document_id, text in zip(corpus.documents, corpus.texts(), strict=True):
        ids[text].append(document_id)
    qrels: dict[str, dict[str, int]] = {}
    for group in groups:
        query_id = group[0].query_id
        if corpus.queries.get(query_id) != group[0].query:
            bad_rows.add(_foreign(f"query_id {quoted(repr(query_id))} ({quoted(repr(group[0].query), 40)})", path))
            continue
        known = [pair for pair in group if pair.passage.strip() in ids]
        for pair in group:
            if pair.passage.strip() not in ids:
                bad_rows.add(_foreign(f"the passage {quoted(repr(pair.passage), 40)} of query_id {query_id}", path))
        scores = sorted((pair.score for pair in known), reverse=True)
        for pair in known:
            grade = top - scores.index(pair.score)
            if grade > 0 and (min_score is None or pair.score >= min_score):
                qrels.setdefault(query_id, {}).update(dict.fromkeys(ids[pair.passage.strip()], grade))
    return qrels


def _foreign(what: str, path: Path) -> DataError:
    remedy = "Pass the scores of what pool_candidates made of it, or pass --skip_bad_rows to leave such rows out"
    return DataError(f"{what} is not in the corpus", remedy, path=path)
