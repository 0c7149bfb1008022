"""The sweep over real indexes of faiss."""

import pytest

from milvus_optimization import sweep_indexes
from milvus_optimization.records import IndexTrial
from rag_core.files.jsonl import read_records
from rag_core.metrics import significance
from tests.milvus_optimization.swept import write_vectors


@pytest.fixture(scope="session")
def trials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faiss") / "vectors"
    write_vectors(folder, rows=3000, queries=120, dimensions=32, noise=0.9)
    output = folder.parent / "trials.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "_RESAMPLES", 199)
        flags = ["--indexes", "IVF_FLAT", "IVF_RABITQ", "HNSW", "--queries", "100"]
        assert sweep_indexes.main(["--vectors", str(folder), "--output_file", str(output), *flags]) == 0
    return list(read_records(output, IndexTrial))


def measured(trials, index):
    return [one for one in trials if one.index == index and one.status == "ok"]


def test_nothing_fails_and_builds_are_as_asked(trials):
    assert {one.status for one in trials} <= {"ok", "skipped"}
    for one in trials:
        if one.status == "ok":
            assert one.build.items() <= one.build_seen.items(), one


def test_flat_is_what_all_are_held_against(trials):
    (flat,) = measured(trials, "FLAT")
    assert (flat.recall, flat.top1_kept, flat.loss.difference) == (1, 1, 0)
    assert flat.filtered == {"50 %": 1, "10 %": 1, "1 %": 1}
    assert 3000 * 32 * 4 <= flat.index_bytes < 3000 * 32 * 4 + 1000
    assert trials[0] is flat


def test_recall_and_quality_rise_with_the_width(trials):
    lists = [one for one in measured(trials, "IVF_FLAT") if one.build["nlist"] == 55]
    recalls = [one.recall for one in lists]
    assert recalls == sorted(recalls) and recalls[0] < 0.5 and recalls[-1] > 0.95
    assert lists[0].loss.high < 0 and lists[0].loss.difference < lists[-1].loss.difference
    graphs = [one for one in measured(trials, "HNSW") if one.build == {"M": 16, "efConstruction": 100}]
    recalls = {one.search["ef"]: one.recall for one in graphs}
    assert recalls[10] < recalls[32] and recalls[32] > 0.9


def test_each_trial_says_what_it_costs(trials):
    for one in trials:
        if one.status == "ok":
            assert 0 < one.cpu_ms_p50 <= one.cpu_ms_p95 and one.wall_ms_p50 is None and one.qps is None
            assert one.queries == 100 and len(one.by_query) == 120 and one.backend_version


def test_a_hundred_results_are_asked_for_where_they_may_be(trials):
    for one in trials:
        if one.status == "ok" and one.index == "HNSW":
            assert (one.recall_100 is None) == (one.search["ef"] < 100)
    assert measured(trials, "FLAT")[0].recall_100 >= measured(trials, "IVF_FLAT")[0].recall_100 > 0
