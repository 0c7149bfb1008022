"""Everything measured and compared: from a workspace and the files that are to be judged to a `Report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from query_expansion_rl.records import Ranking
from query_expansion_rl.report.findings import Report, behind_name, examples
from query_expansion_rl.report.measuring import Measure, RowReport, Values, report_rows
from query_expansion_rl.report.rows import Comparison, Gate, Row, Searchers, oracle
from query_expansion_rl.report.verdict import Controlled, Verdict, compare_with_control, conclude
from query_expansion_rl.report.written import Written
from query_expansion_rl.retrieval.workspace import RANKINGS, Workspace
from rag_core.base.errors import UsageError
from rag_core.base.outside_text import quoted
from rag_core.files.kept_times import KeptTimes
from rag_core.scoring.reranking import Candidates, Reranker, reranked


@dataclass(frozen=True)
class Reranking:
    """A reranker, and where its scores are kept.

    Attributes:
        depth: how many of the first results it orders.
        folder: until the work is done.
        store: for good; `None` for nowhere.
    """

    model: Reranker
    depth: int
    folder: Path
    store: Path | None


@dataclass(frozen=True)
class Compared:
    """What is compared with the ways that need no training.

    Attributes:
        control: the method that learned from random samples.
        shown: the row whose largest gains and losses are told; `None` for the one that the verdict chose.
    """

    written: Sequence[Written]
    rankings: Mapping[str, Mapping[str, Ranking]]
    control: str | None = None
    shown: str | None = None


class Evaluation:
    """The comparison of a workspace's ways with what was written for its queries."""

    def __init__(
        self,
        workspace: Workspace,
        searchers: Searchers,
        times: KeptTimes,
        *,
        query_weight: float,
        gate: Gate,
        seed: int,
    ) -> None:
        """Set it up; nothing is searched for yet."""
        self._workspace, self._searchers, self._times = workspace, searchers, times
        self._weight, self._gate, self._seed = query_weight, gate, seed
        self._test = workspace.of("test")
        self._measure = Measure(workspace, self._test)

    def report(self, compared: Compared, reranking: Reranking | None = None) -> Report:
        """Make every row, measure it, and conclude.

        Raises:
            DataError: an expansion or a ranking is missing.
            UsageError: a row that is asked for is not there, or two have one name.
            PipelineError: as the reranker's engine raises.
        """
        for written in compared.written:
            written.check_covers(self._test)
        best, own = self._workspace.summary.best, self._searchers.own_name
        rows, values = self._rows(compared)
        if best not in values:
            raise UsageError(f"the best way, {quoted(best)}, is not among the rankings", "Run rank_baselines again")
        reports = report_rows(rows, values, best, self._measure.query_ids, self._seed)
        controls = self._controls(compared, reports)
        dev, dev_queries = self._dev(compared)
        verdict = conclude(reports, retriever=own, best=best, dev=dev, controls=controls)
        behind, behind_verdict = self._behind(rows, reranking, best, dev) if reranking else ([], None)
        shown = compared.shown or verdict.shown or best
        found = next((row for row in rows if row.name == shown), None)
        if found is None:
            names = ", ".join(row.name for row in rows)
            raise UsageError(f"--examples_of {shown} is no row", f"Pass one of: {names}")
        gains, losses = examples(found, values[own]["NDCG@10"], values[shown]["NDCG@10"], self._test)
        return Report(
            retriever=own,
            best=best,
            judged_by=self._measure.judged_by,
            queries=len(self._measure.query_ids),
            dev_queries=dev_queries,
            query_weight=self._weight,
            reranker=reranking.model.name if reranking else None,
            reranker_depth=reranking.depth if reranking else 0,
            headroom=next(row for row in reports if row.kind == "oracle").ndcg - _mean(values[own]),
            verdict=verdict,
            reranked_verdict=behind_verdict,
            rows=reports,
            reranked=behind,
            controls=controls,
            shown=shown,
            gains=gains,
            losses=losses,
        )

    def _rows(self, compared: Compared) -> tuple[list[Row], dict[str, Values]]:
        from tqdm import tqdm

        comparison = self._comparison("test")
        free = comparison.training_free(self._workspace.rankings(), str(self._workspace.folder / RANKINGS))
        values = {row.name: self._measure(row.places) for row in tqdm(free, desc="ways", disable=None)}
        rows = [*free, self._oracle(f"oracle over {len(free)} ways", [row.places for row in free])]
        rows += comparison.second()
        rows += comparison.policies(compared.rankings)
        for written in tqdm(compared.written, desc="expansions", disable=None):
            rows += comparison.expanded(written)
            if written.most_samples > 1:
                alone = next(row for row in free if row.kind == "retriever").places
                name = f"{written.method} oracle of {written.most_samples}"
                rows.append(self._oracle(name, [alone, *comparison.samples(written)]))
        names = [row.name for row in rows]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two rows are named {name}", "Give one of the methods another --method")
        return rows, {row.name: values.get(row.name) or self._measure(row.places) for row in rows}

    def _oracle(self, name: str, rankings: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]) -> Row:
        values = [self._measure(places)["NDCG@10"] for places in rankings]
        return oracle(name, rankings, values, self._test, self._searchers.own_name)

    def _comparison(self, split: str) -> Comparison:
        topics = self._test if split == "test" else self._workspace.of("dev")
        return Comparison(
            self._workspace, topics, self._searchers, self._times, query_weight=self._weight, gate=self._gate
        )

    def _controls(self, compared: Compared, reports: Sequence[RowReport]) -> list[Controlled]:
        if compared.control is None:
            return []
        methods = [written.method for written in compared.written]
        if compared.control not in methods:
            known = ", ".join(methods) or "there are none"
            raise UsageError(f"--control {compared.control} is no method of the expansions", f"Pass one of: {known}")
        return compare_with_control(reports, compared.control, self._measure.query_ids, self._seed)

    def _dev(self, compared: Compared) -> tuple[dict[str, float], int]:
        """Return the dev figure of each expansion's rows, where every method has expansions for all dev queries."""
        topics = self._workspace.of("dev")
        if not Measure.is_possible(self._workspace, topics) or any(
            written.lacks(topics) for written in compared.written
        ):
            return {}, 0
        if any(topic.query_id not in found for found in compared.rankings.values() for topic in topics):
            return {}, 0
        measure, comparison = Measure(self._workspace, topics), self._comparison("dev")
        rows = comparison.policies(compared.rankings)
        for written in compared.written:
            written.check_covers(topics)
            rows += comparison.expanded(written)
        return {row.name: _mean(measure(row.places)) for row in rows}, len(measure.query_ids)

    def _behind(
        self, rows: Sequence[Row], reranking: Reranking, best: str, dev: Mapping[str, float]
    ) -> tuple[list[RowReport], Verdict]:
        """Rerank every way that can be had, and conclude again."""
        tried = [row for row in rows if row.kind != "oracle" and row.way != "alone"]
        ids, queries = [topic.query_id for topic in self._test], [topic.query for topic in self._test]
        first = [row.places[:, : reranking.depth] for row in tried]
        candidates = Candidates.of(ids, queries, self._workspace.corpus.texts(), first)
        scores, milliseconds = reranking.model.score(
            candidates, reranking.folder, reranking.store, [reranking.depth], self._times
        )
        spent = milliseconds[reranking.depth]
        behind = [
            replace(
                row,
                name=behind_name(row.name),
                base=behind_name(row.base),
                places=reranked(row.places, reranking.depth, scores),
                search_ms=None if row.search_ms is None else row.search_ms + spent,
            )
            for row in tried
        ]
        values = {row.name: self._measure(row.places) for row in behind}
        reports = report_rows(behind, values, behind_name(best), self._measure.query_ids, self._seed)
        verdict = conclude(
            reports,
            retriever=behind_name(self._searchers.own_name),
            best=behind_name(best),
            dev={behind_name(name): value for name, value in dev.items()},
            controls=[],
        )
        return reports, verdict


def _mean(values: Values) -> float:
    return float(np.mean(list(values["NDCG@10"].values())))
