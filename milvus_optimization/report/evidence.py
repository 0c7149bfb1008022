"""All that a recommendation is made from, read and held together: one corpus, one set of judged queries, one split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from milvus_optimization.quality.measures import Halves, mean
from milvus_optimization.records import IndexTrial, RetrievalTrial, VectorVariant
from rag_core.base.errors import DataError, StaleError
from rag_core.base.outside_text import quoted
from rag_core.corpora.corpus import DOCUMENTS, QRELS, QUERIES, Corpus, judge_of, read_corpus
from rag_core.files.jsonl import read_records
from rag_core.files.manifest import UNKNOWN, check_inputs, read_manifest
from rag_core.metrics.differences import FEWEST_TO_COMPARE, ByQuery

LABELS = "labels"
_ROUNDING = 1e-5  # of a mean of values that were written with 6 decimals


@dataclasses.dataclass(frozen=True)
class Sources:
    """Where the evidence stands; `None` for what was not measured.

    Attributes:
        labelled_trials: trials of the same ways to rank under another judgement.
    """

    vectors: Path
    index_trials: Sequence[Path]
    retrieval_trials: Path
    variants: Path | None = None
    labelled_trials: Path | None = None

    def files(self) -> list[Path]:
        """Return those that are read."""
        texts = [self.vectors / name for name in (DOCUMENTS, QUERIES)]
        judged = [path for path in (self.vectors / QRELS,) if path.exists()]
        further = [path for path in (self.variants, self.labelled_trials) if path is not None]
        return [*texts, *judged, *self.index_trials, self.retrieval_trials, *further]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was measured.

    Attributes:
        judged_by: "labels", or the name of the teacher whose scores stand in.
        labelled: the second judgement; empty without. `labelled_halves` are of its queries.
        inputs: path -> SHA-256 of what was read.
    """

    corpus: Corpus
    variants: list[VectorVariant]
    index: list[IndexTrial]
    retrieval: list[RetrievalTrial]
    labelled: list[RetrievalTrial]
    halves: Halves
    labelled_halves: Halves
    judged_by: str
    inputs: dict[str, str]


def read_evidence(sources: Sources, tune_fraction: float) -> Evidence:
    """Read and check all files.

    Raises:
        DataError: one is missing, or a row is bad.
        StaleError: they are of different corpora or judged queries, or were split otherwise.
    """
    inputs = check_inputs(sources.files())
    corpus = read_corpus(sources.vectors)
    variants = list(read_records(sources.variants, VectorVariant)) if sources.variants else []
    index = [trial for path in sources.index_trials for trial in read_records(path, IndexTrial)]
    retrieval = list(read_records(sources.retrieval_trials, RetrievalTrial))
    labelled = list(read_records(sources.labelled_trials, RetrievalTrial)) if sources.labelled_trials else []
    judged = list(retrieval[0].by_query)
    halves = Halves.of(judged, tune_fraction)
    labelled_halves = Halves.of(list(labelled[0].by_query) if labelled else [], tune_fraction)
    _check_enough(halves, sources.retrieval_trials)
    _check_documents(index, corpus, sources)
    measured: list[tuple[Path | None, Sequence[IndexTrial | RetrievalTrial | VectorVariant], Halves]] = [
        (sources.retrieval_trials, retrieval, halves),
        (sources.variants, variants, halves),
        (sources.index_trials[0], index, halves),
        (sources.labelled_trials, labelled, labelled_halves),
    ]
    for path, records, split in measured:
        for record in records:
            if record.by_query is not None:
                _check_queries(record.by_query, split, path)
                _check_split(record.by_query, record.ndcg_tune, split, path)
    judging = (sources.retrieval_trials, *sources.index_trials, *([sources.variants] if sources.variants else []))
    judges = {path: _judge(path) for path in judging}
    judged_by = judges[sources.retrieval_trials]
    if others := [path for path, judge in judges.items() if judge != judged_by]:
        what = f"was judged by {quoted(judges[others[0]])}, and the retrieval trials by {quoted(judged_by)}"
        raise StaleError(what, "Pass the same --qrels to every stage", path=others[0])
    return Evidence(corpus, variants, index, retrieval, labelled, halves, labelled_halves, judged_by, inputs)


def _judge(trials: Path) -> str:
    """Return who judged, as far as the manifest of trials tells: itself, or by the qrels that it names."""
    manifest = read_manifest(trials) or UNKNOWN
    if told := manifest.facts.get("judged_by"):
        return str(told)
    qrels = [Path(path) for path in manifest.recipe.get("inputs") or {} if path.endswith((".tsv", ".tsv.gz"))]
    return next((judge for judge in map(judge_of, qrels) if judge != LABELS), LABELS)


def _check_documents(trials: Iterable[IndexTrial], corpus: Corpus, sources: Sources) -> None:
    for trial in trials:
        if trial.rows != len(corpus.documents):
            raise StaleError(
                f"were measured on {trial.rows} documents, and {sources.vectors} has {len(corpus.documents)}",
                "Run sweep_indexes again",
                path=sources.index_trials[0],
            )


def _check_queries(by_query: ByQuery, halves: Halves, path: Path | None) -> None:
    wanted = {*halves.tune, *halves.report}
    if by_query.keys() != wanted:
        raise StaleError(
            f"holds figures of {len(by_query)} queries, which are not the {len(wanted)} of the retrieval trials",
            "Measure all with the same queries and judgements",
            path=path,
        )


def _check_split(by_query: ByQuery, ndcg_tune: float | None, halves: Halves, path: Path | None) -> None:
    """Check that a record was split as it is split here, so that no choice is made by what is reported."""
    here = mean(by_query, halves.tune)
    if ndcg_tune is None or not math.isclose(here, ndcg_tune, abs_tol=_ROUNDING):
        raise StaleError(
            f"has a tune half of nDCG@10 {ndcg_tune or 0.0:.4f}, which is {here:.4f} here",
            "Pass the --tune_fraction that it was made with",
            path=path,
        )


def _check_enough(halves: Halves, path: Path) -> None:
    tune, report = len(halves.tune), len(halves.report)
    if not tune or report < FEWEST_TO_COMPARE:
        raise DataError(
            f"has {tune} queries to choose by and {report} to report on",
            "Judge more queries, or pass another --tune_fraction to every stage",
            path=path,
        )
