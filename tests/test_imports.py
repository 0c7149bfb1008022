"""What may import what, and how fast a stage says --help."""

import ast
import importlib
import resource
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from rag_core.base.flags import flags_of

ROOT = Path(__file__).parent.parent
PIPELINES = ("reranker_distillation", "embedding_distillation", "milvus_optimization", "query_expansion_rl")
# The rooms of the core, from the ground up: each imports from those before it only.
ROOMS = (
    "base",
    "files",
    "metrics",
    "retrieval",
    "engines",
    "scoring",
    "sources",
    "corpora",
    "release",
    "distillation",
    "evaluation",
)
# Those of the pipelines that have rooms of their own. The records are their ground, the stages stand on top of them.
ROOMS_OF = {
    "milvus_optimization": (
        "records",
        "quality",
        "vectors",
        "backends",
        "retrieval",
        "indexes",
        "collection",
        "report",
    ),
    "query_expansion_rl": ("records", "topics", "retrieval", "writing", "rewards", "learning", "report"),
}
STAGES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("rag_core", *PIPELINES)
    for path in (ROOT / package).rglob("*.py")
    if "def main(" in path.read_text(encoding="utf-8")
)
HEAVY = {
    *("torch", "transformers", "sentence_transformers", "datasets", "vllm", "ray", "scipy", "matplotlib", "pandas"),
    *("faiss", "pymilvus", "milvus_lite", "optuna", "trl", "peft"),
}


def test_the_stages_are_found():
    assert {"rag_core.prepare", "reranker_distillation.train"} <= set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_importing_a_stage_loads_nothing_heavy(stage):
    code = f"import sys, {stage}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY.isdisjoint(loaded)


def processor_seconds():
    """Return what all ended processes took; the clock would measure what else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("stage", STAGES)
def test_help_comes_in_under_a_second(stage):
    seconds = []
    for _ in range(3):  # the machine may be busy: the best of three
        start = processor_seconds()
        result = subprocess.run([sys.executable, "-m", stage, "--help"], capture_output=True, text=True, check=True)
        seconds.append(processor_seconds() - start)
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1
    assert "--log_level" in result.stdout


def imports(path):
    """Yield (line, module) of all that a file of the project imports from it, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield node.lineno, inside if (ROOT / inside.replace(".", "/")).exists() else node.module or ""


def room(parts):
    """Return the room of a module, by the parts of its name: a folder of the core, its commands, or a pipeline."""
    if parts[0] in PIPELINES:
        return parts[0]
    return parts[1] if parts[0] == "rag_core" and parts[1:] and parts[1] in ROOMS else "commands"


def arrows(root):
    """Return (from, to) -> the places where a room imports another."""
    found = {}
    for package in ("rag_core", *PIPELINES):
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            for line, name in imports(path):
                to = name.split(".")
                if to[0] in ("rag_core", *PIPELINES) and room(parts) != room(to):
                    found.setdefault((room(parts), room(to)), []).append(f"{path.relative_to(root)}:{line}: {name}")
    return found


def upward(found):
    """Return the places of imports that do not run downwards."""
    floor = {name: number for number, name in enumerate((*ROOMS, "commands"))}
    floor |= dict.fromkeys(PIPELINES, len(floor))  # beside each other: what stands on one floor imports nothing of it
    return [place for (of, to), places in found.items() if floor[to] >= floor[of] for place in places]


def test_imports_run_downwards():
    assert upward(arrows(ROOT)) == []


def test_an_upward_import_is_found(tmp_path):
    for package in ("rag_core/files", "rag_core/engines", *PIPELINES):
        (tmp_path / package).mkdir(parents=True)
    (tmp_path / "rag_core" / "files" / "jsonl.py").write_text(
        "def read():\n    from rag_core.engines.loading import load_model\n"
    )
    (tmp_path / PIPELINES[0] / "train.py").write_text(f"import {PIPELINES[1]}.train\nimport rag_core.files.jsonl\n")
    assert upward(arrows(tmp_path)) == [
        "rag_core/files/jsonl.py:2: rag_core.engines.loading",
        f"{PIPELINES[0]}/train.py:1: {PIPELINES[1]}.train",
    ]


def upward_in(root, pipeline):
    """Return the places of imports between the rooms of a pipeline that do not run downwards."""
    floor = {name: number for number, name in enumerate((*ROOMS_OF[pipeline], "stages"))}

    def own_floor(parts):
        return floor[parts[1] if parts[1:] and parts[1] in floor else "stages"]

    found = []
    for path in sorted((root / pipeline).rglob("*.py")):
        own = own_floor(path.relative_to(root).with_suffix("").parts)
        for line, name in imports(path):
            to = name.split(".")
            if to[0] == pipeline and own_floor(to) > own:
                found.append(f"{path.relative_to(root)}:{line}: {name}")
    return found


@pytest.mark.parametrize("pipeline", ROOMS_OF)
def test_imports_between_the_rooms_of_a_pipeline_run_downwards(pipeline):
    assert upward_in(ROOT, pipeline) == []
    folders = {path.parent.name for path in (ROOT / pipeline).glob("*/__init__.py")}
    assert folders == set(ROOMS_OF[pipeline]) - {"records"}


def test_an_upward_import_between_its_rooms_is_found(tmp_path):
    for name in ("quality", "indexes"):
        (tmp_path / "milvus_optimization" / name).mkdir(parents=True)
    quality = tmp_path / "milvus_optimization" / "quality" / "judged.py"
    quality.write_text("import milvus_optimization.records\nfrom milvus_optimization.indexes.pareto import Point\n")
    (tmp_path / "milvus_optimization" / "records.py").write_text("import milvus_optimization.apply\n")
    assert upward_in(tmp_path, "milvus_optimization") == [
        "milvus_optimization/quality/judged.py:2: milvus_optimization.indexes.pareto",
        "milvus_optimization/records.py:1: milvus_optimization.apply",
    ]


def test_a_chain_of_rooms_is_short():
    found = arrows(ROOT)

    def longest(of):
        return 1 + max((longest(to) for start, to in found if start == of), default=0)

    assert max(map(longest, PIPELINES)) <= 9


def test_every_folder_is_a_room_with_a_charter():
    folders = {path.name for path in (ROOT / "rag_core").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert folders == set(ROOMS)
    inner = (f"{pipeline}/{name}" for pipeline, names in ROOMS_OF.items() for name in names if name != "records")
    for package in (*(f"rag_core/{name}" for name in ROOMS), "rag_core", *PIPELINES, *inner):
        charter = ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))
        assert ast.get_docstring(charter), package
        assert len(charter.body) == 1, f"{package} has code in its __init__"


def test_a_file_directly_in_the_core_is_a_command():
    for path in (ROOT / "rag_core").glob("*.py"):
        assert path.stem == "__init__" or f"rag_core.{path.stem}" in STAGES, path


def test_no_file_is_long():
    for package in ("rag_core", *PIPELINES):
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 320, path


@pytest.mark.parametrize("stage", STAGES)
def test_a_path_decides_by_its_content(stage):
    """What is at a path stands in a recipe by its SHA-256; the path itself has no say."""
    module = importlib.import_module(stage)
    annotations = typing.get_type_hints(module.Args)
    # The recipe is made in the stage, or in a body that it shares with others.
    sources = {
        Path(module.__file__),
        *(ROOT / f"{name.replace('.', '/')}.py" for _, name in imports(Path(module.__file__))),
    }
    writes = any("decisive(args)" in path.read_text(encoding="utf-8") for path in sources if path.is_file())
    for field in flags_of(module.Args):
        if writes and "Path" in str(annotations[field.name]):
            assert not field.metadata["decides"], field.name
