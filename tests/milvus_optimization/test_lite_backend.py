"""Our backend on milvus-lite, and on a server that goes; each in a process of bounded memory."""

import subprocess

import pytest

from milvus_optimization.backends import scratch
from tests.milvus_optimization.limited_child import run_child
from tests.milvus_optimization.lite_cases import OTHERS

pytest.importorskip("milvus_lite")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def told(tmp_path_factory):
    return run_child("lite_cases.backend", tmp_path_factory.mktemp("backend"))


def test_every_index_is_built_as_asked(told):
    builds = told[0]["builds"]
    assert [build["index"] for build in builds] == ["FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "HNSW_SQ", "AUTOINDEX"]
    for build in builds:
        assert build["ignored"] == ""
        assert build["cpu_seconds"] > 0
        assert build["index_bytes"] > 2_000 * 64  # a byte per dimension at least


def test_recall_rises_with_the_search_setting_and_is_not_that_of_brute_force(told):
    flat, *indexes = told[0]["builds"]
    assert flat["recalls"] == [1]
    for build in indexes:
        assert build["recalls"] == sorted(build["recalls"])
        assert build["recalls"][-1] > 0.9
        assert build["index"] == "AUTOINDEX" or build["recalls"][0] < 1


def test_scores_are_cosines_and_filters_hold(told):
    for build in told[0]["builds"]:
        assert build["filtered"]
        assert build["apart"] < (0.01 if "SQ" in build["index"] else 1e-6)
    assert told[0]["none found"] == [[[-1] * 10], True]


@pytest.mark.parametrize(
    ("case", "kind", "sentence"),
    [
        ("M -3", "UsageError", "M of HNSW is -3. Pass a whole number from 2 to 128."),
        ("ef 5", "UsageError", "ef of HNSW is 5, and 10 results are asked for. Pass k or more."),
        ("efSearch", "UsageError", "HNSW has no parameter 'efSearch' here. Its parameters are: ef."),
        ("SCANN", "UnsupportedIndexError", "lite has no SCANN"),
        ("FP16", "UnsupportedIndexError", "lite keeps HNSW_SQ in 8 bits, and refines nothing"),
        (
            "NaN",
            "DataError",
            "documents: row 0 has length nan, not 1. Normalise the vectors; a zero or NaN row has no direction: "
            "leave its text out.",
        ),
    ],
)
def test_what_it_would_take_without_a_word_does_not_reach_it(told, case, kind, sentence):
    assert told[0][case][:2] == [kind, sentence]


def test_nothing_is_logged(told):
    assert "Traceback" not in told[1]


@pytest.fixture(scope="session")
def beside_others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    return *run_child("lite_cases.others", folder), folder


def test_only_scratch_that_was_left_behind_is_dropped(beside_others):
    found, _, _ = beside_others
    assert found["killed"] == -9
    (left,) = set(found["before"]) - set(OTHERS)
    (ours,) = set(found["during"]) - set(OTHERS)
    assert left != ours
    assert found["after"] == sorted(OTHERS)
    assert found["rows"] == [1, 1, 1]


def test_a_database_is_open_once(beside_others):
    found, log, folder = beside_others
    assert found["twice"][:2] == [
        "EngineError",
        f"{folder}/milvus_lite.db: this process has this milvus-lite database open. Close the other backend.",
    ]
    assert found["locked"][:2] == [
        "EngineError",
        f"{folder}/milvus_lite.db: another process has this milvus-lite database open. "
        "Wait for it, or choose another folder.",
    ]
    assert "Traceback" not in log


def test_no_space_left(tmp_path):
    rooms = ("unshare", "-rm")
    if subprocess.run([*rooms, "true"], check=False).returncode:
        pytest.skip("needs a mount namespace")
    (kind, sentence, _), log = run_child("lite_cases.full", tmp_path, prefix=rooms)
    assert kind == "EngineError"
    assert sentence == f"{tmp_path}/milvus_lite.db: no space is left. Make room, then run the same command again."
    assert "Traceback" not in log


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_server_that_goes_is_missed_in_seconds(tmp_path, how):
    found, log = run_child("lite_cases.gone", tmp_path, how)
    assert found["before"]
    assert found["times"] == [False, True]
    for action in ("search", "build", "insert", "open") if how == "killed" else ("search",):
        kind, sentence, seconds = found[action]
        assert kind == "BackendGoneError"
        assert sentence.startswith("http://127.0.0.1:")
        assert sentence.endswith(": does not answer. Start it, then run the same command again.")
        assert seconds < 12  # a request may take 4
    assert found["close"][0] == "nothing"
    assert found["close"][2] < 12
    assert "Traceback" not in log


def description(name, text="", fields=(scratch.ID, scratch.VECTOR, scratch.NUMBER)):
    return {"collection_name": name, "description": text, "fields": [{"name": field} for field in fields]}


def test_scratch_on_a_server_belongs_to_a_process(monkeypatch):
    ours = scratch.mark()
    name = scratch.new_name()
    assert not scratch.is_left_behind(description(name, ours), alone=False)  # this process runs
    ended = subprocess.Popen(["true"])
    ended.wait()
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: ended.pid)
        dead = scratch.mark()
    assert scratch.is_left_behind(description(name, dead), alone=False)
    assert not scratch.is_left_behind(description(name, dead.replace(" of ", " of far-", 1)), alone=False)
    assert not scratch.is_left_behind(description(name, "mine"), alone=False)
    assert not scratch.is_left_behind(description("documents", dead), alone=False)
    assert not scratch.is_left_behind(description(name, dead, fields=("id", "vector")), alone=True)
