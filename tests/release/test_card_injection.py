"""Names and settings that are markup somewhere are text on a model's card, and its front matter keeps its keys."""

import json
import shlex
import shutil

import pytest
import yaml

from rag_core.base.outside_text import visible
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.release.model_card import (
    declared_license,
    write_export_card,
    write_figures,
    write_model_card,
    write_section,
)
from tests.injections import TEXTS, blocks, columns

FACTS = {"queries": 8, "triplets": 9, "steps": 2, "seconds": 3.5, "alpha": 0.5}


def folder_name(text):
    """A text as far as it can be the name of a folder."""
    return text.replace("/", "|")[:100]


def write_card(folder, text, kind="cross-encoder"):
    folder.mkdir(parents=True)
    write_model_card(
        folder,
        name=folder.name,
        command=shlex.join(["python", "-m", "stage", "--student", text]),
        kind=kind,
        base_model=text,
        teacher={"name": text, "members": [{"name": text}, {"name": "BM25"}]},
        settings={"loss": text, "margins": [text], "learning_rate": 1e-5},
        facts=FACTS,
    )
    return (folder / "README.md").read_text(encoding="utf-8")


def parts(card):
    """Return the front matter of a card, and the rest."""
    _, front, rest = card.split("---\n", 2)
    return yaml.safe_load(front), rest


@pytest.mark.parametrize("kind", ["cross-encoder", "bi-encoder"])
def test_a_card_is_laid_out_alike_whatever_the_names(kind, tmp_path):
    front, plain = parts(write_card(tmp_path / "plain", "plain", kind))
    for name, text in TEXTS.items():
        card = write_card(tmp_path / folder_name(text), text, kind)
        found, rest = parts(card)
        assert found == front | {"base_model": " ".join(visible(text).split())}, name
        assert blocks(rest) == blocks(plain), name
        assert columns(rest) == columns(plain), name
        assert visible(card) == card, name


def test_the_snippet_of_a_card_is_python(tmp_path):
    for name, text in TEXTS.items():
        card = write_card(tmp_path / folder_name(text), text)
        code = card.partition("python\nfrom sentence_transformers")[2].partition("\n```")[0]
        compile(f"from sentence_transformers{code}", name, "exec")


def test_figures_and_licences_are_text(tmp_path):
    """Of parents whose cards declare what no licence is called, by names that are no names."""
    right = None
    for name, text in {"plain": "plain", **TEXTS}.items():
        folder, parent = tmp_path / f"of {name}", tmp_path / "parents" / folder_name(text)
        write_card(folder, "plain")
        parent.mkdir(parents=True, exist_ok=True)
        (parent / "README.md").write_text(f"---\nlicense: {json.dumps(text)}\n---\n", encoding="utf-8")
        write_manifest(folder, Recipe("s", {}, {}, {"name": str(parent)}), teacher={"name": text})
        for _ in range(2):  # the second in the place of the first
            write_figures(folder, f"| MAP | {text} |", shlex.join(["python", "--before", text]))
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert card.count("<!-- evaluate: begin -->") == card.count("<!-- evaluate: end -->") == 1, name
        assert visible(card) == card, name
        found = blocks(parts(card)[1])
        right = right or found
        assert found == right, name


def test_the_card_of_an_export(tmp_path):
    right = None
    for name, text in {"plain": "plain", **TEXTS}.items():
        source, folder = tmp_path / f"of {name}", tmp_path / name
        write_card(source, "plain")
        folder.mkdir()
        write_export_card(folder, source, name=text, form="onnx", precision="fp32", proof="| | |\n|---|---|\n| a | b |")
        front, rest = parts((folder / "README.md").read_text(encoding="utf-8"))
        assert front["library_name"] == "onnxruntime", name
        right = right or blocks(rest)
        assert blocks(rest) == right, name
        shutil.rmtree(source)


def test_a_card_that_is_no_utf8_keeps_its_bytes(tmp_path):
    (tmp_path / "README.md").write_bytes(b"# caf\xe9\n")
    write_section(tmp_path, "calibrate", "a calibration")
    assert (tmp_path / "README.md").read_bytes().startswith(b"# caf\xe9\n\n<!-- calibrate: begin -->")
    out = tmp_path / "out"
    out.mkdir()
    write_export_card(out, tmp_path, name="out", form="onnx", precision="fp32", proof="| a |")
    assert b"a calibration" in (out / "README.md").read_bytes()


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("license: mit", "mit"),
        ("license: [mit, 7]", "['mit', 7]"),
        ("license: {a: b}", "{'a': 'b'}"),
        ("license: !!python/object/apply:os.system ['true']", None),
        ("license: [", None),
        ("- a", None),
        ("license: \xe9", "\ufffd"),
    ],
)
def test_a_licence_may_be_anything(front, licence, tmp_path):
    (tmp_path / "README.md").write_bytes(f"---\n{front}\n---\n".encode("latin-1"))
    assert declared_license(str(tmp_path)) == licence
