"""Every stage that takes a teacher, on LLM rerankers as they are published; stages of students say what they are."""

import functools
import re

import numpy as np
import pytest

from rag_core import calibrate, check_teacher, export, rank
from reranker_distillation import evaluate, generate_logits, train
from tests.zoo import rerankers
from tests.zoo.encoders import PAIRS, scores_in

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("qwen_tokenizer", "tokenizers_read_once")]

LLMS = [
    rerankers.qwen3_reranker,
    rerankers.published_qwen3_reranker,
    rerankers.converted_qwen3_reranker,
    rerankers.one_or_zero_reranker,
    rerankers.single_answer_reranker,
    rerankers.unknown_causal_lm,
]
BARE = [rerankers.trained_qwen3_cross_encoder, rerankers.unknown_sequence_classifier]
READS = ("--dtype", "float32", "--max_length", 256)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    root = tmp_path_factory.mktemp("rerankers")

    @functools.cache
    def build(builder):
        builder(root / builder.__name__)
        return root / builder.__name__

    return build


@pytest.fixture(scope="module")
def right(folder_of):
    """The scores that a folder's makers would get."""

    @functools.cache
    def scores(builder):
        from sentence_transformers import CrossEncoder
        from torch.nn import Identity

        if builder in (rerankers.published_qwen3_reranker, rerankers.converted_qwen3_reranker):
            return scores(rerankers.qwen3_reranker)  # the same weights
        if builder is rerankers.qwen3_reranker:
            builder = rerankers.published_qwen3_reranker
        elif builder is rerankers.unknown_causal_lm:
            return None
        model = CrossEncoder(str(folder_of(builder)), model_kwargs={"dtype": "float32"})
        return model.predict(PAIRS, activation_fn=Identity(), show_progress_bar=False)

    return scores


@pytest.fixture(scope="module")
def samples(files):
    return files / "samples.jsonl"


def run(stage, *flags):
    return stage.main([str(flag) for flag in flags])


@pytest.mark.parametrize("builder", LLMS + BARE, ids=lambda builder: builder.__name__)
def test_generate_logits(builder, folder_of, right, samples, tmp_path, capsys):
    flags = ("--input_files", samples, "--output_dir", tmp_path, *READS)
    assert run(generate_logits, "--teacher", folder_of(builder), *flags) == 0
    if builder.__name__.startswith("unknown"):
        assert re.search("is not known as a reranker|is a decoder whose prompt is not known", capsys.readouterr().err)
    found = scores_in(tmp_path / "samples_logits.jsonl")
    assert found.std() > 1e-3
    if right(builder) is not None:
        np.testing.assert_allclose(found, right(builder), atol=1e-4)


@pytest.mark.parametrize("builder", LLMS + BARE, ids=lambda builder: builder.__name__)
def test_rank_and_check_teacher(builder, folder_of, right, samples, tmp_path, capsys):
    folder = folder_of(builder)
    assert run(rank, "--model", folder, "--passages", samples, *READS) == 0
    if right(builder) is not None:
        assert f"{right(builder)[0]:.4f}" in capsys.readouterr().out
    flags = ("--dataset", samples, "--output_dir", tmp_path, *READS, "--force")
    assert run(check_teacher, "--teacher", folder, "--student", folder_of(BARE[0]), *flags) == 0


def test_evaluate(folder_of, right, samples, tmp_path):
    before, after = map(folder_of, BARE)
    flags = ("--in_domain", samples, "--output_dir", tmp_path, *READS)
    teacher = folder_of(rerankers.converted_qwen3_reranker)
    assert run(evaluate, "--before", before, "--after", after, "--teacher", teacher, *flags) == 0
    (scored,) = tmp_path.rglob("*_teacher.jsonl")
    np.testing.assert_allclose(
        scores_in(scored), right(rerankers.qwen3_reranker), atol=0.05
    )  # --dtype is the students'


@pytest.mark.parametrize("builder", LLMS, ids=lambda builder: builder.__name__)
def test_an_llm_is_no_student(builder, folder_of, files, tmp_path, capsys):
    """The reason names the file that it was read from."""
    folder, output = folder_of(builder), ("--output_dir", tmp_path / "out")
    for stage, *flags in (
        (train, "--student", folder, "--train_file", files / "triplets.jsonl"),
        (calibrate, "--model", folder, "--input_files", files / "scored.jsonl", "--target", "labels"),
        (export, "--model", folder, "--dataset", files / "samples.jsonl"),
    ):
        assert run(stage, *flags, *output) == 1
        said = capsys.readouterr().err
        assert re.search(rf"Error: {re.escape(str(folder))} is an? (LLM|llm-reranker)", said), said
        assert ".json" in said
    assert not (tmp_path / "out").exists()
