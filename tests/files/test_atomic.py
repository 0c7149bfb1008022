"""Files that are there whole or not at all."""

import errno
import fcntl
import os
import types

import pytest

from rag_core.base.errors import StaleError
from rag_core.base.records import Triplet
from rag_core.files.atomic import atomic_write, exchange
from rag_core.files.jsonl import read_records, write_records


def test_equal_content_gives_equal_gzip_bytes(tmp_path):
    record = Triplet("1", "q", "p", "n", 0.5)
    for name in ("a", "b"):
        write_records(tmp_path / f"{name}.jsonl.gz", [record])
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("old")

    def records():
        yield Triplet("1", "q", "p", "n", 0.5)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_records(path, records())
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    assert path.read_text() == "old"


def test_two_writers_of_one_file(tmp_path):
    path = tmp_path / "a.jsonl"
    with atomic_write(path) as file:
        file.write(b"first")
        with pytest.raises(StaleError, match="another process is writing it"), atomic_write(path):
            pass
    assert path.read_text() == "first"


def test_a_temporary_file_of_a_killed_run_is_taken_over(tmp_path):
    (tmp_path / ".a.jsonl.tmp").write_text("a long rest of a run that was killed in the middle of its writing")
    write_records(tmp_path / "a.jsonl", [Triplet("1", "q", "p", "n", 0.5)])
    assert len(list(read_records(tmp_path / "a.jsonl", Triplet))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path):
    (tmp_path / "secret").write_text("of the user")
    (tmp_path / ".out.tmp").symlink_to(tmp_path / "secret")
    with pytest.raises(StaleError, match=r"\.out\.tmp: is a link, .* Remove it"), atomic_write(tmp_path / "out"):
        pass
    assert (tmp_path / "secret").read_text() == "of the user"
    assert not (tmp_path / "out").exists()


def test_another_name_of_a_file_is_not_overwritten(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / ".out.tmp").hardlink_to(tmp_path / "secret")
    with pytest.raises(StaleError, match=r"\.out\.tmp: has another name, .* Remove it"), atomic_write(tmp_path / "out"):
        pass
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_pipe_in_the_place_of_the_temporary_file(tmp_path):
    os.mkfifo(tmp_path / ".out.tmp")
    with pytest.raises(StaleError, match=r"\.out\.tmp: is no regular file"), atomic_write(tmp_path / "out"):
        pass


def test_a_file_that_another_put_in_its_place_before_it_was_locked(tmp_path, monkeypatch):
    """Its name leads to another file then, and what was opened is the finished output."""

    def lock(descriptor, how):
        if (tmp_path / ".out.tmp").exists() and not (tmp_path / "out").exists():
            (tmp_path / ".out.tmp").write_text("of the other")
            (tmp_path / ".out.tmp").rename(tmp_path / "out")

    monkeypatch.setattr(fcntl, "flock", lock)
    with atomic_write(tmp_path / "out") as file:
        assert (tmp_path / "out").read_text() == "of the other"
        file.write(b"ours")
    assert (tmp_path / "out").read_text() == "ours"


@pytest.mark.parametrize("system", ["as it is", "without the call", "on a file system that cannot"])
def test_two_folders_change_places(tmp_path, system, monkeypatch):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if system != "as it is":
        calls = {} if system == "without the call" else {"renameat2": lambda *_: -1}
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: types.SimpleNamespace(**calls))
        monkeypatch.setattr("ctypes.get_errno", lambda: errno.EINVAL)
    exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists()
    assert (tmp_path / "other" / "one").exists()
    assert len(list(tmp_path.iterdir())) == 2


def test_two_folders_that_cannot_change_places(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "other")
