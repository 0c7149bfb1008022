"""Models loaded whole, or refused."""

import dataclasses

import numpy as np
import pytest
from safetensors.torch import load_file

from rag_core.base.errors import EngineError
from rag_core.base.records import RankingSample
from rag_core.distillation.student import StudentSettings, load_model
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.pretrained import load_sentence_transformers
from rag_core.engines.sentence_transformers_engine import BiEncoder, CrossEncoderScorer
from rag_core.files.jsonl import write_records
from rag_core.scoring.scored_files import score_files
from tests.zoo import encoders as zoo
from tests.zoo.encoders import PAIRS

pytestmark = pytest.mark.slow

LONG = [(query, " ".join([passage] * 40)) for query, passage in PAIRS]


def options(folder, **settings):
    return EngineOptions(describe_model(str(folder)), **{"dtype": "float32", "max_length": 4096} | settings)


@pytest.mark.parametrize("builder", [zoo.positions_514, zoo.no_pad_token, zoo.no_position_limit, zoo.plain])
def test_texts_longer_than_the_positions_are_cut(builder, tmp_path):
    builder(tmp_path / "model")
    assert np.isfinite(CrossEncoderScorer(options(tmp_path / "model")).score(LONG)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("builder", [zoo.plain, zoo.dense, zoo.old_layout, zoo.in_float16, zoo.in_bfloat16, zoo.static])
def test_half_precision_on_a_cpu(builder, dtype, tmp_path):
    right = builder(tmp_path / "model")
    asked = options(tmp_path / "model", dtype=dtype)
    if asked.model.kind == "cross-encoder":
        found = CrossEncoderScorer(asked).score(PAIRS)
    else:
        model = BiEncoder(asked)
        queries, passages = zip(*PAIRS, strict=True)
        found = (model.encode(queries, "query") * model.encode(passages, "passage")).sum(axis=1)
    np.testing.assert_allclose(found, right, atol=0.05)


@pytest.mark.parametrize("builder", [zoo.own_code, zoo.module_of_its_own])
def test_code_of_a_folder_is_not_run_and_nothing_is_asked(builder, tmp_path, monkeypatch):
    right = builder(tmp_path / "model")

    def ask(prompt=""):
        raise AssertionError(f"asked: {prompt}")

    monkeypatch.setattr("builtins.input", ask)
    with pytest.raises(EngineError) as error:
        describe_model(str(tmp_path / "model"))
    assert str(error.value).startswith(right)
    assert not (tmp_path / "model" / "ran").exists()


def test_a_tensor_too_many_is_a_note(tmp_path, caplog):
    zoo.extra_tensors(tmp_path / "model")
    with caplog.at_level("INFO"):
        CrossEncoderScorer(options(tmp_path / "model"))
    assert "its file has 1 tensor (lm_head.bias) that the model does not have" in caplog.text


def test_the_wrapper_of_a_model_is_named(tmp_path):
    right = zoo.prefixed_keys(tmp_path / "model")
    with pytest.raises(EngineError) as error:
        CrossEncoderScorer(options(tmp_path / "model"))
    assert str(error.value) == (
        f"{right.splitlines()[0]}. Its tensors are named module.*: save the model that stands inside that wrapper."
    )


def test_a_store_holds_the_vectors_of_one_model_only(tmp_path):
    """Two embedders that differ in their last layer alone: the second got the vectors of the first."""
    zoo.dense(tmp_path / "one")
    right = zoo.dense(tmp_path / "two")
    path = tmp_path / "one" / "2_Dense" / "model.safetensors"
    zoo.change_weights(path, lambda tensors: {name: -values.abs() for name, values in tensors.items()})
    write_records(tmp_path / "s.jsonl", [RankingSample(query, candidates=[text]) for query, text in PAIRS])
    for name in ("one", "two"):
        score_files(
            {tmp_path / "s.jsonl": tmp_path / f"{name}.jsonl"},
            stage="test",
            engine="auto",
            options=options(tmp_path / name),
            score_store=tmp_path / "store",
        )
    np.testing.assert_allclose(zoo.scores_in(tmp_path / "two.jsonl"), right, atol=1e-5)
    assert np.abs(zoo.scores_in(tmp_path / "one.jsonl") - right).max() > 0.01


@pytest.mark.parametrize("builder", [zoo.in_bfloat16, zoo.in_float16, zoo.embedder_in_bfloat16])
def test_a_student_of_half_precision_is_trained_in_float32(builder, tmp_path, caplog):
    from sentence_transformers import CrossEncoder, SentenceTransformer

    builder(tmp_path / "model")
    described = describe_model(str(tmp_path / "model"))
    kind = CrossEncoder if described.kind == "cross-encoder" else SentenceTransformer
    with caplog.at_level("INFO"):
        model = load_model(StudentSettings(described, 64), kind)
    assert {str(values.dtype) for values in model.parameters()} == {"torch.float32"}
    assert f"was saved in {described.dtype}; it is trained and saved in float32" in caplog.text


def test_a_merged_adapter_is_saved_by_its_own_names(tmp_path):
    from sentence_transformers import CrossEncoder

    from rag_core.release.saving import save_model

    right = zoo.reranker_adapter(tmp_path / "adapter")
    model = load_sentence_transformers(describe_model(str(tmp_path / "adapter")), CrossEncoder, dtype="float32")
    assert all(values.requires_grad for values in model.parameters())
    save_model(model, tmp_path / "merged")
    assert not [name for name in load_file(tmp_path / "merged" / "model.safetensors") if "lora" in name]
    np.testing.assert_allclose(CrossEncoderScorer(options(tmp_path / "merged")).score(PAIRS), right, atol=1e-4)


def test_an_adapter_is_not_for_vllm(tmp_path):
    from rag_core.engines.loading import choose_engine

    zoo.reranker_adapter(tmp_path / "adapter")
    model = dataclasses.replace(describe_model(str(tmp_path / "adapter")), kind="llm-reranker", is_llm=True)
    assert choose_engine(model, "auto")[0] == "transformers"
    with pytest.raises(EngineError, match="is a LoRA adapter, which vLLM does not merge"):
        choose_engine(model, "vllm")
