"""The judged queries ranked in every way, and each way measured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from milvus_optimization.quality.halves import FEWEST_TO_TUNE
from milvus_optimization.quality.judged import Judged
from milvus_optimization.quality.measures import mean
from milvus_optimization.records import RetrievalTrial
from milvus_optimization.retrieval.choice import best_of_families
from milvus_optimization.retrieval.fusion import RankingPair
from milvus_optimization.retrieval.grid import Grid, Way, WordSettings, alone, default_fusions, trial_id
from milvus_optimization.retrieval.rankings import Places, Ranking, WordSearch, dense_ranking
from rag_core.corpora.corpus import Vectors
from rag_core.files.kept_times import KeptTimes
from rag_core.retrieval.analyser import Analyser
from rag_core.scoring.reranking import Candidates, Reranker, reranked

logger = logging.getLogger(__name__)

_MEASURED = 10  # results: of nDCG@10


class Tuning:
    """Measures ways to rank for one corpus."""

    def __init__(self, judged: Judged, grid: Grid, analyser: Analyser, times: KeptTimes) -> None:
        """Prepare it.

        Args:
            times: of an earlier run; what is measured here goes there, too.
        """
        self._judged, self._grid, self._analyser, self._times = judged, grid, analyser, times
        self._texts = judged.corpus.texts()
        self._dense: dict[str, Ranking] = {}
        self._pairs: dict[str, dict[WordSettings, RankingPair]] = {}
        self._ways: dict[str, Way] = {}  # by trial_id

    def fusions(self, models: Sequence[Vectors]) -> list[RetrievalTrial]:
        """Measure dense search, BM25 and what the grid makes of both, for the vectors of each model.

        Fusions take the k1 and b with which BM25 alone is best on the tune half. Where that has too few queries to
        choose by, the defaults alone are measured.
        """
        from tqdm import tqdm

        tune = len(self._judged.halves.tune)
        if few := tune < FEWEST_TO_TUNE:
            told = (
                "WARNING: %d queries to choose by are fewer than %d: the defaults are measured, and no fusion is tuned"
            )
            logger.warning(told, tune, FEWEST_TO_TUNE)
        words = self._rank_by_words([WordSettings()] if few else self._grid.words())
        best = max(words, key=lambda setting: mean(self._judged.ndcg(words[setting].places), self._judged.halves.tune))
        if len(words) > 1:
            logger.info("fusions take k1 %g and b %g, with which BM25 alone is best on the tune half", best.k1, best.b)
        ways = [*alone(words), *default_fusions(), *([] if few else self._grid.fused(best))]
        ways = list(dict.fromkeys(ways))
        trials = []
        with tqdm(total=len(models) * len(ways), unit="way", desc="measure", disable=None) as bar:
            for vectors in models:
                dense = dense_ranking(vectors.queries[self._judged.rows], vectors.documents, self._grid.deepest)
                self._dense[vectors.model] = dense
                used = {way.words for way in ways if way.words}
                self._pairs[vectors.model] = {setting: RankingPair(dense, words[setting]) for setting in used}
                for way in ways:
                    trials.append(self._trial(vectors.model, way, self._rank(vectors.model, way, _MEASURED)))
                    bar.update()
        return trials

    def reranked(
        self,
        trials: Sequence[RetrievalTrial],
        reranker: Reranker,
        depths: Sequence[int],
        folder: Path,
        store: Path | None,
    ) -> list[RetrievalTrial]:
        """Measure a reranker over the best of each family by the tune half, of each model.

        Not over every fusion: their first documents are nearly the same, so that one can hardly gain what the other
        cannot, and which of a family is best is often luck, the family is not. Dense and BM25 alone are among them,
        since a reranker may make the fusion needless.

        Args:
            depths: how many of the first results it orders.
            folder, store: as in `Reranker.score`.
        """
        chosen = best_of_families(trials)
        places = {
            trial.trial_id: self._rank(trial.model, self._ways[trial.trial_id], max(*depths, _MEASURED))
            for trial in chosen
        }
        candidates = Candidates.of(
            self._judged.ids,
            self._judged.texts,
            self._texts,
            [ranking[:, : max(depths)] for ranking in places.values()],
        )
        pairs = sum(map(len, candidates.rows))
        logger.info("%d rankings are reranked, the best of each family: %d pairs", len(chosen), pairs)
        scores, milliseconds = reranker.score(candidates, folder, store, depths, self._times)
        found = []
        for trial in chosen:
            for depth in depths:
                ordered = reranked(places[trial.trial_id], depth, scores)
                found.append(
                    self._trial(
                        trial.model, self._ways[trial.trial_id], ordered, (reranker.name, depth, milliseconds[depth])
                    )
                )
        return found

    def _rank_by_words(self, settings: Sequence[WordSettings]) -> dict[WordSettings, Ranking]:
        from tqdm import tqdm

        search = WordSearch(self._texts, self._analyser)
        words = {}
        for setting in tqdm(settings, unit="setting", desc="BM25", disable=None):
            words[setting], milliseconds = search.rank(self._judged.texts, self._grid.deepest, setting.k1, setting.b)
            self._times.keep(_time_of(setting), milliseconds)
        return words

    def _rank(self, model: str, way: Way, count: int) -> Places:
        return way.rank(self._dense[model], self._pairs[model], count)

    def _trial(
        self, model: str, way: Way, places: Places, reranking: tuple[str | None, int, float] = (None, 0, 0.0)
    ) -> RetrievalTrial:
        """Measure a ranking; `reranking` is the model, how many it ordered, and its CPU ms of a query."""
        by_query = self._judged.ndcg(places)
        report, tune = self._judged.halves.means(by_query)
        bm25 = way.words.as_setting(self._analyser) if way.words else {}
        reranker, depth, milliseconds = reranking
        trial = RetrievalTrial(
            trial_id=trial_id(model, way, bm25, reranker, depth),
            model=model,
            fusion=way.fusion,
            normalisation=way.normalisation,
            parameter=way.parameter,
            depth=way.depth,
            bm25=bm25,
            reranker=reranker,
            reranker_depth=depth,
            bm25_ms=(self._times.get(_time_of(way.words)) or 0.0) if way.words else 0.0,
            rerank_ms=milliseconds,
            ndcg=report,
            ndcg_tune=tune,
            by_query=by_query,
        )
        self._ways[trial.trial_id] = way
        return trial


def _time_of(setting: WordSettings) -> str:
    return f"bm25 {setting.k1:g} {setting.b:g}"
