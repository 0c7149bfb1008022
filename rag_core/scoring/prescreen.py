"""A cheap model ranks each query's candidates first; the teacher scores its best and a random few of the others.

What is left out is unscored, not low: nobody knows what the teacher would have said.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError, UsageError
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import close, free_memory
from rag_core.engines.options import EngineName, EngineOptions
from rag_core.files.chunk_store import row_key
from rag_core.files.manifest import unfinished_folder
from rag_core.metrics.ranking import rank
from rag_core.scoring.chunks import Work
from rag_core.scoring.prescreen_args import PRESCREEN_FLAGS
from rag_core.scoring.room import settle_run
from rag_core.scoring.samples import JoinedFiles, SampleFile, is_training
from rag_core.scoring.scores import Scores, compute_scores, scored_samples
from rag_core.scoring.settings import CHUNK_ROWS, describe_store, load, scope_of, what_scores

if TYPE_CHECKING:
    from rag_core.scoring.generate_logits import GenerateLogitsArgs

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class LeftOut:
    """Candidates that a prescreening left unscored, counted as the others are written.

    Attributes:
        pairs, relevant: how many, and how many of them have label 1.
        of_relevant: how many candidates have label 1.
    """

    pairs: int = 0
    relevant: int = 0
    of_relevant: int = 0

    def told(
        self, whole: Iterable[RankingSample], scored: Iterable[tuple[RankingSample, list[ScoredPair]]]
    ) -> Iterator[tuple[RankingSample, list[ScoredPair]]]:
        """Yield what was scored, with the unscored candidates of each query in its first row.

        Raises:
            ValueError: `whole` and `scored` have not the same queries.
        """
        for sample, (part, pairs) in zip(whole, scored, strict=True):
            have = {pair.passage for pair in pairs}
            unscored = [(text, label) for text, label in sample.passages() if text not in have]
            self.pairs += len(unscored)
            self.relevant += sum(label == 1 for _, label in unscored)
            self.of_relevant += sum(label == 1 for _, label in sample.passages())
            if unscored:
                pairs[0] = dataclasses.replace(pairs[0], unscored=[text for text, _ in unscored])
            yield part, pairs

    def log(self) -> None:
        """Say how many were left out, and where there are labels, how many of them are relevant."""
        of_them = f", {self.relevant} of the {self.of_relevant} relevant ones" if self.of_relevant else ""
        logger.info("prescreening left %d candidates unscored%s", self.pairs, of_them)


@dataclasses.dataclass(frozen=True)
class Prescreen:
    """Which candidates of a query a teacher scores: a cheap model's best `keep`, and `random` of the others.

    Attributes:
        engine, options: of the cheap model, settled.
        seed: of what is drawn at random. The draw of a query depends on it and on the `query_id` alone, so that another
            order of queries or candidates changes nothing.
    """

    engine: EngineName
    options: EngineOptions
    keep: int
    random: int
    seed: int

    @property
    def most(self) -> int:
        """How many candidates of a query are scored at most."""
        return self.keep + self.random

    @property
    def scope(self) -> str:
        """The hash of all that determines a score of the cheap model beside the texts."""
        return scope_of(self.engine, self.options)

    @property
    def recipe(self) -> dict[str, Any]:
        """What of the prescreening decides which pairs are scored."""
        flags, model = what_scores(self.engine, self.options)
        settings = (model | flags, self.keep, self.random, self.seed)
        return dict(zip(PRESCREEN_FLAGS, settings, strict=True))

    def fact(self, left_out: LeftOut) -> dict[str, Any]:
        """Return what a manifest tells of it beside the recipe."""
        return {
            "prescreen": {
                "model": dict(self.options.model.identity),
                "keep": self.keep,
                "random": self.random,
                "seed": self.seed,
                "pairs_left_out": left_out.pairs,
                **({"relevant_left_out": left_out.relevant} if left_out.of_relevant else {}),
            }
        }

    def folders(self, store: Path | None, outputs: Sequence[Path]) -> list[Path]:
        """Return where the cheap model's scores or vectors are found; new ones go to the first.

        Args:
            store: where rows of all models stay for good; `None` for nowhere.
            outputs: of the run.
        """
        kept = [store / self.scope] if store else []
        return [*kept, *(unfinished_folder(output) / "prescreen" for output in outputs)]

    def narrow(self, sources: Sequence[SampleFile], store: Path | None, outputs: Sequence[Path]) -> None:
        """Leave of each file the candidates that are to be scored; what the cheap model computes is kept on the way.

        Its memory is given back: a GPU may have no room for two models.

        Args:
            store, outputs: as in `folders`.

        Raises:
            PipelineError: as engine and canary raise, or a file changes meanwhile.
        """
        logger.info(
            "prescreening by %s: the teacher scores its best %d and %d random candidates of each query",
            self.options.model.name,
            self.keep,
            self.random,
        )
        folders = self.folders(store, outputs)
        folders[0].mkdir(parents=True, exist_ok=True)
        if store:
            describe_store(folders[0], self.engine, self.options)
        scores = self._scores(sources, folders)
        free_memory()
        for source in sources:
            try:
                chosen = [self.chosen(sample, row) for sample, row in scored_samples(source, scores)]
            except KeyError:
                source.check_unchanged()  # or else there could be no text that was not there before
                raise
            source.narrow(np.concatenate(chosen))

    def _scores(self, sources: Sequence[SampleFile], folders: Sequence[Path]) -> Scores:
        model = load(self.engine, self.options, sources[0].canary_pairs)
        work = Work(model, self.scope, folders, CHUNK_ROWS[self.engine])
        scores = compute_scores(JoinedFiles(sources), work, pairs=sum(source.pairs for source in sources))
        close(model)
        return scores

    def chosen(self, sample: RankingSample, pairs: Sequence[ScoredPair]) -> npt.NDArray[np.bool_]:
        """Tell which candidates of a query are scored; shape (candidates,).

        Args:
            pairs: the cheap model's scores of its distinct candidates; ties as in `metrics.ranking.rank`.
        """
        texts = [pair.passage for pair in pairs]
        best = rank(texts, [pair.score for pair in pairs]) < self.keep
        others = np.flatnonzero(~best).tolist()
        draw = {i: row_key(f"{self.seed}", sample.query_id or "", texts[i]) for i in others}
        best[sorted(others, key=lambda i: draw[i])[: self.random]] = True
        return best


def settle_prescreen(args: GenerateLogitsArgs, sources: Sequence[SampleFile], teacher: EngineOptions) -> Prescreen:
    """Find out what the cheap model is, choose its engine and precision, and say which files it is not for.

    It runs in this process, is told what the teacher is told, and reads as many tokens.

    Raises:
        UsageError: it is the teacher.
        PipelineError: as `settle_run`.
    """
    model = describe_model(args.prescreen or "")
    if model.identity == teacher.model.identity:
        raise UsageError(f"--prescreen {args.prescreen} is the teacher", "Pass a cheaper model, or leave it out")
    options = EngineOptions(
        model=model,
        instruction=args.instruction if model.takes_instruction else None,
        max_length=args.max_length,
        batch_size=args.batch_size,
        reference="none",
        transformers=teacher.transformers,
        vllm=dataclasses.replace(teacher.vllm, vllm_runner="generate", quantization=None),
    )
    _warn_of_measured(sources)
    engine, options = settle_run(sources, "auto", options)
    return Prescreen(engine, options, args.prescreen_keep, args.prescreen_random, args.seed)


def _warn_of_measured(sources: Sequence[SampleFile]) -> None:
    """Say which files look as if they were to be measured on, which wants a score of every candidate."""
    for source in sources:
        if source.labelled and not is_training(source.path.name):
            logger.warning(
                "WARNING: %s has labels, and by its name is no training file: with --prescreen only a part of its "
                "candidates is scored, and evaluate and calibrate refuse that. Score it without --prescreen, unless it "
                "is for training.",
                source.path,
            )


def check_all_scored(path: Path, pairs: Iterable[ScoredPair]) -> None:
    """Check that all candidates of a ScoredPair file were scored, which measuring needs.

    Raises:
        DataError: a prescreening has left some out.
    """
    queries = left_out = 0
    for pair in pairs:
        queries += bool(pair.unscored)
        left_out += len(pair.unscored or ())
    if left_out:
        raise DataError(
            f"was prescreened: {left_out} candidates of {queries} queries have no score, and measuring needs the score "
            "of every candidate",
            "Score the file without --prescreen (generate_logits with another --output_dir)",
            path=path,
        )
