"""Every stage that takes a model folder, with the flags that it needs beside it."""

from embedding_distillation import generate_logits as embedding_logits
from embedding_distillation import train as embedding_train
from rag_core import calibrate, check_teacher, export, push, rank, write_queries
from reranker_distillation import evaluate, generate_logits
from reranker_distillation import train as reranker_train

STAGES = {
    "generate_logits": (generate_logits, "--teacher", "--input_files", "samples.jsonl"),
    "embedding_logits": (embedding_logits, "--teacher", "--input_files", "samples.jsonl"),
    "rank": (rank, "--model", "--passages", "samples.jsonl"),
    "reranker_train": (reranker_train, "--student", "--train_file", "triplets.jsonl", "--max_steps", "1"),
    "embedding_train": (embedding_train, "--student", "--train_file", "labels.jsonl", "--max_steps", "1"),
    "evaluate": (evaluate, "--before", "--in_domain", "samples.jsonl", "--after", "WHOLE"),
    "evaluate_after": (evaluate, "--after", "--in_domain", "samples.jsonl", "--before", "WHOLE"),
    "calibrate": (calibrate, "--model", "--input_files", "scored.jsonl", "--target", "labels"),
    "export": (export, "--model", "--dataset", "samples.jsonl"),
    "check_student": (check_teacher, "--student", "--dataset", "samples.jsonl", "--teacher", "WHOLE"),
    "check_teacher": (check_teacher, "--teacher", "--dataset", "samples.jsonl", "--student", "WHOLE"),
    "push": (push, "--model", "--repo_id", "some-body/student", "--dry_run"),
    "write_queries": (write_queries, "--model", "--input", "passages.jsonl"),
}
_WRITE_NOTHING = ("rank", "push")


def run(main, *flags):
    return main([str(flag) for flag in flags])


def run_stage(name, folder, files, output, whole):
    """Run a stage on a folder, beside another one that is whole where it takes two; return its exit code."""
    stage, flag, *further = STAGES[name]
    given = [files / word if word.endswith(".jsonl") else whole if word == "WHOLE" else word for word in further]
    if name not in _WRITE_NOTHING:
        given += ["--output" if stage is write_queries else "--output_dir", output]
    return run(stage.main, flag, folder, *given)


def said_once(code, capsys, *parts):
    """Check that a stage ended with one sentence that has the parts, and return it."""
    said = capsys.readouterr().err
    assert code == 1, said
    (sentence,) = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in said
    assert all(part in sentence for part in parts), sentence
    return sentence
