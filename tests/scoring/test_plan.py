"""What a run would cost, against figures reckoned by hand."""

import numpy as np
import pytest

from rag_core.base.records import RankingSample
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import write_records
from rag_core.scoring.chunks import Work
from rag_core.scoring.plan import UTILISATION, Architecture, cached_tokens, make_plan
from rag_core.scoring.samples import SampleFile
from rag_core.scoring.scores import compute_scores
from reranker_distillation import generate_logits
from tests.conftest import OverlapScorer


@pytest.fixture
def source(tmp_path):
    rows = [RankingSample(f"a query {i % 5}", candidates=[f"passage {i}", "the same", "the same"]) for i in range(10)]
    path = tmp_path / "in.jsonl"
    write_records(path, rows)
    return SampleFile(path, BadRows(skip=False))


def test_rows_are_counted_once_and_without_those_that_are_there(source, tmp_path, tiny_cross_encoder):
    options = EngineOptions(describe_model(tiny_cross_encoder), max_length=64, dtype="float32")
    folder = tmp_path / "store"
    folder.mkdir()
    plan = make_plan([source], options, [folder], "scope", "H100")
    # "the same" is one passage, and there are five query texts: ten pairs with a passage of their own, and five.
    assert (plan.queries, plan.pairs, plan.rows, plan.found) == (10, 20, 15, 0)
    compute_scores(list(source)[:2], Work(OverlapScorer(), "scope", [folder], 8))
    rest = make_plan([source], options, [folder], "scope", "H100")
    assert (rest.rows, rest.found) == (15, 4)
    assert rest.tokens == pytest.approx(plan.tokens * 11 / 15)
    assert rest.seconds == pytest.approx(plan.seconds * 11 / 15)
    assert plan.seconds == pytest.approx(plan.operations / 989e12 / UTILISATION["gpu"])


def test_texts_of_an_embedder_are_counted_by_role(source, tmp_path, tiny_encoder):
    plan = make_plan([source], EngineOptions(describe_model(tiny_encoder), dtype="float32"), [tmp_path], "scope", "L4")
    assert (plan.unit, plan.rows) == ("texts", 5 + 11)


def test_operations_of_a_forward_pass(tiny_encoder):
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(tiny_encoder)("the query " * 30, return_tensors="pt")
    model = AutoModel.from_pretrained(tiny_encoder, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(**tokens)
    length = np.array([tokens["input_ids"].shape[1]], dtype=float)
    (operations,) = Architecture.of(describe_model(tiny_encoder)).operations(length, np.zeros(1))
    # The tables of positions and the layer norms are weights, too, but multiply nothing.
    assert operations == pytest.approx(counter.get_total_flops(), rel=0.25)
    assert operations > counter.get_total_flops()


def test_full_blocks_at_the_begin_are_shared():
    head = list(range(40))
    prompts = [[*head, 1], [*head, 2], [*head[:33], 0, 0], [*head[:31], 0], head[:32]]
    assert cached_tokens(prompts).tolist() == [0, 32, 32, 16, 16]


def test_a_dry_run_says_what_it_would_do_and_does_nothing(tiny_data, tiny_cross_encoder, capsys):
    before = sorted(tiny_data.iterdir())
    command = ["--teacher", tiny_cross_encoder, "--input_files", f"{tiny_data}/train.jsonl", "--max_length", "64"]
    command += ["--score_store", f"{tiny_data}/store", "--dry_run"]
    assert generate_logits.main([*command, "--gpu", "A100", "--gpu_price", "1.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "queries",
        "to",
        "tokens",
        "teacher",
        "operations",
        "estimated",
        "estimated",
    ]
    assert lines[-1] == "estimated cost   0.00 at 1.5 an hour"
    assert sorted(tiny_data.iterdir()) == before
    assert generate_logits.main([*command[:-1], "--gpu_price", "1.5"]) == 2


def test_the_plan_of_this_machine_is_measured(source, tmp_path, tiny_encoder):
    plan = make_plan([source], EngineOptions(describe_model(tiny_encoder), dtype="float32"), [tmp_path], "scope", "cpu")
    assert plan.peak > 1e8
    assert "on this CPU" in "\n".join(plan.lines(None))
