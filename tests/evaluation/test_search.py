"""Search of whole corpora: metrics checked by hand, ties, what the table and the words say, and bad input."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedding_distillation import evaluate
from rag_core.base.errors import DataError
from rag_core.base.records import Document, RankingSample
from rag_core.corpora.corpus import Corpus
from rag_core.corpora.openings import SampleCorpus
from rag_core.engines import loading
from rag_core.engines.sentence_transformers_engine import BiEncoder
from rag_core.evaluation.corpus_args import NamedCorpus
from rag_core.evaluation.in_words import in_words
from rag_core.evaluation.pages import write_report
from rag_core.evaluation.report import make_report
from rag_core.evaluation.retrieval import DEPTH, measure_search, with_hybrids
from rag_core.evaluation.searches import read_judged
from rag_core.evaluation.tables import format_table
from rag_core.files.bad_rows import NoBadRows
from rag_core.files.jsonl import write_records
from rag_core.retrieval.analyser import PLAIN
from tests.conftest import TINY
from tests.evaluation.cases import NOTHING
from tests.evaluation.test_pages import parse

DOCUMENTS = {f"d{i}": Document(id=f"d{i}", text=f"text {i}") for i in range(120)}


def places(*rows):
    found = np.full((len(rows), DEPTH), -1, dtype=np.int64)
    for row, of in zip(found, rows, strict=True):
        row[: len(of)] = of
    return found


def searched(name="cars", domain="in-domain", **rankings):
    """Two queries: for the first d0 has grade 2 and d1 grade 1, for the second d5 is relevant."""
    judged = Corpus(DOCUMENTS, {"a": "query a", "b": "query b"}, {"a": {"d0": 2, "d1": 1, "d2": 0}, "b": {"d5": 1}})
    corpus = NamedCorpus(name, Path(f"data/{name}/corpus.jsonl"), domain, SampleCorpus(Path("unused")))
    found = {
        "BM25": places([2, 1], []),
        "before": places([1, 0], [3, 4, 5]),
        "after": places([0, 1], [5]),
        **rankings,
    }
    return measure_search(corpus, judged, with_hybrids(found), {"before": "models/b", "after": "m"}, 1)


def test_the_metrics_are_those_reckoned_by_hand():
    found = searched()
    # d1 with gain 1 at rank 1, d0 with gain 2 at rank 2: 1 + 2 / log2(3), of the best 2 + 1 / log2(3).
    discount = 1 / np.log2(3)
    first = (1 + 2 * discount) / (2 + discount)
    assert found.means["before"]["NDCG@10"] == pytest.approx((first + 0.5) / 2, abs=1e-6)
    assert found.means["before"]["MRR@10"] == pytest.approx((1 + 1 / 3) / 2, abs=1e-6)
    assert found.means["before"]["Recall@100"] == 1
    assert found.means["after"] == {"NDCG@10": 1, "MRR@10": 1, "Recall@100": 1}
    assert found.means["BM25"]["NDCG@10"] == pytest.approx(discount / (2 + discount) / 2, abs=1e-6)
    assert found.means["BM25"]["Recall@100"] == 0.25
    assert (found.documents, found.queries, found.unmatched) == (120, 2, 1)


def test_the_hybrid_fuses_by_reciprocal_rank():
    found = with_hybrids({"BM25": places([7, 8]), "before": places([8, 9]), "after": places([9])})
    assert found["hybrid before"][0, :4].tolist() == [8, 7, 9, -1]  # 1/62 + 1/61, 1/61, 1/62
    assert found["hybrid after"][0, :4].tolist() == [7, 9, 8, -1]  # 1/61 each, in the order of the corpus


def test_a_change_has_its_interval_wins_and_losses():
    comparison = searched().compared("after", "before")
    assert comparison.changes["NDCG@10"].difference == pytest.approx(
        searched().means["after"]["NDCG@10"] - searched().means["before"]["NDCG@10"]
    )
    assert (comparison.wins["MRR@10"].better, comparison.wins["MRR@10"].same) == (1, 1)
    assert searched().compared("after", "teacher") is None


def test_equal_scores_are_no_advantage_of_the_positives(tmp_path):
    """The positives stand first in their rows; the order of the corpus, which decides ties, knows nothing of that."""
    samples = [RankingSample(f"q{i}", [f"right {i}"], [f"wrong {i} {n}" for n in range(4)]) for i in range(30)]
    write_records(tmp_path / "test.jsonl", samples)
    corpus = NamedCorpus("test", tmp_path / "test.jsonl", "in-domain", SampleCorpus(tmp_path / "test.jsonl"))
    judged = read_judged(corpus, PLAIN, NoBadRows()).corpus
    right = [place for place, text in enumerate(judged.texts()) if text.startswith("right")]
    assert 60 < np.mean(right) < 90  # of 150
    assert judged.qrels["1"] == {next(key for key, of in judged.documents.items() if of.text == "right 0"): 1}


def test_passages_of_all_files_and_queries_of_the_first(tmp_path):
    write_records(tmp_path / "a.jsonl", [RankingSample("q", ["x"], ["y"]), RankingSample("r", ["y"], ["z"])])
    write_records(tmp_path / "b.jsonl", [RankingSample("other", ["w"], ["x"])])
    found = SampleCorpus(tmp_path / "a.jsonl", tmp_path / "b.jsonl").read(NoBadRows())
    assert sorted(found.texts()) == ["w", "x", "y", "z"]
    assert list(found.queries.values()) == ["q", "r"]


def report(*searches):
    return replace(make_report([], {"before": "b", "after": "m"}, NOTHING, 1), retrieval=list(searches))


def test_the_table():
    table = format_table(report(searched()))
    assert "Search in cars (in-domain, 2 queries over 120 passages)" in table
    assert "| before                       | b             | 0.6799" in table
    assert "| after - before               | 95 % interval | +0.3201 [" in table
    assert "NDCG@10 2 better, 0 worse, 0 the same" in table
    assert "reciprocal rank fusion of the first 100" in table


def test_the_three_forms_have_the_search(tmp_path):
    found = report(searched())
    write_report(tmp_path, found, [], 1)
    content = json.loads((tmp_path / "report.json").read_text())["retrieval"][0]
    assert content["means"]["after"]["NDCG@10"] == 1
    assert "values" not in content
    rows = [json.loads(line) for line in (tmp_path / "per_query.jsonl").read_text().splitlines()]
    assert [row["query_id"] for row in rows] == ["a", "b"]
    assert rows[1]["before"]["NDCG@10"] == 0.5
    page = " ".join(" ".join(parse(tmp_path / "report.html").itertext()).split())
    for text in (page, (tmp_path / "report.md").read_text()):
        assert "the trained embedder finds more" in text
    assert (
        "Search in cars in-domain, 2 queries over 120 passages queries, after beside before: NDCG@10 2 better" in page
    )
    assert "after - before 95 % interval +0.3201 [" in page
    assert found.means()["search in cars"]["hybrid after"]["Recall@100"] == 1


GOOD, BAD = places([0, 1], [5]), places([], [])


@pytest.mark.parametrize(
    ("inside", "outside", "said"),
    [
        ({}, {}, "deploy the trained model. Embed the corpus again"),
        ({}, {"before": GOOD, "after": BAD}, "where it gains (search in cars), and the one before training where it"),
        ({"before": GOOD, "after": BAD}, {"after": GOOD, "before": GOOD}, "keep the model before training"),
        ({"before": GOOD}, {"before": GOOD}, "no reason to change models"),
    ],
)
def test_what_to_do_follows_from_what_is_found(inside, outside, said):
    words = in_words(report(searched(**inside), searched("birds", "out-of-domain", **outside)))
    assert words[-1].startswith("What to do: ")
    assert said in words[-1]


def test_the_sentences():
    first, second, *_ = in_words(report(searched(), searched("birds", "out-of-domain", before=GOOD, after=BAD)))
    assert first.startswith(
        "In its domain (cars, 120 passages) the trained embedder finds more: NDCG@10 0.680 -> 1.000, +0.320 ["
    )
    assert second == (
        "Out of its domain (birds, 120 passages) the trained embedder finds less: NDCG@10 1.000 -> 0.000, -1.000 "
        "[-1.000, -1.000]; fewer of the relevant passages are among the first 100: recall 1.000 -> 0.000, -1.000 "
        "[-1.000, -1.000]."
    )
    words = in_words(report(searched(after=BAD, BM25=GOOD)))
    assert "In cars BM25 alone finds more than the trained embedder: BM25 1.000, after 0.000 NDCG@10" in words[1]
    unclear = in_words(report(searched(before=places([0, 1], [4, 5]), after=places([1, 0], [5]))))
    assert "shows no difference beyond chance when it searches" in unclear[0]


def write_beir(folder, qrels):
    write_records(folder / "corpus.jsonl", DOCUMENTS.values())
    (folder / "queries.jsonl").write_text('{"_id": "a", "text": "text 3"}\n{"_id": "b", "text": "text 5"}\n')
    (folder / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    return ["--corpus", f"{folder}/corpus.jsonl", "--qrels", f"{folder}/test.tsv"]


JUDGED = "a\td3\t2\nb\td5\t1\n"


@pytest.mark.parametrize(
    ("qrels", "flags", "code", "message"),
    [
        (JUDGED + "b\td5\tyes\n", [], 1, "test.tsv:4: the score \"'yes'\" is not a whole number"),
        (JUDGED + "b\tgone\t1\n", [], 1, "test.tsv:4: \"'gone'\" is not in the corpus"),
        ("a\td3\t2\nb\td5\t0\n", [], 1, "has 1 queries with a relevant document, a comparison needs 2. Pass labelled"),
        (JUDGED, ["--queries", "none.jsonl"], 1, "none.jsonl: no such file"),
        (JUDGED, ["--corpus", "PLACE/corpus.jsonl", "PLACE/corpus.jsonl"], 1, "stands in another of the corpus files"),
        (JUDGED, ["--out_of_domain_qrels", "x"], 2, "--out_of_domain_qrels judges a corpus, which is missing"),
        (JUDGED, ["--latency"], 2, "--latency is for a file of candidates. Pass --in_domain"),
        (JUDGED, ["--before", "CROSS"], 1, "cannot search a corpus ("),
    ],
)
def test_what_cannot_be_searched_is_said_first(
    qrels, flags, code, message, tmp_path, capsys, overlap_teacher, monkeypatch
):
    flags = [flag.replace("PLACE", str(tmp_path)).replace("CROSS", "m") for flag in flags]
    command = [*write_beir(tmp_path, qrels), "--before", "m", "--after", "m", "--output_dir", f"{tmp_path}/report"]
    assert evaluate.main([*command, *flags]) == code
    error = capsys.readouterr().err
    assert message in error or message.replace('"', "") in error, error
    assert not (tmp_path / "report").exists()


def test_something_to_measure_on_is_needed(tmp_path, capsys):
    assert evaluate.main(["--after", "m", "--output_dir", f"{tmp_path}/report"]) == 2
    assert "there is nothing to measure on. Pass --in_domain or --corpus." in capsys.readouterr().err
    beside = tmp_path / "alone" / "corpus.jsonl"
    beside.parent.mkdir()
    beside.write_text("")
    command = ["--after", "m", "--output_dir", f"{tmp_path}/report", "--corpus", str(beside), "--qrels", "x"]
    assert evaluate.main(command) == 1
    assert "has no queries.jsonl beside it. Pass --queries FILE." in capsys.readouterr().err


def test_two_tiny_models_search_and_rerank(tiny_encoder, tiny_wide_encoder, tmp_path, monkeypatch, capsys):
    encoded = []
    encode = BiEncoder.encode

    def counting(self, texts, role):
        encoded.extend((id(self), role, text) for text in texts)
        return encode(self, texts, role)

    monkeypatch.setattr(BiEncoder, "encode", counting)
    monkeypatch.setattr(loading, "check", lambda *_: None)
    for name in ("test.jsonl", "train.jsonl"):
        (tmp_path / name).write_bytes((TINY / name).read_bytes())
    test, train = f"{tmp_path}/test.jsonl", f"{tmp_path}/train.jsonl"
    command = ["--before", tiny_encoder, "--after", tiny_wide_encoder, "--corpus_teacher", tiny_encoder]
    command += ["--in_domain", test, "--corpus", test, train, *_out_of_domain(tmp_path)]
    command += ["--output_dir", f"{tmp_path}/report"]
    assert evaluate.main(command) == 0
    assert len(encoded) == len({(role, text) for _, role, text in encoded}) * 2, "each text once by each model"
    out = capsys.readouterr().out
    assert "Search in test.jsonl (in-domain, " in out
    assert out.splitlines()[-2].startswith("What to do: "), "the folder of the report comes last"
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    inside, outside = report["retrieval"]
    assert list(inside["means"]) == ["BM25", "before", "after", "teacher", "hybrid before", "hybrid after"]
    assert inside["means"]["before"] == inside["means"]["teacher"]
    assert inside["documents"] > report["files"][0]["queries"]
    assert outside["means"]["BM25"]["Recall@100"] == 1
    encoded.clear()
    assert evaluate.main(command) == 0
    assert not encoded, "vectors are kept"
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report


def _out_of_domain(tmp_path):
    folder = tmp_path / "numbers"
    folder.mkdir()
    return [flag.replace("--", "--out_of_domain_") for flag in write_beir(folder, JUDGED)]


def test_a_corpus_of_which_nothing_is_relevant_is_refused(tmp_path):
    write_records(tmp_path / "a.jsonl", [RankingSample("q", candidates=["x", "y"])])
    corpus = NamedCorpus("a", tmp_path / "a.jsonl", "in-domain", SampleCorpus(tmp_path / "a.jsonl"))
    with pytest.raises(DataError, match="0 queries with a relevant document"):
        read_judged(corpus, PLAIN, NoBadRows())
