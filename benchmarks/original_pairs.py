"""The training data of the public original: every labelled positive with every negative of its query, as soft labels.

python benchmarks/original_pairs.py train_logits.jsonl pairs.jsonl
"""

from __future__ import annotations

import sys
from pathlib import Path

from rag_core.base.records import ScoredPair, SoftLabels
from rag_core.files.jsonl import read_groups, write_records


def main() -> None:
    """Write one row a pair."""
    source, output = map(Path, sys.argv[1:])
    rows = [
        SoftLabels(
            f"{positive.query_id}/{i}/{j}",
            positive.query,
            [positive.passage, negative.passage],
            [positive.score, negative.score],
        )
        for group in read_groups(source, ScoredPair)
        for i, positive in enumerate(group)
        for j, negative in enumerate(group)
        if positive.label == 1 and negative.label == 0
    ]
    write_records(output, rows)


if __name__ == "__main__":
    main()
