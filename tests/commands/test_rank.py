"""The table of a ranking that the stage prints for tiny models."""

import json
import shutil
from pathlib import Path

import pytest

from rag_core import rank
from tests.conftest import TINY


def test_two_models_side_by_side(tiny_cross_encoder, tiny_encoder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = str(TINY / "test.jsonl")
    assert rank.main(["--model", tiny_cross_encoder, "--before", tiny_encoder, "--passages", path]) == 0
    query, blank, head, *lines = capsys.readouterr().out.splitlines()
    sample = json.loads((TINY / "test.jsonl").read_text().splitlines()[0])
    assert (query, blank) == (sample["query"], "")
    assert head.split() == ["rank", "before", "moved", "score", "score", "before", "label", "passage"]
    assert len(lines) == len(sample["positive"]) + len(sample["negative"])
    assert all(len(line) <= 80 for line in lines)
    assert sum("relevant" in line for line in lines) == len(sample["positive"])
    scores = [float(line[20:].split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)


def test_lines_of_text(tiny_encoder, tmp_path, capsys):
    passages = tmp_path / "passages.txt"
    passages.write_text("sort a list\n\nopen a file\nsort a list\n", encoding="utf-8")
    model = ["--model", tiny_encoder, "--passages", str(passages)]
    assert rank.main([*model, "--query", "sort a list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["rank", "score", "passage"]
    assert [line.split(maxsplit=2)[2] for line in lines[3:]] == ["sort a list", "open a file"]
    passages.write_bytes(b"\xef\xbb\xbfsort a list\r\n\r\nopen a file\r\nsort a list")
    assert rank.main([*model, "--query", "sort a list"]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    passages.write_bytes(b"sort a list\nopen a caf\xe9\nopen a file\n")
    assert rank.main([*model, "--query", "sort a list"]) == 1
    assert f"Error: {passages}:2: is not UTF-8 (invalid continuation byte). " in capsys.readouterr().err
    assert rank.main([*model, "--query", "sort a list", "--skip_bad_rows"]) == 0
    assert capsys.readouterr().out.splitlines() == lines
    assert rank.main(model) == 2
    assert capsys.readouterr().err == "Error: lines of text have no query. Pass --query QUERY.\n"
    passages.write_text(" \n")
    assert rank.main([*model, "--query", "q"]) == 1
    assert capsys.readouterr().err == f"Error: {passages}: holds no passages. Write one passage per line.\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--query_id", "none"], "has no query_id 'none'. Leave out --query_id for the first."),
        (["--query", " "], "--query is empty. Pass a query, or leave out --query."),
    ],
)
def test_errors_come_before_any_model(flags, message, capsys):
    assert rank.main(["--model", "no/model", "--passages", str(TINY / "test.jsonl"), *flags]) != 0
    assert capsys.readouterr().err.endswith(message + "\n")


def test_a_model_that_is_nowhere_or_cut_off(tmp_path, tiny_cross_encoder, capsys):
    passages = tmp_path / "passages.txt"
    passages.write_text("a cave\na fence\n")
    broken = Path(shutil.copytree(tiny_cross_encoder, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:1000])
    for model in (tmp_path / "none", broken):
        assert rank.main(["--model", str(model), "--query", "caves", "--passages", str(passages)]) == 1
        assert f"Error: cannot load the model '{model}' (" in capsys.readouterr().err
    assert rank.main(["--model", "m", "--query", "caves", "--passages", "rows.json"]) == 2
    assert "rows.json is neither .jsonl nor lines of text" in capsys.readouterr().err
    assert rank.main(["--model", "m", "--query", "caves", "--passages", "rows.parquet"]) == 2
    assert "rows.parquet is neither .jsonl nor lines of text" in capsys.readouterr().err
