"""Everything around the model: `generate_logits` with a teacher that costs nothing, rows a second and peak memory.

python benchmarks/overhead.py [--pairs 20000 200000 2000000] [--dir FOLDER] [--output FILE]

Each size runs in a process of its own, which reads, checks and hashes the samples, scores in chunks that are synced to
disk, and writes the file with its manifest. Passages have 40 words; 20 candidates a query.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from tables import RESULTS

from rag_core.base.records import RankingSample
from rag_core.engines.loading import LOADERS
from rag_core.files.jsonl import write_records
from reranker_distillation import generate_logits

CANDIDATES = 20


class FreeTeacher:
    """Random scores at no cost."""

    score_unit = "log-odds"
    truncated = 0

    def score(self, pairs):
        return np.random.default_rng(len(pairs)).standard_normal(len(pairs)).astype(np.float32)


def main() -> int:
    """Measure each size; print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[20_000, 200_000, 2_000_000])
    parser.add_argument("--dir", type=Path, help="where the files are made (default: a temporary folder)")
    parser.add_argument("--output", type=Path, default=RESULTS / "overhead.json")
    args = parser.parse_args()
    found = []
    for pairs in args.pairs:
        with tempfile.TemporaryDirectory(dir=args.dir) as folder:
            samples = Path(folder) / "samples.jsonl"
            write_records(samples, (make_sample(number) for number in range(pairs // CANDIDATES)))
            command = [sys.executable, "-c", "import overhead, sys; overhead.measure(sys.argv[1])", str(samples)]
            figures = subprocess.run(command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
            found.append({"pairs": pairs} | json.loads(figures.stdout.splitlines()[-1]))
    args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))  # noqa: T201
    return 0


def make_sample(number: int) -> RankingSample:
    """Return a sample of which no text stands in another."""
    passages = [f"passage {number}-{i} " + "word " * 40 for i in range(CANDIDATES)]
    return RankingSample(f"query {number} about something", positive=passages[:1], negative=passages[1:])


def measure(samples: str) -> None:
    """Print what the stage takes for a file of samples."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as teacher, mock.patch.dict(LOADERS, transformers=lambda *_: FreeTeacher()):
        config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
        (Path(teacher) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        flags = ["--teacher", teacher, "--engine", "transformers", "--input_files", samples, "--log_level", "warning"]
        failed = generate_logits.main(flags)
    seconds = time.monotonic() - started
    assert not failed
    rows = json.loads(Path(samples.replace(".jsonl", "_logits.jsonl.manifest.json")).read_text())["rows"]
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "rows_per_second": round(rows / seconds),
        "peak_rss_mib": used.ru_maxrss // 1024,
    }
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
