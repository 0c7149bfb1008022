"""What is chosen, what it is held against, and what is said of it."""

import numpy as np
import pytest

from milvus_optimization.quality.measures import Halves
from milvus_optimization.retrieval.choice import against, best_default, choose, defaults, verdict
from rag_core.base.errors import DataError
from tests.milvus_optimization.retrieval_corpus import RRF, WEIGHTED, WORDS, trial

HALVES = Halves([f"t{i}" for i in range(30)], [f"r{i}" for i in range(30)])
DENSE = trial(0.4, trial_id="dense")
RRF_60 = trial(0.5, trial_id="rrf", parameter=60, depth=100, **RRF)
EQUAL = trial(0.45, trial_id="equal", parameter=0.5, depth=100, **WEIGHTED)


def test_the_best_of_the_tune_half_is_chosen_whatever_the_report_half_says():
    best = trial(0.7, 0.1, parameter=0.3, depth=10, **WEIGHTED)
    assert choose([DENSE, RRF_60, best, EQUAL], "server") is best


@pytest.mark.parametrize("target", ["lite", "server"])
def test_what_milvus_cannot_do_is_not_chosen(target):
    by_hand = trial(0.9, parameter=0.3, depth=10, **WEIGHTED | {"normalisation": "minmax"})
    assert choose([DENSE, by_hand, RRF_60], target) is RRF_60
    raw = trial(0.8, parameter=0.98, depth=10, **WEIGHTED | {"normalisation": "none"})
    assert choose([DENSE, by_hand, RRF_60, raw], target) is raw
    with pytest.raises(DataError, match=f"no way to rank was measured that a {target} target can do"):
        choose([by_hand], target)


def test_of_equal_ones_the_simplest_is_chosen():
    steps = [
        trial(0.5, **RRF, parameter=1, depth=10, reranker="r", reranker_depth=20),
        trial(0.5, **RRF, parameter=1, depth=10, reranker="r", reranker_depth=10),
        trial(0.5, **WEIGHTED, parameter=0.5, depth=10),
        trial(0.5, **RRF, parameter=1, depth=20),
        trial(0.5, **RRF, parameter=1, depth=10),
        trial(0.5, **RRF, parameter=5, depth=10),
        trial(0.5, fusion="bm25", bm25=WORDS),
        DENSE,
        trial(0.5),
    ]
    for number in (0, 1, 2, 3):
        assert choose(steps[: number + 1], "lite") is steps[number]
    assert choose(steps[:6], "lite") is steps[4]  # what stands first
    assert choose(steps[:7], "lite") is steps[6]
    assert choose(steps, "lite") is steps[8]


def test_defaults_have_milvus_own_bm25_and_no_reranker():
    others = [
        trial(0.9, **RRF, parameter=60, depth=10),
        trial(0.9, **RRF | {"bm25": WORDS | {"k1": 0.9}}, parameter=60, depth=100),
        trial(0.9, **RRF, parameter=60, depth=100, reranker="r", reranker_depth=10),
        trial(0.9, **WEIGHTED | {"normalisation": "minmax"}, parameter=0.5, depth=100),
        trial(0.9, model="other"),
    ]
    usual = {"dense only": DENSE, "RRF 60": RRF_60, "equal weights": EQUAL}
    assert defaults([*others, EQUAL, RRF_60, DENSE], "lite", "m") == usual
    assert best_default(usual) == "RRF 60"
    with pytest.raises(DataError, match="the trials of m lack: RRF 60, equal weights"):
        defaults([*others, DENSE], "server", "m")


def test_the_choice_minus_each_default_on_the_report_half():
    report = np.linspace(0, 1, 30)
    choice = trial(0.9, [float(value) for value in report])
    found = against(choice, {"dense only": DENSE}, HALVES.report, 1)["dense only"]
    assert found.difference == pytest.approx(0.1)
    assert (found.better, found.worse) == (int((report > 0.4).sum()), int((report < 0.4).sum()))
    assert found.low < 0 < found.high
    assert found == against(choice, {"dense only": DENSE}, HALVES.report, 1)["dense only"]


SCATTERED = [0.15, 0.95] * 15  # .05 above the best default, and not beyond luck


@pytest.mark.parametrize(("report", "said"), [(0.6, "better"), (0.4, "worse"), (0.5, "equal"), (SCATTERED, "equal")])
def test_the_verdict_is_that_of_the_interval(report, said):
    usual = {"dense only": DENSE, "RRF 60": RRF_60, "equal weights": EQUAL}
    assert verdict(trial(0.9, report), usual, HALVES, 1) == said


def test_the_verdict_is_against_the_default_that_is_best_on_the_tune_half():
    lucky = trial(0.1, 0.9, trial_id="dense")  # best on the report half, which has no say
    assert verdict(trial(0.9, 0.6), {"dense only": lucky, "RRF 60": RRF_60}, HALVES, 1) == "better"
    assert verdict(trial(0.9, 0.6), {"dense only": lucky}, HALVES, 1) == "worse"


def test_too_few_queries():
    usual = {"RRF 60": RRF_60}
    assert verdict(trial(0.9), usual, Halves(HALVES.tune[:19], HALVES.report), 1) == "too few queries"
    assert verdict(trial(0.9), usual, Halves(HALVES.tune[:20], HALVES.report), 1) == "better"
