"""Peak memory of embedding 200,000 passages of 1,024 dimensions and taking their cosines, with a random teacher.

python benchmarks/embedding_memory.py [--passages 200000] [--dimensions 1024] [--dir FOLDER]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from rag_core.base.records import RankingSample
from rag_core.files.jsonl import write_records
from rag_core.scoring.chunks import Work
from rag_core.scoring.scores import compute_scores, scored_samples

CANDIDATES = 20


class RandomEncoder:
    """Vectors that follow from nothing but the number of texts."""

    score_unit = "cosine"
    truncated = None

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._generator = np.random.default_rng(0)

    def encode(self, texts, role):
        vectors = self._generator.standard_normal((len(texts), self.dimensions), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--dir", type=Path, default=None)
    args = parser.parse_args()
    order = np.random.default_rng(1).permutation(args.passages)
    samples = [
        RankingSample(
            f"query {i}",
            candidates=[f"passage {j} " + "word " * 40 for j in order[i : i + CANDIDATES]],
            query_id=str(i),
        )
        for i in range(0, args.passages, CANDIDATES)
    ]
    before = _peak_mib()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        work = Work(RandomEncoder(args.dimensions), "random", [Path(folder)], 1024)
        scores = compute_scores(samples, work)
        scored = (pair for _, pairs in scored_samples(samples, scores) for pair in pairs)
        rows = write_records(Path(folder) / "scores.jsonl", scored)
        on_disk = sum(path.stat().st_size for path in Path(folder).glob("*.npy")) / 2**20
    figures = {
        "passages": args.passages,
        "dimensions": args.dimensions,
        "pairs": rows,
        "seconds": round(time.monotonic() - started, 1),
        "vectors_mib": round(on_disk),
        "peak_rss_with_samples_only_mib": before,
        "peak_rss_mib": _peak_mib(),
    }
    print(json.dumps(figures, indent=2))  # noqa: T201


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
