"""The README of a distilled model's folder: what it is, what taught it, and how to make it again. No training text."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rag_core.base.flags import default_of, flags_of
from rag_core.base.markdown import code, code_block, escaped
from rag_core.base.outside_text import visible
from rag_core.base.stage import StageArgs
from rag_core.files.atomic import atomic_write
from rag_core.files.manifest import UNKNOWN, read_manifest

CALIBRATION, RELIABILITY = "calibration.json", "reliability.svg"  # beside the card of a calibrated model

_AS_IT_IS = "surrogateescape"  # what of a card is no UTF-8 stays

StudentKind = Literal["cross-encoder", "bi-encoder"]

_CARD = """\
---
{front_matter}
---

# {name}

A {kind}, grown from {base_model} by distillation: {learned}. No human labels were used in training.

| | |
|---|---|
| teacher | {teacher} |
| training data | {data} |
| training | {steps} steps, {seconds:.0f} seconds |
| settings | {settings} |

{snippet}

{meaning} Run `evaluate` to measure it. It was trained by:

{command}
"""

_PARTS: dict[StudentKind, dict[str, str]] = {
    "cross-encoder": {
        "task": "text-ranking",
        "learned": "it learned how a teacher scores the passages of a query beside each other",
        "snippet": (
            "from sentence_transformers import CrossEncoder\n\n"
            'scores = CrossEncoder({literal}).predict([("a query", "a passage")])'
        ),
        "meaning": "Scores compare passages of one query. They are probabilities if a calibration stands below.",
    },
    "bi-encoder": {
        "task": "sentence-similarity",
        "learned": "it learned how a teacher distributes its scores over the passages of a query",
        "snippet": (
            "from sentence_transformers import SentenceTransformer\n\n"
            "model = SentenceTransformer({literal})\n"
            'cosines = model.similarity(model.encode_query(["a query"]), model.encode_document(["a passage"]))'
        ),
        "meaning": "Its weights are {alpha:g} of the way from those of {base_model} to the trained ones.",
    },
}

_EXPORT = """\
## Export

A graph for {runtime} in {precision}, with pooling and head in it; sentence-transformers does not load it. `export.json`
describes inputs, output and an embedder's prompts; `tokenizer.json` truncates and pads.

{command}

Against its source:

{proof}
"""

_DATA = {
    "triplets": "{queries} queries, {triplets} pairs of passages with the teacher's margin",
    "pairs": "{queries} queries, {pairs} pairs with the teacher's score",
}


def shown_command(module: str, args: StageArgs) -> str:
    """Return the command of a stage: flags that are not at their defaults, paths without folders."""
    words = ["python", "-m", module]
    for field in flags_of(type(args)):
        value = getattr(args, field.name)
        if value == default_of(field) or field.name in ("overwrite", "log_level"):
            continue
        given = [] if value is True else value if isinstance(value, list) else [value]
        words += [f"--{field.name}", *(one.name if isinstance(one, Path) else shown_name(str(one)) for one in given)]
    return shlex.join([*words, *args.further_flags])


def write_model_card(
    folder: Path,
    *,
    name: str,
    command: str,
    kind: StudentKind,
    base_model: str,
    teacher: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write `README.md` into a model's folder.

    Args:
        name: of the model, as its user will know it.
        command: that trained it.
        facts: `queries`, `steps` and `seconds` of the training; `triplets` or `pairs`, what it learned from; `alpha` of
            a bi-encoder.
    """
    known = {
        "kind": kind,
        "name": escaped(name),
        "literal": json.dumps(visible(name), ensure_ascii=False),
        "base_model": code(shown_name(base_model)),
        **facts,
    }
    parts = _PARTS[kind] | {"data": _DATA["triplets" if "triplets" in facts else "pairs"]}
    parts = {name: text.format(**known) for name, text in parts.items()}
    parts["snippet"] = code_block("python", parts["snippet"])
    settled = (
        f"--{name} {shlex.quote(value if isinstance(value, str) else json.dumps(value))}"
        for name, value in settings.items()
    )
    card = _CARD.format(
        front_matter=_front_matter(base_model=shown_name(base_model), kind=kind, task=parts["task"]),
        teacher=escaped(" + ".join(_members(teacher)) or "unknown (the scores came without manifest)"),
        settings=escaped(" ".join(settled)),
        command=code_block("bash", command),
        **known,
        **parts,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _front_matter(*, base_model: str, kind: StudentKind, task: str) -> str:
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag=task,
        base_model=" ".join(visible(base_model).split()),
        tags=["sentence-transformers", kind, "distillation"],
    )
    return data.to_yaml()


def write_export_card(folder: Path, source: Path, *, name: str, form: str, precision: str, proof: str) -> None:
    """Write the card of a source model into the folder of its export, with how that one is used.

    Args:
        name: of the export, as its user will know it.
        proof: table of how far the export is from its source.
    """
    card = _read(source) or f"# {escaped(name)}\n"
    runtime = "onnxruntime" if form == "onnx" else "openvino"
    card = re.sub(r"^library_name: .*$", f"library_name: {runtime}", card, count=1, flags=re.MULTILINE)
    card = re.sub(r"^# .*$", lambda _: f"# {escaped(name)}", card, count=1, flags=re.MULTILINE)
    card = re.sub(r"```python\nfrom sentence_transformers .*?```\n+", "", card, count=1, flags=re.DOTALL)
    (folder / "README.md").write_text(card, encoding="utf-8", errors=_AS_IT_IS)
    command = f'python -m rag_core.rank --model {shlex.quote(name)} --query "a query" --passages passages.txt'
    section = _EXPORT.format(runtime=runtime, precision=precision, command=code_block("bash", command), proof=proof)
    calibration = folder / CALIBRATION
    if calibration.is_file():
        found = json.loads(calibration.read_text(encoding="utf-8"))
        scaled = "output" if found["folded"] else f"{found['slope']:.6g} * cosine + {found['intercept']:.6g}"
        section += f"\nA probability is `1 / (1 + exp(-({scaled})))`; the graph does not compute it.\n"
    write_section(folder, "export", section.rstrip())


def write_figures(folder: Path, table: str, command: str, further: Mapping[str, str] | None = None) -> None:
    """Put measured figures into the card of a model's folder, with the licences that its parents declare.

    Args:
        table: metrics with their intervals, by model, and times where they were measured.
        command: that measured it.
        further: sections that are written with it, by name.
    """
    made = read_manifest(folder) or UNKNOWN
    parents = {"student": made.model, "teacher": made.teacher}
    lines = ["## Measured", "", code_block("text", table), ""]
    lines += ["Measured by:", "", code_block("bash", command), "", "Licences, as their cards declare them:", ""]
    for role, model in parents.items():
        for shown, name in (_members(model) or {"unknown": "unknown"}).items():
            found = declared_license(name) or "none declared, or out of reach"
            lines.append(f"- {role} {escaped(shown)}: {escaped(found)}")
    write_sections(folder, {"evaluate": "\n".join(lines), **(further or {})})


def _members(model: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the names of a model, or of those that a merged teacher consists of, as they are shown."""
    members = (model or {}).get("members", [model] if model else [])
    return {shown_name(member["name"]): member["name"] for member in members}


def shown_name(name: str) -> str:
    """Return a model's name without the folder that it stands in, or once stood in."""
    return Path(name).name if _is_folder(name) or Path(name).is_absolute() else name


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # no name of a folder: it is too long
        return False


def declared_license(name: str) -> str | None:
    """Return the licence in the front matter of a model's card; `None` where there is none, or the card is not here."""
    import yaml
    from huggingface_hub import ModelCard, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = Path(name) / "README.md" if _is_folder(name) else try_to_load_from_cache(name, "README.md")
    except HFValidationError:  # a folder that is no longer there
        return None
    if not isinstance(path, (str, Path)) or not Path(path).is_file():
        return None
    card = Path(path).read_text(encoding="utf-8", errors="replace")
    try:
        found = ModelCard(card, ignore_metadata_errors=True).data.get("license")
    except (yaml.YAMLError, TypeError, ValueError):  # its front matter is no mapping
        return None
    return None if found is None else str(found)


def write_section(folder: Path, name: str, text: str) -> None:
    """Put a section into the card of a model's folder, in the place of the one of that name where there is one.

    What stands outside the section's marks stays as it is.
    """
    write_sections(folder, {name: text})


def write_sections(folder: Path, sections: Mapping[str, str]) -> None:
    """Put several sections into a card at once, each as `write_section` does.

    Args:
        sections: name -> text.
    """
    card = _read(folder) or f"# {escaped(folder.name)}\n"
    for name, text in sections.items():
        card = _with_section(card, name, text)
    with atomic_write(folder / "README.md") as file:
        file.write(card.encode(errors=_AS_IT_IS))


def _with_section(card: str, name: str, text: str) -> str:
    text = text.replace("<!--", "<! --")  # no name ends the section
    section = f"<!-- {name}: begin -->\n{text}\n<!-- {name}: end -->\n"
    marked = re.compile(rf"<!-- {name}: begin -->\n.*?<!-- {name}: end -->\n?", re.DOTALL)
    return marked.sub(lambda _: section, card, count=1) if marked.search(card) else f"{card.rstrip()}\n\n{section}"


def _read(folder: Path) -> str:
    """Return the card of a folder, "" where there is none."""
    path = folder / "README.md"
    return path.read_text(encoding="utf-8", errors=_AS_IT_IS) if path.is_file() else ""
