import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.canary import CANARY_PAIRS, TOLERANCE, check, compare
from tests.conftest import GivenScorer

PAIRS = [("query", f"passage {i}") for i in range(30)]


class Encoder:
    score_unit = "cosine"
    truncated = None
    dimensions = 2

    def __init__(self, angle):
        self.angle = angle

    def encode(self, texts, role):
        angles = np.array([self.angle(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_teacher_that_tells_pairs_apart_passes():
    scorer = GivenScorer(np.linspace(-1, 1, 30))
    check(scorer, PAIRS)
    assert scorer.truncated == 0, "the canary's pairs are counted by the run"


def test_no_more_pairs_are_scored_than_said():
    scorer = GivenScorer([1.0] * CANARY_PAIRS + [0.0] * 10)
    with pytest.raises(EngineError, match="all 20 pairs tried"):
        check(scorer, PAIRS)


def test_one_score_for_all_is_an_error():
    with pytest.raises(EngineError, match=r"gives all 20 pairs tried the same score \(0.5\). Check that it is a"):
        check(GivenScorer([0.5] * 30), PAIRS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error(value):
    with pytest.raises(EngineError, match=r"1 of 20 scores of the teacher are not finite .* --dtype float32"):
        check(GivenScorer([value, *range(29)]), PAIRS)


def test_nothing_can_be_said_of_fewer_than_two_pairs():
    check(GivenScorer([0.5]), PAIRS[:1])
    check(GivenScorer([]), [])


def test_an_encoder_is_checked_by_its_cosines():
    check(Encoder(len), [("q", "p" * n) for n in range(5)])
    with pytest.raises(EngineError, match="all 5 pairs tried the same score"):
        check(Encoder(lambda text: 1.0), [("q", "p" * n) for n in range(5)])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_forms_must_agree_within_the_precision(dtype):
    exact = np.array([-3.0, 0.5, 2.0], dtype=np.float32)
    near, far = (exact + np.float32(factor * TOLERANCE[dtype]) * np.array([0, 1, 0]) for factor in (0.9, 1.1))
    assert compare(exact, near, dtype) == pytest.approx(0.9 * TOLERANCE[dtype], rel=1e-2)
    with pytest.raises(EngineError, match=rf"on 3 pairs, where .* in {dtype}. Pass --vllm_runner generate"):
        compare(exact, far, dtype)


@pytest.mark.parametrize("broken", ["exact", "fast"])
def test_a_form_that_gives_nan_does_not_agree(broken):
    scores = {name: np.ones(2, dtype=np.float32) for name in ("exact", "fast")}
    scores[broken][0] = np.nan
    with pytest.raises(EngineError, match="not finite"):
        compare(**scores, dtype="float32")
