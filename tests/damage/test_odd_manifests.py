"""Manifests, recipes, checkpoints and chunks of any shape: a sentence, or made again, but no traceback."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rag_core.merge_scores
import rag_core.rank
import reranker_distillation.create_triplets
from rag_core.base.errors import PipelineError, UsageError
from rag_core.evaluation.training_record import read_training
from rag_core.files import manifest as manifest_module
from rag_core.files.atomic import atomic_write
from rag_core.files.chunk_store import ChunkStore
from rag_core.files.inputs import sha256
from rag_core.files.manifest import manifest_path, read_manifest
from tests.damage.test_mutated_rows import PAIRS

DEEP = "[" * 100_000 + "]" * 100_000
SHAPES = {
    "empty": "",
    "null": "null",
    "a number": "3",
    "a text": '"recipe"',
    "a list": "[]",
    "an object": "{}",
    "a recipe that is a list": '{"recipe": []}',
    "a recipe that is null": '{"recipe": null}',
    "flags that are a list": '{"recipe": {"flags": ["a"]}}',
    "inputs that are a list": '{"recipe": {"inputs": ["a"]}}',
    "inputs of numbers": '{"recipe": {"inputs": {"a": 1}}}',
    "a stage that is an object": '{"recipe": {"stage": {}}}',
    "a model that is a text": '{"recipe": {"model": "m"}}',
    "a name that is a list": '{"recipe": {"model": {"name": []}}}',
    "an output that is a list": '{"recipe": {}, "output": []}',
    "a hash that is null": '{"recipe": {}, "output": {"sha256": null}}',
    "files that are a list": '{"recipe": {}, "output": {"files": []}}',
    "a command that is a number": '{"recipe": {}, "command": 3}',
    "a teacher that is a text": '{"recipe": {}, "teacher": "t"}',
    "rows that are a text": '{"recipe": {}, "rows": "7"}',
    "skipped that is a list": '{"recipe": {}, "skipped": [1]}',
    "an instruction that is a list": '{"recipe": {}, "instruction": []}',
    "deep": DEEP,
    "deep in a fact": f'{{"recipe": {{}}, "x": {DEEP}}}',
    "a number of 5,000 digits": f'{{"recipe": {"1" * 5000}}}',
    "cut": '{"recipe": {"stage": "s"',
    "not UTF-8": b'{"recipe": {"stage": "caf\xe9"}}',
    "binary": bytes(range(256)),
    "UTF-16": '{"recipe": {}}'.encode("utf-16"),
    "two values": '{"recipe": {}} {}',
    "of another": '{"recipe": {}}',
}
PLANTED = {
    "a folder": Path.mkdir, "a pipe": os.mkfifo, "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name), "a device": lambda path: path.symlink_to("/dev/zero"),
}  # fmt: skip
KINDS = [*SHAPES, *PLANTED]


def put(path, kind):
    path.parent.mkdir(exist_ok=True)
    if kind in PLANTED:
        PLANTED[kind](path)
    else:
        path.write_bytes(SHAPES[kind] if isinstance(SHAPES[kind], bytes) else SHAPES[kind].encode())


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(manifest_module, "provenance", dict)  # which asks git
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return path


def run(argv, capsys, module=reranker_distillation.create_triplets):
    """Run a stage; return its exit code and what it said last."""
    code = module.main([str(word) for word in argv])
    said = capsys.readouterr().err.strip().rpartition("\n")[2]
    assert len(said) < 1000
    return code, said


@pytest.mark.timeout(300)  # for a pipe that nobody writes to
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of", ["input", "output", "unfinished"])
def test_a_manifest_of_any_shape(of, kind, pairs, capsys):
    output = pairs.with_name("pairs_triplets.jsonl")
    if of == "output":
        output.write_text("what somebody has written\n")
    places = {"input": manifest_path(pairs), "output": manifest_path(output)}
    place = places.get(of, pairs.with_name(f"{output.name}.partial") / "recipe.json")
    put(place, kind)
    before = output.read_bytes() if output.exists() else None
    code, said = run(["--input_files", pairs], capsys)
    assert code == 1
    assert said.startswith(f"Error: {pairs.parent}/pairs")
    assert (output.read_bytes() if output.exists() else None) == before
    if of != "input":
        code, said = run(["--input_files", pairs, "--overwrite"], capsys)
        assert (code == 0) == (of != "output" or kind not in ("a folder", "a pipe")), said
        return
    if kind != "of another":
        shutil.rmtree(place) if kind == "a folder" else place.unlink()
        assert run(["--input_files", pairs], capsys)[0] == 0


def test_a_teacher_without_a_name_and_an_analyser_that_there_is_not(pairs, capsys):
    manifest = {"recipe": {"model": {"sha256": "1"}, "flags": {}}, "output": {"sha256": sha256(pairs)}}
    manifest_path(pairs).write_text(json.dumps(manifest))
    argv = ["--input_files", pairs, "--output_file", pairs.with_name("out.jsonl"), "--bm25"]
    assert run(argv, capsys, rag_core.merge_scores)[0] == 0
    assert read_manifest(pairs.with_name("out.jsonl")).model["name"] == "unknown + BM25"
    for analyser in ("klingon", ["english"], {}):
        manifest["recipe"]["flags"] = {"analyser": ["x" * 10**6], "bm25_stemmer": analyser}
        manifest_path(pairs).write_text(json.dumps(manifest))
        code, said = run([*argv, "--overwrite"], capsys, rag_core.merge_scores)
        assert (code, said.partition(" that")[0]) == (1, f"Error: {manifest_path(pairs)}: names an analyser of BM25")


@pytest.mark.slow
@pytest.mark.timeout(300)  # for a pipe that nobody writes to
@pytest.mark.parametrize("kind", KINDS)
def test_what_training_left_may_have_any_shape(kind, tmp_path):
    from rag_core.distillation.checkpoints import whole_checkpoints  # loads torch

    for name in ("merge.json", "training_log.json"):
        put(tmp_path / name / name, kind)
        try:
            read_training(tmp_path / name, [])
        except PipelineError as error:
            assert str(error).startswith(f"{tmp_path}/{name}/{name}: ")
    put(tmp_path / "checkpoint-1" / "trainer_state.json", kind)
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-x" / "trainer_state.json").write_text("{}")
    try:
        whole = kind in SHAPES and isinstance(json.loads(SHAPES[kind]), dict)
    except (ValueError, RecursionError):
        whole = False
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-1"] * (whole and kind != "UTF-16")


ODD_CHUNKS = {
    "no fields": np.zeros(3, np.float32),
    "other fields": np.zeros(3, [("a", "S16"), ("b", "<f4")]),
    "short keys": np.zeros(3, [("key", "S8"), ("value", "<f4")]),
    "texts": np.array(["a", "b"]),
    "double": np.zeros(3, [("key", "S16"), ("value", "<f8")]),
    "of a table": np.zeros((2, 2), [("key", "S16"), ("value", "<f4")]),
    "vectors": np.zeros(3, [("key", "S16"), ("value", "<f4", (5,))]),
    "one number": np.array(1.0),
}


@pytest.mark.timeout(300)  # for a pipe that nobody writes to
@pytest.mark.parametrize("kind", [*ODD_CHUNKS, "npz", "pickled", *PLANTED])
def test_a_chunk_of_any_shape_is_computed_again(kind, tmp_path, caplog):
    keys, values = [b"k" * 16, b"l" * 16], np.array([1, 2], np.float32)
    ChunkStore([tmp_path], "pair").write(keys, values)
    odd = tmp_path / "pair-zz.npy"
    if kind in ODD_CHUNKS:
        np.save(odd, ODD_CHUNKS[kind])
    elif kind == "npz":
        np.savez(tmp_path / "a.npz", key=np.zeros(2))
        (tmp_path / "a.npz").rename(odd)
    elif kind == "pickled":
        np.save(odd, np.array([print, None]), allow_pickle=True)
    else:
        PLANTED[kind](odd)
    store = ChunkStore([tmp_path], "pair")
    assert f"{odd} is damaged (" in caplog.text
    assert store.read(keys).tolist() == [1, 2]
    assert store.missing([b"m" * 16]) == [0]


OUTPUTS = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a full folder": lambda path: (path / "kept").mkdir(parents=True),
    "a device": lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
}


@pytest.mark.timeout(300)  # for a pipe that nobody writes to
@pytest.mark.parametrize("flags", [[], ["--overwrite"]], ids=["", "overwrite"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_that_is_no_file_is_left_alone(kind, flags, pairs, capsys):
    output = pairs.with_name("out.jsonl")
    try:
        OUTPUTS[kind](output)
    except PermissionError:
        pytest.skip("only root makes devices")
    before = output.lstat()
    code, said = run(["--input_files", pairs, "--output_file", output, *flags], capsys, rag_core.merge_scores)
    if kind == "a folder" and not flags:  # an empty folder is nothing
        assert code == 1
    assert code in (1, 2) and said.startswith("Error: ") and "out.jsonl" in said
    assert (output.lstat().st_ino, output.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert sorted(path.name for path in pairs.parent.iterdir()) == ["out.jsonl", "pairs.jsonl"]


def test_the_systems_devices_are_never_replaced():
    for device in ("/dev/null", "/dev/full", "/dev/zero"):
        with pytest.raises(UsageError, match=f"the output {device} is a device"), atomic_write(Path(device)):
            pass


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ("/proc/out.jsonl", "No such file or directory"),
        ("/proc/self/a/out.jsonl", "No such file or directory"),
        ("/sys/out.jsonl", "(No such file|Operation not permitted|Read-only|Permission denied)"),
        ("pairs.jsonl/out.jsonl", "(Not a directory|File exists)"),
        (f"{'x' * 240}.jsonl", "is too long by 10 bytes"),
        (f"{'é' * 118}.jsonl", "is too long by 6 bytes"),
        (f"{'x/' * 3000}a.jsonl", "File name too long"),
        ("loop/out.jsonl", "(Too many levels of symbolic links|File exists)"),
    ],
    ids=["proc", "below proc", "sys", "below a file", "long", "long in bytes", "deep", "loop"],
)
def test_a_place_where_nothing_can_be_written(output, what, pairs, capsys):
    Path("loop").symlink_to("loop")
    code, said = run(["--input_files", pairs, "--output_file", output], capsys, rag_core.merge_scores)
    assert code in (1, 2)
    assert re.search(what, said), said
    assert sorted(path.name for path in pairs.parent.iterdir()) == ["loop", "pairs.jsonl"]


@pytest.mark.parametrize("most", [10, 4000], ids=["recipe", "output"])
def test_a_file_that_may_not_grow(most, pairs):
    """A limit on the size of files is met like a full disk: nothing half-written stays."""
    rows = [row | {"passage": f"{row['passage']} {i}"} for i in range(40) for row in PAIRS]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    script = (
        f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most})); "
        "import rag_core.merge_scores as stage; sys.exit(stage.main(sys.argv[1:]))"
    )
    argv = ["--input_files", pairs, "--output_file", pairs.with_name("out.jsonl")]
    ended = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("Error: ") and "File too large. Raise the limit" in ended.stderr
    assert [path.name for path in pairs.parent.iterdir()] == ["pairs.jsonl"]


def test_names_that_are_not_utf_8(pairs):
    path = pairs.rename(os.fsdecode(b"pairs caf\xe9.jsonl"))
    command = [sys.executable, "-m", "reranker_distillation.create_triplets", "--input_files", path]
    first, second = (subprocess.run(command, capture_output=True, check=False) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert first.stdout == b"pairs caf\xe9_triplets.jsonl\n"
    assert b"is finished already" in second.stderr
    assert read_manifest(Path(os.fsdecode(first.stdout[:-1]))).recipe["inputs"].keys() == {str(path)}


def test_text_that_is_not_utf_8(pairs, capsys):
    code, said = run(["--model", "m", "--passages", pairs, "--query", "caf\udce9"], capsys, rag_core.rank)
    assert (code, said) == (2, "Error: --query is not UTF-8. Check the encoding of the terminal or the script.")
