"""When an export is refused, and what its data cannot tell."""

import dataclasses

import pytest

from rag_core.base.records import RankingSample
from rag_core.engines.identity import describe_model
from rag_core.metrics.significance import Change
from rag_core.release.graph import PlainGraph
from rag_core.release.proof import Proof, prove
from tests.exports import MARKS, PAIRS

pytestmark = MARKS


SAME = Change(difference=0.0, relative=0.0, low=0.0, high=0.0, p_value=1.0)


def test_int8_that_ranks_alike_but_scores_otherwise_is_refused():
    proof = Proof(9, 90, 1.0, 0.5, 1.0, {"MAP": SAME}, {})
    assert proof.fault("int8", 0.005) is None
    worse = dataclasses.replace(proof, largest_difference=5.5)
    expected = "scores of the export differ by up to 5.5 in int8, where the source's have a standard deviation of 1"
    assert worse.fault("int8", 0.005) == expected


def test_what_the_data_cannot_tell_is_said(caplog):
    caplog.set_level("WARNING")
    unsure = {"MAP": dataclasses.replace(SAME, difference=-0.001, low=-0.02, high=0.01)}
    assert Proof(9, 90, 1.0, 0.5, 1.0, unsure, {}).fault("int8", 0.005) is None
    assert "on these 9 queries the loss of MAP may be 0.0200, more than --max_map_drop 0.005" in caplog.text
    assert Proof(9, 90, 0.95, 0.5, 1.0, {}, {}).fault("int8", 0.005) is None
    assert "the order of all candidates decides (Kendall's tau must be at least 0.9)" in caplog.text
    assert "ranks candidates differently" in Proof(9, 90, 0.8, 0.5, 1.0, {}, {}).fault("int8", 0.005)


@pytest.mark.parametrize("max_length", [None, 12])
def test_both_are_cut_alike(max_length, sharp_cross_encoder, tmp_path):
    model, exported = describe_model(sharp_cross_encoder), tmp_path / "exported"
    PlainGraph(model, tmp_path / "graph").write(exported, "onnx", "fp32")
    long = [RankingSample("how are caves made", candidates=[f"{'word ' * 20}{text}", text]) for _, text in PAIRS]
    proof = prove(model, exported, long, max_length, seed=1)
    assert proof.largest_difference < 1e-4 * proof.score_deviation
