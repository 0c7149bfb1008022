"""The grouped loss is the loss of sentence-transformers over single triplets, at a fraction of the passes."""

import random

import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.losses import MarginMSELoss

from rag_core.base.records import ScoredPair
from reranker_distillation.losses import GroupedCollator, GroupedMarginMSE, ListwiseCollator, group_triplets
from reranker_distillation.triplets import make_triplets
from tests.conftest import TINY


@pytest.fixture
def student(tiny_cross_encoder):
    return CrossEncoder(tiny_cross_encoder, device="cpu")


def triplet_groups(num_negatives, queries=4, candidates=14):
    generator = random.Random(3)
    texts = [line for path in sorted(TINY.glob("*.jsonl")) for line in path.read_text().split('"') if len(line) > 20]
    groups = []
    for query_id in range(queries):
        pairs = [
            ScoredPair(str(query_id), f"how do I {query_id}", passage, generator.gauss(0, 3))
            for passage in generator.sample(texts, candidates)
        ]
        groups.append(
            list(
                make_triplets(
                    pairs,
                    top_k=8,
                    num_negatives=num_negatives,
                    sampling="next",
                    min_margin=0.0,
                    generator=generator,
                )
            )
        )
    return groups


class CountedPasses:
    """Count the pairs that go through a model."""

    def __init__(self, model):
        self.pairs = 0
        model[0].register_forward_hook(self._count, with_kwargs=False)

    def _count(self, module, args, output):
        self.pairs += len(args[0]["input_ids"])


def gradients(model):
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@pytest.mark.parametrize(("num_negatives", "single_passes", "grouped_passes"), [(4, 256, 48), (None, 728, 56)])
def test_equals_triplet_by_triplet_loss_and_gradient(student, num_negatives, single_passes, grouped_passes):
    groups = triplet_groups(num_negatives)
    triplets = [triplet for group in groups for triplet in group]

    passes = CountedPasses(student)
    columns = [[getattr(t, name) for t in triplets] for name in ("query", "positive", "negative")]
    single = MarginMSELoss(student)(columns, torch.tensor([triplet.score for triplet in triplets]))
    single.backward()
    single_gradients = gradients(student)
    assert passes.pairs == single_passes

    student.zero_grad()
    passes.pairs = 0
    batch = GroupedCollator(student.preprocess, mini_batch_size=5)(list(group_triplets(groups, 1.0)))
    labels = batch.pop("label")
    grouped = GroupedMarginMSE(student)(list(batch.values()), labels)
    grouped.backward()
    assert passes.pairs == grouped_passes

    assert grouped.item() == pytest.approx(single.item(), rel=1e-5)
    torch.testing.assert_close(gradients(student), single_gradients, rtol=1e-5, atol=1e-5)


def test_all_pairs_have_a_closed_form(student):
    groups = triplet_groups(None, queries=1)
    scores = {}
    for triplet in groups[0]:
        scores[triplet.positive] = scores.get(triplet.positive, 0.0)
    (row,) = group_triplets(groups, 1.0)
    batch = GroupedCollator(student.preprocess)([row])
    labels = batch.pop("label")
    loss = GroupedMarginMSE(student)(list(batch.values()), labels)

    teacher = torch.zeros(len(row["passages"]))  # up to a constant: margins to the passage that stands first
    for positive, negative, margin in zip(row["positive"], row["negative"], row["margin"], strict=True):
        if positive == 0:
            teacher[negative] = -margin
    students = torch.tensor(
        student.predict([(row["query"], passage) for passage in row["passages"]], activation_fn=torch.nn.Identity())
    )
    d = students - teacher
    n = len(d)
    assert loss.item() == pytest.approx((n * ((d - d.mean()) ** 2).sum() / (n * (n - 1) / 2)).item(), rel=1e-4)


def test_margins_are_scaled():
    (row,) = group_triplets(triplet_groups(4, queries=1), 20.0)
    (plain,) = group_triplets(triplet_groups(4, queries=1), 1.0)
    assert row["margin"] == pytest.approx([20 * margin for margin in plain["margin"]])


@pytest.mark.parametrize("collator_type", [GroupedCollator, ListwiseCollator])
def test_a_batch_is_tokenised_once_and_stands_in_its_mini_batches(student, collator_type):
    rows = list(group_triplets(triplet_groups(4), 1.0))
    if collator_type is ListwiseCollator:
        rows = [{**row, "scores": [0.0] * len(row["passages"])} for row in rows]
    tokenised = []

    def preprocess(pairs):
        tokenised.extend(pairs)
        return student.preprocess(pairs)

    batch = collator_type(preprocess, mini_batch_size=5)(rows)
    pairs = [(row["query"], passage) for row in rows for passage in row["passages"]]
    assert tokenised == pairs
    order = batch["order"].tolist()
    for number, minibatch in enumerate(batch["minibatches"]):
        alone = student.preprocess([pairs[i] for i in order[5 * number : 5 * number + 5]])
        assert torch.equal(minibatch["input_ids"], alone["input_ids"])
