"""Splits of the queries: none shares a query, or nearly one, with another."""

import pytest

from query_expansion_rl.records import Topic
from query_expansion_rl.topics.splitting import FRACTIONS, Splitting, settle_splitting
from rag_core.base.errors import DataError, UsageError
from rag_core.base.records import Document
from rag_core.corpora.corpus import Corpus
from rag_core.files.bad_rows import BadRows, NoBadRows
from rag_core.files.jsonl import read_records
from rag_core.sources.splits import duplicate_groups, duplicates_of
from tests.query_expansion_rl.aliases import make_baselines, qrels, queries, write_aliases

CITIES = ("oslo", "bergen", "malmo", "turku", "riga", "gdansk", "kiel", "aarhus", "tartu", "visby")


def corpus(texts):
    asked = {f"q{number}": text for number, text in enumerate(texts)}
    return Corpus({"d": Document(id="d", text="x")}, asked, {key: {"d": 1} for key in asked})


def by_fractions(seed=1, **shares):
    return Splitting({}, shares or {"train": 0.5, "dev": 0.2, "test": 0.3}, seed)


def test_near_duplicates_are_never_parted():
    texts = [
        f"{start} of the old harbour of {city}{end}"
        for city in CITIES
        for start in ("history", "The history")
        for end in ("", "?")
    ]
    for seed in range(5):
        topics, left_out = by_fractions(seed).topics(corpus(texts), NoBadRows())
        assert ([topic.query for topic in topics], left_out) == (texts, 0)
        for group in duplicate_groups(texts):
            assert len({topics[i].split for i in group}) == 1


def test_shares_are_those_that_are_asked_for():
    topics, _ = by_fractions().topics(
        corpus([f"{city} weather in month {n}" for n in range(2) for city in CITIES]), NoBadRows()
    )
    splits = [topic.split for topic in topics]
    assert [splits.count(split) for split in ("train", "dev", "test")] == [10, 4, 6]


def write_splits(folder, **names):
    """Write the alias corpus; split -> numbers of its queries."""
    judged = qrels()
    return write_aliases(
        folder, {split: {f"q{n}": judged[f"q{n}"] for n in numbers} for split, numbers in names.items()}
    )


def settled(folder, splits=None, test_split=None, fractions=FRACTIONS):
    return settle_splitting(folder, splits, test_split, fractions, 1)


def read(folder, splitting):
    from rag_core.corpora.openings import open_corpus

    return splitting.topics(open_corpus(folder, None).read(NoBadRows()), NoBadRows())


def test_the_test_split_of_a_beir_folder_stays_the_test_split(tmp_path):
    folder = write_splits(tmp_path, train=range(12), test=range(12, 20))
    topics, left_out = read(folder, settled(folder))
    assert [topic.query_id for topic in topics if topic.split == "test"] == [f"q{n}" for n in range(12, 20)]
    others = [topic.split for topic in topics if topic.split != "test"]
    assert (others.count("train"), others.count("dev"), left_out) == (10, 2, 0)


def test_a_dev_split_of_a_beir_folder_stays_too(tmp_path):
    folder = write_splits(tmp_path, train=range(10), dev=range(10, 14), test=range(14, 20))
    topics, _ = read(folder, settled(folder))
    assert [topic.split for topic in topics] == ["train"] * 10 + ["dev"] * 4 + ["test"] * 6


def test_a_query_in_dev_and_test_is_a_test_query(tmp_path):
    folder = write_splits(tmp_path, train=range(10), dev=range(9, 15), test=range(14, 20))
    topics, _ = read(folder, settled(folder))
    assert [topic.split for topic in topics] == ["train"] * 9 + ["dev"] * 5 + ["test"] * 6


def test_a_query_in_train_and_test_is_a_test_query(tmp_path):
    folder = write_splits(tmp_path, train=range(13), test=range(12, 20))
    topics, left_out = read(folder, settled(folder))
    assert next(topic.split for topic in topics if topic.query_id == "q12") == "test"
    assert (len(topics), left_out) == (20, 0)


def test_what_is_nearly_a_test_query_leaves_the_others(tmp_path):
    folder = write_splits(tmp_path, train=range(12), test=range(12, 20))
    text = (folder / "queries.jsonl").read_text()
    (folder / "queries.jsonl").write_text(text.replace('"MI"', '"dvt?"'))  # q0, as the test query q12
    topics, left_out = read(folder, settled(folder))
    assert "q0" not in {topic.query_id for topic in topics}
    assert (len(topics), left_out) == (19, 1)


def test_fractions_split_all_where_they_are_asked_to(tmp_path):
    folder = write_splits(tmp_path, train=range(12), test=range(12, 20))
    topics, _ = read(folder, settled(folder, test_split="none"))
    splits = [topic.split for topic in topics]
    assert [splits.count(split) for split in ("train", "dev", "test")] == [10, 2, 8]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": ["train=0.5", "test=0.5"]}, "--fractions names train, test. Name train, dev and test"),
        ({"fractions": ["train=0.5", "dev=0.4", "test=0.5"]}, "the --fractions fractions sum to 1.4"),
        ({"fractions": ["train=x"]}, "--fractions 'train=x' is not name=fraction"),
        ({"test_split": "validation"}, "has no qrels/validation.tsv beside others (there: test, train)"),
        ({"test_split": "test", "splits": ["test"]}, "has no qrels/test.tsv beside others (there: test)"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, settings, message):
    folder = write_splits(tmp_path, train=range(12), test=range(12, 20))
    with pytest.raises(UsageError) as error:
        settled(folder, **settings)
    assert message in str(error.value)


def test_an_empty_split_is_told():
    with pytest.raises(DataError, match="2 queries are too few: dev would be empty"):
        by_fractions(train=0.4, dev=0.1, test=0.5).topics(corpus(["one thing", "another matter"]), BadRows(skip=False))


def test_duplicates_are_found_on_the_side_that_is_asked_for():
    assert duplicates_of(["in C++", "in Rust", "In Rust?"], ["in rust", "in C#"]) == {1, 2}
    assert duplicates_of([], ["x"]) == set()


def test_without_judgements_every_query_has_a_split(tmp_path, encoders):
    source = write_aliases(tmp_path / "beir", {})
    assert make_baselines(tmp_path, source=source) == 0
    topics = list(read_records(tmp_path / "w" / "topics.jsonl", Topic))
    assert [topic.query for topic in topics] == list(queries().values())
    assert {topic.relevant for topic in topics} == {None}
