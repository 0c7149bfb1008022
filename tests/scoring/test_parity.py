import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.engines.identity import ModelInfo
from rag_core.engines.loading import LOADERS
from rag_core.engines.options import EngineOptions
from rag_core.scoring import parity
from rag_core.scoring.parity import check_parity
from reranker_distillation import generate_logits
from tests.conftest import GivenScorer

MODEL = ModelInfo("m", "llm-reranker", "test")
PAIRS = [("q", f"passage {i}") for i in range(8)]


@pytest.fixture
def engines(monkeypatch):
    """Two engines whose scores the test sets."""
    scores = {"vllm": np.arange(8) / 7, "transformers": np.arange(8) / 7}
    monkeypatch.setattr(parity, "installed_engines", lambda model: list(scores))
    for name in ("vllm", "transformers"):
        monkeypatch.setitem(LOADERS, name, lambda options, pairs, name=name: GivenScorer(scores[name]))
    return scores


def test_engines_that_agree(engines):
    engines["transformers"] = engines["vllm"] + [0.001, *[0.0] * 7]
    (found,) = check_parity("vllm", EngineOptions(MODEL), PAIRS)
    assert (found.engine, found.correlation) == ("transformers", 1.0)
    assert found.largest == pytest.approx(0.001)


def test_engines_that_rank_differently(engines):
    engines["transformers"] = engines["vllm"][::-1]
    with pytest.raises(EngineError, match=r"vllm and transformers rank 8 pairs differently .*-1\.000"):
        check_parity("vllm", EngineOptions(MODEL), PAIRS)


def test_a_model_that_one_engine_runs(tiny_data, tiny_encoder, capsys):
    command = ["--teacher", tiny_encoder, "--input_files", f"{tiny_data}/train.jsonl", "--parity", "8"]
    assert generate_logits.main(command) == 0
    assert f"parity: no other engine that is installed here runs {tiny_encoder}" in capsys.readouterr().err
    assert generate_logits.main([*command[:-1], "1"]) == 2
