from collections import Counter

import pytest

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample, passage_text
from rag_core.files.bad_rows import BadRows
from rag_core.retrieval.analyser import PLAIN, Analyser
from rag_core.sources.beir import BeirFolder
from rag_core.sources.mining import Mining
from tests.sources.rows import write_lines

STRICT = BadRows(skip=False)


CORPUS = [
    {"_id": "d1", "title": "Glacier caves", "text": "form by melt water."},
    {"_id": "d2", "title": "", "text": "Glacier ice is blue."},
    {"_id": "d3", "title": "Why?", "text": "Snow becomes ice."},
    {"_id": "d4", "text": "Lakes hold water."},
    {"_id": "d5", "text": "Glacier ice is blue."},
    {"_id": "d6", "text": "how do glacier caves form"},
]
QUERIES = [
    {"_id": "q1", "text": "how do glacier caves form"},
    {"_id": "q2", "text": "blue ice"},
    {"_id": "q3", "text": "x"},
]
QRELS = ["query-id\tcorpus-id\tscore", "q1\td1\t1", "q1\td2\t0", "q2\td2\t2", "q2\td3\t1", "q3\td4\t0"]


@pytest.fixture
def beir(tmp_path):
    write_lines(tmp_path / "corpus.jsonl.gz", CORPUS)
    write_lines(tmp_path / "queries.jsonl", QUERIES)
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("\n".join(QRELS) + "\n")
    return tmp_path


def test_beir_positives_are_judged_and_negatives_are_the_nearest_others(beir):
    dropped = Counter()
    splits = BeirFolder(beir, Mining(3)).read(dropped, None)
    assert list(splits) == ["test"]
    drawn, other_drawn = splits["test"][0].negative[1], splits["test"][1].negative
    assert splits["test"] == [
        RankingSample(
            query_id="q1",
            query="how do glacier caves form",
            positive=["Glacier caves. form by melt water."],
            negative=["Glacier ice is blue.", drawn],
        ),
        RankingSample(
            query_id="q2",
            query="blue ice",
            positive=["Glacier ice is blue.", "Why? Snow becomes ice."],
            negative=other_drawn,
        ),
    ]
    # Nothing else shares a word with the query.
    assert drawn in {"Why? Snow becomes ice.", "Lakes hold water."}
    assert set(other_drawn) < {"Glacier caves. form by melt water.", "Lakes hold water.", "how do glacier caves form"}
    assert dropped == {"queries_without_positives": 1}


def test_beir_leaves_one_negative_however_many_positives(beir):
    sample = BeirFolder(beir, Mining(2)).read(Counter(), STRICT)["test"][1]
    assert (len(sample.positive), len(sample.negative)) == (2, 1)


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [("A", "b", "A. b"), ("A.", "b", "A. b"), ("A?", "b", "A? b"), (None, "b", "b"), ("A", " ", "A"), (None, None, "")],
)
def test_passage_text(title, text, expected):
    assert passage_text(title, text) == expected


_FIX = "Correct the row, or pass --skip_bad_rows to leave such rows out."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("q1\td1", "has 2 tab-separated fields, not query-id, corpus-id, score"),
        ("q1\td1\thigh", "the score 'high' is not a whole number"),
        ("q9\td1\t1", "'q9' is not in queries"),
        ("q1\td9\t1", "'d9' is not in the corpus"),
    ],
)
def test_beir_bad_judgements(beir, row, message):
    path = beir / "qrels/test.tsv"
    path.write_text("\n".join([*QRELS, row]) + "\n")
    with pytest.raises(DataError) as error:
        BeirFolder(beir, Mining(3)).read(Counter(), STRICT)
    assert str(error.value) == f"{path}:7: {message}. {_FIX}"
    skipped = BadRows(skip=True)
    assert len(BeirFolder(beir, Mining(3)).read(Counter(), skipped)["test"]) == 2
    assert [str(one) for one in skipped.errors] == [str(error.value)]


def test_beir_one_passage_under_two_ids_is_one_positive_where_it_was_first_judged(beir):
    (beir / "qrels/test.tsv").write_text("q2\td2\t0\nq2\td3\t1\nq2\td5\t1\n")
    assert BeirFolder(beir, Mining(3)).read(Counter(), STRICT)["test"][0].positive == [
        "Glacier ice is blue.",
        "Why? Snow becomes ice.",
    ]


def test_beir_bad_documents(beir):
    path = beir / "corpus.jsonl.gz"
    write_lines(path, [*CORPUS, {"_id": "d7", "title": " ", "text": ""}])
    with pytest.raises(DataError) as error:
        BeirFolder(beir, Mining(3)).read(Counter(), STRICT)
    assert str(error.value) == f"{path}:7: the Document has neither a title nor a text. {_FIX}"
    write_lines(path, [*CORPUS, CORPUS[0]])
    with pytest.raises(DataError) as error:
        BeirFolder(beir, Mining(3)).read(Counter(), STRICT)
    assert str(error.value) == f"{path}:7: _id 'd1' stands in more than one row. Keep one of them."


def test_beir_folders_that_are_none(beir):
    with pytest.raises(DataError) as error:
        BeirFolder(beir / "qrels", Mining(3))
    assert str(error.value) == (
        f"{beir / 'qrels'}: holds no corpus.jsonl or corpus.jsonl.gz. Pass a folder in the BEIR layout."
    )
    (beir / "qrels/test.tsv").write_text("q1\td1\t0\n")
    with pytest.raises(DataError) as error:
        BeirFolder(beir, Mining(3)).read(Counter(), STRICT)
    assert str(error.value) == (
        f"{beir / 'qrels/test.tsv'}: judges no document above 0. Check the scores, or remove the file."
    )
    (beir / "qrels/test.tsv").unlink()
    with pytest.raises(DataError) as error:
        BeirFolder(beir, Mining(3))
    assert str(error.value) == f"{beir}: holds no qrels/<split>.tsv. Pass a folder in the BEIR layout."


def test_beir_finds_by_the_analyser_that_is_asked_for(beir):
    write_lines(beir / "queries.jsonl", [{"_id": f"q{i}", "text": "the glacier"} for i in (1, 2, 3)])
    rows = [*CORPUS, *({"_id": f"e{i}", "text": f"the {name}"} for i, name in enumerate("abc"))]
    write_lines(beir / "corpus.jsonl.gz", rows)

    def negatives(analyser):
        return BeirFolder(beir, Mining(3, analyser=analyser)).read(Counter(), STRICT)["test"][0].negative

    assert "the a" in negatives(PLAIN)
    assert negatives(Analyser(bm25_stop_words="english")) == ["Glacier ice is blue.", "how do glacier caves form"]


def test_beir_says_how_many_queries_match_nothing(beir, caplog):
    write_lines(beir / "queries.jsonl", [*QUERIES[:1], {"_id": "q2", "text": "\u51b0\u5ddd"}, *QUERIES[2:]])
    samples = BeirFolder(beir, Mining(3)).read(Counter(), STRICT)["test"]
    assert len(samples[1].negative) == 1
    (message,) = caplog.messages
    assert message.startswith(
        "1 of 2 queries (50%) share no word with any passage: their negatives are drawn at random. Where "
    )
