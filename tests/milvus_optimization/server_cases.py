"""What the test of a real server does, in the server's network namespace; prints its findings as JSON.

python -m tests.milvus_optimization.server_cases FOLDER SERVER_PYTHON
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from milvus_optimization.backends.loading import open_backend
from milvus_optimization.backends.protocol import BackendGoneError, UnsupportedIndexError
from milvus_optimization.backends.readback import built_as_asked
from rag_core.base.errors import EngineError
from tests.milvus_optimization.known_vectors import make_clustered, overlap

K = 10
URI = "http://127.0.0.1:19530"
START = """
import sys, time
from milvus import MilvusServer
server = MilvusServer()
server.set_base_dir(sys.argv[1])
server.start()
print(server.server_proc.pid, flush=True)
time.sleep(3600)
"""
BUILDS = [
    ("FLAT", {}, [{}]),
    ("HNSW", {"M": 4, "efConstruction": 30}, [{"ef": 10}, {"ef": 40}, {"ef": 160}]),
    ("IVF_SQ8", {"nlist": 64}, [{"nprobe": 1}, {"nprobe": 8}, {"nprobe": 64}]),
    ("IVF_PQ", {"nlist": 64, "m": 16, "nbits": 8}, [{"nprobe": 1}, {"nprobe": 64}]),
    ("SCANN", {"nlist": 64}, [{"nprobe": 1, "reorder_k": 100}, {"nprobe": 64, "reorder_k": 200}]),
    ("HNSW_SQ", {"M": 4, "efConstruction": 30, "sq_type": "SQ8"}, [{"ef": 10}]),
    ("IVF_RABITQ", {"nlist": 64, "refine_type": "SQ8"}, [{"nprobe": 8, "refine_k": 2}]),
]


def main(folder, server_python):
    """Go through the builds, then let the server be killed."""
    process = subprocess.Popen(
        [server_python, "-c", START, folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    server = int(process.stdout.readline())
    from pymilvus import MilvusClient

    client = MilvusClient(URI, timeout=60)
    client.create_collection("mine", dimension=4)
    documents, queries = make_clustered()
    exact = np.argsort(-(queries @ documents.T), axis=1)[:, :K]
    numbers = np.arange(len(documents)) % 100
    held = open_backend("server", uri=URI, timeout=60)
    held.insert(documents, numbers)
    told = {"version": held.version, "builds": {}}
    for index, build, searches in BUILDS:
        try:
            built = held.build(index, build)
        except UnsupportedIndexError as error:
            told["builds"][index] = str(error)
            continue
        filtered, scores = held.search(queries, K, searches[-1], below=10)
        found = filtered >= 0  # a poor graph finds a third of what is asked for under this filter
        cosines = np.take_along_axis(queries @ documents.T, filtered, axis=1)
        told["builds"][index] = {
            "ignored": built_as_asked(build, built.seen),
            "recalls": [overlap(held.search(queries, K, search)[0], exact) for search in searches],
            "filtered": bool((numbers[filtered[found]] < 10).all() and found.any()),
            "apart": float(np.abs(cosines - scores)[found].max()),
        }
    held.close()
    told["left"] = client.list_collections()
    held = open_backend("server", uri=URI, timeout=10)
    held.insert(documents)
    held.build("HNSW", {"M": 4, "efConstruction": 30})
    told["seconds"] = statistics.median(timed(held, query) for query in queries[:20])
    os.kill(server, signal.SIGKILL)
    start = time.monotonic()
    try:
        held.search(queries, K, {"ef": 20})
    except EngineError as error:
        told["gone"] = [isinstance(error, BackendGoneError), str(error), time.monotonic() - start]
    print("RESULT", json.dumps(told))


def timed(held, query):
    """Return the seconds of one search."""
    start = time.monotonic()
    held.search(query[None], K, {"ef": 20})
    return time.monotonic() - start


if __name__ == "__main__":
    main(str(Path(sys.argv[1])), sys.argv[2])
