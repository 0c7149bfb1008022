"""The losses against independent implementations, and the batch against text by text."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss

from embedding_distillation.collator import Anchors, GroupedCollator, make_dataset, role_prompts
from embedding_distillation.loss_settings import LossSettings
from embedding_distillation.losses import DistillationLoss, contrastive, usable_negatives
from rag_core.base.records import SoftLabels

MASK = torch.tensor([[True, True, True], [True, True, False]])  # the second query has two candidates

GROUPS = [
    SoftLabels("1", "how to boil an egg", ["an egg boils in ten minutes", "a hen", "the pan is hot"], [0.9, 0.2, 0.4]),
    SoftLabels("2", "a hen", ["a hen", "how to boil an egg"], [0.8, 0.1]),  # texts that stand in both roles
]


def settings(name="kl", **changes):
    return LossSettings(
        **{
            "loss": name,
            "teacher_temperature": 0.1,
            "student_temperature": 0.05,
            "contrastive_weight": 0.5,
            "anchor_weight": 0.0,
            **changes,
        }
    )


def batch_of(model, groups=GROUPS, anchors=(), **options):
    collator = GroupedCollator(preprocess_fn=model.preprocess, role_prompts=role_prompts(model), **options)
    return collator(list(make_dataset(groups, Anchors(anchors, len(anchors)))))


def test_false_negatives_are_those_near_the_teachers_best():
    # Passages 0 to 3; query 0 has candidates 0, 1, 2, query 1 has candidates 3 and 0.
    teacher = torch.tensor([[5.0, 4.5, 1.0], [3.0, 0.0, 0.0]])
    passages = torch.tensor([[0, 1, 2], [3, 0, 0]])
    usable = usable_negatives(teacher, MASK, passages, 4, None)
    assert usable.tolist() == [[False, False, True, True], [True, True, True, False]]
    cosines = torch.tensor([[0.0, 0.0, 0.0, 4.5], [0.0, 2.5, 1.0, 0.0]])  # known for other queries' passages, too
    usable = usable_negatives(teacher, MASK, passages, 4, cosines)
    assert usable.tolist() == [[False, False, True, False], [True, False, True, False]]


def test_an_unscored_candidate_is_no_negative():
    teacher, passages = torch.tensor([[5.0, 4.5, 1.0], [3.0, 0.0, 0.0]]), torch.tensor([[0, 1, 2], [3, 0, 0]])
    unscored = torch.tensor([[0, 3]])  # of query 0; query 1 brings it into the batch
    for cosines in (None, torch.zeros(2, 4)):
        usable = usable_negatives(teacher, MASK, passages, 4, cosines, unscored=unscored)
        assert usable.tolist() == [[False, False, True, False], [True, True, True, False]]


def test_the_loss_leaves_out_what_a_prescreening_left_unscored(tiny_encoder):
    model = SentenceTransformer(tiny_encoder)
    whole, other = GROUPS
    unscored = ["how to boil an egg", "of no other query", "a hen"]  # the last has a score all the same
    told = dataclasses.replace(whole, unscored=unscored)
    assert "unscored" not in batch_of(model, GROUPS)
    batch = batch_of(model, [told, other])
    (pair,) = batch["unscored"].tolist()
    first, _ = batch["passage_range"]
    passages = [*dict.fromkeys([*whole.passages, *other.passages])]
    assert pair == [0, first + passages.index("how to boil an egg")]
    loss = DistillationLoss(model, settings("kl+contrastive"), None)
    with torch.no_grad():
        before, after = (loss(batch_of(model, groups))["contrastive"] for groups in (GROUPS, [told, other]))
        vectors = model.encode([whole.query, *passages], convert_to_tensor=True)
    scores = (vectors[1:] @ vectors[0] / vectors[1:].norm(dim=1) / vectors[0].norm() / 0.05).double()
    best, egg = scores[0], scores[passages.index("how to boil an egg")]
    others = [scores[i] for i in (1, 2)]  # candidates that the teacher puts more than a temperature below the best
    with_it, without = (torch.stack([best, *others, *more]).logsumexp(0) for more in ([egg], []))
    assert (before - after).item() == pytest.approx(0.5 * (with_it - without).item() / 2, rel=1e-4)


def test_contrastive_is_cross_entropy_over_the_best_and_the_usable():
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    loss = contrastive(scores, torch.tensor([0]), torch.tensor([[False, True, False]]))
    assert loss.item() == pytest.approx(float(np.log(1 + np.e)), rel=1e-6)


@pytest.mark.parametrize("name", ["kl", "margin_mse"])
def test_each_text_is_encoded_once_with_the_loss_and_gradient_of_query_by_query(tiny_encoder, name):
    model = SentenceTransformer(tiny_encoder, device="cpu")
    model.train()
    batch = batch_of(model, mini_batch_size=2)
    assert sum(len(inputs["input_ids"]) for inputs in batch["minibatches"]) == 2 + 4  # not 2 + 5
    (loss,) = DistillationLoss(model, settings(name), None)(batch).values()
    loss.backward()
    gradient = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}

    model.zero_grad()
    single = 0
    for group in GROUPS:
        vectors = [model(model.preprocess([text]))["sentence_embedding"][0] for text in (group.query, *group.passages)]
        query, *passages = (vector / vector.norm() for vector in vectors)
        student = torch.stack([query @ passage for passage in passages]) / 0.05
        teacher = torch.tensor(group.scores) / 0.1
        if name == "kl":
            terms = torch.nn.functional.kl_div(student.log_softmax(0), teacher.softmax(0), reduction="sum")
        else:
            difference = student - teacher
            pairs = list(itertools.combinations(difference, 2))
            terms = sum((first - second) ** 2 for first, second in pairs) / len(pairs)
        single = single + terms / len(GROUPS)
    assert loss.item() == pytest.approx(single.item(), rel=1e-5)
    single.backward()
    for key, value in model.named_parameters():
        if value.grad is not None:
            assert (value.grad - gradient[key]).norm() <= 1e-5 * max(1.0, value.grad.norm()), key


def test_each_text_of_a_batch_is_tokenised_once_with_the_prompt_of_its_role(tiny_encoder):
    model = SentenceTransformer(tiny_encoder, device="cpu", prompts={"query": "egg : ", "document": "pan : "})
    tokenised = []

    def preprocess(texts, prompt):
        tokenised.extend((prompt, text) for text in texts)
        return model.preprocess(texts, prompt=prompt)

    collator = GroupedCollator(preprocess_fn=preprocess, role_prompts=role_prompts(model), mini_batch_size=3)
    batch = collator(list(make_dataset(GROUPS, Anchors([("query", "ten minutes")], 1))))
    queries = [("egg : ", text) for text in ("how to boil an egg", "a hen", "ten minutes")]
    passages = ["an egg boils in ten minutes", "a hen", "the pan is hot", "how to boil an egg"]
    assert tokenised == queries + [("pan : ", text) for text in passages]
    texts = [*queries[:2], *(("pan : ", text) for text in passages), queries[2]]
    order = batch["order"].tolist()
    assert [len(minibatch["input_ids"]) for minibatch in batch["minibatches"]] == [3, 3, 1]
    for number, minibatch in enumerate(batch["minibatches"]):
        mine = [texts[i] for i in order[3 * number : 3 * number + 3]]
        alone = model.preprocess([text for _, text in mine], prompt=mine[0][0])
        assert torch.equal(minibatch["input_ids"], alone["input_ids"])


def test_kl_is_sentence_transformers_loss_but_for_its_squared_temperature(tiny_encoder):
    model = SentenceTransformer(tiny_encoder, device="cpu")
    (group,) = [SoftLabels("1", "how to boil an egg", ["an egg boils", "a hen"], [0.9, 0.2])]
    (ours,) = DistillationLoss(model, settings(teacher_temperature=0.2, student_temperature=0.2), None)(
        batch_of(model, [group])
    ).values()
    from sentence_transformers.util import pairwise_cos_sim

    features = [model.preprocess([text]) for text in (group.query, *group.passages)]
    theirs = DistillKLDivLoss(model, similarity_fct=pairwise_cos_sim, temperature=0.2)(
        features, torch.tensor([group.scores])
    )
    assert ours.item() == pytest.approx(theirs.item() / 0.2**2, rel=1e-5)


class Vectors:
    """Vectors of eight numbers that tell texts and roles apart."""

    dimensions = 8

    def of(self, keys):
        rows = [[len(text), text.count("e"), role == "query", 1, 0, 0, 0, 0] for role, text in keys]
        matrix = np.array(rows, dtype=np.float32).reshape(len(keys), 8)
        return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def test_mse_through_a_projection_is_learned_where_the_sizes_differ(tiny_encoder):
    model = SentenceTransformer(tiny_encoder, device="cpu")
    loss = DistillationLoss(model, settings("mse"), Vectors.dimensions)
    batch = batch_of(model, teacher_vectors=Vectors())
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        (value,) = loss(batch).values()
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert values[-1] < 0.1 * values[0]
    assert isinstance(DistillationLoss(model, settings("mse"), 32).projection, torch.nn.Identity)


def test_the_contrastive_term_is_added_with_its_weight(tiny_encoder):
    model = SentenceTransformer(tiny_encoder, device="cpu")
    batch = batch_of(model)
    with torch.no_grad():
        half = DistillationLoss(model, settings("kl+contrastive"), None)(batch)
        whole = DistillationLoss(model, settings("kl+contrastive", contrastive_weight=1.0), None)(batch)
        masked = DistillationLoss(model, settings("kl+contrastive"), 8)(batch_of(model, teacher_vectors=Vectors()))
    assert half.keys() == {"kl", "contrastive"}
    assert half["contrastive"] * 2 == pytest.approx(whole["contrastive"])
    assert half["kl"] == pytest.approx(DistillationLoss(model, settings(), None)(batch)["kl"].item())
    assert masked["contrastive"] < half["contrastive"]  # Vectors are all alike: fewer negatives are left


def test_the_drift_of_anchors_is_nothing_at_the_start_and_grows(tiny_encoder):
    model = SentenceTransformer(tiny_encoder, device="cpu")
    texts = [("query", "the pan is hot"), ("passage", "a hen"), ("passage", "ten minutes")]

    class Before:
        def of(self, keys):
            return model.encode([text for _, text in keys], normalize_embeddings=True)

    anchored = batch_of(model, anchors=texts, anchor_vectors=Before())
    assert sum(len(inputs["input_ids"]) for inputs in anchored["minibatches"]) == 2 + 4 + 2  # "a hen" is there already
    loss = DistillationLoss(model, settings(anchor_weight=2.0), None)
    assert loss(anchored)["drift"].item() == pytest.approx(0, abs=1e-5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    assert loss(anchored)["drift"].item() > 0.01


def test_the_matryoshka_loss_is_the_mean_over_cut_vectors_by_hand(tiny_encoder):
    model = SentenceTransformer(tiny_encoder, device="cpu")
    loss = DistillationLoss(model, settings(matryoshka_dims=(32, 8)), None)(batch_of(model))["kl"].item()
    by_size = []
    for size in (32, 8):
        cut = SentenceTransformer(tiny_encoder, device="cpu", truncate_dim=size)
        divergences = []
        for group in GROUPS:
            cosines = cut.similarity(cut.encode([group.query]), cut.encode(group.passages))[0].numpy()
            divergences.append(entropy(softmax(np.array(group.scores) / 0.1), softmax(cosines / 0.05)))
        by_size.append(np.mean(divergences))
    assert abs(by_size[0] - by_size[1]) > 1e-3
    assert loss == pytest.approx(np.mean(by_size), rel=1e-4)
