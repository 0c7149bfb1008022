"""Every stage that loads a model, on every folder of the zoo: the right scores, or the right sentence."""

import dataclasses

import numpy as np
import pytest

from embedding_distillation import generate_logits as embedding_logits
from embedding_distillation import train as embedding_train
from rag_core import calibrate, check_teacher, export, rank
from rag_core.base.records import ScoredPair
from rag_core.engines.identity import describe_model
from rag_core.files.jsonl import read_groups, write_records
from reranker_distillation import evaluate as reranker_evaluate
from reranker_distillation import generate_logits as reranker_logits
from reranker_distillation import train as reranker_train
from tests.zoo import encoders
from tests.zoo.encoders import (
    CROSS_ENCODERS,
    EMBEDDERS,
    PAIRS,
    no_position_limit,
    plain,
    plain_embedder,
    prompts_by_other_names,
    scores_in,
    static,
)
from tests.zoo.stages import run

pytestmark = pytest.mark.slow

ALIKE = {
    encoders.plain,
    encoders.extra_tensors,
    encoders.in_float16,
    encoders.sharded,
    encoders.bin_file,
    encoders.sigmoid_in_config,
    encoders.softmax_in_config,
    encoders.code_not_needed,
    encoders.plain_embedder,
    encoders.embedder_in_float16,
    encoders.embedder_in_bfloat16,
    encoders.embedder_without_pooler,
    encoders.prompts_by_other_names,
    encoders.default_prompt,
}
NO_EXPORT = {
    static: "has no transformer",
    no_position_limit: "cannot be written as ONNX",
}


def expect(code, right, capsys, output):
    """Check that a folder that is whole was taken, and another one refused in a sentence, with nothing written."""
    said = capsys.readouterr().err
    if not isinstance(right, str):
        assert code == 0, said
        return True
    assert code == 1
    first, *further = right.split("\n")
    assert f"Error: {first}" in said
    assert all(part in said for part in further)
    assert not output.is_file() and not list(output.glob("*.json*"))
    return False


@pytest.mark.parametrize("builder", CROSS_ENCODERS + EMBEDDERS, ids=lambda builder: builder.__name__)
def test_generate_logits(builder, zoo, files, tmp_path, capsys):
    folder, right = zoo(builder)
    main = reranker_logits.main if builder in CROSS_ENCODERS else embedding_logits.main
    flags = ("--input_files", files / "samples.jsonl", "--output_dir", tmp_path / "out", "--dtype", "float32")
    if expect(run(main, "--teacher", folder, *flags), right, capsys, tmp_path / "out"):
        np.testing.assert_allclose(scores_in(tmp_path / "out" / "samples_logits.jsonl"), right, atol=1e-4)


NAMED = ("--query_prompt_name", "s2p_query")


@pytest.fixture
def named(zoo):
    """The embedder whose prompts have other names, and its cosines with one of them before the queries."""
    from sentence_transformers import SentenceTransformer

    folder, _ = zoo(prompts_by_other_names)
    model = SentenceTransformer(str(folder), device="cpu")
    queries, passages = ([*texts] for texts in zip(*PAIRS, strict=True))
    vectors = model.encode(queries, prompt_name="s2p_query", normalize_embeddings=True)
    return folder, (vectors * model.encode(passages, normalize_embeddings=True)).sum(axis=1)


def test_a_prompt_by_its_name(named, files, tmp_path):
    folder, right = named
    flags = ("--input_files", files / "samples.jsonl", "--output_dir", tmp_path, "--dtype", "float32")
    assert run(embedding_logits.main, "--teacher", folder, *flags, *NAMED) == 0
    np.testing.assert_allclose(scores_in(tmp_path / "samples_logits.jsonl"), right, atol=1e-5)
    assert run(embedding_logits.main, "--teacher", folder, *flags) == 1  # other scores, which are not mixed


def test_a_trained_student_keeps_the_prompt_that_was_named(named, files, tmp_path):
    folder, _ = named
    flags = ("--train_file", files / "labels.jsonl", "--output_dir", tmp_path / "student", "--max_steps", 1)
    assert run(embedding_train.main, "--student", folder, *flags, *NAMED) == 0
    assert describe_model(str(tmp_path / "student")).prompt("query") == "a bank of "


def test_a_named_prompt_is_exported(named, files, tmp_path):
    folder, right = named
    flags = ("--dataset", files / "samples.jsonl", "--output_dir", tmp_path / "exported")
    assert run(export.main, "--model", folder, *flags, *NAMED) == 0
    scored = ("--input_files", files / "samples.jsonl", "--output_dir", tmp_path)
    assert run(embedding_logits.main, "--teacher", tmp_path / "exported", *scored) == 0
    np.testing.assert_allclose(scores_in(tmp_path / "samples_logits.jsonl"), right, atol=1e-4)


@pytest.mark.parametrize("builder", CROSS_ENCODERS + EMBEDDERS, ids=lambda builder: builder.__name__)
def test_rank(builder, zoo, tmp_path, capsys):
    folder, right = zoo(builder)
    (tmp_path / "passages.txt").write_text("".join(f"{passage}\n" for _, passage in PAIRS))
    query = PAIRS[0][0]
    flags = ("--query", query, "--passages", tmp_path / "passages.txt", "--dtype", "float32")
    code = run(rank.main, "--model", folder, *flags)
    printed = capsys.readouterr()
    if isinstance(right, str):
        assert code == 1
        assert right.split("\n")[0] in printed.err
    else:
        assert code == 0
        assert f"{right[0]:.4f}" in printed.out


@pytest.mark.parametrize("builder", CROSS_ENCODERS + EMBEDDERS, ids=lambda builder: builder.__name__)
def test_reranker_train(builder, zoo, files, tmp_path, capsys):
    folder, right = zoo(builder)
    output = tmp_path / "student"
    flags = ("--train_file", files / "triplets.jsonl", "--output_dir", output, "--max_steps", 2, "--dropout", 0)
    code = run(reranker_train.main, "--student", folder, *flags, "--learning_rate", 1e-3)
    if expect(code, right if builder is not static else f"{folder} has no transformer", capsys, output):
        assert_in_float32(output)


@pytest.mark.parametrize("builder", EMBEDDERS, ids=lambda builder: builder.__name__)
def test_embedding_train(builder, zoo, files, tmp_path, capsys):
    folder, right = zoo(builder)
    output = tmp_path / "student"
    flags = ("--train_file", files / "labels.jsonl", "--output_dir", output, "--max_steps", 2, "--merge", "off")
    code = run(embedding_train.main, "--student", folder, *flags, "--learning_rate", 1e-3)
    if expect(code, right, capsys, output):
        assert_in_float32(output)


def assert_in_float32(folder):
    import torch
    from safetensors.torch import load_file

    weights = [load_file(path) for path in folder.rglob("*.safetensors") if "checkpoint" not in str(path)]
    assert weights
    assert {values.dtype for tensors in weights for values in tensors.values() if values.is_floating_point()} == {
        torch.float32
    }


@pytest.mark.parametrize("builder", CROSS_ENCODERS + EMBEDDERS, ids=lambda builder: builder.__name__)
def test_evaluate(builder, zoo, files, tmp_path, capsys):
    folder, right = zoo(builder)
    whole, _ = zoo(plain if builder in CROSS_ENCODERS else plain_embedder)
    flags = ("--in_domain", files / "samples.jsonl", "--output_dir", tmp_path / "report", "--dtype", "float32")
    code = run(reranker_evaluate.main, "--before", folder, "--after", whole, *flags)
    if expect(code, right, capsys, tmp_path / "report"):
        scored = tmp_path / "report" / "scores"
        (before,) = [path for path in scored.rglob("*.jsonl") if "before" in str(path)]
        np.testing.assert_allclose(scores_in(before), right, atol=1e-4)


@pytest.mark.parametrize("builder", CROSS_ENCODERS + EMBEDDERS, ids=lambda builder: builder.__name__)
def test_calibrate(builder, zoo, files, tmp_path, capsys):
    folder, right = zoo(builder)
    output, scored = tmp_path / "calibrated", files / "scored.jsonl"
    if not isinstance(right, str):
        scored = label_by_its_own_scores(folder, files, tmp_path)
    flags = ("--input_files", scored, "--target", "labels", "--output_dir", output)
    code = run(calibrate.main, "--model", folder, *flags, "--method", "temperature")
    expect(code, right, capsys, output)


def label_by_its_own_scores(folder, files, tmp_path):
    """Score all candidates, and call two of each query relevant, so that higher scores stand for higher ones."""
    flags = ("--input_files", files / "samples.jsonl", "--output_dir", tmp_path, "--dtype", "float32")
    assert run(reranker_logits.main, "--teacher", folder, *flags) == 0
    groups = read_groups(tmp_path / "samples_logits.jsonl", ScoredPair)
    best = [sorted(group, key=lambda row: -row.score)[:2] for group in groups]
    rows = [
        dataclasses.replace(row, label=int(row in two))
        for group, two in zip(groups, best, strict=True)
        for row in group
    ]
    write_records(tmp_path / "labelled.jsonl", rows)
    return tmp_path / "labelled.jsonl"


# An export takes ten seconds: of folders that work, those whose graph or weights differ by more than their file.
EXPORTED = [builder for builder in CROSS_ENCODERS + EMBEDDERS if builder not in ALIKE]


@pytest.mark.parametrize("builder", EXPORTED, ids=lambda builder: builder.__name__)
def test_export(builder, zoo, files, tmp_path, capsys):
    folder, right = zoo(builder)
    output = tmp_path / "exported"
    flags = ("--dataset", files / "samples.jsonl", "--output_dir", output)
    code = run(export.main, "--model", folder, *flags)
    expect(code, f"{folder} {NO_EXPORT[builder]}" if builder in NO_EXPORT else right, capsys, output)


@pytest.mark.parametrize("builder", CROSS_ENCODERS + EMBEDDERS, ids=lambda builder: builder.__name__)
def test_check_teacher(builder, zoo, files, tmp_path, capsys):
    folder, right = zoo(builder)
    whole, _ = zoo(plain if builder in CROSS_ENCODERS else plain_embedder)
    flags = ("--dataset", files / "samples.jsonl", "--output_dir", tmp_path / "check", "--dtype", "float32")
    flags += ("--force",)  # whatever it ranks
    code = run(check_teacher.main, "--student", folder, "--teacher", whole, *flags)
    expect(code, right, capsys, tmp_path / "check" / "check.json")
