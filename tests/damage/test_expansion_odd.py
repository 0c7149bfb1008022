"""A workspace of any shape, and what stands beside it: a sentence, but no traceback, and no file that was not there."""

import importlib
import json
import re

import pytest

from query_expansion_rl import train
from query_expansion_rl.learning.selector import SELECTION
from query_expansion_rl.records import Demonstration
from query_expansion_rl.retrieval.encoding import ExpansionEncoder
from query_expansion_rl.retrieval.workspace import read_workspace
from rag_core.distillation import train_args
from rag_core.engines.generation import Answer
from rag_core.engines.precision import resolve_dtype
from rag_core.files.manifest import manifest_path
from tests.damage import cases, expansion_cases, expansion_readers
from tests.damage.mutations import mutated_rows
from tests.damage.test_odd_manifests import KINDS, put

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # for a pipe that nobody writes to

COUNT = 400
STAGES = ["score_expansions", "create_pairs", "train select", "expansion evaluate", "expand"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    expansion_cases.write_inputs(tmp_path)
    cases.write_model(tmp_path / "t", name="t")
    monkeypatch.chdir(tmp_path)
    cases.fake(monkeypatch)
    return tmp_path


def run(stage, *more):
    module, flags, *_ = expansion_cases.commands()[stage]
    try:
        return importlib.import_module(module).main([*flags, *more, "--overwrite", "--log_level", "error"])
    except Exception as error:  # noqa: BLE001  # a traceback is what must not be
        return repr(error)


def last(capsys):
    return capsys.readouterr().err.strip().rpartition("\n")[2]


def is_told(code, said, path):
    return code in (1, 2) and len(said) < 1000 and re.fullmatch(rf"Error: {re.escape(path)}.*: .+\.", said)


_NUMBERS = ["NaN", "Infinity", "-1", "1e400", '"0.75"', "null", "[]", "true", "1" * 5000]
ODD = {
    **{f"k1 {number[:9]}": ('"k1": 1.2', f'"k1": {number}') for number in _NUMBERS},
    **{f"b {number[:9]}": ('"b": 0.75', f'"b": {number}') for number in [*_NUMBERS, "1.01"]},
    **{f"judge_top {number[:9]}": ('"judge_top": 3', f'"judge_top": {number}') for number in [*_NUMBERS, "0", "2.5"]},
    "headroom": ('"headroom": 0.1', '"headroom": NaN'),
    "an unknown retriever": ('"retriever": "bm25"', '"retriever": "lucene"'),
    "an unknown judge": ('"tuned_by": "qrels"', '"tuned_by": "me"'),
    "an unknown language": ('"b": 0.75', '"b": 0.75, "bm25_stemmer": "klingon"'),
    "no teacher": ('"teacher": "hybrid", ', ""),
    "no retriever": ('"retriever": {', '"x": {'),
    "a key of control characters": ('"figures": {', '"figures": {"\\u001b[2J": {"a": "b"}'),
    "cut": ('"advice": ""}', '"adv'),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_numbers_in_a_summary(kind, folder, capsys):
    path = folder / "w" / "baselines.json"
    was, now = ODD[kind]
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, now, 1))
    said = {stage: (run(stage), last(capsys)) for stage in STAGES[:2]}
    for code, sentence in said.values():
        assert code == 1
        assert re.fullmatch(r"Error: w/baselines\.json: is no summary of rank_baselines \(.+\)\. Run .+\.", sentence)
        assert len(sentence) < 1000 and "\x1b" not in sentence


@pytest.mark.parametrize("stage", STAGES)
def test_a_summary_of_any_shape(stage, folder, capsys):
    path, wrong, taken = folder / "w" / "baselines.json", [], 0
    good = json.loads(path.read_text())
    lines = mutated_rows([good], [], seed=21, count=COUNT // 16)
    frame = json.dumps(good | {"retriever": "mark"}).encode()
    lines += [
        frame.replace(b'"mark"', part) for part in mutated_rows([good["retriever"]], [], seed=21, count=COUNT // 16)
    ]
    for line in lines:
        path.write_bytes(line)
        code = run(stage)
        said = last(capsys)
        taken += code == 0
        if code != 0 and not (code in (1, 2) and re.fullmatch(r"Error: .+\.", said) and len(said) < 1000):
            wrong.append((line[:300], code, said[:300]))
    assert not wrong, f"{len(wrong)}: " + "\n".join(map(str, wrong[:9]))
    assert 3 < taken < len(lines) - 5


@pytest.mark.parametrize("name", ["w/topics.jsonl", "w/judgements.jsonl", "w/rankings.jsonl", "w/baselines.json"])
def test_files_of_a_workspace_of_any_kind(name, folder, capsys):
    path, wrong = folder / name, []
    reads = {"w/rankings.jsonl": STAGES[2:4], "w/judgements.jsonl": [STAGES[0], *STAGES[2:4]]}
    for kind in ["a folder", "a pipe", "a link to nowhere", "a device", "empty", "binary"]:
        path.unlink()
        put(path, kind)
        for stage in reads.get(name, STAGES):
            code = run(stage)
            said = last(capsys)
            if not is_told(code, said, name):
                wrong.append((kind, stage, code, said[:300]))
        if path.is_dir():
            path.rmdir()
            path.touch()
    assert not wrong, "\n".join(map(str, wrong))
    assert all(path.name.endswith(".partial") for path in folder.glob("out/*"))


OF_MANIFESTS = {
    "w/topics.jsonl": STAGES,
    "w/baselines.json": STAGES,
    "w/judgements.jsonl": ["score_expansions", "train select", "expansion evaluate"],
    "w/rankings.jsonl": ["train select", "expansion evaluate"],
    "w/m/queries.npy": ["expand", "expansion evaluate"],
    "expansions.jsonl": ["score_expansions", "expansion evaluate"],
    "rewarded.jsonl": ["create_pairs"],
    "questions.jsonl": ["expand"],
}
FACTS = {
    "facts that are texts": {"milliseconds": "fast", "milliseconds_per_expansion": "fast", "prompt": 3},
    "facts that are no numbers": {
        "milliseconds": {"dense": None, "hybrid": float("nan"), "bm25": 10**400},
        "milliseconds_per_expansion": float("inf"),
    },
    "facts that are lists": {"milliseconds": [1], "milliseconds_per_expansion": [], "prompt": [], "table": []},
}


@pytest.mark.parametrize("name", OF_MANIFESTS)
def test_a_manifest_of_any_shape(name, folder, capsys):
    """It is told with its path, or says nothing of what is asked for."""
    path, wrong = manifest_path(folder / name), []
    odd = [*KINDS, *FACTS]
    for kind in odd if name in ("w/topics.jsonl", "expansions.jsonl", "w/m/queries.npy") else [*KINDS[:8], *FACTS]:
        if kind in FACTS:
            recipe = {"inputs": {"q": _sha256(folder / "w" / "queries.jsonl")}} if "npy" in name else {}
            path.write_text(json.dumps({"recipe": recipe, "output": {"sha256": _sha256(folder / name)}, **FACTS[kind]}))
        else:
            put(path, kind)
        for stage in OF_MANIFESTS[name][:2]:
            code = run(stage)
            said = last(capsys)
            if code != 0 and not is_told(code, said, name):
                wrong.append((kind, stage, code, said[:300]))
            if kind in FACTS and code != 0:
                wrong.append((kind, stage, code, said[:300]))
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert not wrong, "\n".join(map(str, wrong))


def _sha256(path):
    from rag_core.files.inputs import sha256

    return sha256(path)


def test_how_the_corpus_was_embedded_may_be_told_in_any_shape(folder, capsys):
    """The vectors' manifest says how the embedder is run."""
    path, wrong = folder / "w" / "m" / "queries.npy", []
    for flags in (
        {"max_length": "long"}, {"max_length": -1}, {"max_length": None}, {"max_length": 1.5}, {"dtype": 7},
        {"dtype": "float8"}, {"instruction": 3}, {"vllm_runner": []}, {"quantization": {}}, {"instruction": ["a"]},
    ):  # fmt: skip
        inputs = {"w/queries.jsonl": _sha256(folder / "w" / "queries.jsonl")}
        told = {"recipe": {"flags": flags, "inputs": inputs}, "output": {"sha256": _sha256(path)}}
        manifest_path(path).write_text(json.dumps(told))
        code = run("expand")
        said = last(capsys)
        if code != 1 or not re.fullmatch(r"Error: w/m/queries\.npy\.manifest\.json: does not tell how .+\.", said):
            wrong.append((flags, code, said[:300]))
    assert not wrong, "\n".join(map(str, wrong))


def test_a_corpus_that_a_server_embedded(folder, capsys):
    """Its precision is none that a model here could be loaded in."""
    path = folder / "w" / "m" / "queries.npy"
    recipe = {
        "flags": {"dtype": "the server's", "engine": "server", "max_length": 64},
        "inputs": {"q": _sha256(folder / "w" / "queries.jsonl")},
    }
    manifest_path(path).write_text(json.dumps({"recipe": recipe, "output": {"sha256": _sha256(path)}}))
    encoder = ExpansionEncoder(read_workspace(folder / "w"), None, folder / "vectors")
    assert (encoder._options.dtype, encoder._options.max_length) == (resolve_dtype("auto"), 64)


def test_a_selection_of_any_shape(folder, capsys):
    assert run("train select") == 0
    path, wrong, taken = folder / "out" / "s" / SELECTION, [], 0
    manifest_path(path.parent).unlink()
    good = json.loads(path.read_text())
    odd = [{**good, "scale": [0.0] * 6}, {**good, "variants": [1, 2, 3]}, {**good, "variants": good["variants"][0]}]
    lines = [json.dumps(row).encode() for row in odd] + mutated_rows([good], [], seed=22, count=COUNT // 4)
    capsys.readouterr()
    for line in lines:
        path.write_bytes(line)
        code = run("expansion evaluate", "--selections", "out/s")
        said = last(capsys)
        taken += code == 0
        if code != 0 and not is_told(code, said, f"out/s/{SELECTION}") and not is_told(code, said, "out/s"):
            wrong.append((line[:300], code, said[:300]))
    assert not wrong, f"{len(wrong)}: " + "\n".join(map(str, wrong[:9]))
    assert 5 < taken < len(lines) - 10


OF_ANOTHER = {
    "score_expansions": ("expansions.jsonl", []),
    "create_pairs": ("rewarded.jsonl", []),
    "expansion evaluate": ("expansions.jsonl", []),
    "rankings": ("other.jsonl", ["--rankings", "other.jsonl"]),
    "a selection": ("out/s", ["--selections", "out/s"]),
    "train rft": ("demonstrations.jsonl", ["--method", "rft", "--model", "t", "--train_file", "demonstrations.jsonl"]),
}


@pytest.mark.parametrize("stage", OF_ANOTHER)
def test_a_workspace_that_is_not_the_one_of_a_file(stage, folder, capsys, monkeypatch):
    expansion_readers.fake(monkeypatch, train.UnfinishedWork)
    monkeypatch.setattr(train_args, "decisive_settings", lambda *_: {})
    name, more = OF_ANOTHER[stage]
    assert run("train select") == 0
    (folder / "other.jsonl").write_bytes((folder / "w" / "rankings.jsonl").read_bytes())
    expansion_cases.write_lines(folder / "demonstrations.jsonl", expansion_readers.GOOD[Demonstration])
    output = {} if (folder / name).is_dir() else {"sha256": _sha256(folder / name)}
    told = {"recipe": {"inputs": {"elsewhere/topics.jsonl": "0" * 64}}, "output": output}
    manifest_path(folder / name).write_text(json.dumps(told))
    capsys.readouterr()
    code = run({"train rft": "train select"}.get(stage, "expansion evaluate" if more else stage), *more)
    assert (code, last(capsys).partition(" Pass")[0]) == (
        1,
        f"Error: {name}: was made from another topics.jsonl than w/topics.jsonl.",
    )


def test_expansions_that_say_nothing(folder, capsys):
    """Empty ones, and the same again and again, have one reward: exit 1, and nothing is written."""
    path = folder / "expansions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for text in ("", "common1, common1, common1"):
        expansion_cases.write_lines(path, [row | {"text": text} for row in rows])
        assert run("score_expansions") == 1
        assert last(capsys).startswith(
            "Error: the samples of each of the 12 queries have one reward, so there is nothing"
        )
        assert not (folder / "out" / "r.jsonl").exists()


@pytest.mark.parametrize("answer", ["", " \n", "alias0 common0, ALIAS0 COMMON0", "<think>name0"])
def test_an_answer_that_is_no_expansion_leaves_the_query(answer, folder, monkeypatch):
    writer = cases.Writer()
    monkeypatch.setattr(writer, "generate", lambda prompts, _: [[Answer(answer, 5, cut=False)]] * len(prompts))
    monkeypatch.setattr("rag_core.engines.loading.load_generator", lambda *_: writer)
    assert run("expand") == 0
    row = json.loads((folder / "out" / "q.jsonl").read_text().splitlines()[0])
    assert (row["expansion"], row["searches"]) == ("", [row["query"]])


@pytest.mark.parametrize("file", ["w/topics.jsonl", "w/baselines.json", "expansions.jsonl", "rewarded.jsonl"])
def test_no_permission_to_read(file, folder, capsys, monkeypatch):
    """As the system tells it; root may read all."""
    from rag_core.files import inputs

    opened = inputs.os.open

    def refuse(path, *more):
        if str(path) == file:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *more)

    monkeypatch.setattr(inputs.os, "open", refuse)
    for stage in ["create_pairs"] if file == "rewarded.jsonl" else ["score_expansions", "expansion evaluate"]:
        assert (run(stage), last(capsys)) == (
            1,
            f"Error: {file}: cannot be opened (Permission denied). Check the path.",
        )


def test_the_readers_name_every_record():
    from query_expansion_rl import records

    read = {reader[1] for reader in expansion_readers.READERS.values()}
    told = {value for name, value in vars(records).items() if getattr(value, "__module__", "") == records.__name__}
    made = {one for one in told if isinstance(one, type)} - {records.ServedQuery}
    assert made <= read
