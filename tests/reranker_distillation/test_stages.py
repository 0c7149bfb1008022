"""The stages through the front door: golden files, errors, and runs that are stopped."""

import gzip
import json
import shutil

import pytest

from rag_core.base.records import ScoredPair
from rag_core.engines.precision import resolve_dtype
from rag_core.files.jsonl import read_records
from rag_core.files.manifest import read_manifest
from reranker_distillation import create_triplets, evaluate, generate_logits, train
from tests.conftest import TINY

GOLDEN = TINY.parent.parent / "tests" / "golden"


def test_from_samples_to_triplets_byte_for_byte(tiny_data, overlap_teacher, capsys):
    assert generate_logits.main(["--teacher", "t", "--input_files", f"{tiny_data}/train.jsonl"]) == 0
    logits = tiny_data / "train_logits.jsonl"
    assert capsys.readouterr().out == f"{logits}\n"
    assert logits.read_bytes() == (GOLDEN / "train_logits.jsonl").read_bytes()
    assert create_triplets.main(["--input_files", str(logits), "--top_k", "2", "--num_negatives", "2"]) == 0
    triplets = tiny_data / "train_logits_triplets.jsonl"
    assert triplets.read_bytes() == (GOLDEN / "train_logits_triplets.jsonl").read_bytes()
    manifest = read_manifest(triplets)
    assert manifest.teacher.items() >= {"name": "t", "prompt": "qwen3-yes-no-1"}.items()
    assert manifest.score_unit == "log-odds"
    assert manifest.skipped == {"bad_rows": 0, "queries_below_min_spread": 0, "queries_without_triplets": 0}


def test_what_is_finished_is_not_done_again(tiny_data, overlap_teacher, capsys):
    command = ["--teacher", "t", "--input_files", f"{tiny_data}/train.jsonl", f"{tiny_data}/test.jsonl"]
    assert generate_logits.main(command) == 0
    assert not list(tiny_data.glob("*.partial"))
    overlap_teacher.scored.clear()
    assert generate_logits.main(command) == 0
    assert overlap_teacher.scored == []
    assert "is finished already" in capsys.readouterr().err
    assert generate_logits.main([*command, "--overwrite"]) == 0
    assert overlap_teacher.scored


def test_the_data_sets_own_instruction_is_taken_and_can_be_overridden(tiny_data, overlap_teacher, capsys):
    source = tiny_data / "train.jsonl"
    digest = __import__("hashlib").sha256(source.read_bytes()).hexdigest()
    (tiny_data / "train.jsonl.manifest.json").write_text(
        json.dumps({"recipe": {}, "output": {"sha256": digest}, "instruction": "Find the tip"})
    )
    command = ["--teacher", "t", "--input_files", str(source)]
    assert generate_logits.main(command) == 0
    assert "instruction: Find the tip (from the data's manifest)" in capsys.readouterr().err
    assert generate_logits.main([*command, "--instruction", "Other", "--output_suffix", "_o"]) == 0
    assert "instruction: Other (as asked)" in capsys.readouterr().err
    assert read_manifest(tiny_data / "train_o.jsonl").recipe["flags"]["instruction"] == "Other"


def test_labels_have_no_influence_on_triplets(tiny_data, overlap_teacher):
    source = tiny_data / "train_logits.jsonl"
    generate_logits.main(["--teacher", "t", "--input_files", f"{tiny_data}/train.jsonl"])
    create_triplets.main(["--input_files", str(source)])
    flipped = tiny_data / "flipped.jsonl"
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    flipped.write_text("".join(json.dumps({**row, "label": 1 - row["label"]}) + "\n" for row in rows))
    create_triplets.main(["--input_files", str(flipped)])
    assert (tiny_data / "flipped_triplets.jsonl").read_bytes() == (
        tiny_data / "train_logits_triplets.jsonl"
    ).read_bytes()


SAMPLE = b'{"query": "a", "positive": ["b"], "negative": ["c"]}\n'
PAIR = b'{"query_id": "1", "query": "a", "passage": "b", "score": 0.5, "label": 1}\n'
PAIR_2 = b'{"query_id": "1", "query": "a", "passage": "c", "score": 0.25, "label": 0}\n'
TRIPLET = b'{"query_id": "1", "query": "a", "positive": "b", "negative": "c", "score": 0.25}\n'
FIX = "Correct the row, or pass --skip_bad_rows to leave such rows out."

# stage, content of the input (None: no file), sentence after "Error: <input>"
BAD_INPUT = [
    ("logits", b"{", ":1: is not JSON (EOF while parsing an object). " + FIX),
    ("logits", SAMPLE + b"[]\n", ":2: is not a JSON object. " + FIX),
    ("logits", SAMPLE + b'{"query": "", "positive": ["b"], "negative": ["c"]}', ":2: 'query' is empty. " + FIX),
    ("logits", b'{"query": 1, "positive": ["b"], "negative": []}', ":1: 'query' should be a valid string. " + FIX),
    ("logits", b'{"query": "a", "positive": "b", "negative": []}', ":1: 'positive' should be a valid array. " + FIX),
    ("logits", b'{"query": "a", "positive": ["b", " "], "negative": []}', ":1: 'positive[1]' is empty. " + FIX),
    ("logits", b'{"query": "a", "positive": [], "negative": []}', ":1: the RankingSample has no candidates. " + FIX),
    (
        "logits",
        b'{"query": "a", "positive": ["b"]}',
        ":1: the RankingSample needs 'positive' and 'negative', or 'candidates'. " + FIX,
    ),
    (
        "logits",
        PAIR,
        ":1: is a ScoredPair (made by generate_logits), where a RankingSample is needed. "
        "Pass a file made by rag_core.prepare.",
    ),
    (
        "logits",
        b'{"query": "a", "candidates": ["b"], "query_id": "7"}\n' * 2,
        ":2: query_id '7' stands in more than one row. "
        "Give each row its own query_id, or leave the key out (the line number is taken).",
    ),
    (
        "logits",
        b"\n",
        ": holds no RankingSample records. "
        "Check the path, or run the stage again that makes such files (rag_core.prepare).",
    ),
    ("logits", None, ": no such file. Check the path."),
    (
        "logits",
        '{"query": "ä", "candidates": ["b"]}'.encode("latin-1"),
        ":1: is not UTF-8 (invalid continuation byte). "
        "Convert the file (iconv -f latin1 -t utf-8), or pass --skip_bad_rows to leave such rows out.",
    ),
    (
        "logits.gz",
        gzip.compress(SAMPLE)[:-9],
        ": the gzip file is damaged or cut off after line 1 "
        "(Compressed file ended before the end-of-stream marker was reached). Copy or make the file again.",
    ),
    ("triplets", PAIR.replace(b"0.5", b"NaN"), ":1: 'score' should be a finite number. " + FIX),
    ("triplets", PAIR.replace(b"0.5", b"Infinity"), ":1: 'score' should be a finite number. " + FIX),
    ("triplets", PAIR.replace(b"0.5", b'"high"'), ":1: 'score' should be a valid number. " + FIX),
    ("triplets", PAIR.replace(b": 1}", b": 3}"), ":1: 'label' should be 0 or 1. " + FIX),
    ("triplets", PAIR * 2, ":2: query_id '1' has the passage 'b' twice. Keep one score of each pair."),
    (
        "triplets",
        PAIR + PAIR_2.replace(b'"a"', b'"other"'),
        ":2: query_id '1' stands for two queries ('a', 'other'). "
        "Files that number their queries alike cannot be joined: run the stage for each by itself.",
    ),
    (
        "triplets",
        PAIR + PAIR_2.replace(b"0.25", b"0.5"),
        ": gives no triplet: no query has two candidates that the teacher scores apart. "
        "Check the scores, or lower --min_margin.",
    ),
    (
        "triplets",
        TRIPLET,
        ":1: is a Triplet (made by create_triplets), where a ScoredPair is needed. "
        "Pass a file made by generate_logits.",
    ),
    ("train", TRIPLET.replace(b"0.25", b"-1"), ":1: the Triplet has a margin ('score') that is not above 0. " + FIX),
    ("train", TRIPLET.replace(b'"positive": "b", ', b""), ":1: a Triplet needs 'positive', which is missing. " + FIX),
    (
        "train",
        SAMPLE,
        ":1: is a RankingSample (made by rag_core.prepare), where a Triplet is needed. "
        "Pass a file made by create_triplets.",
    ),
    (
        "evaluate",
        b'{"query": "a", "candidates": ["b"]}\n' * 3,
        ": has 0 queries with a positive and a negative, a comparison needs 2. Pass labelled samples.",
    ),
]


@pytest.mark.parametrize(("stage", "content", "sentence"), BAD_INPUT, ids=[f"{s}{e[:45]}" for s, _, e in BAD_INPUT])
def test_bad_input_gets_a_sentence_and_leaves_everything_whole(stage, content, sentence, tmp_path, capsys):
    source = tmp_path / ("in.jsonl.gz" if stage.endswith("gz") else "in.jsonl")
    if content is not None:
        source.write_bytes(content)
    main, argv, output = {
        "logits": (generate_logits.main, ["--input_files", source], tmp_path / "in_logits.jsonl"),
        "logits.gz": (generate_logits.main, ["--input_files", source], tmp_path / "in_logits.jsonl"),
        "triplets": (create_triplets.main, ["--input_files", source], tmp_path / "in_triplets.jsonl"),
        "train": (train.main, ["--train_file", source, "--output_dir", tmp_path / "model"], tmp_path / "model"),
        "evaluate": (
            evaluate.main,
            ["--after", "m", "--in_domain", source, "--output_dir", tmp_path / "report"],
            tmp_path / "report" / "report.json",
        ),
    }[stage]
    output.parent.mkdir(exist_ok=True)
    output.write_text("from before")
    before = sorted(tmp_path.rglob("*"))

    code = main(
        [*map(str, argv), *([] if stage == "evaluate" else ["--overwrite"])]
    )  # which replaces its report anyway

    captured = capsys.readouterr()
    assert captured.err == f"Error: {source}{sentence}\n"
    assert captured.out == ""
    assert code == 1
    assert output.read_text() == "from before"
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_rows_can_be_left_out_and_are_counted(tiny_data, overlap_teacher, capsys):
    source = tiny_data / "train.jsonl"
    source.write_bytes(source.read_bytes() + b"{\n" + SAMPLE.replace(b'"a"', b'""'))
    assert generate_logits.main(["--teacher", "t", "--input_files", str(source), "--skip_bad_rows"]) == 0
    assert read_manifest(tiny_data / "train_logits.jsonl").skipped == {"bad_rows": 2}
    assert f"left out: {source}:11: is not JSON" in capsys.readouterr().err


def test_a_stage_refuses_an_input_that_was_changed_behind_its_manifest(tiny_data, overlap_teacher, capsys):
    generate_logits.main(["--teacher", "t", "--input_files", f"{tiny_data}/train.jsonl"])
    logits = tiny_data / "train_logits.jsonl"
    logits.write_text("\n".join(logits.read_text().splitlines()[:-1]))
    capsys.readouterr()
    assert create_triplets.main(["--input_files", str(logits)]) == 1
    error = capsys.readouterr().err
    assert f"Error: {logits}: has changed since its manifest was written. Make it again (python -m " in error


@pytest.mark.parametrize(
    ("main", "argv", "sentence"),
    [
        (create_triplets.main, ["--input_files", "x", "--top_k", "0"], "--top_k is 0. Pass at least 1."),
        (
            create_triplets.main,
            ["--input_files", "x", "--min_margin", "-1"],
            "--min_margin is -1.0. Pass 0 or more: margins are above 0 by definition.",
        ),
        (
            create_triplets.main,
            ["--input_files", "x", "--min_spread", "-1"],
            "--min_spread is -1. Pass 0 or more: no standard deviation is below 0.",
        ),
        (
            train.main,
            ["--train_file", "x", "--output_dir", "m", "--margin_scale", "0"],
            "--margin_scale is 0. Pass a number above 0, or leave it out.",
        ),
        (
            evaluate.main,
            ["--after", "m", "--in_domain", "x", "a/x", "--output_dir", "o"],
            "two files have the same name. Rename one: the report names a file without its folder.",
        ),
        (
            evaluate.main,
            ["--after", "m", "--in_domain", "x", "--output_dir", "o", "--teacher", "t", "--teacher_scores", "s"],
            "both --teacher and --teacher_scores are given. Pass one of them.",
        ),
        (
            evaluate.main,
            ["--after", "m", "--in_domain", "x", "--out_of_domain", "y", "--output_dir", "o", "--teacher_scores", "s"],
            "1 files of teacher scores for 2 files. "
            "Pass --teacher_scores with one file per file of --in_domain and --out_of_domain, in their order.",
        ),
        (
            evaluate.main,
            ["--after", "m", "--in_domain", "x", "--output_dir", "o", "--instruction", "Find the tip"],
            "--instruction is for a teacher, which is missing. Pass --teacher, or leave out --instruction.",
        ),
        (
            generate_logits.main,
            ["--input_files", "a/x.jsonl", "b/x.jsonl", "--output_dir", "o"],
            "two input files have the same name and would have the same output. Score them one by one.",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_usage_errors(main, argv, sentence, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().err == f"Error: {sentence}\n"


def test_the_whole_pipeline_with_tiny_models(tiny_data, tiny_encoder, tiny_cross_encoder, capsys):
    folder = str(tiny_data)
    assert generate_logits.main(["--teacher", tiny_encoder, "--input_files", f"{folder}/train.jsonl"]) == 0
    assert read_manifest(tiny_data / "train_logits.jsonl").score_unit == "cosine"
    assert create_triplets.main(["--input_files", f"{folder}/train_logits.jsonl", "--num_negatives", "all"]) == 0
    command = ["--train_file", f"{folder}/train_logits_triplets.jsonl", "--output_dir", f"{folder}/model"]
    command += ["--student", tiny_cross_encoder, "--num_train_epochs", "6", "--per_device_train_batch_size", "4"]
    command += ["--learning_rate", "2e-4", "--eval_file", f"{folder}/train_logits_triplets.jsonl"]
    assert train.main(command) == 0
    assert "margins of cosine times 20" in capsys.readouterr().err
    log = json.loads((tiny_data / "model" / "training_log.json").read_text())
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert losses[-1] < losses[0]
    card = (tiny_data / "model" / "README.md").read_text()
    assert "10 queries" in card
    assert "bread" not in card  # no training text
    assert train.main(command) == 0
    assert "is finished already" in capsys.readouterr().err
    evaluation = ["--before", tiny_cross_encoder, "--after", f"{folder}/model", "--teacher", tiny_encoder]
    evaluation += ["--in_domain", f"{folder}/train.jsonl", "--out_of_domain", f"{folder}/test.jsonl"]
    evaluation += ["--output_dir", f"{folder}/report"]
    assert evaluate.main(evaluation) == 0
    table = capsys.readouterr().out
    report = json.loads((tiny_data / "report" / "report.json").read_text())
    for file in report["files"]:
        assert list(file["means"]) == ["BM25", "before", "after", "teacher"]
        assert f"{file['means']['after']['MAP']:.4f}" in table
    rows = [json.loads(line) for line in (tiny_data / "report" / "per_query.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    in_domain = [row["after"]["MAP"] for row in rows if row["path"].endswith("train.jsonl")]
    assert sum(in_domain) / len(in_domain) == pytest.approx(report["files"][0]["means"]["after"]["MAP"])
    page = (tiny_data / "report" / "report.html").read_text()
    for caption in ("What each ranker reaches", "Does the student score as the teacher does?", "Loss by step"):
        assert caption in page
    assert report["training"]["loss"] == "margin_mse"
    assert report["training"]["teacher"] == tiny_encoder
    shown, _, words = table.removesuffix(f"\n{folder}/report\n").partition("\n\nIn its domain")
    page = (tiny_data / "report" / "report.md").read_text()
    assert shown in page
    sentences = f"In its domain{words}".splitlines()
    assert len(sentences) > 1
    assert all(sentence in page.partition("## In words")[2].replace("\\", "") for sentence in sentences)
    wins = report["files"][0]["wins"]["MAP"]
    assert f"{wins['better']} queries better than before, {wins['worse']} worse, {wins['same']} the same\n" in table
    assert "share of the teacher's lead closed: MAP " in table

    expected = tiny_data / "expected.json"
    actual = report["files"][0]["means"]["after"]["MAP"]
    item = {"file": "train.jsonl", "ranker": "after", "metric": "MAP", "tolerance": 0.001}
    expected.write_text(json.dumps([{**item, "expected": actual}]))
    assert evaluate.main([*evaluation, "--expect", str(expected)]) == 0
    for deviation in (-0.01, 0.01):
        expected.write_text(json.dumps([{**item, "expected": actual + deviation}]))
        capsys.readouterr()
        assert evaluate.main([*evaluation, "--expect", str(expected)]) == 1
        assert f"FAIL train.jsonl after MAP: expected {actual + deviation:.4f}" in capsys.readouterr().err


def test_teacher_scores_of_another_file_are_refused(tiny_data, overlap_teacher, capsys):
    generate_logits.main(["--teacher", "t", "--input_files", f"{tiny_data}/train.jsonl"])
    shutil.copy(tiny_data / "train_logits.jsonl", tiny_data / "elsewhere.jsonl")
    assert len(list(read_records(tiny_data / "elsewhere.jsonl", ScoredPair))) == 50
    capsys.readouterr()
    argv = ["--after", "m", "--in_domain", f"{tiny_data}/test.jsonl", "--output_dir", f"{tiny_data}/report"]
    assert evaluate.main([*argv, "--teacher_scores", f"{tiny_data}/elsewhere.jsonl"]) == 1
    assert "has no score for query_id '1' and passage 'Apples stay crisp" in capsys.readouterr().err


def test_what_training_left_is_checked_before_a_model_is_loaded(tiny_data, capsys):
    after = tiny_data / "student"
    after.mkdir()
    argv = ["--after", str(after), "--in_domain", f"{tiny_data}/test.jsonl", "--output_dir", f"{tiny_data}/report"]
    assert evaluate.main([*argv, "--trade_off", str(after)]) == 1
    assert f"Error: {after}: has no merge curve. Leave it out of --trade_off" in capsys.readouterr().err
    for name in ("merge.json", "training_log.json"):
        (after / name).write_text("{")
        assert evaluate.main(argv) == 1
        assert f"Error: {after / name}: is not what train writes (Invalid JSON" in capsys.readouterr().err
        (after / name).unlink()
    assert not (tiny_data / "report").exists()


def test_the_instruction_is_told_to_the_teacher_only(tiny_data, overlap_teacher):
    argv = ["--before", "b", "--after", "a", "--teacher", "t", "--instruction", "Find the tip", "--dtype", "float16"]
    argv += ["--in_domain", f"{tiny_data}/test.jsonl", "--output_dir", f"{tiny_data}/report"]
    assert evaluate.main(argv) == 0
    flags = {
        ranker: read_manifest(tiny_data / "report" / "scores" / f"test_{ranker}.jsonl").recipe["flags"]
        for ranker in ("before", "after", "teacher")
    }
    assert flags["teacher"]["instruction"] == "Find the tip"
    assert flags["teacher"]["dtype"] == resolve_dtype("auto")
    for ranker in ("before", "after"):
        assert flags[ranker]["instruction"] != "Find the tip"
        assert flags[ranker]["dtype"] == "float16"


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--learning_rat", "1e-4"], "--learning_rat"),
        (["--gradient_checkpoint", "true"], "--gradient_checkpoint"),
        (
            ["--eval_strategy", "steps"],
            "--eval_strategy steps has nothing to evaluate. Pass --dev_files or --eval_file.",
        ),
    ],
)
def test_training_flags_that_do_not_exist_or_contradict_each_other(flags, what, tmp_path, tiny_cross_encoder, capsys):
    source = tmp_path / "triplets.jsonl"
    source.write_bytes(TRIPLET)
    command = ["--train_file", str(source), "--output_dir", f"{tmp_path}/m", "--student", tiny_cross_encoder]
    assert train.main([*command, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert what in error
    assert not (tmp_path / "m.partial").exists()
