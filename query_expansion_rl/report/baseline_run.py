"""The work of `rank_baselines` over a corpus and its vectors: topics, judgements, rankings, and what they tell."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from query_expansion_rl.records import Ranking, Topic
from query_expansion_rl.report.baselines import PICKED, Baselines
from query_expansion_rl.retrieval.feedback import DenseFeedback, Rm3
from query_expansion_rl.retrieval.judging import (
    HYBRID,
    Teacher,
    as_qrels,
    compare,
    conclude,
    judgements,
    pool,
    top_gains,
)
from query_expansion_rl.retrieval.searching import Found
from query_expansion_rl.retrieval.tuning import Judge, picked, tune
from query_expansion_rl.retrieval.ways import Ways
from query_expansion_rl.retrieval.workspace import (
    JUDGEMENTS,
    RANKINGS,
    SUMMARY,
    TOPICS,
    RetrieverSettings,
    Summary,
    labels_of,
    vector_searcher,
    word_searcher,
)
from query_expansion_rl.topics.splitting import Splitting
from rag_core.base.records import Qrels
from rag_core.corpora.corpus import Corpus
from rag_core.files.atomic import atomic_write
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import Recipe, is_made, unfinished_differences, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished
from rag_core.metrics.differences import FEWEST_TO_COMPARE
from rag_core.metrics.ranking import Places

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineRun:
    """What decides the outputs."""

    folder: Path
    corpus: Corpus
    settings: RetrieverSettings
    teacher: Teacher | None
    teacher_depth: int
    judge_top: int
    force: bool
    seed: int
    score_store: Path | None

    def make(self, splitting: Splitting, recipe: Recipe, bad_rows: BadRows, *, overwrite: bool) -> None:
        """Write topics, judgements, rankings and summary, unless they are there.

        Raises:
            StaleError: those of other settings are there, and not `overwrite`.
            PipelineError: the teacher ranks worse than the retriever, or as its engine raises.
        """
        *others, last = [self.folder / name for name in (TOPICS, JUDGEMENTS, RANKINGS, SUMMARY)]

        def are_finished() -> bool:
            if overwrite:
                return False
            begun = unfinished_differences(last, recipe) == []
            made = is_finished(last, recipe)
            if begun and not made:  # by a run that may have ended between one of the others and its manifest
                return False
            return all([made, *(is_made(path, recipe) for path in others)])

        if are_finished():
            return
        with UnfinishedWork(last, recipe, overwrite=overwrite, before=others) as work:
            if not are_finished():  # by another run, in the meantime
                self._make(splitting, recipe, bad_rows, work.directory)
            work.remove()

    def _make(self, splitting: Splitting, recipe: Recipe, bad_rows: BadRows, unfinished: Path) -> None:
        topics, left_out = splitting.topics(self.corpus, bad_rows)
        path = self.folder / TOPICS
        splits = dict(Counter(topic.split for topic in topics))
        rows = write_records(path, topics)
        write_manifest(path, recipe, rows=rows, splits=splits, skipped={"duplicates": left_out})
        logger.info("%s: %s%s", path, splits, f", {left_out} near duplicates left out" if left_out else "")

        ways = self._ways(topics)
        ranking = ways.found[HYBRID] if self.teacher is None else self._judged(ways, topics, unfinished)
        self._compare(topics, ranking[0], ways.found[self.settings.retriever][0])
        gains = top_gains(ranking[0], self.judge_top)
        path, name = self.folder / JUDGEMENTS, self.teacher.name if self.teacher else HYBRID
        records = judgements([topic.query_id for topic in topics], gains, self._ids, name)
        write_manifest(path, recipe, rows=write_records(path, records), teacher={"name": name})

        wanted = as_qrels([topic.query_id for topic in topics], gains, self._ids)
        tuned = self._feed_back(ways, topics, wanted)
        path = self.folder / RANKINGS
        rows = write_records(path, _records(ways.found, topics, self._ids))
        write_manifest(path, recipe, rows=rows, milliseconds=ways.milliseconds)

        summary = self._summary(ways, topics, wanted, tuned, name)
        path = self.folder / SUMMARY
        with atomic_write(path) as file:
            text = json.dumps(dataclasses.asdict(summary), indent=2, ensure_ascii=False)
            file.write(text.encode(errors="backslashreplace") + b"\n")
        write_manifest(path, recipe, teacher={"name": name})

    @property
    def _ids(self) -> list[str]:
        return list(self.corpus.documents)

    def _ways(self, topics: Sequence[Topic]) -> Ways:
        words = word_searcher(self.corpus, self.settings)
        vectors = vector_searcher(self.folder, self.corpus, self.settings.vectors) if self.settings.vectors else None
        ways = Ways([topic.query for topic in topics], words, vectors)
        ways.search()
        return ways

    def _judged(self, ways: Ways, topics: Sequence[Topic], unfinished: Path) -> Found:
        assert self.teacher is not None
        firsts = [ways.found[way][0] for way in ("bm25", "dense") if way in ways.found]
        queries = {topic.query_id: topic.query for topic in topics}
        return self.teacher.rank(
            queries, pool(firsts, self.teacher_depth), self.corpus.texts(), unfinished, self.score_store
        )

    def _compare(self, topics: Sequence[Topic], teacher: Places, retriever: Places) -> None:
        """Tell by the judged train and dev queries whether the teacher is one; see `conclude`."""
        name = self.teacher.name if self.teacher else HYBRID
        qrels = labels_of(topic for topic in topics if topic.split != "test")
        if len(qrels) < FEWEST_TO_COMPARE:
            logger.warning(
                "WARNING: no train or dev query is judged, so nothing tells whether %s ranks better than %s. Judge "
                "some dozen queries to know",
                name,
                self.settings.retriever,
            )
            return
        rows = {topic.query_id: row for row, topic in enumerate(topics)}
        comparison = compare(qrels, rows, self._ids, teacher=teacher, retriever=retriever, seed=self.seed)
        conclude(comparison, len(qrels), name, self.settings.retriever, force=self.force)

    def _feed_back(self, ways: Ways, topics: Sequence[Topic], wanted: Qrels) -> Mapping[str, Rm3 | DenseFeedback]:
        """Choose the settings of the feedbacks on the train queries, and search with them."""
        train = [row for row, topic in enumerate(topics) if topic.split == "train"]
        judge = Judge(labels_of(topics[row] for row in train) or wanted, self._ids)
        rows = [row for row in train if topics[row].query_id in judge.qrels]
        tuned = tune(ways, rows, [topics[row].query_id for row in rows], judge)
        ways.feed_back(tuned)
        ways.found[PICKED] = picked(ways, [topic.query_id for topic in topics], Judge(wanted, self._ids))
        return tuned

    def _summary(
        self,
        ways: Ways,
        topics: Sequence[Topic],
        wanted: Qrels,
        tuned: Mapping[str, Rm3 | DenseFeedback],
        teacher: str,
    ) -> Summary:
        by_labels = len(labels_of(topic for topic in topics if topic.split == "test")) >= FEWEST_TO_COMPARE
        baselines = Baselines(
            retriever=self.settings.retriever,
            topics=topics,
            document_ids=self._ids,
            places={way: places for way, (places, _) in ways.found.items()},
            qrels=labels_of(topics) if by_labels else wanted,
            by_labels=by_labels,
            chosen_from=sorted(ways.milliseconds, key=lambda way: len(ways.parts[way])),
            seed=self.seed,
        )
        chosen_by = labels_of(topic for topic in topics if topic.split != "test") or wanted
        best, best_on = dataclasses.replace(baselines, qrels=chosen_by).choose()
        measured = baselines.measured({"test"})
        differences = baselines.differences(measured)
        return Summary(
            retriever=self.settings,
            teacher=teacher,
            judge_top=self.judge_top,
            tuned={way: settings.as_numbers() for way, settings in tuned.items()},
            tuned_by="qrels" if labels_of(topic for topic in topics if topic.split == "train") else "judge",
            measured_by="qrels" if by_labels else "judge",
            best=best,
            best_on=best_on,
            headroom=round(differences["oracle"].difference, 6) if differences else None,
            figures=baselines.means(measured),
            table=baselines.rows(measured),
            advice=baselines.advice(best, best_on, measured),
        )


def _records(found: Mapping[str, Found], topics: Sequence[Topic], document_ids: Sequence[str]) -> Iterator[Ranking]:
    for way, (places, scores) in found.items():
        for topic, row, values in zip(topics, places, scores, strict=True):
            there = row >= 0
            ids = [document_ids[place] for place in row[there]]
            yield Ranking(topic.query_id, way, ids, np.round(values[there].astype(np.float64), 6).tolist())
