"""The folder of a report's `ScoredPair` files, in which equal models are scored once."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample
from rag_core.engines.options import EngineOptions
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import output_path
from rag_core.scoring.room import settle_run
from rag_core.scoring.scored_files import ScoringRun, prepare_run, read_sources

logger = logging.getLogger(__name__)


class ScoreFolder:
    """Scores files with models, under their names in the report; what is finished is kept for the next report.

    Models are equal where their weights and all that decides a score are: one of them is scored, and the others get
    a copy of its files. Scores that were made with other settings are replaced.
    """

    def __init__(self, folder: Path, *, stage: str, skip_bad_rows: bool, score_store: Path | None = None) -> None:
        """Keep the settings.

        Args:
            score_store: folder where computed rows stay for good; `None` for nowhere.
        """
        self._folder = folder
        self._stage = stage
        self._skip_bad_rows = skip_bad_rows
        self._score_store = score_store
        self._left_out: dict[Path, dict[str, DataError]] = {}
        self._finished: defaultdict[str, dict[Path, Path]] = defaultdict(dict)  # by scope: input -> ScoredPair file

    def without_left_out(self, path: Path, samples: Sequence[RankingSample], bad_rows: BadRows) -> list[RankingSample]:
        """Return the samples of a scored file that all models had room for; the others are bad rows."""
        left_out = self._left_out[path]
        for error in left_out.values():
            bad_rows.add(error)
        return [sample for sample in samples if sample.query_id not in left_out]

    def score(self, models: Mapping[str, EngineOptions], paths: Sequence[Path]) -> dict[str, dict[Path, Path]]:
        """Score each file with each model; return by name: input -> ScoredPair file `<input stem>_<name>.jsonl`.

        Raises:
            PipelineError: as `scored_files.prepare_run` and `ScoringRun.score`; the former of any model comes first.
        """
        if not models:
            return {}
        outputs = {name: {path: output_path(path, f"_{name}", self._folder) for path in paths} for name in models}
        sources = read_sources(outputs[next(iter(outputs))], skip_bad_rows=self._skip_bad_rows)
        settled = {}
        for name, options in models.items():
            logger.info("%s: %s", name, options.model.name)
            settled[name] = settle_run(sources, "auto", options)
        self._left_out |= {source.path: source.left_out for source in sources}
        runs: dict[str, ScoringRun] = {}
        for name in models:
            runs[name] = prepare_run(
                sources,
                outputs[name],
                stage=self._stage,
                settled=settled[name],
                replace_stale=True,
                score_store=self._score_store,
            )
            left = {source.path for source in runs[name].sources}
            self._finished[runs[name].scope] |= {path: made for path, made in outputs[name].items() if path not in left}
        for name, prepared in runs.items():
            run = prepared.copy_finished(self._finished[prepared.scope])
            if run.todo:
                logger.info("score with %s", name)
            run.score()
            self._finished[run.scope] |= outputs[name]
        return outputs
