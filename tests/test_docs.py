"""Every command in the documentation parses, and every stage and flag is documented."""

import dataclasses
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rag_core.base.stage import make_parser
from tests.test_imports import PIPELINES, STAGES

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "data/README.md"]  # whose commands are checked
LINKED = [*PAGES, *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md")))]


def commands(text):
    joined = text.replace("\\\n", " ")
    return re.findall(
        rf"^\s*(?:\w+=\S+ )*python -m ((?:{'|'.join(('rag_core', *PIPELINES))})\.\S+ ?.*)$", joined, re.MULTILINE
    )


def check(command):
    module_name, *argv = shlex.split(command, comments=True)
    module = importlib.import_module(module_name)
    _, rest = make_parser(module.Args, "").parse_known_args(argv)
    if module.Args.takes_further_flags:
        from sentence_transformers.base.training_args import BaseTrainingArguments

        known = {f"--{field.name}" for field in dataclasses.fields(BaseTrainingArguments)}
        rest = [word for word in rest if word.startswith("--") and word not in known]
    assert rest == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_parses(page):
    for command in commands((ROOT / page).read_text(encoding="utf-8")):
        check(command)


def test_the_readme_has_commands():
    assert commands((ROOT / "README.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_in_a_stages_docstring_parses(stage):
    (command,) = commands(importlib.import_module(stage).__doc__)
    assert command.split()[0] == stage
    check(command)


def test_every_stage_stands_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for stage in STAGES:
        assert f"`{stage}`" in readme, stage


def test_every_script_stands_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for script in (ROOT / "scripts").rglob("*.sh"):
        assert script.name in readme, script


def test_pages_name_only_files_that_exist():
    for page in LINKED:
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            if "://" not in link:
                assert ((ROOT / page).parent / link).exists(), link


def test_links_into_pages_find_their_place():
    for page in LINKED:
        for target, place in re.findall(r"\]\(([^):]*)#([^)]+)\)", (ROOT / page).read_text(encoding="utf-8")):
            text = ((ROOT / page).parent / target if target else ROOT / page).read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
            places = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            assert place in places | set(re.findall(r'<a id="(.*?)">', text)), f"{page}: {target}#{place}"


def test_the_tables_are_fresh():
    result = subprocess.run([sys.executable, ROOT / "benchmarks" / "tables.py", "--check"], check=False)
    assert result.returncode == 0, "run python benchmarks/tables.py"
