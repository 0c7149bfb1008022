"""Rows by their keys, in chunk files."""

import fcntl
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.files.chunk_store import ChunkStore, row_key


def test_a_damaged_chunk_is_not_used(tmp_path, caplog):
    chunks = ChunkStore([tmp_path], "pair")
    assert chunks.missing([b"k1", b"k2"]) == [0, 1]
    chunks.write([b"k1", b"k2"], np.array([1, 2], dtype=np.float32))
    chunks.write([b"k3"], np.array([3], dtype=np.float32))
    assert ChunkStore([tmp_path], "pair").read([b"k3", b"k1", b"k2", b"k1"]).tolist() == [3, 1, 2, 1]
    assert ChunkStore([tmp_path], "query").missing([b"k1"]) == [0]
    path = max(tmp_path.glob("pair-*.npy"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-3])
    chunks = ChunkStore([tmp_path], "pair")
    assert chunks.missing([b"k1", b"k2", b"k3"]) == [0, 1]
    assert (
        f"WARNING: {path} is damaged (its bytes are not those that were written): its rows are computed again"
        in caplog.messages
    )
    with pytest.raises(KeyError, match="k2"):
        chunks.read([b"k3", b"k2"])


def chunk_of(folder):
    store = ChunkStore([folder], "pair")
    store.write([b"k1", b"k2"], np.array([[1, 2], [3, 4]], dtype=np.float32))
    (path,) = folder.glob("pair-*.npy")
    return path


def test_a_bit_that_flips_anywhere_is_found(tmp_path):
    path = chunk_of(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert ChunkStore([tmp_path], "pair").missing([b"k1", b"k2"]) == [0, 1], place
    path.write_bytes(whole)
    assert ChunkStore([tmp_path], "pair").missing([b"k1", b"k2"]) == []


@pytest.mark.parametrize("size", [0, 1, 64, 130, -20])
def test_a_chunk_that_is_cut_short_is_written_anew(tmp_path, size):
    path = chunk_of(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    store = ChunkStore([tmp_path], "pair")
    assert store.missing([b"k1", b"k2"]) == [0, 1]
    store.write([b"k1", b"k2"], np.array([[1, 2], [3, 4]], dtype=np.float32))
    assert path.read_bytes() == whole


def test_a_chunk_without_rows_is_none(tmp_path):
    np.save(tmp_path / "pair-0.npy", np.empty(0, dtype=[("key", "S16"), ("value", "<f4", (2,))]))
    assert ChunkStore([tmp_path], "pair").missing([b"k1"]) == [0]


def test_a_chunk_of_before_has_no_hash(tmp_path):
    path = chunk_of(tmp_path)
    path.write_bytes(path.read_bytes()[:-16])
    assert ChunkStore([tmp_path], "pair").read([b"k2"]).tolist() == [[3, 4]]


def test_a_chunk_that_another_process_writes_is_taken(tmp_path):
    mine, others = tmp_path / "mine", tmp_path / "others"
    content = chunk_of(others)
    store = ChunkStore([mine], "pair")
    mine.mkdir()
    temporary = mine / f".{content.name}.tmp"
    with temporary.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = threading.Thread(
            target=store.write, args=([b"k1", b"k2"], np.array([[1, 2], [3, 4]], dtype=np.float32))
        )
        writer.start()
        time.sleep(0.2)
        assert writer.is_alive()
        file.write(content.read_bytes())
        file.flush()
        temporary.rename(mine / content.name)
    writer.join(10)
    assert not writer.is_alive()
    assert store.read([b"k2"]).tolist() == [[3, 4]]


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9, unique=True), max_size=8), st.data())
def test_every_row_is_found_whatever_the_chunks(tmp_path_factory, chunks, data):
    folder = tmp_path_factory.mktemp("x")
    store = ChunkStore([folder], "pair")
    known = {}
    for numbers in chunks:
        numbers = [number for number in numbers if number not in known]  # noqa: PLW2901
        known |= {number: row_key(str(number)) for number in numbers}
        if numbers:
            store.write([known[number] for number in numbers], np.array(numbers, dtype=np.float32))
    asked = data.draw(st.lists(st.sampled_from(sorted(known)), max_size=20)) if known else []
    keys = [row_key(str(number)) for number in range(100)]
    for found in (store, ChunkStore([folder], "pair")):
        assert found.missing(keys) == [number for number in range(100) if number not in known]
        assert found.read([known[number] for number in asked]).tolist() == asked


def test_a_key_tells_its_parts_apart():
    assert len(row_key("a", "bc")) == 16
    assert row_key("a", "bc") != row_key("ab", "c")
    assert row_key("a", "bc") == row_key("a", "bc")
    # Scores that were paid for are found by it.
    assert row_key("scope", "a query", "Züge").hex() == "072da0389cfe8004b03d91a925d0f876"
