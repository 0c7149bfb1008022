"""What is given for a file and is none, or none that fits: pipes, devices, links to nowhere, bombs, odd names."""

import contextlib
import gzip
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rag_core.base.errors import DataError
from rag_core.files.qrels import read_qrels
from rag_core.files.runs import read_run
from tests.damage.test_mutated_rows import READERS, lay_out, stop


def pipe(path):
    os.mkfifo(path)


def open_socket(path):
    with socket.socket(socket.AF_UNIX) as it, contextlib.chdir(path.parent):
        it.bind(path.name)


def link_to(target):
    return lambda path: path.symlink_to(target)


PLANTED = {
    "pipe": (pipe, "is a pipe, not a regular file"),
    "socket": (open_socket, r"cannot be opened \(No such device or address\)"),
    "device": (link_to("/dev/zero"), "is a device, not a regular file"),
    "link to nowhere": (link_to("nowhere"), "is a link to what is not there"),
    "link to itself": (
        lambda path: path.symlink_to(path.name),
        r"cannot be opened \(Too many levels of symbolic links\)",
    ),
    "folder": (Path.mkdir, "is a directory"),
    "memory": (link_to("/proc/self/mem"), r"(cannot be read|cannot be opened) \("),
}
NAMED = {
    "the shell's pipe": (lambda path: f"/dev/fd/{os.pipe()[0]}", "is a pipe, not a regular file"),
    "nothing": (lambda path: path.with_name("nothing.jsonl"), "no such file"),
    "in a file": (lambda path: path.with_name("Triplet") / "rows.jsonl", r"cannot be opened \(Not a directory\)"),
    "a name too long": (lambda path: path.with_name("x" * 300 + ".jsonl"), r"(cannot be opened \()?File name too long"),
    "a path too long": (
        lambda path: Path("/tmp") / ("x/" * 3000 + "a.jsonl"),
        r"(cannot be opened \()?File name too long",
    ),
    "a name with NUL": (lambda path: path.with_name("a\0b.jsonl"), r"--\w+ has a NUL in it"),
}


@pytest.mark.slow
@pytest.mark.timeout(120)  # for a pipe that nobody writes to
@pytest.mark.parametrize("kind", [*PLANTED, *NAMED])
def test_what_is_no_file_is_told_by_every_stage(kind, tmp_path, monkeypatch, capsys):
    wrong = []
    for number, (name, reader) in enumerate(READERS.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        path, _, argv = lay_out(folder, name, reader)
        if kind in NAMED:
            place, told = NAMED[kind]
            argv = [str(place(path)) if word == str(path) else word for word in argv]
            if "FOLDER" in reader.argv or (
                name == "rank" and "shell" in kind
            ):  # one names a folder, one asks for .jsonl
                continue
        else:
            put, told = PLANTED[kind]
            path.unlink(missing_ok=True)
            put(path)
            if name == "prepare jsonl" and kind == "folder":  # of files, which there are none of
                told = "holds no .jsonl"
            if name in ("embed_corpus", "rank_baselines") and kind == "folder":  # in the BEIR layout
                told = "holds no corpus.jsonl"
        with monkeypatch.context() as patched:
            patched.setattr(*reader.stop, stop)
            try:
                code = reader.module.main(argv)
            except Exception as error:  # noqa: BLE001  # a traceback is what must not be
                code = repr(error)
        last = capsys.readouterr().err.strip().rpartition("\n")[2]
        usage = "NUL" in told
        if code != 1 + usage or not re.match(rf"Error: ([^ ]+: )?{told}", last) or len(last) > 1000:
            wrong.append((name, code, last[:300]))
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("name", ["qrels", "run"])
def test_judgements_and_runs_are_files(name, tmp_path):
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(DataError, match="is a pipe, not a regular file"):
        (read_qrels if name == "qrels" else read_run)(path)


BOMBS = """
import gzip, io, json, resource, sys
from collections import Counter
from pathlib import Path
import datasets
from rag_core.base.errors import PipelineError
from rag_core.base.records import Passage, RankingSample, ScoredPair
from rag_core.evaluation.expectation import read_expectations
from rag_core.evaluation.training_record import read_training
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_by_id, read_groups, read_records, read_samples
from rag_core.files.manifest import Recipe, read_manifest, unfinished_differences
from rag_core.files.qrels import read_qrels
from rag_core.files.runs import read_run
from rag_core.rank import Args, _samples
from rag_core.sources.mteb import MtebSet

folder = Path(sys.argv[1])
recipe = Recipe("s", {}, {})
READERS = {
    "samples": lambda: read_samples(folder / "bomb.jsonl.gz"),
    "samples, not packed": lambda: read_samples(folder / "zeros.jsonl"),
    "pairs": lambda: read_groups(folder / "bomb.jsonl.gz", ScoredPair),
    "passages": lambda: list(read_records(folder / "bomb.jsonl.gz", Passage, tables=True)),
    "lines": lambda: _samples(Args(model="m", passages=folder / "bomb.txt.gz", query="q")),
    "qrels": lambda: read_qrels(folder / "bomb.txt.gz"),
    "run": lambda: read_run(folder / "bomb.txt.gz"),
    "csv": lambda: read_samples(folder / "bomb.csv.gz", tables=True),
    "csv of one row": lambda: read_samples(folder / "row.csv.gz", tables=True),
    "tsv": lambda: read_samples(folder / "zeros.tsv", tables=True),
    "parquet": lambda: read_samples(folder / "bomb.parquet", tables=True),
    "mteb": lambda: MtebSet(str(folder / "mteb"), "huggingface").read(Counter(), BadRows(skip=False)),
    "manifest": lambda: read_manifest(folder / "model"),
    "recipe": lambda: unfinished_differences(folder / "model", recipe),
    "expected figures": lambda: read_expectations(folder / "zeros.jsonl"),
    "merge curve": lambda: read_training(folder / "model", []),
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, read in READERS.items():
    try:
        print(name, "was read:", *read())
    except PipelineError as error:
        print(name, error)
    if "-v" in sys.argv:
        print(name, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, file=sys.stderr)
skip = BadRows(skip=True)
assert [sample.query_id for sample in read_samples(folder / "among.jsonl.gz", bad_rows=skip)] == ["1", "3"]
print("skipped", *skip.errors)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_bombs_take_no_memory(tmp_path):
    """4 GB in one line, packed in 4 MB: each reader tells them, and holds 200 MB at most."""
    import pyarrow
    import pyarrow.parquet

    zeros = gzip.compress(b"0" * 2**26, mtime=0)
    row = gzip.compress(b'{"query": "a", "candidates": ["b"]}\n', mtime=0)
    for name in ("bomb.jsonl.gz", "bomb.txt.gz", "bomb.csv.gz"):
        (tmp_path / name).write_bytes(64 * zeros)
    (tmp_path / "among.jsonl.gz").write_bytes(row + 3 * zeros + gzip.compress(b"\n") + row)
    cells = gzip.compress((b'",' + b"x" * 2**20 + b',"\n') * 65, mtime=0)
    (tmp_path / "row.csv.gz").write_bytes(gzip.compress(b'query,candidates\n"') + 64 * cells)
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "mteb").mkdir()
    (tmp_path / "mteb" / "test.jsonl.gz").write_bytes(row + 64 * zeros)
    for name in ("zeros.jsonl", "zeros.tsv", "model.manifest.json", "model.partial/recipe.json", "model/merge.json"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 2**32)
    table = pyarrow.table({"query": ["q"], "candidates": [["0" * (2**26 + 9)]]})
    pyarrow.parquet.write_table(table, tmp_path / "bomb.parquet", compression="zstd", use_dictionary=False)
    child = subprocess.run(
        [sys.executable, "-c", BOMBS, tmp_path], capture_output=True, text=True, check=False, timeout=300
    )
    assert child.returncode == 0, child.stderr[-2000:]
    *told, most = child.stdout.splitlines()
    assert len(told) == 17
    for line in told:
        assert "longer than 64 MB" in line or "is UTF-32" in line, line
        assert len(line) < 500
    assert int(most) < 200
