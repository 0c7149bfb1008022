"""A query that leaves no room for any passage is found before a model is loaded, in every stage that scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rag_core import check_teacher
from rag_core.base.errors import DataError, EngineError
from rag_core.base.outside_text import quoted
from rag_core.base.records import RankingSample
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import LOADERS
from rag_core.engines.options import EngineOptions
from rag_core.engines.yes_no_prompt import YesNoPrompt
from rag_core.files.bad_rows import BadRows, NoBadRows
from rag_core.files.jsonl import write_records
from rag_core.scoring import room
from rag_core.scoring.room import check_room
from rag_core.scoring.samples import SampleFile
from reranker_distillation import evaluate, generate_logits
from tests.conftest import OverlapScorer

LONG = "river bank " * 150
LINE = 118


def sample(number, query=None):
    return RankingSample(
        query or f"river {number}", positive=[f"water {number}"], negative=[f"flow {number}", "a loan"]
    )


@pytest.fixture
def samples(tmp_path):
    """A file whose 118th query is long."""
    path = tmp_path / "in.jsonl"
    write_records(path, [sample(number, LONG if number == LINE else None) for number in range(1, 151)])
    return path


@pytest.fixture
def needed(qwen_tokenizer):
    (length,) = YesNoPrompt(qwen_tokenizer, "i", 256).head_lengths([LONG])
    default = YesNoPrompt(qwen_tokenizer, room.DEFAULT_INSTRUCTION, 256).head_lengths([LONG])[0]
    assert length < default
    return default


def sentence(path, needed, line=LINE):
    return (
        f"{path}:{line}: a query of 1650 characters takes {needed} tokens with its prompt, which leaves no room for a "
        f"passage in --max_length 256. Raise --max_length to at least {needed + 1} or shorten the query, or pass "
        "--skip_bad_rows to leave such rows out.\n"
    )


@pytest.fixture
def loaded(monkeypatch):
    """What is loaded: teachers that stand for the tiny Qwen3, whose tokenizer is its own."""
    models = []
    for engine in ("transformers", "vllm", "sentence-transformers", "server"):
        monkeypatch.setitem(LOADERS, engine, lambda options, pairs: models.append(OverlapScorer()) or models[-1])
    return models


@pytest.mark.parametrize(
    "engine", [["transformers"], ["server", "--server_url", "http://localhost:1"]], ids=lambda flags: flags[0]
)
def test_it_is_named_with_its_line_or_left_out(samples, tiny_qwen, needed, loaded, engine, capsys):
    command = ["--teacher", tiny_qwen, "--max_length", "256", "--input_files", str(samples), "--engine", *engine]
    assert generate_logits.main(command) == 1
    assert capsys.readouterr().err.endswith(f"Error: {sentence(samples, needed)}")
    assert not loaded
    assert generate_logits.main([*command, "--skip_bad_rows"]) == 0
    assert f"left out: {sentence(samples, needed)}" in capsys.readouterr().err
    assert len({query for query, _ in loaded[0].scored}) == 149
    manifest = json.loads(Path(f"{samples.with_suffix('')}_logits.jsonl.manifest.json").read_text())
    assert manifest["skipped"] == {"bad_rows": 1}
    assert manifest["rows"] == 149 * 3
    assert generate_logits.main([*command, "--skip_bad_rows"]) == 0
    assert "in_logits.jsonl is finished already" in capsys.readouterr().err


def test_where_it_has_room_it_is_scored(samples, tiny_qwen, needed, loaded):
    for length, code in ((needed, 1), (needed + 1, 0)):
        command = ["--teacher", tiny_qwen, "--max_length", str(length), "--input_files", str(samples)]
        assert generate_logits.main(command) == code
    assert loaded


@pytest.mark.slow
def test_the_engine_and_the_check_are_of_one_mind(tmp_path, tiny_qwen, monkeypatch):
    """Also where the first token of a passage ends the text before it."""
    options = EngineOptions(describe_model(tiny_qwen), max_length=256)
    prompt = YesNoPrompt.for_model(options)
    monkeypatch.setattr(YesNoPrompt, "for_model", lambda _: prompt)
    seen = set()
    for query in ("river " * words + end for words in range(180, 200) for end in ("", "x", "!")):
        row = RankingSample(query, candidates=["water", "ice", "."])
        write_records(tmp_path / "in.jsonl", [row, sample(1)])
        source = SampleFile(tmp_path / "in.jsonl", BadRows(skip=True))
        check_room([source], options)
        try:
            prompt.token_ids([(row.query, passage) for passage in row.candidates])
            fits = True
        except EngineError:
            fits = False
        assert fits == (source.queries == 2)
        seen.add(fits)
    assert seen == {True, False}


def test_no_tokenizer_is_loaded_where_all_queries_are_short(samples, monkeypatch, tiny_qwen):
    monkeypatch.setattr(YesNoPrompt, "for_model", None)
    source = SampleFile(samples, BadRows(skip=False))
    assert source.longest_query == 1650
    check_room([source], EngineOptions(describe_model(tiny_qwen), max_length=6000))


def test_where_no_row_may_be_left_out_the_flag_is_not_named(samples, tiny_qwen, needed):
    source = SampleFile(samples, NoBadRows())
    told = rf"Raise --max_length to at least {needed + 1} or shorten the query\.$"
    with pytest.raises(DataError, match=told):
        check_room([source], EngineOptions(describe_model(tiny_qwen), max_length=256))


def test_a_file_of_long_queries_only(tmp_path, tiny_qwen, needed):
    write_records(tmp_path / "in.jsonl", [sample(1, LONG), sample(2, LONG)])
    source = SampleFile(tmp_path / "in.jsonl", BadRows(skip=True))
    with pytest.raises(DataError) as error:
        check_room([source], EngineOptions(describe_model(tiny_qwen), max_length=256))
    assert f"{error.value}\n" == sentence(tmp_path / "in.jsonl", needed, line=1)


def test_an_instruction_that_leaves_no_room_is_no_row_at_fault(samples, tiny_qwen, capsys):
    command = ["--teacher", tiny_qwen, "--max_length", "62", "--input_files", str(samples), "--skip_bad_rows"]
    assert generate_logits.main([*command, "--instruction", "Find it"]) == 1
    (length,) = YesNoPrompt.for_model(EngineOptions(describe_model(tiny_qwen), "Find it")).head_lengths([""])
    assert capsys.readouterr().err.endswith(
        f"Error: the prompt with an instruction of 7 characters takes {length} tokens, which leaves no room for query "
        f"and passage in --max_length 62. Raise --max_length to at least {length + 2}, or shorten the instruction.\n"
    )


@pytest.mark.parametrize("role", ["query", "passage"])
def test_a_prompt_that_leaves_nothing_of_an_embedders_text(role, tmp_path, tiny_encoder):
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "model"))
    about = json.loads((folder / "config_sentence_transformers.json").read_text())
    for length, words in ((127, 125), (128, 126)):
        prompt = "bread " * words  # and [CLS], [SEP]
        about["prompts"] = {{"query": "query", "passage": "document"}[role]: prompt}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(about))
        options = EngineOptions(describe_model(str(folder)), max_length=128)
        if length == 127:
            check_room([], options)
            continue
        with pytest.raises(EngineError) as error:
            check_room([], options)
        assert str(error.value) == (
            f"the prompt of a {role} takes 128 tokens, which leaves no room for the {role} within 128 (prompt "
            f"{quoted(repr(prompt), 60)}). Raise --max_length to at least 129, if the model reads that much, or "
            "shorten the prompt."
        )


def test_an_instruction_that_leaves_nothing_of_an_llm_embedders_query(tiny_llm_embedder):
    options = EngineOptions(describe_model(tiny_llm_embedder), instruction="find " * 100, max_length=64)
    with pytest.raises(EngineError, match=r"^the prompt of a query takes 10\d tokens, which leaves no room for the qu"):
        check_room([], options)


@pytest.mark.slow
def test_a_cross_encoder_reads_something_of_each_passage(tiny_cross_encoder):
    from rag_core.engines.sentence_transformers_engine import CrossEncoderScorer

    scorer = CrossEncoderScorer(EngineOptions(describe_model(tiny_cross_encoder), max_length=32, dtype="float32"))
    query = "how do I keep bread fresh " * 100
    assert len(np.unique(scorer.score([(query, text) for text in ("bread", "a hen", "a linen bag")]))) == 3


def test_a_report_measures_all_models_on_the_same_rows(
    samples, tmp_path, tiny_qwen, tiny_cross_encoder, needed, capsys
):
    """The teacher has no room for a row, the students have; and without the teacher, the row is there again."""
    command = ["--before", tiny_cross_encoder, "--after", tiny_cross_encoder, "--in_domain", str(samples)]
    command += ["--output_dir", str(tmp_path / "report"), "--max_length", "128"]
    teacher = ["--teacher", tiny_qwen, "--max_length", "256", "--skip_bad_rows"]
    pytest.importorskip("matplotlib")
    assert evaluate.main([*command, *teacher[:-1]]) == 1
    assert capsys.readouterr().err.endswith(f"Error: {sentence(samples, needed)}")
    assert evaluate.main([*command, *teacher]) == 0
    manifest = json.loads((tmp_path / "report" / "report.json.manifest.json").read_text())
    assert manifest["skipped"] == {"bad_rows": 1}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["files"][0]["queries"] == 149
    assert evaluate.main([*command, "--max_length", "256", "--skip_bad_rows"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["files"][0]["queries"] == 150


def test_a_teacher_is_checked_on_rows_that_it_has_room_for(
    samples, tiny_qwen, tiny_cross_encoder, needed, loaded, capsys
):
    command = [
        "--teacher",
        tiny_qwen,
        "--student",
        tiny_cross_encoder,
        "--dataset",
        str(samples),
        "--max_length",
        "256",
    ]
    assert check_teacher.main(command) == 1
    assert capsys.readouterr().err.endswith(f"Error: {sentence(samples, needed)}")
    assert not loaded
    assert check_teacher.main([*command, "--skip_bad_rows", "--force"]) == 0
    manifest = json.loads((samples.parent / "in_check" / "sample.jsonl.manifest.json").read_text())
    assert manifest["skipped"] == {"bad_rows": 1}
    assert manifest["rows"] == 149
