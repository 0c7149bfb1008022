"""What a model folder could get in or out: links and pipes are refused, and nothing that stands in it is run."""

import json
import os
import pickle
import shutil
import socket
from pathlib import Path

import pytest

from rag_core import calibrate, push, rank
from rag_core.base.errors import EngineError
from rag_core.engines.identity import describe_model
from rag_core.engines.model_folder import check_entries
from reranker_distillation import generate_logits
from tests.zoo import encoders as zoo_of
from tests.zoo.encoders import scores_in
from tests.zoo.stages import STAGES, run, run_stage, said_once

pytestmark = pytest.mark.slow

OUT, NOWHERE = "is a link that leads out of the model's folder", "is a link that leads nowhere"
SAVED = "config_sentence_transformers.json"
FOLDER, FIFO = "is a link to a folder, which may lead round in circles", "is a FIFO, and no file"


def _link(name, target, refusal):
    """A link by the name of a file, in whose place it stands; {} is a folder beside, with files that are no model's."""

    def put(folder, beside):
        path = folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(target.format(beside))
        return path

    return put, refusal


def _fifo(name):
    def put(folder, beside):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        return folder / name

    return put, FIFO


def _socket(folder, beside):
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket has 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("merges.txt")
    finally:
        os.chdir(here)
    return folder / "merges.txt"


def _round_in_two(folder, beside):
    for name, other in (("one", "two"), ("two", "one")):
        (folder / name).symlink_to(other)
    return folder / "one"


def _folders_round_in_two(folder, beside):
    for name, other in (("one", "two"), ("two", "one")):
        (folder / name).mkdir()
        (folder / name / "on").symlink_to(folder / other)
    return folder / "one" / "on"


def _link_to_a_link(folder, beside):
    (beside / "chain").symlink_to(beside / "key.json")
    return _link("notes.json", "{}/chain", OUT)[0](folder, beside)


REFUSED = {
    "config": _link("config.json", "{}/key.json", OUT),
    "weights": _link("model.safetensors", "{}/key.json", OUT),
    "tokenizer": _link("tokenizer.json", "{}/key.json", OUT),
    "card": _link("README.md", "{}/key.json", OUT),
    "further_json": _link("notes.json", "{}/key.json", OUT),
    "calibration": _link("calibration.json", "{}/key.json", OUT),
    "by_steps_up": _link("notes.json", "../beside/key.json", OUT),
    "through_a_link": (_link_to_a_link, OUT),
    "of_the_system": _link("vocab.txt", "/etc/passwd", OUT),
    "device": _link("model.safetensors", "/dev/zero", OUT),
    "terminal": _link("config.json", "/dev/stdin", OUT),
    "process": _link("notes.txt", "/proc/self/environ", OUT),
    "folder_outside": _link("onnx", "{}", OUT),
    "the_root": _link("1_Pooling", "/", OUT),
    "parent": _link("onnx", "..", OUT),
    "itself_as_a_folder": _link("onnx", ".", FOLDER),
    "dangling": _link("notes.json", "{}/nothing", NOWHERE),
    "dangling_within": _link("notes.json", "nothing", NOWHERE),
    "itself": _link("notes.json", "notes.json", NOWHERE),
    "two_in_circles": (_round_in_two, NOWHERE),
    "folders_in_circles": (_folders_round_in_two, FOLDER),
    "fifo_config": _fifo("config.json"),
    "fifo_modules": _fifo("modules.json"),
    "fifo_weights": _fifo("model.safetensors"),
    "fifo_bin": _fifo("pytorch_model.bin"),
    "fifo_tokenizer": _fifo("tokenizer.json"),
    "fifo_export": _fifo("export.json"),
    "fifo_card": _fifo("README.md"),
    "fifo_template": _fifo("chat_template.jinja"),
    "link_to_fifo": _link("notes.json", "{}/fifo", OUT),
    "socket": (_socket, "is a socket, and no file"),
}


@pytest.fixture
def beside(tmp_path):
    """A folder with what no model has a business with."""
    folder = tmp_path / "beside"
    folder.mkdir()
    (folder / "key.json").write_text('{"key": "secret"}')
    os.mkfifo(folder / "fifo")
    return folder


@pytest.fixture
def student(zoo, tmp_path):
    """A cross-encoder that works, with a card."""
    folder = shutil.copytree(zoo(zoo_of.plain)[0], tmp_path / "student")
    (folder / "README.md").write_text("# student\n")
    return folder


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_file_of_the_folder_is_refused(kind, student, beside, capsys):
    put, refusal = REFUSED[kind]
    path = put(student, beside)
    with pytest.raises(EngineError) as error:
        describe_model(str(student))
    assert str(error.value).startswith(f"{path}: {refusal}. ")
    said_once(run(push.main, "--model", student, "--repo_id", "some-body/student", "--dry_run"), capsys)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["weights", "further_json", "fifo_config"])
def test_every_stage_refuses_it(kind, stage, zoo, student, files, beside, tmp_path, capsys):
    put, refusal = REFUSED[kind]
    put(student, beside)
    whole, _ = zoo(zoo_of.plain)
    code = run_stage(stage, student, files, tmp_path / "out", whole)
    # Without what says that it is a model, nothing is pushed anyway.
    said_once(code, capsys, "is no model" if (stage, kind) == ("push", "fifo_config") else refusal)
    assert not list(tmp_path.glob("out/*.json*"))


@pytest.mark.parametrize("stage", ["rank", "calibrate"])
def test_the_base_of_an_adapter_is_looked_at_too(stage, zoo, files, beside, tmp_path, capsys):
    folder, _ = zoo(zoo_of.reranker_adapter)
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    shutil.copytree(folder, adapter)
    shutil.copytree(f"{folder}-base", base)
    _change(adapter / "adapter_config.json", base_model_name_or_path=str(base))
    (base / "notes.json").symlink_to(beside / "key.json")
    said_once(run_stage(stage, adapter, files, tmp_path / "out", None), capsys, "base/notes.json", OUT)


def cached(folder, root, shared):
    """Lay a model out as a cache of the hub does; a newer one has its blobs once for all models."""
    cache = root / "models--some--student"
    snapshot = cache / "snapshots" / ("0123456789" * 4)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        blob, link = cache / "blobs" / f"etag{number}", snapshot / path.relative_to(folder)
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, blob)
        if shared:
            store = root / "blobs" / "ab" / f"hash{number}"
            store.parent.mkdir(parents=True, exist_ok=True)
            blob.rename(store)
            blob.symlink_to(os.path.relpath(store, blob.parent))
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


@pytest.mark.parametrize("shared", [False, True], ids=["own_blobs", "shared_blobs"])
def test_a_snapshot_in_a_cache_of_the_hub_is_read_but_not_sent(shared, zoo, files, tmp_path, capsys):
    folder, right = zoo(zoo_of.plain)
    snapshot = cached(folder, tmp_path / "cache", shared)
    flags = ("--input_files", files / "samples.jsonl", "--output_dir", tmp_path, "--dtype", "float32")
    assert run(generate_logits.main, "--teacher", snapshot, *flags) == 0
    assert scores_in(tmp_path / "samples_logits.jsonl") == pytest.approx(right, abs=1e-4)
    assert describe_model(str(snapshot)).identity["sha256"] == describe_model(str(folder)).identity["sha256"]
    (snapshot / "README.md").write_text("# student\n")
    capsys.readouterr()
    code = run(push.main, "--model", snapshot, "--repo_id", "some-body/student", "--dry_run")
    said_once(code, capsys, OUT, "Put a copy of what it leads to in its place")


def test_a_snapshot_does_not_lead_out_of_its_cache(zoo, beside, tmp_path):
    snapshot = cached(zoo(zoo_of.plain)[0], tmp_path / "cache", shared=False)
    (snapshot / "notes.json").symlink_to(beside / "key.json")
    with pytest.raises(EngineError, match=OUT):
        check_entries(snapshot)
    (snapshot / "notes.json").unlink()
    blobs = snapshot.parent.parent / "blobs"
    blobs.rename(beside / "blobs")
    blobs.symlink_to(beside / "blobs")
    with pytest.raises(EngineError, match=OUT):
        check_entries(snapshot)


def test_calibrate_copies_no_link_of_a_snapshot(zoo, files, tmp_path):
    snapshot = cached(zoo(zoo_of.plain_embedder)[0], tmp_path / "cache", shared=False)
    output = tmp_path / "out"
    flags = ("--input_files", files / "scored.jsonl", "--target", "labels", "--method", "temperature")
    run(calibrate.main, "--model", snapshot, "--output_dir", output, *flags)
    assert not [path for path in tmp_path.glob("out*/**/*") if path.is_symlink()]


def test_a_folder_that_is_reached_through_a_link_and_a_link_within_are_read(zoo, student, tmp_path, capsys):
    _, right = zoo(zoo_of.plain)
    (tmp_path / "by_another_name").symlink_to(student)
    (student / "model.safetensors").rename(student / "weights")
    (student / "model.safetensors").symlink_to("weights")
    assert ranked(tmp_path / "by_another_name", tmp_path, capsys) == f"{right[0]:.4f}"
    assert run(push.main, "--model", student, "--repo_id", "some-body/student", "--dry_run") == 0


def ranked(folder, tmp_path, capsys):
    """Return the score that `rank` prints of a passage."""
    query, passage = zoo_of.PAIRS[0]
    (tmp_path / "passages.txt").write_text(f"{passage}\n")
    flags = ("--query", query, "--passages", tmp_path / "passages.txt", "--dtype", "float32")
    assert run(rank.main, "--model", folder, *flags) == 0
    return capsys.readouterr().out.splitlines()[-1].split()[1]


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path), 0o100644)


def _change(path, **values):
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | values))


def _module(folder, number, kind):
    modules = json.loads((folder / "modules.json").read_text())
    modules[number]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))


def _names_module(kind):
    def put(folder, ran):
        (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Pooling: pass\n")
        _module(folder, -1, kind)

    return zoo_of.plain_embedder, put


def _own_tokenizer(folder, ran):
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Tok: pass\n")
    auto_map = {"AutoTokenizer": ["evil.Tok", "evil.Tok"]}
    _change(folder / "tokenizer_config.json", tokenizer_class="Tok", auto_map=auto_map)


def _own_config(folder, ran):
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    _change(folder / "config.json", auto_map={"AutoConfig": "evil.Config"}, model_type="evil")


def _own_generate(folder, ran):
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"open({str(ran)!r}, 'w')\ndef generate(*a, **k): pass\n")
    _change(folder / "generation_config.json", custom_generate="evil", trust_remote_code=True)


def _router(folder, ran):
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    _module(folder, 0, "sentence_transformers.base.modules.router.Router")
    router = {"types": {"q": "evil.Module"}, "structure": {"query": ["q"], "document": ["q"]}, "parameters": {}}
    (folder / "router_config.json").write_text(json.dumps(router))


def _named(value, file_name=SAVED, key="activation_fn", builder=zoo_of.plain):
    def put(folder, ran):
        _change(folder / file_name, **{key: value})

    return builder, put


def _pickled(builder, weights, legacy=False):
    def put(folder, ran):
        import torch

        (path,) = folder.rglob(weights)
        path.unlink()
        new = path.with_name({"adapter_model.safetensors": "adapter_model.bin"}.get(path.name, "pytorch_model.bin"))
        if legacy:
            new.write_bytes(pickle.dumps({"a": Touch(ran)}))
        else:
            torch.save({"a": Touch(ran)}, new)

    return builder, put


def _opened(keys, file_name="sentence_bert_config.json"):
    """Weights that are a program, and a file that asks for them to be run."""

    def put(folder, ran):
        if file_name != "sentence_bert_config.json":
            (folder / "sentence_bert_config.json").unlink()
        _pickled(None, "model.safetensors")[1](folder, ran)
        _change(folder / file_name, **keys)

    return zoo_of.plain_embedder, put


def _adapter(**values):
    def put(folder, ran):
        _change(folder / "adapter_config.json", **values)

    return zoo_of.reranker_adapter, put


CODE = "needs Python code of its own folder, which is never run here"
HOSTILE = {
    "auto_map_of_config": (zoo_of.plain, _own_config, CODE),
    "auto_map_of_tokenizer": (zoo_of.plain, _own_tokenizer, None),
    "own_generate": (zoo_of.plain, _own_generate, None),
    "module_in_the_folder": (*_names_module("evil.Pooling"), CODE),
    "module_os_system": (*_names_module("os.system"), CODE),
    "module_popen": (*_names_module("subprocess.Popen"), CODE),
    "module_of_torch": (*_names_module("torch.hub.load"), CODE),
    "module_behind_the_prefix": (*_names_module("sentence_transformers.base.model.pickle"), CODE),
    "module_imported_by_one": (*_names_module("sentence_transformers.base.modules.dense.import_from_string"), CODE),
    "module_without_dots": (*_names_module("evil"), CODE),
    "module_of_a_router": (zoo_of.plain_embedder, _router, CODE),
    "activation_in_config": (*_named({"activation_fn": "torch.load"}, "config.json", "sentence_transformers"), CODE),
    "activation_as_of_old": (*_named("torch.load", "config.json", "sbert_ce_default_activation_function"), CODE),
    "activation_saved": (*_named("torch.distributed.run.main"), CODE),
    "activation_of_tools": (*_named("torch.utils.collect_env.main"), CODE),
    "activation_elsewhere": (*_named("os.abort"), None),
    "activation_of_dense": (*_named("torch.load", "2_Dense/config.json", "activation_function", zoo_of.dense), CODE),
    "pickled_weights": (*_pickled(zoo_of.plain, "model.safetensors"), "holds more than tensors"),
    "pickled_as_of_old": (*_pickled(zoo_of.plain, "model.safetensors", legacy=True), "holds more than tensors"),
    "pickled_embedder": (*_pickled(zoo_of.plain_embedder, "model.safetensors"), "holds more than tensors"),
    "pickled_static": (*_pickled(zoo_of.static, "model.safetensors"), "holds more than tensors"),
    "pickled_dense": (*_pickled(zoo_of.dense, "2_Dense/model.safetensors"), "holds more than tensors"),
    "pickled_adapter": (*_pickled(zoo_of.reranker_adapter, "adapter_model.safetensors"), "holds more than tensors"),
    "asks_to_unpickle": (*_opened({"model_kwargs": {"weights_only": False}}), CODE),
    "asks_to_unpickle_as_of_old": (*_opened({"model_args": {"weights_only": False}}), CODE),
    "asks_by_another_file": (*_opened({"model_args": {"weights_only": False}}, "sentence_roberta_config.json"), CODE),
    "asks_for_kernels": (*_opened({"model_kwargs": {"use_kernels": True}}), CODE),
    "asks_to_trust": (*_opened({"model_kwargs": {"trust_remote_code": True}}), "holds more than tensors"),
    "attention_of_a_repository": (*_named("some-body/kernel", "config.json", "attn_implementation"), CODE),
    "adapter_for_megatron": (*_adapter(megatron_config={"a": 1}, megatron_core="evil"), CODE),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_in_a_folder_is_run_and_nothing_is_asked(kind, zoo, tmp_path, monkeypatch, capsys):
    builder, put, refusal = HOSTILE[kind]
    folder = shutil.copytree(zoo(builder)[0], tmp_path / "model")
    put(folder, tmp_path / "ran")
    monkeypatch.chdir(folder)  # where `python -m` finds modules, too
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    if refusal is None:
        ranked(folder, tmp_path, capsys)
    else:
        (tmp_path / "passages.txt").write_text("a bank loan\n")
        code = run(rank.main, "--model", folder, "--query", "river", "--passages", tmp_path / "passages.txt")
        said_once(code, capsys, refusal)
    assert not (tmp_path / "ran").exists()


TEMPLATES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "attributes": "{{ messages.append.__self__.__class__.__base__.__subclasses__() }}",
    "change": "{{ messages.append(messages[0]) }}",
    "import": "{% import 'os' as os %}{{ os }}",
    "include": "{% include '/etc/passwd' %}",
    "long_range": "{% for i in range(10 ** 12) %}{{ i }}{% endfor %}",
    "fails": "{{ raise_exception('no') }}",
    "no_template": "{% if %}",
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_chat_template_is_rendered_in_a_sandbox(kind):
    from rag_core.engines.reranker_prompt import ChatTemplatePrompt
    from rag_core.engines.rerankers import ChatTemplate

    tokens = zoo_of.tokenizer()
    tokens.chat_template = TEMPLATES[kind]
    with pytest.raises(EngineError, match="the model's chat template"):
        ChatTemplatePrompt(tokens, ChatTemplate("0"), (1, 2), 256)
