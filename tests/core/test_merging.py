"""Which point between before and after is chosen."""

import pytest

from rag_core.dev_set import DevSet
from rag_core.errors import DataError
from rag_core.jsonl import write_records
from rag_core.merging import ALPHAS, Curve, decide
from rag_core.records import ScoredPair


def curve(domain, value):
    return Curve("f", domain, "MAP", 9, [value(alpha) for alpha in ALPHAS])


def test_the_best_point_at_which_nothing_falls():
    rising = curve("in-domain", lambda alpha: alpha)
    assert decide([rising])[0] == 1
    arch = curve("out-of-domain", lambda alpha: alpha * (0.65 - alpha))  # above its start until alpha 0.65
    alpha, reason = decide([rising, arch])
    assert alpha == 0.6
    assert reason == "the best on the in-domain dev file, of 7 of 11 at which no out-of-domain dev file falls"
    falling = curve("out-of-domain", lambda alpha: -alpha)
    assert decide([rising, arch, falling])[0] == 0


def test_at_equal_values_less_is_kept():
    assert decide([curve("in-domain", lambda alpha: alpha >= 0.3)])[0] == 0.3


def test_without_an_in_domain_file_half_or_less():
    assert decide([curve("out-of-domain", lambda alpha: 0.0)])[0] == 0.5
    assert decide([curve("out-of-domain", lambda alpha: alpha * (0.25 - alpha))])[0] == 0.2


def rows(*candidates):
    return [ScoredPair("1", "q", f"p{i}", score, label) for i, (score, label) in enumerate(candidates)]


def read(path, pairs):
    write_records(path, pairs)
    return DevSet.read(path, skipped=None)


def test_labels_are_measured_where_there_are_any(tmp_path):
    assert read(tmp_path / "a", rows((0.1, 1), (0.2, 0))).measure == "MAP"
    assert read(tmp_path / "b", rows((0.1, 1), (0.2, 1))).measure == "Kendall's tau"
    assert read(tmp_path / "c", rows((0.1, None), (0.2, None))).measure == "Kendall's tau"


@pytest.mark.parametrize("pairs", [rows((0.1, 1)), rows((0.1, None), (0.1, None))])
def test_a_file_that_compares_nothing_is_refused(tmp_path, pairs):
    with pytest.raises(DataError, match="no query with two candidates that differ in label or score"):
        read(tmp_path / "a", pairs)
