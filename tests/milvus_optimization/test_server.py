"""A real Milvus server, opt-in: MILVUS_SERVER_PYTHON is an interpreter that has the package `milvus==2.3.5`.

The server and its client run in a network and a process namespace of their own: it listens to nobody else, and all its
processes end with the test.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SERVER_PYTHON = os.environ.get("MILVUS_SERVER_PYTHON", "")

pytest.importorskip("pymilvus")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SERVER_PYTHON, reason="MILVUS_SERVER_PYTHON is not set (milvus==2.3.5)"),
]


@pytest.fixture(scope="session")
def told(tmp_path_factory):
    room = ["unshare", "-n", "--pid", "--fork", "--kill-child", "--mount-proc"]
    inside = 'ip link set lo up && exec "$@"'
    command = [sys.executable, "-m", "tests.milvus_optimization.server_cases"]
    done = subprocess.run(
        [*room, "bash", "-c", inside, "bash", *command, str(tmp_path_factory.mktemp("server")), SERVER_PYTHON],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[-1].removeprefix("RESULT ")), done.stderr


@pytest.mark.parametrize("index", ["FLAT", "HNSW", "IVF_SQ8", "IVF_PQ", "SCANN"])
def test_an_index_is_built_as_asked_and_finds_more_with_more_effort(told, index):
    build = told[0]["builds"][index]
    assert build["ignored"] == ""
    assert build["recalls"] == sorted(build["recalls"])
    assert build["filtered"]
    if index == "FLAT":
        assert build["recalls"] == [1]
    else:
        assert build["recalls"][0] < 0.95
        assert build["recalls"][-1] > (0.7 if index == "IVF_PQ" else 0.95)
    if index != "IVF_PQ":  # whose scores are estimates
        assert build["apart"] < (0.01 if index == "IVF_SQ8" else 1e-5)


@pytest.mark.parametrize("index", ["HNSW_SQ", "IVF_RABITQ"])
def test_what_this_version_does_not_have_is_unsupported(told, index):
    assert told[0]["builds"][index] == f"invalid index type: {index}"


def test_the_collection_of_another_stays_and_ours_goes(told):
    assert told[0]["left"] == ["mine"]


def test_a_search_does_not_wait_for_the_time_tick(told):
    assert told[0]["seconds"] < 0.1  # 0.2 with the consistency "Strong"


def test_a_killed_server_is_missed_in_seconds(told):
    gone, sentence, seconds = told[0]["gone"]
    assert gone
    assert sentence == "http://127.0.0.1:19530: does not answer. Start it, then run the same command again."
    assert seconds < 15
    assert "Traceback" not in told[1]
