"""Every command and flag in the documentation is there, every stage is documented, and every link leads somewhere."""

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
PAGES = ["README.md", "data/README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").glob("*.md")))]
README_BYTES = 12_288  # a page that one reads; the rest stands in docs/
MODULE = rf"(?:{'|'.join(('rag_core', *PIPELINES))})\.\w+"
OTHER_FLAGS = {"help", "fast", "cov"}  # of every stage, of scripts/test.sh, and of pytest there


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def commands(text):
    joined = text.replace("\\\n", " ")
    start = r"(?:python|torchrun .*?|accelerate launch .*?)"
    return re.findall(rf"^\s*(?:\w+=\S+ )*{start} -m ({MODULE}\b.*)$", joined, re.MULTILINE)


def bash_blocks(text):
    return re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)


def inline_code(text):
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def training_flags():
    from sentence_transformers.base.training_args import BaseTrainingArguments

    return {field.name for field in dataclasses.fields(BaseTrainingArguments)}


def check(command):
    module_name, *argv = shlex.split(command, comments=True)
    module = importlib.import_module(module_name)
    _, rest = make_parser(module.Args, "").parse_known_args(argv)
    if module.Args.takes_further_flags:
        known = {f"--{name}" for name in training_flags()}
        rest = [word for word in rest if word.startswith("--") and word not in known]
    assert rest == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_parses(page):
    for command in commands(read(page)):
        check(command)


@pytest.mark.parametrize("page", PAGES)
def test_no_command_of_a_page_is_overlooked(page):
    for block in bash_blocks(read(page)):
        assert len(re.findall(rf"-m {MODULE}", block)) == len(commands(block)), block


def test_every_stage_has_a_command_on_some_page():
    found = {command.split()[0] for page in PAGES for command in commands(read(page))}
    assert found == {*STAGES} - {"rag_core.demo_models"}  # the quickstart's own


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_a_page_names_is_there(page):
    known = training_flags() | OTHER_FLAGS
    known |= {field.name for stage in STAGES for field in dataclasses.fields(importlib.import_module(stage).Args)}
    for benchmark in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'"--(\w+)"', benchmark.read_text(encoding="utf-8")))
    # Ours have underscores; those of other programs, such as --max-model-len, are theirs.
    named = {name for code in inline_code(read(page)) for name in re.findall(r"(?<!\S)--(\w+)(?![\w-])", code)}
    assert named - known == set()


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_in_a_stages_docstring_parses(stage):
    (command,) = commands(importlib.import_module(stage).__doc__)
    assert command.split()[0] == stage
    check(command)


def test_the_readme_is_short():
    assert (ROOT / "README.md").stat().st_size <= README_BYTES


def test_every_stage_stands_in_the_readme():
    readme = read("README.md")
    for stage in STAGES:
        assert f"| `{stage}` |" in readme, stage


def test_every_script_stands_in_the_readme():
    readme = read("README.md")
    for script in (ROOT / "scripts").rglob("*.sh"):
        assert script.name in readme, script


def test_every_page_is_linked_from_the_readme():
    for page in PAGES[1:]:
        assert f"]({page}" in read("README.md"), page


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_only_programs_that_exist(page):
    for program in re.findall(r"(?:bash|python) ((?:scripts|benchmarks)/[\w/]+\.\w+)", read(page)):
        assert (ROOT / program).is_file(), program


@pytest.mark.parametrize("page", PAGES)
def test_a_page_links_only_to_files_that_exist(page):
    for link in re.findall(r"\]\(([^)#]+)", read(page)):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_links_into_pages_find_their_place(page):
    for target, place in re.findall(r"\]\(([^):#]*)#([^)]+)\)", read(page)):
        text = read((ROOT / page).parent / target if target else page)
        headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
        places = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert place in places | set(re.findall(r'<a id="(.*?)">', text)), f"{page}: {target}#{place}"


@pytest.mark.skipif(not (ROOT / "rag_core" / "base").is_dir(), reason="the rooms are not built yet")
def test_every_room_stands_in_the_architecture_with_its_modules():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\w, ]+) \|$", read("docs/ARCHITECTURE.md"), flags=re.MULTILINE)
    described = {room: set(modules.split(", ")) for room, modules in rows}
    rooms = [path.parent for path in (ROOT / "rag_core").glob("*/__init__.py")]
    built = {room.name: {path.stem for path in room.glob("*.py")} - {"__init__"} for room in rooms}
    assert {room: described.get(room) for room in built} == built


@pytest.mark.slow
def test_the_tables_are_fresh():
    result = subprocess.run([sys.executable, ROOT / "benchmarks" / "tables.py", "--check"], check=False)
    assert result.returncode == 0, "run python benchmarks/tables.py"
