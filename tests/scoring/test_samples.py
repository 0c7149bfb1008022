"""A file of samples: what its first walk finds, and that every further one reads the same."""

import gzip
import hashlib

import pytest

from rag_core.base.errors import StaleError
from rag_core.base.records import RankingSample
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import write_records
from rag_core.scoring.samples import SampleFile, spread_pairs

ROWS = [RankingSample(f"q{i}", candidates=[f"{i}a", f"{i}b", f"{i}c", f"{i}a"], query_id=str(i)) for i in range(100)]


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_the_first_walk_counts_and_hashes_and_chooses(tmp_path, name):
    write_records(tmp_path / name, ROWS)
    source = SampleFile(tmp_path / name, BadRows(skip=False))
    assert (source.queries, source.pairs) == (100, 300)
    assert source.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    assert source.canary_pairs == spread_pairs(ROWS, 20)
    assert list(source) == ROWS
    source.check_unchanged()


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_a_walk_over_a_file_that_has_changed(tmp_path, name):
    path = tmp_path / name
    write_records(path, ROWS)
    source = SampleFile(path, BadRows(skip=False))
    more = b"\n" if path.suffix == ".jsonl" else gzip.compress(b"\n")
    path.write_bytes(path.read_bytes() + more)
    walk = iter(source)
    assert [next(walk) for _ in ROWS] == ROWS
    with pytest.raises(StaleError, match="has changed while it was being scored"):
        next(walk)
    with pytest.raises(StaleError, match="has changed while it was being scored"):
        source.check_unchanged()


def test_rows_that_are_left_out_are_left_out_of_each_walk_and_counted_once(tmp_path):
    path = tmp_path / "in.jsonl"
    write_records(path, ROWS[:3])
    path.write_bytes(b"{\n" + path.read_bytes())
    source = SampleFile(path, BadRows(skip=True))
    assert list(source) == list(source) == ROWS[:3]
    assert len(source.bad_rows) == 1


def test_canary_pairs_come_from_all_over_the_file():
    rows = [RankingSample(f"q{i}", candidates=[f"{i}a", f"{i}b", f"{i}c"]) for i in range(100)]
    chosen = spread_pairs(rows, 20)
    assert len(set(chosen)) == 20
    assert chosen[0] == ("q0", "0a")
    assert len({int(query[1:]) // 10 for query, _ in chosen}) >= 9
    assert spread_pairs(rows[:1], 20) == [("q0", "0a"), ("q0", "0c")]
