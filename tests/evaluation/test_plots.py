"""What is drawn, as its description and its text say it."""

from dataclasses import replace

from rag_core.evaluation.plots import score_scatter, trade_off
from tests.evaluation.cases import MERGE, evaluation


def test_a_student_that_scores_all_alike_has_no_correlation():
    picture = score_scatter(evaluation(before=[[1.0] * 3] * 8), 1)
    assert "before: no rank correlation, all scores are alike; after: rank correlation 0." in picture.svg


def test_no_more_than_two_thousand_pairs_are_drawn():
    found = evaluation()
    for name in ("before", "after", "teacher"):
        found.scores[name] = [list(range(400))] * 8
    assert "2000 of 3200 pairs. before: rank correlation 1.000" in score_scatter(found, 1).svg


def test_the_trade_off_without_files_of_other_domains_is_drawn_by_alpha():
    inside = replace(MERGE, files=MERGE.files[:1])
    for merges in ({"a": inside}, {"a": MERGE, "b": inside}):  # one axis for all
        assert ">alpha</text>" in trade_off(merges).svg
        assert "In-domain by alpha." in trade_off(merges).svg
    assert ">mean change of the out-of-domain dev files</text>" in trade_off({"a": MERGE}).svg
    assert ">0.5</text>" in trade_off({"a": MERGE}).svg


def test_the_name_of_a_model_is_no_formula():
    assert ">with $ and $</text>" in trade_off({"with $ and $": MERGE}).svg
