"""What tests do with milvus-lite, in processes of their own; each returns what can be written as JSON."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from milvus_optimization.backends.loading import _DATABASE, open_backend
from milvus_optimization.backends.protocol import UnsupportedIndexError
from milvus_optimization.backends.readback import built_as_asked
from milvus_optimization.backends.space import default_grid
from rag_core.base.errors import PipelineError
from tests.milvus_optimization.known_vectors import make_clustered, overlap

K = 10
OTHERS = ("mine", "mo_0123456789abcdef", "mo_fedcba9876543210")


def _sentence(action):
    """Return what an action raises, and how long it takes."""
    start = time.monotonic()
    try:
        action()
    except (PipelineError, UnsupportedIndexError) as error:
        return [type(error).__name__, str(error), time.monotonic() - start]
    return ["nothing", "", time.monotonic() - start]


def backend(folder):
    """Go through the default grid with our backend."""
    documents, queries = make_clustered(rows=2_000, queries=50)
    exact = np.argsort(-(queries @ documents.T), axis=1)[:, :K]
    numbers = np.arange(len(documents)) % 100
    lite = open_backend("lite", folder=Path(folder))
    lite.insert(documents, numbers)
    builds, kinds = [], set()
    for setting in default_grid("lite", *documents.shape, K):
        if setting.index in kinds:
            continue
        kinds.add(setting.index)
        built = lite.build(setting.index, setting.build)
        found = [lite.search(queries, K, search) for search in setting.searches[::2]]
        filtered, scores = lite.search(queries, K, setting.searches[-1], below=10)
        cosines = (queries @ documents.T)[np.arange(len(queries))[:, None], filtered]
        builds.append(
            {
                "index": setting.index,
                "ignored": built_as_asked(setting.build, built.seen),
                "cpu_seconds": built.cpu_seconds,
                "index_bytes": built.index_bytes,
                "recalls": [overlap(places, exact) for places, _ in found],
                "filtered": bool((numbers[filtered] < 10).all()),
                "apart": float(np.abs(cosines - scores).max()),
            }
        )
    few, scores = lite.search(queries[:1], K, {}, below=-1)  # AUTOINDEX, the last one
    builds_told = {
        "version": lite.version,
        "builds": builds,
        "none found": [few.tolist(), np.isneginf(scores).all().item()],
        "M -3": _sentence(lambda: lite.build("HNSW", {"M": -3, "efConstruction": 100})),
        "SCANN": _sentence(lambda: lite.build("SCANN", {"nlist": 10})),
        "FP16": _sentence(lambda: lite.build("HNSW_SQ", {"M": 4, "efConstruction": 30, "sq_type": "FP16"})),
        "NaN": _sentence(lambda: lite.insert(np.full((5, 4), np.nan, dtype=np.float32))),
    }
    lite.build("HNSW", {"M": 4, "efConstruction": 30})
    builds_told["ef 5"] = _sentence(lambda: lite.search(queries, K, {"ef": 5}))
    builds_told["efSearch"] = _sentence(lambda: lite.search(queries, K, {"ef": 50, "efSearch": 50}))
    lite.close()
    lite.close()
    return builds_told


def leave_behind(folder):
    """Make collections of somebody else, then be killed while our backend has a scratch collection."""
    from pymilvus import MilvusClient

    client = MilvusClient(str(Path(folder) / _DATABASE))
    for name in OTHERS:
        client.create_collection(name, dimension=4)
        client.insert(name, [{"id": 1, "vector": [1.0, 0, 0, 0]}])
    ours = open_backend("lite", folder=Path(folder))
    ours.insert(np.eye(4, dtype=np.float32))
    os.kill(os.getpid(), signal.SIGKILL)


def others(folder):
    """Open our backend where a killed run has left something; then while another process has the database open."""
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from tests.milvus_optimization.lite_cases import *; leave_behind(sys.argv[1])",
            folder,
        ],
        check=False,
    )
    before = sorted(path.name for path in (Path(folder) / _DATABASE / "collections").iterdir())
    again = open_backend("lite", folder=Path(folder))
    twice = _sentence(lambda: open_backend("lite", folder=Path(folder)))
    again.insert(np.eye(4, dtype=np.float32))
    client = MilvusClient(str(Path(folder) / _DATABASE))
    during = sorted(client.list_collections())
    again.close()
    client = MilvusClient(str(Path(folder) / _DATABASE))
    after = sorted(client.list_collections())
    rows = []
    for name in after:
        client.load_collection(name)
        rows.append(len(client.query(name, filter="id >= 0", output_fields=["id"])))
    server_manager_instance.release_all()
    return {
        "killed": child.returncode,
        "before": before,
        "during": during,
        "after": after,
        "rows": rows,
        "twice": twice,
        "locked": _locked(folder),
    }


def _locked(folder):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from tests.milvus_optimization.lite_cases import *; hold(sys.argv[1])",
            folder,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        holder.stdout.readline()
        return _sentence(lambda: open_backend("lite", folder=Path(folder)))
    finally:
        holder.kill()
        holder.wait()


def hold(folder):
    """Have a database open until told otherwise."""
    open_backend("lite", folder=Path(folder))
    print("open", flush=True)
    sys.stdin.read()


def full(folder):
    """Insert more than there is room for, on a file system of 3 MB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=True)
    documents, _ = make_clustered(rows=20_000)
    lite = open_backend("lite", folder=Path(folder))
    told = _sentence(lambda: lite.insert(documents))
    lite.close()
    return told


def gone(folder, how):
    """Let the server of a backend end, or stand still, and search; it is milvus-lite in another process."""
    port = _free_port()
    server = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from milvus_lite.adapter.grpc.server import run_server; "
            "run_server(sys.argv[1], '127.0.0.1', int(sys.argv[2]))",
            f"{folder}/server.db",
            str(port),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        uri = f"http://127.0.0.1:{port}"
        latest = time.monotonic() + 60
        while True:
            try:
                held = open_backend("server", uri=uri, timeout=4)
                break
            except PipelineError:
                if time.monotonic() > latest:
                    raise
        documents, queries = make_clustered(rows=500)
        held.insert(documents)
        held.build("HNSW", {"M": 4, "efConstruction": 30})
        found = held.search(queries[:2], K, {"ef": 20})[0]
        os.kill(server.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        held._timeout = 1.0  # seconds that one which stands still is waited for; to start, it may take more
        told = {
            "before": bool((found >= 0).all()),
            "times": [held.tells_cpu_time, held.tells_wall_time],
            "search": _sentence(lambda: held.search(queries[:2], K, {"ef": 20})),
        }
        if how == "killed":  # one that stands still is waited for each time
            told["build"] = _sentence(lambda: held.build("HNSW", {"M": 5, "efConstruction": 30}))
            told["insert"] = _sentence(lambda: held.insert(documents))
            told["open"] = _sentence(lambda: open_backend("server", uri=uri, timeout=4))
        told["close"] = _sentence(held.close)
    finally:
        server.kill()
        server.wait()
    return told


def _free_port():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def sweep(folder):
    """Sweep over a few hundred vectors in milvus-lite, and return what became of each trial."""
    from milvus_optimization import sweep_indexes
    from milvus_optimization.records import IndexTrial
    from rag_core.files.jsonl import read_records
    from tests.milvus_optimization.swept import write_vectors

    vectors = write_vectors(Path(folder) / "vectors", rows=1200, queries=12, dimensions=32, noise=0.9)
    output = Path(folder) / "trials.jsonl"
    flags = ["--backend", "lite", "--indexes", "IVF_FLAT", "AUTOINDEX", "--queries", "8"]
    code = sweep_indexes.main(["--vectors", str(vectors), "--output_file", str(output), *flags])
    found = [
        [one.index, one.build, one.build_seen, one.search, one.status, one.recall, one.cpu_ms_p50, one.wall_ms_p50]
        for one in read_records(output, IndexTrial)
    ]
    return [code, found, sorted(path.name for path in Path(folder).iterdir())]
