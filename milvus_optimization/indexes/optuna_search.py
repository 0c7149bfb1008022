"""The same table by Optuna: its TPE sampler proposes the next setting from those that are measured.

To 99 % of the hypervolume of 70 settings of faiss on scifact it took a median of 36 evaluations and 27 CPU seconds,
where the sweep took 40 and 12: it goes to and fro between builds, which are dear. It is here for tables that are too
large to go through.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from milvus_optimization.backends.space import BuildSetting
from milvus_optimization.indexes.pareto import milliseconds
from milvus_optimization.records import IndexTrial, Setting
from rag_core.base.errors import UsageError

if TYPE_CHECKING:
    import optuna

Point = tuple[int, int]  # place of a build setting, and of one of its searches

_REPEATS = 3  # proposals in a row of what is measured, after which the next one that is not is taken


def search_table(
    settings: Sequence[BuildSetting],
    evaluate: Callable[[BuildSetting, Setting], IndexTrial],
    *,
    evaluations: int,
    seed: int,
    told: Callable[[], object] = lambda: None,
) -> dict[Point, IndexTrial]:
    """Try settings, FLAT first; return the trials by their places in the table.

    Args:
        evaluate: measures one, or returns what is known; a `skipped` one ends the search.
        evaluations: how many of the table are tried.
        told: called for each.

    Raises:
        UsageError: Optuna is not installed.
    """
    study = _study(seed)
    points = [(build, search) for build, setting in enumerate(settings) for search in range(len(setting.searches))]
    found: dict[Point, IndexTrial] = {}
    repeats = 0
    study.enqueue_trial(_parameters(settings, points[0]))
    while len(found) < min(evaluations, len(points)):
        proposal = study.ask()
        point = _proposed(settings, proposal)
        repeats = repeats + 1 if point in found else 0
        if point not in found:
            build, search = point
            trial = evaluate(settings[build], settings[build].searches[search])
            if trial.status == "skipped":
                break
            found[point] = trial
            told()
        elif repeats >= _REPEATS:
            repeats = 0
            study.enqueue_trial(_parameters(settings, next(one for one in points if one not in found)))
        _tell(study, proposal, found[point])
    return found


def _study(seed: int) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise UsageError(
            "--search optuna needs Optuna", 'Run: pip install "rag-optimization[optuna]", or leave --search out'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, seed=seed)
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def _indexes(settings: Sequence[BuildSetting]) -> dict[str, list[int]]:
    """Return index type -> the places of its builds."""
    found: dict[str, list[int]] = {}
    for place, setting in enumerate(settings):
        found.setdefault(setting.index, []).append(place)
    return found


def _proposed(settings: Sequence[BuildSetting], proposal: optuna.Trial) -> Point:
    """Let the sampler choose an index, then one of its builds, then one of its searches: the last two are ordered."""
    places = _indexes(settings)
    index = proposal.suggest_categorical("index", list(places))
    build = places[index][proposal.suggest_int(f"{index} build", 0, len(places[index]) - 1)]
    return build, proposal.suggest_int(
        f"{index} search {len(settings[build].searches)}", 0, len(settings[build].searches) - 1
    )


def _parameters(settings: Sequence[BuildSetting], point: Point) -> dict[str, Any]:
    build, search = point
    index = settings[build].index
    return {
        "index": index,
        f"{index} build": _indexes(settings)[index].index(build),
        f"{index} search {len(settings[build].searches)}": search,
    }


def _tell(study: optuna.Study, proposal: optuna.Trial, trial: IndexTrial) -> None:
    from optuna.trial import TrialState

    quality = trial.recall if trial.ndcg_tune is None else trial.ndcg_tune
    if trial.status == "ok" and quality is not None:
        cost = milliseconds(trial) or trial.index_bytes or 1
        study.tell(proposal, (quality, math.log10(cost)))
    else:
        study.tell(proposal, state=TrialState.FAIL)
