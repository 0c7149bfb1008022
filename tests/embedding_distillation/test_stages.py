"""The stages through the front door: soft labels byte for byte, both crossings of teachers and students, errors."""

import json

import pytest

from embedding_distillation import evaluate, generate_logits, generate_scores, train
from rag_core.base.records import ScoredPair, SoftLabels
from rag_core.engines import loading
from rag_core.files.jsonl import read_records
from rag_core.files.manifest import read_manifest
from reranker_distillation import create_triplets
from reranker_distillation import train as train_reranker
from tests.conftest import TINY

GOLDEN = TINY.parent.parent / "tests" / "golden"


def test_from_scores_to_soft_labels_byte_for_byte(tmp_path):
    source = tmp_path / "train_logits.jsonl"
    source.write_bytes((GOLDEN / "train_logits.jsonl").read_bytes())
    assert generate_scores.main(["--input_files", str(source), "--max_passages", "4"]) == 0
    made = tmp_path / "train_logits_scores.jsonl"
    assert made.read_bytes() == (GOLDEN / "train_logits_scores.jsonl").read_bytes()
    assert read_manifest(made).skipped == {
        "bad_rows": 0,
        "queries_below_min_spread": 0,
        "queries_with_one_candidate": 0,
    }


def train_student(folder, source, student, *flags, capsys):
    command = ["--train_file", str(source), "--output_dir", f"{folder}/model", "--student", student]
    command += ["--num_train_epochs", "6", "--per_device_train_batch_size", "4", "--learning_rate", "2e-4"]
    assert train.main([*command, "--eval_file", str(source), *flags]) == 0, capsys.readouterr().err
    log = json.loads((folder / "model" / "training_log.json").read_text())
    return [entry["eval_loss"] for entry in log if "eval_loss" in entry]


def test_the_whole_pipeline_with_tiny_models(tiny_data, tiny_encoder, tiny_wide_encoder, capsys):
    files = [f"{tiny_data}/train.jsonl", f"{tiny_data}/test.jsonl"]
    assert generate_logits.main(["--teacher", tiny_wide_encoder, "--input_files", *files]) == 0
    assert not list(tiny_data.glob("*.partial"))
    scored = [f"{tiny_data}/train_logits.jsonl", f"{tiny_data}/test_logits.jsonl"]
    assert read_manifest(tiny_data / "train_logits.jsonl").score_unit == "cosine"
    assert generate_scores.main(["--input_files", scored[0]]) == 0
    flags = ["--anchor_files", files[1], "--dev_files", scored[0], "--out_of_domain_dev_files", scored[1]]
    soft_labels = tiny_data / "train_logits_scores.jsonl"
    losses = train_student(tiny_data, soft_labels, tiny_encoder, *flags, capsys=capsys)
    assert losses[-1] < losses[0]
    error = capsys.readouterr().err
    assert "teacher's scores (cosine) spread by" in error
    assert "WARNING: the targets are nearly" not in error
    manifest = read_manifest(tiny_data / "model")
    assert manifest.facts["queries"] == 10
    assert manifest.facts["alpha"] == json.loads((tiny_data / "model" / "merge.json").read_text())["alpha"]
    card = (tiny_data / "model" / "README.md").read_text()
    assert "10 queries, 50 pairs with the teacher's score" in card
    assert "bread" not in card  # no training text
    train_student(tiny_data, soft_labels, tiny_encoder, *flags, capsys=capsys)
    assert "is finished already" in capsys.readouterr().err

    command = ["--before", tiny_encoder, "--after", f"{tiny_data}/model", "--teacher_scores", *scored]
    command += ["--in_domain", files[0], "--out_of_domain", files[1], "--output_dir", f"{tiny_data}/report"]
    assert evaluate.main(command) == 0
    report = json.loads((tiny_data / "report" / "report.json").read_text())
    assert [list(file["means"]) for file in report["files"]] == [["BM25", "before", "after", "teacher"]] * 2


def test_a_reranker_teaches_the_embedder(tiny_data, tiny_encoder, overlap_teacher, capsys):
    generate_logits.main(["--teacher", "t", "--input_files", f"{tiny_data}/train.jsonl"])
    assert read_manifest(tiny_data / "train_logits.jsonl").score_unit == "log-odds"
    generate_scores.main(["--input_files", f"{tiny_data}/train_logits.jsonl"])
    losses = train_student(tiny_data, tiny_data / "train_logits_scores.jsonl", tiny_encoder, capsys=capsys)
    assert losses[-1] < 0.9 * losses[0]
    assert read_manifest(tiny_data / "model").teacher["name"] == "t"


def test_an_embedder_teaches_the_reranker(tiny_data, tiny_wide_encoder, tiny_cross_encoder):
    assert generate_logits.main(["--teacher", tiny_wide_encoder, "--input_files", f"{tiny_data}/train.jsonl"]) == 0
    assert create_triplets.main(["--input_files", f"{tiny_data}/train_logits.jsonl"]) == 0
    triplets = f"{tiny_data}/train_logits_triplets.jsonl"
    command = ["--train_file", triplets, "--eval_file", triplets, "--output_dir", f"{tiny_data}/model"]
    command += ["--student", tiny_cross_encoder, "--num_train_epochs", "6", "--per_device_train_batch_size", "4"]
    assert train_reranker.main([*command, "--learning_rate", "2e-4"]) == 0
    log = json.loads((tiny_data / "model" / "training_log.json").read_text())
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert losses[-1] < losses[0]


def test_each_text_of_all_files_is_embedded_once_a_run(tiny_data, tiny_encoder, monkeypatch):
    from rag_core.engines.sentence_transformers_engine import BiEncoder

    encoded = []
    encode = BiEncoder.encode

    def counting(self, texts, role):
        encoded.extend((role, text) for text in texts)
        return encode(self, texts, role)

    monkeypatch.setattr(BiEncoder, "encode", counting)
    monkeypatch.setattr(loading, "check", lambda *_: None)
    copy = tiny_data / "copy.jsonl"
    copy.write_bytes((tiny_data / "train.jsonl").read_bytes())
    files = [f"{tiny_data}/train.jsonl", str(copy)]
    assert generate_logits.main(["--teacher", tiny_encoder, "--input_files", *files]) == 0
    assert len(encoded) == len(set(encoded)) > 50
    assert (tiny_data / "copy_logits.jsonl").read_bytes() == (tiny_data / "train_logits.jsonl").read_bytes()


def test_soft_labels_that_say_nothing_are_warned_about(tiny_data, tiny_encoder, capsys):
    source = tiny_data / "s.jsonl"
    source.write_text('{"query_id": "1", "query": "a", "passages": ["b", "c"], "scores": [0.5, 0.25]}\n')
    command = ["--train_file", str(source), "--student", tiny_encoder, "--max_steps", "1", "--merge", "off"]
    assert train.main([*command, "--output_dir", f"{tiny_data}/m", "--temperature", "9"]) == 0
    assert "WARNING: the targets are nearly uniform: the student learns little" in capsys.readouterr().err
    assert train.main([*command, "--output_dir", f"{tiny_data}/n", "--teacher_temperature", "0.01"]) == 0
    assert "WARNING: the targets are nearly one-hot: the student learns little" in capsys.readouterr().err


PAIR = '{"query_id": "1", "query": "a", "passage": "b", "score": 0.5}\n'
SOFT = '{"query_id": "1", "query": "a", "passages": ["b", "c"], "scores": [0.5, 0.25]}\n'

BAD_INPUT = [
    (
        generate_scores,
        PAIR,
        ": 1 queries have one candidate, which has nothing to be compared with (query_id '1'). "
        "Give every query two or more.",
    ),
    (
        generate_scores,
        PAIR + PAIR.replace('"1"', '"2"') + PAIR.replace('"1"', '"2"').replace('"b"', '"c"'),
        ": 1 queries have one candidate, which has nothing to be compared with (query_id '1'). "
        "Give every query two or more, or pass --skip_bad_rows to leave such queries out.",
    ),
    (
        train,
        SOFT.replace(', "c"', "").replace(", 0.25", ""),
        ": query_id '1' has one candidate, which has nothing to be compared with. "
        "Make the file again with generate_scores.",
    ),
    (train, SOFT * 2, ": query_id '1' has two rows. Make the file again with generate_scores."),
    (
        train,
        SOFT.replace(", 0.25", ""),
        ":1: the SoftLabels has 2 passages but 1 scores. "
        "Correct the row, or pass --skip_bad_rows to leave such rows out.",
    ),
    (
        train,
        SOFT.replace("0.25", "0.5"),
        ": the teacher scores all candidates of most queries alike. Check its scores.",
    ),
    (
        train,
        PAIR,
        ":1: is a ScoredPair (made by generate_logits), where a SoftLabels is needed. "
        "Pass a file made by generate_scores.",
    ),
]


@pytest.mark.parametrize(("stage", "content", "sentence"), BAD_INPUT, ids=[e[:50] for _, _, e in BAD_INPUT])
def test_bad_input_gets_a_sentence_and_leaves_everything_whole(stage, content, sentence, tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    source.write_text(content)
    argv = {
        generate_scores: ["--input_files", str(source)],
        train: ["--train_file", str(source), "--output_dir", f"{tmp_path}/model"],
    }[stage]
    assert stage.main(argv) == 1
    assert capsys.readouterr().err == f"Error: {source}{sentence}\n"
    assert list(tmp_path.iterdir()) == [source]


def test_queries_with_one_candidate_can_be_left_out_and_are_counted(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text(BAD_INPUT[1][1])
    assert generate_scores.main(["--input_files", str(source), "--skip_bad_rows"]) == 0
    assert len(list(read_records(tmp_path / "in_scores.jsonl", SoftLabels))) == 1
    assert read_manifest(tmp_path / "in_scores.jsonl").skipped["queries_with_one_candidate"] == 1
    assert len(list(read_records(source, ScoredPair))) == 3


TRAIN = ["--train_file", "x", "--output_dir", "m"]


@pytest.mark.parametrize(
    ("stage", "argv", "sentence"),
    [
        (
            generate_scores,
            ["--input_files", "x", "--max_passages", "1"],
            "--max_passages is 1. Pass at least 2: one candidate has no distribution.",
        ),
        (train, [*TRAIN, "--temperature", "0"], "--temperature is 0. Pass a number above 0, or leave it out."),
        (
            train,
            [*TRAIN, "--temperature", "1", "--teacher_temperature", "2"],
            "both --temperature and --teacher_temperature are given. Pass one of them.",
        ),
        (train, [*TRAIN, "--loss", "mse"], "--loss mse learns the teacher's vectors. Pass --teacher, the embedder."),
        (train, [*TRAIN, "--teacher", "t"], "--loss kl needs the teacher's scores only. Leave out --teacher."),
        (train, [*TRAIN, "--merge", "-0.5"], "--merge is -0.5. Pass a weight from 0 to 10, auto or off."),
        (
            train,
            [*TRAIN, "--merge", "off", "--out_of_domain_dev_files", "d"],
            "--out_of_domain_dev_files are for --merge auto. Leave out --merge off, or the files.",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_usage_errors(stage, argv, sentence, capsys):
    assert stage.main(argv) == 2
    assert capsys.readouterr().err == f"Error: {sentence}\n"
