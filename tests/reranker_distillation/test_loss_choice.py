"""Every loss against its formula, written out for two queries; what it reads; and that a student learns by it."""

import dataclasses
import json
import math
import typing

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sentence_transformers.cross_encoder.losses import RankNetLoss

from rag_core.base.records import SoftLabels
from rag_core.files.jsonl import write_records
from reranker_distillation import train
from reranker_distillation.loss_settings import PAIRWISE, LossName, LossSettings, settle_loss
from reranker_distillation.losses import (
    GroupedMarginMSE,
    GroupedRankNet,
    _Scored,
    listwise_loss,
)
from tests.reranker_distillation.test_training import (
    BATCHES_OF_8,
    PLAIN_SGD,
    RAGGED,
    assert_same_weights,
    losses_of,
    triplet_groups,
)

LISTWISE = [name for name in typing.get_args(LossName) if name not in PAIRWISE]  # each has a formula below
STUDENT = [[0.3, -1.0, 2.0, 0.1], [0.5, 0.1]]
TEACHER = [[1.0, -2.0, 0.5, 3.0], [-1.0, 2.0]]
SETTINGS = LossSettings("kl", mse_weight=0.3, teacher_temperature=2.0, student_temperature=0.5)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def kl_by_hand(s, t):
    p = softmax(np.array(t) / 2)
    return float((p * (np.log(p) - log_softmax(np.array(s) / 0.5))).sum())


def listnet_by_hand(s, t):
    return float(-(softmax(np.array(t) / 2) * log_softmax(s)).sum())


def margin_mse_and_mse_by_hand(s, t):
    n = len(s)
    margins = [((s[i] - s[j]) - (t[i] - t[j])) ** 2 for i in range(n) for j in range(i)]
    return sum(margins) / len(margins) + 0.3 * sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / n


def plistmle_by_hand(s, t):
    n = len(s)
    in_order = [s[i] for i in sorted(range(n), key=lambda i: -t[i])]
    weights = [2 ** (n - rank) - 1 for rank in range(1, n + 1)]
    terms = [
        weight * (in_order[i] - math.log(sum(math.exp(x) for x in in_order[i:]))) for i, weight in enumerate(weights)
    ]
    return -sum(terms) / sum(weights)


def adr_mse_by_hand(s, t):
    n = len(s)
    total = 0.0
    for i in range(n):
        rank = 1 + sum(t[j] > t[i] for j in range(n))
        smooth = 1 + sum(sigmoid(s[j] - s[i]) for j in range(n) if j != i)
        total += (rank - smooth) ** 2 / math.log2(rank + 1)
    return total / n


def lambda_by_hand(s, t):
    n = len(s)
    gains = [2 ** ((x - min(t)) / (max(t) - min(t))) - 1 for x in t]
    best = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(sorted(gains, reverse=True), start=1))
    rank = {i: r for r, i in enumerate(sorted(range(n), key=lambda i: -s[i]), start=1)}
    discount = [0.0] + [1 / math.log2(r + 1) for r in range(1, n + 2)]
    terms = []
    for i in range(n):
        for j in range(n):
            if t[i] > t[j]:
                apart = abs(rank[i] - rank[j])
                weight = 10 * (discount[apart] - discount[apart + 1]) + abs(discount[rank[i]] - discount[rank[j]])
                terms.append(-weight * (gains[i] - gains[j]) / best * math.log2(sigmoid(s[i] - s[j])))
    return sum(terms) / len(terms)


BY_HAND = dict(
    zip(
        LISTWISE,
        [margin_mse_and_mse_by_hand, kl_by_hand, listnet_by_hand, plistmle_by_hand, adr_mse_by_hand, lambda_by_hand],
        strict=True,
    )
)


def flat(lists):
    return [x for scores in lists for x in scores]


def of(name, student, teacher):
    """Return a loss and its gradient in the student's scores."""
    scores = torch.tensor(flat(student), requires_grad=True)
    settings = dataclasses.replace(SETTINGS, loss=name)
    loss = listwise_loss(scores, torch.tensor(flat(teacher)), torch.tensor([4, 2]), settings)
    (gradient,) = torch.autograd.grad(loss, scores)
    return loss.item(), gradient.tolist()


@pytest.mark.parametrize("name", LISTWISE)
def test_a_listwise_loss_is_the_mean_of_its_formula_over_queries(name):
    def by_hand(s):
        return (BY_HAND[name](s[:4], TEACHER[0]) + BY_HAND[name](s[4:], TEACHER[1])) / 2

    scores = flat(STUDENT)
    value, gradient = of(name, STUDENT, TEACHER)
    assert value == pytest.approx(by_hand(scores), rel=1e-5)
    for i, found in enumerate(gradient):
        up, down = ([x + step * (k == i) for k, x in enumerate(scores)] for step in (1e-5, -1e-5))
        assert found == pytest.approx((by_hand(up) - by_hand(down)) / 2e-5, rel=1e-3, abs=1e-5)


def shifted(lists, *by):
    return [[x + constant for x in scores] for scores, constant in zip(lists, by, strict=True)]


@pytest.mark.parametrize("name", LISTWISE)
def test_a_constant_per_query_has_no_influence_but_on_the_level_that_mse_keeps(name):
    value, gradient = of(name, STUDENT, TEACHER)
    for student, teacher in ((shifted(STUDENT, 5, -3), TEACHER), (STUDENT, shifted(TEACHER, -2, 7))):
        found, found_gradient = of(name, student, teacher)
        assert (found == pytest.approx(value, rel=1e-4)) == (name != "margin_mse+mse")
        assert (found_gradient == pytest.approx(gradient, abs=1e-4)) == (name != "margin_mse+mse")


@pytest.mark.parametrize("name", ["plistmle", "adr_mse"])
def test_losses_of_the_order_know_nothing_else(name):
    assert of(name, STUDENT, [[x**3 for x in scores] for scores in TEACHER]) == of(name, STUDENT, TEACHER)


def test_listnet_has_the_gradient_of_kl():
    settings = dataclasses.replace(SETTINGS, student_temperature=1.0)
    scores = torch.tensor(STUDENT[0], requires_grad=True)
    loss = listwise_loss(scores, torch.tensor(TEACHER[0]), torch.tensor([4]), settings)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert of("listnet", STUDENT, TEACHER)[1][:4] == pytest.approx((gradient / 2).tolist(), abs=1e-6)


def test_a_query_whose_candidates_the_teacher_scores_alike_breaks_no_loss():
    scores = torch.tensor(STUDENT[0], requires_grad=True)
    for name in LISTWISE:
        loss = listwise_loss(scores, torch.ones(4), torch.tensor([4]), dataclasses.replace(SETTINGS, loss=name))
        (gradient,) = torch.autograd.grad(loss, scores)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


def pairwise(loss_type, mean_margin, differences, margins):
    scores = torch.cat([torch.tensor(differences), torch.zeros(len(differences))]).requires_grad_()
    loss = loss_type(torch.nn.Module(), mean_margin)
    loss.scores = lambda minibatches, order: scores
    first = torch.arange(len(differences))
    value = loss([None, None, first, first + len(differences)], torch.tensor(margins))
    (gradient,) = torch.autograd.grad(value, scores)
    return value.item(), gradient[: len(differences)].tolist()


def test_ranknet_by_hand():
    value, gradient = pairwise(GroupedRankNet, None, [1.5, -0.5], [3.0, 1.0])
    assert value == pytest.approx((math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(0.5))) / 2)
    assert gradient == pytest.approx([-sigmoid(-1.5) / 2, -sigmoid(0.5) / 2])


def test_triplets_weighted_by_their_margin():
    value, gradient = pairwise(GroupedMarginMSE, 2.0, [1.5, -0.5], [3.0, 1.0])
    assert value == pytest.approx((1.5**2 * 3 / 2 + 1.5**2 * 1 / 2) / 2)
    assert gradient == pytest.approx([-1.5 * 3 / 2, -1.5 * 1 / 2])
    value, _ = pairwise(GroupedRankNet, 2.0, [1.5, -0.5], [3.0, 1.0])
    assert value == pytest.approx((1.5 * math.log(1 + math.exp(-1.5)) + 0.5 * math.log(1 + math.exp(0.5))) / 2)


def test_ranknet_over_all_pairs_is_that_of_sentence_transformers_in_bits():
    s, t = STUDENT[0], TEACHER[0]
    differences = [s[i] - s[j] for i in range(4) for j in range(4) if t[i] > t[j]]
    ours, _ = pairwise(GroupedRankNet, None, differences, [1.0] * len(differences))
    theirs = RankNetLoss(_Scored(torch.tensor(s)), mini_batch_size=-1)([[""], [[""] * 4]], [torch.tensor(t)])
    assert ours / math.log(2) == pytest.approx(theirs.item(), rel=1e-6)


def soft_labels(**options):
    """The candidates of `triplet_groups`, with scores of which each triplet has the difference."""
    lists = []
    for group in triplet_groups(**options):
        scores = np.cumsum([0.0, *(-triplet.score for triplet in group)]).tolist()
        passages = [group[0].positive, *(triplet.negative for triplet in group)]
        lists.append(SoftLabels(group[0].query_id, group[0].query, passages, scores))
    return lists


@pytest.mark.parametrize("name", [*sorted(PAIRWISE), *LISTWISE])
def test_a_student_learns_by_every_loss(name, tmp_path, tiny_cross_encoder):
    groups = triplet_groups() if name in PAIRWISE else soft_labels()
    flags = ["--per_device_train_batch_size", "16", "--num_train_epochs", "8"]
    losses, _ = losses_of(tmp_path, tiny_cross_encoder, *flags, groups=groups, loss=LossSettings(name))
    assert losses[-1] < losses[0]
    weighted = LossSettings(name, weighting="margin")
    if name in PAIRWISE:
        other, _ = losses_of(tmp_path / "w", tiny_cross_encoder, *flags, groups=groups, loss=weighted)
        assert other[-1] < other[0] != pytest.approx(losses[0])


def test_accumulated_small_batches_of_lists_equal_a_large_one(tmp_path, tiny_cross_encoder):
    groups, loss = soft_labels(**RAGGED), LossSettings("adr_mse")
    flags = {"groups": groups, "loss": loss}
    large, large_model = losses_of(tmp_path, tiny_cross_encoder, *BATCHES_OF_8, *PLAIN_SGD, **flags)
    batches = ["--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "2", "--num_train_epochs", "2"]
    small, small_model = losses_of(tmp_path, tiny_cross_encoder, *batches, *PLAIN_SGD, **flags)
    assert small == pytest.approx(large, rel=1e-5)
    assert_same_weights(small_model, large_model)


@pytest.fixture
def train_command(tmp_path, tiny_cross_encoder):
    write_records(tmp_path / "lists.jsonl", soft_labels())
    write_records(tmp_path / "triplets.jsonl", [triplet for group in triplet_groups() for triplet in group])
    return ["--output_dir", f"{tmp_path}/m", "--student", tiny_cross_encoder, "--max_steps", "2", "--train_file"]


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        (["--loss", "kl", "--teacher_temperature", "2"], {"teacher_temperature": 2.0, "student_temperature": 1.0}),
        (["--loss", "margin_mse+mse", "--score_scaling", "standardise"], {"mse_weight": 0.1, "margin_scale": 1.0}),
        (["--loss", "lambda"], {}),
    ],
)
def test_lists_are_learned_from_soft_labels_and_the_card_says_how(flags, settings, train_command, tmp_path):
    assert train.main([*train_command, f"{tmp_path}/lists.jsonl", *flags]) == 0
    manifest = json.loads((tmp_path / "m.manifest.json").read_text())
    assert manifest["pairs"] == 16 * 4
    assert settings.items() <= manifest["recipe"]["flags"].items()
    card = (tmp_path / "m" / "README.md").read_text()
    assert "16 queries, 64 pairs with the teacher's score" in card
    for name, value in {"loss": flags[1], **settings}.items():
        assert f"--{name} {value}" in card


@pytest.mark.parametrize(
    ("loss", "unit", "margin_scale"),
    [
        ("margin_mse", "cosine", 20),
        ("margin_mse", "reciprocal rank", 1000),
        ("margin_mse", "log-odds", 1),
        ("margin_mse", None, 1),
        ("ranknet", "cosine", 1),
        ("kl", "cosine", 1),
    ],
)
def test_what_was_left_open_is_chosen_by_the_teachers_scores(loss, unit, margin_scale, tmp_path):
    args = train.Args(train_file=tmp_path, output_dir=tmp_path, loss=loss)
    lists = [SoftLabels("1", "q", ["a", "b"], [0.0, 3.0])]  # a standard deviation of 1.5
    settings = settle_loss(args, lists, unit)
    assert settings.margin_scale == margin_scale
    assert settings.teacher_temperature == (0.5 if loss == "kl" else 1)


@pytest.mark.parametrize(
    ("file", "flags", "code", "sentence"),
    [
        (
            "triplets",
            ["--loss", "kl"],
            1,
            "{path}:1: is a Triplet (made by create_triplets), where a SoftLabels is needed. "
            "Pass a file made by generate_scores.",
        ),
        (
            "lists",
            [],
            1,
            "{path}:1: is a SoftLabels (made by generate_scores), where a Triplet is needed. "
            "Pass a file made by create_triplets.",
        ),
        (
            "triplets",
            ["--score_scaling", "standardise"],
            2,
            "--score_scaling has no effect on --loss margin_mse. "
            "Leave it out, or choose margin_mse+mse or kl or listnet.",
        ),
        (
            "lists",
            ["--loss", "adr_mse", "--margin_scale", "2"],
            2,
            "--margin_scale has no effect on --loss adr_mse. Leave it out, or choose margin_mse or margin_mse+mse.",
        ),
        (
            "lists",
            ["--loss", "kl", "--student_temperature", "0"],
            2,
            "--student_temperature is 0. Pass a number above 0, or leave it out.",
        ),
    ],
)
def test_the_wrong_file_and_flags_of_other_losses_are_refused(
    file, flags, code, sentence, train_command, tmp_path, capsys
):
    path = tmp_path / f"{file}.jsonl"
    assert train.main([*train_command, str(path), *flags]) == code
    assert capsys.readouterr().err == f"Error: {sentence.format(path=path)}\n"
