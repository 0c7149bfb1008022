"""What a dev file measures, by hand and by another library; and that it is prepared once."""

import numpy as np
import pytest
from scipy.stats import kendalltau
from sentence_transformers import CrossEncoder, SentenceTransformer
from sklearn.metrics import ndcg_score

from rag_core.base.errors import DataError
from rag_core.base.records import ScoredPair
from rag_core.distillation import dev_set
from rag_core.distillation.dev_set import Candidates, DevSet, TeacherRanking
from rag_core.files.jsonl import write_records


def rows(*candidates):
    return [ScoredPair("1", "q", f"p{i}", score, label) for i, (score, label) in enumerate(candidates)]


def unlabelled(scores):
    return rows(*((score, None) for score in scores))


def read(path, pairs):
    write_records(path, pairs)
    return DevSet.read(path)


def test_graded_ndcg_by_hand_and_by_another_library():
    # Gains 0, 1, 0.5; the student puts them in the order 0.5, 0, 1.
    value = TeacherRanking(unlabelled([-4.0, 0.0, -2.0])).ndcg([0.2, 0.1, 0.3])
    assert value == pytest.approx((0.5 + 1 / 2) / (1 + 0.5 / np.log2(3)))
    generator = np.random.default_rng(4)
    for size in (2, 9, 30):
        teacher, student = generator.normal(size=(2, size))
        gains = (teacher - teacher.min()) / np.ptp(teacher)
        found = TeacherRanking(unlabelled(teacher.tolist())).ndcg(student)
        assert found == pytest.approx(ndcg_score([gains], [student], k=10))


def test_tau_is_that_of_scipy_and_0_where_the_student_tells_nothing_apart():
    ranking = TeacherRanking(unlabelled([1.0, 3.0, 2.0]))
    assert ranking.tau([0.1, 0.2, 0.3]) == pytest.approx(kendalltau([0.1, 0.2, 0.3], [1, 3, 2]).statistic)
    assert ranking.tau([0.5, 0.5, 0.5]) == 0


def test_labels_are_measured_where_there_are_any(tmp_path):
    assert read(tmp_path / "a", rows((0.1, 1), (0.2, 0))).measure == "MAP"
    assert read(tmp_path / "b", rows((0.1, 1), (0.2, 1))).measure == "Kendall's tau"
    assert read(tmp_path / "c", rows((0.1, None), (0.2, None))).measure == "Kendall's tau"


def test_map_by_hand_with_labels_in_any_order_and_some_missing(tmp_path, monkeypatch):
    labelled = read(tmp_path / "a", rows((0.0, 0), (0.0, 1), (0.0, None), (0.0, 1)))
    monkeypatch.setattr(Candidates, "scores", lambda *_: [np.array([0.3, 0.2, 0.9, 0.5])])
    # Without the third: relevant, irrelevant, relevant.
    assert labelled.values(None, 4).tolist() == pytest.approx([(1 + 2 / 3) / 2])


@pytest.mark.parametrize("pairs", [rows((0.1, 1)), rows((0.1, None), (0.1, None))])
def test_a_file_that_compares_nothing_is_refused(tmp_path, pairs):
    with pytest.raises(DataError, match="no query with two candidates that differ in label or score"):
        read(tmp_path / "a", pairs)


GROUPS = [
    [ScoredPair("1", "how to boil an egg", passage, 0.5) for passage in ("an egg boils in ten minutes", "a hen")],
    [ScoredPair("2", "a hen", passage, 0.5) for passage in ("a hen", "the pan is hot", "an egg boils in ten minutes")],
    [ScoredPair("3", "how to boil an egg", "the pan is hot", 0.5)],
]


def test_scores_are_cosines_or_logits_of_each_pair(tiny_encoder, tiny_cross_encoder):
    embedder, reranker = SentenceTransformer(tiny_encoder, device="cpu"), CrossEncoder(tiny_cross_encoder, device="cpu")
    cosines = Candidates(GROUPS).scores(embedder, 2)
    logits = Candidates(GROUPS).scores(reranker, 2)
    for group, cosine_row, logit_row in zip(GROUPS, cosines, logits, strict=True):
        for pair, cosine, logit in zip(group, cosine_row, logit_row, strict=True):
            query, passage = embedder.encode([pair.query, pair.passage], normalize_embeddings=True)
            assert cosine == pytest.approx(query @ passage, abs=1e-2)  # in half precision, where there is one
            expected = reranker.predict([(pair.query, pair.passage)], activation_fn=None)
            assert 1 / (1 + np.exp(-logit)) == pytest.approx(expected[0], abs=1e-2)


@pytest.mark.parametrize(("labels", "made"), [((1, 0), "RankingSample"), ((None, None), "TeacherRanking")])
def test_what_does_not_depend_on_the_student_is_prepared_once(tmp_path, monkeypatch, labels, made):
    count = []
    original = getattr(dev_set, made)
    monkeypatch.setattr(dev_set, made, lambda *args, **kwargs: count.append(made) or original(*args, **kwargs))
    monkeypatch.setattr(Candidates, "scores", lambda *_: [np.array([0.5, 0.7])])
    dev = read(tmp_path / "a", rows((0.1, labels[0]), (0.2, labels[1])))
    assert count == [made]
    first = dev.measured(None, 4)
    assert dev.measured(None, 4) == first
    assert count == [made]
