"""Arrays, recommendations and kept trials of any shape: a sentence, or measured again, but no traceback."""

import importlib
import json
import re

import numpy as np
import pytest

from milvus_optimization import apply, compare_vectors, pool_candidates, sweep_indexes, tune_retrieval
from milvus_optimization.indexes.store import TrialStore
from rag_core.files.kept_times import KeptTimes
from rag_core.files.manifest import manifest_path
from tests.damage import milvus_cases
from tests.damage.mutations import mutated_rows
from tests.damage.test_mutated_rows import GOOD
from tests.damage.test_odd_manifests import KINDS, put
from tests.milvus_optimization.swept import swept, swept_vectors  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # for a pipe that nobody writes to


def _saved(**arrays):
    def write(path):
        with path.open("wb") as file:
            np.savez(file, **arrays) if arrays else np.save(file, np.array([print, None]), allow_pickle=True)

    return write


def _array(array):
    def write(path):
        with path.open("wb") as file:  # NumPy gives a path an ending
            np.save(file, array)

    return write


ARRAYS = {
    "an archive": _saved(documents=np.eye(20, 8, dtype=np.float32)),
    "pickled": _saved(),
    "double": _array(np.eye(20, 8)),
    "of fields": _array(np.zeros(20, [("a", "<f4")])),
    "of texts": _array(np.array(["a"] * 20)),
    "one number": _array(np.array(1.0, np.float32)),
    "without dimensions": _array(np.zeros((20, 0), np.float32)),
    "too few": _array(np.eye(19, 8, dtype=np.float32)),
    "other dimensions": _array(np.eye(20, 9, dtype=np.float32)),
    "NaN": _array(np.full((20, 8), np.nan, np.float32)),
    "infinite": _array(np.full((20, 8), np.inf, np.float32)),
    "zero": _array(np.zeros((20, 8), np.float32)),
    "long": _array(np.full((20, 8), 1e30, np.float32)),
    "of the other order of bytes": _array(np.eye(20, 8, dtype=">f4")),
    "a head that is no Python": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00" + b"(((((((((((((((("),
    "more than there is": lambda path: path.write_bytes(
        b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (20, 99999999)}".ljust(118)
    ),
}
STAGES = {
    "compare_vectors": (compare_vectors, []),
    "sweep_indexes": (sweep_indexes, ["--indexes", "FLAT"]),
    "tune_retrieval": (tune_retrieval, []),
    "pool_candidates": (pool_candidates, []),
    "apply": (apply, ["--recommendation", "recommendation.json", "--uri", "http://milvus:1", "--collection", "a"]),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.jsonl").write_text("{}\n")
    milvus_cases.write_inputs(tmp_path)
    return tmp_path / "v"


@pytest.mark.parametrize("stage", STAGES)
def test_vectors_of_any_shape(stage, folder, capsys):
    module, flags = STAGES[stage]
    path, wrong = folder / "m" / "documents.npy", []
    for kind in [*KINDS, *ARRAYS]:
        path.unlink(missing_ok=True)
        if kind in ARRAYS:
            ARRAYS[kind](path)
        else:
            put(path, kind)
        try:
            code = module.main(["--vectors", "v", "--output_file", "out.jsonl", *flags])
        except Exception as error:  # noqa: BLE001  # a traceback is what must not be
            code = repr(error)
        said = capsys.readouterr().err.strip().rpartition("\n")[2]
        told = r"Error: v/m/(documents|queries)\.npy: .+\.$|Error: v: holds no vectors\. .+\.$"
        if code != 1 or not re.fullmatch(told, said) or len(said) > 1000:
            wrong.append((kind, code, said[:300]))
        if path.is_dir():
            path.rmdir()
    assert not wrong, "\n".join(map(str, wrong))
    assert not (folder.parent / "out.jsonl").exists()


def test_a_recommendation_of_any_shape(folder, capsys, monkeypatch):
    class TakenError(Exception): ...

    def taken(*_):
        raise TakenError

    monkeypatch.setattr(apply, "connected", taken)
    path, count, wrong = folder.parent / "recommendation.json", 0, []
    good = json.loads(path.read_text())
    for line in mutated_rows([good], [rows[0] for rows in GOOD.values()], seed=20, count=400):
        path.write_bytes(line)
        flags = ["--recommendation", path.name, "--uri", "http://milvus:1", "--collection", "a", "--output_file", "a"]
        try:
            code = apply.main(["--vectors", "v", *flags])
        except TakenError:
            count += 1
            continue
        except Exception as error:  # noqa: BLE001  # a traceback is what must not be
            code = repr(error)
        said = capsys.readouterr().err.strip().rpartition("\n")[2]
        if code not in (1, 2) or not re.fullmatch(r"Error: .+\.", said) or len(said) > 1000:
            wrong.append((line[:300], code, said[:300]))
    assert not wrong, f"{len(wrong)}: " + "\n".join(map(str, wrong[:9]))
    assert 40 < count < 360


@pytest.mark.parametrize("content", ["", "{}", "[]", "null\n", "twice"])
def test_what_apply_measured_may_have_any_shape(content, folder, monkeypatch):
    """A run that goes on over it builds and measures again."""
    (folder.parent / "out").mkdir()
    milvus_cases.fake(monkeypatch)
    _, flags, *_ = milvus_cases.commands("e")["apply"]
    milvus_cases.start("apply", folder.parent / "out")
    with monkeypatch.context() as patched:
        patched.setattr(apply, "take_name", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            apply.main(flags)
    measured = folder.parent / "out" / "a.json.partial" / "measured.json"
    measured.write_text(2 * measured.read_text() if content == "twice" else content)
    assert apply.main(flags) == 0
    assert json.loads((folder.parent / "out" / "a.json").read_text())["kept"]
    assert sorted(path.name for path in (folder.parent / "out" / "milvus").iterdir()) == [
        "mo_theirs", "other", "passages",
    ]  # fmt: skip


OF_MANIFESTS = {
    "v/documents.jsonl": "pool_candidates",
    "v/m/documents.npy": "pool_candidates",
    "v/qrels.tsv": "compare_vectors",
    "pool.jsonl": "judge_pool",
    "measured/index_trials.jsonl": "recommend",
    "measured/retrieval_trials.jsonl": "recommend",
    "recommendation.json": "apply",
}


@pytest.mark.parametrize("name", OF_MANIFESTS)
def test_a_manifest_of_any_shape(name, folder, monkeypatch, capsys):
    """It is told with its path, or says nothing of what is asked for."""
    (folder.parent / "out").mkdir()
    milvus_cases.fake(monkeypatch)
    module, flags, *_ = milvus_cases.commands("e")[OF_MANIFESTS[name]]
    path, wrong = manifest_path(folder.parent / name), []
    for kind in KINDS:
        put(path, kind)
        try:
            code = importlib.import_module(module).main([*flags, "--overwrite", "--log_level", "error"])
        except Exception as error:  # noqa: BLE001  # a traceback is what must not be
            code = repr(error)
        said = capsys.readouterr().err.strip().rpartition("\n")[2]
        if code != 0 and (code != 1 or not re.fullmatch(rf"Error: {name}.+\.", said) or len(said) > 1000):
            wrong.append((kind, code, said[:300]))
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert not wrong, "\n".join(map(str, wrong))


EXACT = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("[]"),
    "one array": _array(np.eye(3)),
    "of other names": _saved(a=np.eye(3)),
    "of too few queries": None,
    "a head that is no Python": ARRAYS["a head that is no Python"],
}


@pytest.mark.parametrize("kind", EXACT)
def test_what_was_found_exactly_may_have_any_shape(kind, swept, capsys, monkeypatch):  # noqa: F811
    """A run that goes on over it measures FLAT again, and ends as it would have."""
    swept.faults["search 40"] = ["away"] * 3
    monkeypatch.setattr("milvus_optimization.indexes.sweep._FAILURES", 1)
    assert swept.run() == 1
    path = swept.output.with_name("trials.jsonl.partial") / "trials" / "exact.npz"
    if EXACT[kind]:
        EXACT[kind](path)
    else:
        found = TrialStore(path.parent).read_reference(dict)
        _saved(**{name: array[:3] for name, array in found.items()})(path)
    swept.faults.clear()
    capsys.readouterr()
    assert swept.run() == 0
    assert f"{path} is damaged (" in capsys.readouterr().err
    assert swept.told()[0] == ("FLAT", None, "ok") and swept.searched()[0] == "search FLAT"


@pytest.mark.parametrize(
    "content", ["", "[]", "[1]", "3", "null", '{"bm25 1.2 0.75": "x"}', '{"a": null}', '{"a": []}']
)
def test_kept_times_of_any_shape(content, tmp_path, caplog):
    path = tmp_path / "milliseconds.json"
    path.write_text(content)
    times = KeptTimes(tmp_path)
    assert f"{path} is damaged: times are taken again" in caplog.text
    assert times.get("a") is None
    assert times.keep("a", 1.5) == KeptTimes(tmp_path).get("a") == 1.5
