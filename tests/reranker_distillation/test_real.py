"""On real text with real weights, where both are there: the WikiQA sample beside the checkout, and the demo models."""

import pytest

from rag_core import demo_models
from rag_core.base.errors import PipelineError
from rag_core.base.records import Triplet
from rag_core.files.jsonl import read_groups, read_samples, write_records
from reranker_distillation import create_triplets, generate_logits
from tests.conftest import TINY

WIKIQA = TINY.parent.parent.parent / "shared" / "data" / "wikiqa"


@pytest.fixture(scope="session")
def minilm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    try:
        demo_models.run(demo_models.Args(output_dir=folder))
    except PipelineError as error:
        pytest.skip(f"the demo models are not installed: {error}")
    return str(folder / demo_models.STUDENT)


@pytest.mark.slow
def test_grouped_and_single_losses_agree_on_real_triplets(minilm, tmp_path):
    if not WIKIQA.exists():
        pytest.skip("no ../shared/data/wikiqa beside the checkout")
    import torch
    from sentence_transformers.cross_encoder.losses import MarginMSELoss

    from rag_core.distillation.student import StudentSettings
    from rag_core.engines.identity import describe_model
    from reranker_distillation.losses import GroupedCollator, GroupedMarginMSE, group_triplets
    from reranker_distillation.training import load_student
    from tests.reranker_distillation.test_losses import CountedPasses, gradients

    samples = [s for s in read_samples(WIKIQA / "train.jsonl.gz") if len(list(s.passages())) >= 12][:4]
    write_records(tmp_path / "train.jsonl", samples)
    command = ["--teacher", minilm, "--input_files", f"{tmp_path}/train.jsonl", "--dtype", "float32"]
    assert generate_logits.main(command) == 0
    assert create_triplets.main(["--input_files", f"{tmp_path}/train_logits.jsonl"]) == 0
    groups = read_groups(tmp_path / "train_logits_triplets.jsonl", Triplet)
    triplets = [triplet for group in groups for triplet in group]
    assert len(triplets) == 4 * 32

    torch.manual_seed(0)
    student = load_student(StudentSettings(describe_model(minilm), 128, dropout=0.0))
    passes = CountedPasses(student)
    columns = [[getattr(triplet, name) for triplet in triplets] for name in ("query", "positive", "negative")]
    single = MarginMSELoss(student)(columns, torch.tensor([20 * triplet.score for triplet in triplets]))
    single.backward()
    expected = gradients(student)
    assert passes.pairs == 4 * 64

    student.zero_grad()
    passes.pairs = 0
    batch = GroupedCollator(student.preprocess)(list(group_triplets(groups, 20.0)))
    labels = batch.pop("label")
    grouped = GroupedMarginMSE(student)(list(batch.values()), labels)
    grouped.backward()
    assert passes.pairs == 4 * 12
    assert grouped.item() == pytest.approx(single.item(), rel=1e-5)
    relative = (gradients(student) - expected).norm() / expected.norm()
    assert relative < 1e-5
