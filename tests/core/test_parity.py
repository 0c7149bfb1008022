import numpy as np
import pytest

from rag_core.engines import EngineOptions
from rag_core.errors import EngineError
from rag_core.parity import check_parity
from reranker_distillation import generate_logits
from tests.conftest import GivenScorer

PAIRS = [("q", f"passage {i}") for i in range(8)]


@pytest.fixture
def engines(monkeypatch):
    """Two engines whose scores the test sets."""
    scores = {"vllm": np.arange(8) / 7, "transformers": np.arange(8) / 7}
    monkeypatch.setattr("rag_core.parity.installed_engines", lambda model: list(scores))
    monkeypatch.setattr("rag_core.engines.load_model", lambda name, options, pairs: GivenScorer(scores[name]))
    return scores


def test_engines_that_agree(engines):
    engines["transformers"] = engines["vllm"] + [0.001, *[0.0] * 7]
    (parity,) = check_parity("vllm", EngineOptions("m"), PAIRS)
    assert (parity.engine, parity.correlation) == ("transformers", 1.0)
    assert parity.largest == pytest.approx(0.001)


def test_engines_that_rank_differently(engines):
    engines["transformers"] = engines["vllm"][::-1]
    with pytest.raises(EngineError, match=r"vllm and transformers rank 8 pairs differently .*-1\.000"):
        check_parity("vllm", EngineOptions("m"), PAIRS)


def test_a_model_that_one_engine_runs(tiny_data, tiny_encoder, capsys):
    command = ["--teacher", tiny_encoder, "--input_files", f"{tiny_data}/train.jsonl", "--parity", "8"]
    assert generate_logits.main(command) == 0
    assert f"parity: no other engine that is installed here runs {tiny_encoder}" in capsys.readouterr().err
    assert generate_logits.main([*command[:-1], "1"]) == 2
