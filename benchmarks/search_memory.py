"""Seconds and peak memory of exact search over vectors that are mapped from disk, of 1,000,000 documents by default.

python benchmarks/search_memory.py [--documents 1000000] [--dimensions 1024] [--queries 1000] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from rag_core.retrieval.dense import nearest

RESULTS = 100  # of a query
ROWS_AT_ONCE = 2**14
SECONDS_BETWEEN = 0.02  # two looks at the memory


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--device", default="cpu", help="cpu for NumPy, cuda for torch on a GPU")
    parser.add_argument("--dir", type=Path, default=None, help="folder with room for the vectors")
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        path = Path(folder) / "documents.npy"
        started = time.monotonic()
        documents = np.lib.format.open_memmap(path, "w+", np.float32, (args.documents, args.dimensions))
        for first in range(0, args.documents, ROWS_AT_ONCE):
            documents[first : first + ROWS_AT_ONCE] = _vectors(generator, documents[first : first + ROWS_AT_ONCE].shape)
        documents.flush()
        del documents
        written = time.monotonic() - started
        queries = _vectors(generator, (args.queries, args.dimensions))
        if args.device != "cpu":  # what torch takes to start is none of the search's time
            nearest(queries[:1], queries, 1, device=args.device)
        before = _memory_mib()
        started = time.monotonic()
        with _Peak() as peak:
            places, _ = nearest(queries, np.load(path, mmap_mode="r"), RESULTS, device=args.device, desc="search")
        seconds = time.monotonic() - started
    figures = {
        "documents": args.documents,
        "dimensions": args.dimensions,
        "queries": args.queries,
        "device": args.device,
        "vectors_mib": round(args.documents * args.dimensions * 4 / 2**20),
        "seconds_to_write": round(written, 1),
        "seconds": round(seconds, 1),
        "own_mib_before": before,
        "own_peak_mib": peak.own_mib,
        "found": int((places >= 0).sum()),
    }
    if args.device.startswith("cuda"):
        import torch

        figures["gpu_peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(figures, indent=2))  # noqa: T201


def _vectors(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    vectors = generator.standard_normal(shape, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _memory_mib() -> int:
    """Return the memory of this process without what is mapped from files, which the system takes back at will."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


class _Peak:
    """Look at the memory again and again in a thread of its own."""

    def __enter__(self) -> _Peak:
        self.own_mib = _memory_mib()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            self.own_mib = max(self.own_mib, _memory_mib())


if __name__ == "__main__":
    main()
