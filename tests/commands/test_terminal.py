"""What others wrote (names, ids, texts) reaches the screen in short lines, without what steers it and without a key."""

import json
import logging
import re
import subprocess
import sys
import unicodedata

import pytest

from embedding_distillation import generate_scores
from rag_core import merge_scores, prepare, rank
from rag_core.base.errors import DataError
from rag_core.base.stage import StageArgs, run_stage, show
from reranker_distillation import create_triplets, evaluate, generate_logits
from tests.conftest import write_model

KEY = "hf_very-secret"
STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\u200b\ufeff\U000e0041"
NAME = f"{KEY}{STEERING}\nError: all is well"
LONG = f"{NAME}\r\n{'word ' * 200_000}{KEY}{STEERING}"  # a megabyte
CUT_KEY = "x" * 45 + KEY + "y" * 2**20  # a cut at 50 characters would leave a part of it


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", KEY)


def write(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def sample(query_id=LONG, query=LONG, passages=(LONG, f"other {LONG}")):
    return {"query_id": query_id, "query": query, "positive": [passages[0]], "negative": [*passages[1:]]}


def pair(query_id=LONG, query=LONG, passage=LONG, score=1.0):
    return {"query_id": query_id, "query": query, "passage": passage, "score": score}


def short(query_id):
    """A sample with texts that need no tokenizer to see that they fit."""
    return sample(query_id, NAME, (NAME, f"other {NAME}"))


def an_id_twice(folder):
    path = write(folder / "in.jsonl", sample(), sample(query="another"))
    return generate_logits, ["--teacher", "t", "--input_files", path]


def a_sample_without_passages(folder):
    path = write(folder / "in.jsonl", sample() | {"positive": LONG})
    return generate_logits, ["--teacher", "t", "--input_files", path]


def left_out_rows(folder):
    path = write(folder / "in.jsonl", short(LONG), {LONG: LONG, "query": 1}, short("b") | {"positive": LONG})
    return generate_logits, ["--teacher", "t", "--input_files", path, "--skip_bad_rows"]


def a_model_by_name(folder):
    path = write(folder / "in.jsonl", sample())
    return generate_logits, ["--teacher", NAME + "x" * 2**20, "--input_files", path]


def a_model_by_its_config(folder):
    write_model(folder / NAME, LONG)
    path = write(folder / "in.jsonl", sample())
    return generate_logits, ["--teacher", str(folder / NAME), "--input_files", path]


def an_id_of_two_queries(folder):
    path = write(folder / "in.jsonl", pair(), pair(query=f"another {LONG}"))
    return create_triplets, ["--input_files", path]


def a_passage_twice(folder):
    return create_triplets, ["--input_files", write(folder / "in.jsonl", pair(), pair(score=2.0))]


def one_candidate(folder):
    return generate_scores, ["--input_files", write(folder / "in.jsonl", pair())]


def a_missing_score(folder):
    paths = [write(folder / "a.jsonl", pair(), pair(passage="p")), write(folder / "b.jsonl", pair(passage="p"))]
    return merge_scores, ["--input_files", *paths, "--output_file", str(folder / "out.jsonl")]


def an_id_that_is_asked_for(folder):
    path = write(folder / "in.jsonl", sample())
    return rank, ["--model", "t", "--passages", path, "--query_id", CUT_KEY]


def a_ranking(folder):
    return rank, ["--model", "t", "--before", "a", "--passages", write(folder / "in.jsonl", sample())]


def a_ranking_of_lines(folder):
    (folder / "in.txt").write_text(f"{STEERING}{KEY}\n{'word ' * 200_000}\n", encoding="utf-8")
    return rank, ["--model", "t", "--query", CUT_KEY, "--passages", str(folder / "in.txt")]


def an_evaluation(folder):
    write_model(folder / NAME)
    path = write(folder / f"{STEERING}.jsonl", short(LONG), short("b"))
    return evaluate, ["--after", str(folder / NAME), "--in_domain", path, "--output_dir", str(folder / "report")]


def an_expectation(folder):
    module, flags = an_evaluation(folder)
    expected = {"file": LONG, "ranker": LONG, "metric": "MAP", "expected": 1, "tolerance": 0}
    write(folder / "expected.json", [expected])
    return module, [*flags, "--expect", str(folder / "expected.json")]


def teacher_scores_of_other_texts(folder):
    module, flags = an_evaluation(folder)
    return module, [*flags, "--teacher_scores", write(folder / "scores.jsonl", pair(passage="p"), pair(passage="q"))]


def a_judgement_of_nothing(folder):
    write(folder / "corpus.jsonl", {"_id": "d", "text": "a text"})
    write(folder / "queries.jsonl", {"_id": NAME, "text": LONG})
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{STEERING}{'q' * 2**20}\td\t{KEY}\n")
    return prepare, ["--source", "beir", "--input", str(folder), "--output_dir", str(folder / "out")]


ENDS_WELL = [a_ranking, a_ranking_of_lines, an_evaluation]
ENDS_IN_AN_ERROR = [
    an_id_twice,
    a_sample_without_passages,
    a_model_by_name,
    a_model_by_its_config,
    an_id_of_two_queries,
    a_passage_twice,
    one_candidate,
    a_missing_score,
    an_id_that_is_asked_for,
    an_expectation,
    teacher_scores_of_other_texts,
    a_judgement_of_nothing,
]


def check_screen(text):
    steering = {it for it in text if it not in "\n\t" and unicodedata.category(it) in {"Cc", "Cf", "Cs"}}
    assert not steering
    assert not re.search("hf_very|-secret", text)
    assert all(len(line) <= 2_100 for line in text.splitlines())


@pytest.mark.parametrize("case", [*ENDS_WELL, left_out_rows], ids=lambda case: case.__name__)
def test_what_is_shown(case, tmp_path, overlap_teacher, capsys):
    module, flags = case(tmp_path)
    assert module.main(flags) == 0
    captured = capsys.readouterr()
    paths = [path for path in captured.out.splitlines() if path.startswith(str(tmp_path))]  # for scripts, as they are
    check_screen("\n".join(line for line in captured.out.splitlines() if line not in paths))
    check_screen(captured.err)
    forged = [line for line in (captured.out + captured.err).splitlines() if line.startswith("Error: ")]
    assert forged == []


@pytest.mark.parametrize("case", ENDS_IN_AN_ERROR, ids=lambda case: case.__name__)
def test_errors(case, tmp_path, overlap_teacher, capsys):
    module, flags = case(tmp_path)
    assert module.main(flags) == 1
    captured = capsys.readouterr()
    check_screen(captured.err)
    lines = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, "one sentence, and none that is forged"
    assert captured.err.endswith(f"{lines[0]}\n")


def test_lines_of_every_kind(capsys):
    def run(args):
        logging.getLogger("elsewhere").warning("a name: %s", LONG)
        show(f"| {LONG} |\n| {CUT_KEY} |")
        raise DataError(LONG, LONG, path=NAME, line=3)

    assert run_stage(StageArgs, run, "Do it.", []) == 1
    captured = capsys.readouterr()
    check_screen(captured.out)
    check_screen(captured.err)
    assert captured.err.splitlines()[-1].startswith("Error: ***]0;owned[2J31m Error: all is well:3: ***]0;owned[2J")
    assert captured.err.endswith("***]0;owned[2J31m.\n")


def test_warnings_of_libraries():
    program = (
        "import sys, warnings; from tests.commands.test_terminal import LONG\n"
        "from rag_core.base.stage import StageArgs, run_stage\n"
        "sys.exit(run_stage(StageArgs, lambda args: warnings.warn(LONG) or [], 'Do it.', []))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "UserWarning: ***]0;owned[2J31m\n  Error: all is well\n  word word" in found.stderr
    check_screen(found.stderr)
