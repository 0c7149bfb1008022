"""The sweep in milvus-lite, whose traps must not pass for figures."""

import pytest

from tests.milvus_optimization.limited_child import run_child

pytestmark = pytest.mark.slow


def test_milvus_lite_is_swept_honestly(tmp_path):
    (code, trials, left), _ = run_child("lite_cases.sweep", tmp_path)
    assert code == 0
    assert left == ["trials.jsonl", "trials.jsonl.manifest.json", "vectors"]
    assert {status for *_, status, _, _, _ in trials} <= {"ok", "skipped"}
    for _, build, seen, _, status, recall, cpu, wall in trials:
        if status == "ok":
            assert build.items() <= seen.items() and 0 < recall <= 1 and cpu > 0 and wall is None
    recalls = {(index, str(search)): recall for index, _, _, search, _, recall, _, _ in trials}
    assert recalls["FLAT", "{}"] == 1
    assert recalls["AUTOINDEX", "{}"] > 0.9
    assert recalls["IVF_FLAT", "{'nprobe': 1}"] < recalls["IVF_FLAT", "{'nprobe': 4}"] < 1
