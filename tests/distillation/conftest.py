"""Dev files: one with labels, one without."""

import pytest

from rag_core.base.records import ScoredPair
from rag_core.distillation.dev_set import DevSet
from rag_core.files.jsonl import write_records


def pairs(scores, labels=None):
    labels = labels or [None] * len(scores)
    return [ScoredPair("1", "q", f"p{i}", *row) for i, row in enumerate(zip(scores, labels, strict=True))]


@pytest.fixture
def dev_sets(tmp_path):
    write_records(tmp_path / "a.jsonl", pairs([0.1, 0.2], [1, 0]))
    write_records(tmp_path / "b.jsonl", pairs([0.1, 0.2]))
    return [DevSet.read(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
