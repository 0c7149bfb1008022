"""What is no index, though a backend says so."""

import pytest

from milvus_optimization.indexes.honesty import fault_of, honest
from tests.milvus_optimization.test_pareto import trial


def build(recalls, index="HNSW", key="ef", rows=5000, **more):
    return [trial(index, recall, 0.5, 0.5, search={key: width} | more, rows=rows) for width, recall in recalls.items()]


HONEST = {16: 0.9, 32: 0.95, 64: 0.948, 128: 0.999}


def test_recall_that_rises_or_dips_a_little_is_that_of_an_index():
    trials = build(HONEST)
    assert honest(trials) == trials


@pytest.mark.parametrize(
    "recalls, reason",
    [
        ({16: 1.0, 32: 1.0}, "recall is 1.000 at ef 16 already: this is a search through all vectors"),
        ({16: 0.9, 32: 0.95, 64: 0.94}, "recall falls from 0.950 at ef 32 to 0.940 at ef 64"),
        ({64: 0.94, 16: 0.95}, "recall falls from 0.950 at ef 16 to 0.940 at ef 64"),
        ({16: 0.9, 32: 0.9, 64: 0.9}, "recall is 0.900 at ef 16 and at ef 64 alike"),
    ],
)
def test_what_cannot_be_of_an_index_has_no_figures(recalls, reason):
    trials = honest(build(recalls))
    assert {one.reason for one in trials} == {reason}
    assert {(one.status, one.recall, one.ndcg, one.by_query, one.cpu_ms_p50) for one in trials} == {
        ("ignored", None, None, None, None)
    }


def test_coarse_codes_may_lose_to_what_is_searched_further():
    assert fault_of(build({8: 0.50, 16: 0.47}, index="IVF_RABITQ", key="nprobe")) == ""


def test_few_documents_may_all_be_found():
    assert fault_of(build({16: 1.0, 32: 1.0}, rows=1000)) == ""


def test_of_a_part_of_the_documents_the_part_counts():
    assert fault_of([trial("HNSW", 1.0, 0, 0, search={"ef": 16}, rows=5000, screened_rows=1000)]) == ""


@pytest.mark.parametrize("index", ["FLAT", "AUTOINDEX"])
def test_what_has_no_width_may_find_all(index):
    assert fault_of([trial(index, 1.0, 0.5, 0.5, rows=5000)]) == ""


def test_settings_of_another_refinement_are_not_compared():
    trials = build({8: 0.9, 16: 0.95}, key="nprobe", refine_k=4) + build({8: 0.6, 16: 0.7}, key="nprobe", refine_k=1)
    assert fault_of(trials) == ""


def test_the_two_widest_may_find_the_same():
    assert fault_of(build({64: 0.9, 128: 0.9})) == ""


def test_what_is_not_measured_stays_as_it_is():
    failed = trial("HNSW", None, 0.5, 0.5, status="failed", reason="gone", search={"ef": 8})
    trials = honest([failed, *build({16: 1.0, 32: 1.0})])
    assert [one.reason for one in trials].count("gone") == 1
