"""What a hub, which is a fake one here, is sent of a model's folder, and what becomes of all that goes wrong."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rag_core import push
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.release.model_card import write_model_card

TOKEN = "hf_verySecretToken"
REPO = "some-body/student"


class FakeHub(ThreadingHTTPServer):
    """The part of a hub's API that an upload needs: weights through LFS, everything else within the commit.

    Attributes:
        repos: name -> what it was created with.
        files: (branch, path) -> content, of what was committed.
        blobs: hash -> content, of what was uploaded through LFS.
        tokens: the authorization headers of all requests.
        weights: how it wants them, lfs or regular.
        refuses: status that answers everything.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repos, self.files, self.blobs, self.tokens = {}, {}, {}, []
        self.weights, self.refuses = "lfs", None

    def create(self, body):
        self.repos.setdefault(f"{body['organization']}/{body['name']}", body)
        return {"url": f"{self.url}/{body['organization']}/{body['name']}"}

    def info(self, _):
        return {"id": REPO, "private": self.repos[REPO]["visibility"] == "private", "siblings": []}

    def modes(self, body):
        paths = [file["path"] for file in json.loads(body)["files"]]
        how = [self.weights if path.endswith(".safetensors") else "regular" for path in paths]
        return {"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in zip(paths, how, strict=True)]}

    def batch(self, body):
        upload = {"upload": {"href": f"{self.url}/blob"}}
        return {"objects": [{**entry, "actions": upload} for entry in json.loads(body)["objects"]]}

    def commit(self, body, branch):
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                self.files[branch, value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                self.files[branch, value["path"]] = self.blobs[value["oid"]]
        return {"commitUrl": f"{self.url}/{REPO}/commit/1", "commitOid": "1"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        hub, path = self.server, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path != "/blob":  # the storage is another server, which is sent no token
            hub.tokens.append(self.headers["authorization"])
        found = None
        if hub.refuses:
            return self.send(hub.refuses, {"error": "no"})
        if path == "/blob":
            hub.blobs[hashlib.sha256(body).hexdigest()] = body
            found = {}
        elif path == "/api/repos/create":
            found = hub.create(json.loads(body))
        elif path == f"/api/models/{REPO}":
            found = hub.info(body)
        elif path == "/api/validate-yaml":
            found = {}
        elif path.startswith(f"/api/models/{REPO}/preupload/"):
            found = hub.modes(body)
        elif path == f"/{REPO}.git/info/lfs/objects/batch":
            found = hub.batch(body)
        elif path.startswith(f"/api/models/{REPO}/branch/"):
            found = {}
        elif path.startswith(f"/api/models/{REPO}/commit/"):
            found = hub.commit(body, path.rpartition("/")[2])
        return self.send(404 if found is None else 200, found or {})

    do_GET = do_POST = do_PUT = answer  # noqa: N815  # the names that the base class calls

    def send(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub():
    server = FakeHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tiny_cross_encoder, tmp_path):
    """A model as the stages leave one, with what may lie around in such a folder."""
    folder = tmp_path / "runs" / "model"
    shutil.copytree(tiny_cross_encoder, folder)
    facts = {"queries": 9, "triplets": 90, "steps": 3, "seconds": 2.0}
    write_model_card(
        folder,
        name="model",
        command="train",
        kind="cross-encoder",
        base_model="b",
        teacher={"name": "t"},
        settings={},
        facts=facts,
    )
    with (folder / "README.md").open("a") as card:
        card.write("Ask it at /v1/embeddings.\n")  # no path of a machine
    write_manifest(folder, Recipe("s", {}, {}, {"name": str(tmp_path)}))
    for name in ("checkpoint-5/config.json", "next.partial/config.json", ".cache/x.json", "d.jsonl.manifest.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f'"{tmp_path}/left/out"')
    for name in ("training_args.bin", "train.jsonl"):
        (folder / name).write_text("left out")
    return folder


def run(model, url, *flags, token=TOKEN, **settings):
    """The stage in a process of its own: huggingface_hub reads its settings when it is imported."""
    names = ("HF_HUB_OFFLINE", "HF_TOKEN")
    env = {name: value for name, value in os.environ.items() if name not in names}
    # Telemetry asks for a list without a token; weights that go through Xet need a server of another kind.
    env |= {"HF_ENDPOINT": url, "HF_HOME": str(model.parent / "hf_home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "rag_core.push", "--model", str(model), "--repo_id", REPO, *flags]
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1", **({"HF_TOKEN": token} if token else {}), **settings}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("weights", "without_xet"), [("lfs", "1"), ("regular", "0")])
def test_the_model_arrives_and_nothing_else(weights, without_xet, hub, model):
    hub.weights = weights
    found = run(model, hub.url, "--log_level", "debug", HF_DEBUG="1", HF_HUB_DISABLE_XET=without_xet)
    assert found.returncode == 0, found.stderr
    assert found.stdout == f"{hub.url}/{REPO}\n"
    sent = {path: content for (branch, path), content in hub.files.items() if branch == "main"}
    assert len(sent) == len(hub.files)
    assert {"README.md", "config.json", "model.safetensors", "modules.json", "tokenizer.json"} <= sent.keys()
    assert all((model / path).read_bytes() == content for path, content in sent.items())
    assert not re.search(r"checkpoint|partial|manifest|cache|\.bin|jsonl", " ".join(sent))
    listed = re.findall(r"^ +([\d,]+) bytes  (.*)$", found.stderr, flags=re.MULTILINE)
    assert {(path, int(size.replace(",", ""))) for size, path in listed} == {
        (path, len(content)) for path, content in sent.items()
    }
    assert "left out: .cache/x.json, checkpoint-5/config.json, d.jsonl.manifest.json, next.partial" in found.stderr
    assert hub.repos[REPO]["visibility"] == "private"
    assert set(hub.tokens) == {f"Bearer {TOKEN}"}
    assert TOKEN not in found.stdout + found.stderr
    assert not any(TOKEN.encode() in content for content in sent.values())


def test_a_branch_in_public(hub, model):
    found = run(model, hub.url, "--private", "false", "--revision", "v2")
    assert (found.returncode, found.stdout) == (0, f"{hub.url}/{REPO}/tree/v2\n"), found.stderr
    assert {branch for branch, _ in hub.files} == {"v2"}
    assert hub.repos[REPO]["visibility"] == "public"
    found = run(model, hub.url)  # private, as it is by default
    assert found.returncode == 2
    assert found.stderr.endswith(
        f"Error: {REPO} exists already, and is public. Pass --private false, or another --repo_id.\n"
    )
    assert {branch for branch, _ in hub.files} == {"v2"}


def test_a_dry_run_sends_nothing(hub, model):
    found = run(model, hub.url, "--dry_run", token=None)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr
    assert "bytes  model.safetensors\n" in found.stderr
    assert not hub.tokens


@pytest.mark.parametrize(
    ("trouble", "settings", "message"),
    [
        (
            401,
            {},
            r"http://\S+ refuses the token \(401\)\. Set HF_TOKEN to one that may write to some-body/student, .*",
        ),
        (
            403,
            {},
            r"http://\S+ refuses the token \(403\)\. Set HF_TOKEN to one that may write to some-body/student, .*",
        ),
        (500, {}, r"http://\S+ answers 500 \(no\)\. Fix the cause, then run the same command again: .*"),
        (None, {"token": None}, r"there is no token for http://\S+\. Set HF_TOKEN to .*, or run: hf auth login\."),
        (None, {"HF_HUB_OFFLINE": "1"}, r"HF_HUB_OFFLINE is set, so nothing may be sent\. Unset it for this command\."),
        (
            None,
            {"url": "http://127.0.0.1:9"},
            r"http://127\.0\.0\.1:9 is out of reach \(.+\)\. Check the network .*",
        ),
    ],
    ids=["401", "403", "500", "no token", "offline", "out of reach"],
)
def test_a_sentence_for_what_goes_wrong_on_the_way(trouble, settings, message, hub, model):
    hub.refuses = trouble
    found = run(model, settings.pop("url", hub.url), **settings)
    assert (found.returncode, found.stdout) == (1, ""), found.stderr
    assert re.fullmatch(f"Error: {message}", found.stderr.splitlines()[-1])
    assert "Traceback" not in found.stderr
    assert TOKEN not in found.stderr
    assert not hub.files


def spoil(folder, how):
    if how == "no card":
        (folder / "README.md").unlink()
    elif how == "no model":
        for name in ("config.json", "modules.json"):
            (folder / name).unlink(missing_ok=True)
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "a path in the card":
        (folder / "README.md").write_text("# model\n\n| teacher | /scratch/me/teacher |\n")
    elif how == "a path in a file":
        (folder / "calibration.json").write_text('{\n  "source": "/home/me/model"\n}')


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no card", "{folder}: has no model card. Write README.md."),
        ("no model", "{folder}: is no model (no config.json, modules.json, export.json). Pass a model as --model."),
        ("no weights", "{folder}: has no weights (.safetensors, .onnx, .xml). Train or export the model again."),
        ("a path in the card", "{folder}/README.md:3: names a path of this machine (/scratch/me/teacher). Write "),
        ("a path in a file", "{folder}/calibration.json:2: names a path of this machine (/home/me/model). Write "),
    ],
)
def test_what_is_wrong_with_a_folder(how, message, model, capsys):
    spoil(model, how)
    assert push.main(["--model", str(model), "--repo_id", REPO, "--dry_run"]) == 1
    assert f"Error: {message.format(folder=model)}" in capsys.readouterr().err


def test_what_is_unfinished_or_not_there(model, capsys):
    partial = model.rename(model.with_name("model.partial"))
    for folder, message in ((partial, "is unfinished"), (model, "is no folder")):
        assert push.main(["--model", str(folder), "--repo_id", REPO, "--dry_run"]) == 1
        assert f"Error: {folder}: {message}. " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["student", "a/b/c", "some body/student"])
def test_a_name_that_is_none(name, model, capsys):
    assert push.main(["--model", str(model), "--repo_id", name, "--dry_run"]) == 2
    assert "Pass --repo_id OWNER/NAME.\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["see https://hub.example/a/b", "precision and/or recall", "runs/mine/model", "</think>/x", "/rerank", "MAP 1/2/3"],
)
def test_no_path_of_this_machine(text):
    assert not push._LOCAL_PATH.search(text)
