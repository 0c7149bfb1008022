import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.base.errors import DataError, UsageError
from rag_core.base.records import RankingSample
from rag_core.scoring.samples import is_training
from rag_core.sources.splits import (
    assign_splits,
    duplicate_groups,
    find_leaks,
    normalize,
    parse_fractions,
    similar_pairs,
    split_samples,
    without_leaks,
)

FRACTIONS = {"train": 0.8, "dev": 0.1, "test": 0.1}
# Few words, so that equal and nearly equal queries are common.
QUERIES = st.lists(
    st.lists(
        st.sampled_from(["glacier", "caves", "formed", "Formed?", "how", "tablespoon", "!"]), min_size=1, max_size=7
    )
    .map(" ".join)
    .filter(str.strip),
    max_size=30,
)


def grams(query):
    text = normalize(query)
    return {text[i : i + 4] for i in range(max(1, len(text) - 3))}


def are_duplicates(left, right):
    a, b = grams(left), grams(right)
    return normalize(left) == normalize(right) or len(a & b) / len(a | b) >= 0.8


def sample(query, *passages):
    return RankingSample(query=query, positive=list(passages) or [f"about {query}"], negative=["no"])


@given(QUERIES, st.integers(0, 5))
def test_no_duplicates_cross_splits_and_nothing_is_lost(queries, seed):
    names = assign_splits(queries, FRACTIONS, seed)
    assert len(names) == len(queries)
    assert set(names) <= set(FRACTIONS)
    for i, left in enumerate(queries):
        for j, right in enumerate(queries):
            if are_duplicates(left, right):
                assert names[i] == names[j], (left, right)
    assert names == assign_splits(queries, FRACTIONS, seed)


@given(
    st.lists(st.frozensets(st.sampled_from("abcdefghij"), min_size=1), max_size=25), st.sampled_from([0.3, 0.5, 0.8, 1])
)
def test_similar_pairs_are_those_of_brute_force(sets, threshold):
    expected = {
        (i, j)
        for j in range(len(sets))
        for i in range(j)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold - 1e-9
    }
    found = list(similar_pairs(sets, threshold))
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I sort a list in C++?", "How do I sort a list in C#?"),
        ("How do I sort a list in C++?", "How do I sort a list in C?"),
        ("what does a > b mean for two lists of numbers", "what does a < b mean for two lists of numbers"),
        ("when is a >= b", "when is a > b"),
        ("when is a != b", "when is a = b"),
        ("how do I write x := 1", "how do I write x = 1"),
        ("what is 7 + 3", "what is 7 * 3"),
        ("what is 7 / 3", "what is 7 % 3"),
        ("what is 7 - 3", "what is 7 + 3"),
        ("is -5 even", "is 5 even"),
        ("what is 5²", "what is 52"),
        ("what does *args do", "what does **args do"),
        ("what is the meaning of $x in a shell script", "what is the meaning of @x in a shell script"),
        ("what does --force do when I push a branch there", "what does force do when I push a branch there"),
        ("what is .NET", "what is net"),
        ("how much is 100% of it", "how much is 100 of it"),
        ("what does 😂 mean", "what does 😭 mean"),
        ("कल क्या है", "काल क्या है"),
        ("ข้าวคืออะไร", "ขาวคืออะไร"),
        ("如何泡绿茶", "如何泡红茶"),
        ("???", "!!!"),
    ],
)
def test_queries_that_differ_by_symbols_or_marks_are_no_leak(one, other):
    assert normalize(one) != normalize(other)
    splits = {"train": [sample(one)], "test": [sample(other)]}
    assert [leak.queries for leak in find_leaks(splits)] == [[]]
    assert without_leaks(splits, find_leaks(splits)) == splits


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is X?", "what is x"),
        ("Sort a list in C++?", "sort a list in c++"),
        ("a>b", "a > b"),
        ("is C# a language?!", "Is 'C#' a language."),
        ("(C++), Java", "c++ java"),
        ("is -5 even", "is \u22125 even"),
        ("what is x²", "what is x^2"),
        ("covid-19", "COVID 19"),
        ("TCP/IP", "tcp ip"),
        ("Java\u2122 8", "java 8"),
        ("`list` or \u00ablist\u00bb", "list or list"),
        ("it\u2019s time", "it's time"),
        ("what \u2014 now...", "what now"),
        ("\u00bfqu\u00e9 es?", "que\u0301 es"),
        ("हिन्दी क्या है?", "हि\u200dन्दी क्या है।"),
        ("如何泡绿茶？", "如何 泡绿茶"),  # noqa: RUF001
        ("Ｃ＋＋とは？", "c++とは"),  # noqa: RUF001
        ("ชาเขียว คืออะไร", "ชาเขียวคืออะไร"),
        ("？？？", "???"),  # noqa: RUF001
    ],
)
def test_case_punctuation_and_unicode_spelling_make_no_other_query(one, other):
    assert normalize(one) == normalize(other)
    (leak,) = find_leaks({"train": [sample(one)], "test": [sample(other)]})
    assert (leak.exact, leak.near) == ([0], [])


def test_near_duplicates_with_the_same_symbols_are_a_leak():
    one, other = "how do I sort a long list of numbers in C++", "how do I sort a long list of number in C++?"
    (leak,) = find_leaks({"train": [sample(one)], "test": [sample(other)]})
    assert (leak.exact, leak.near) == ([], [0])


def test_a_split_keeps_together_what_differs_by_symbols():
    assert duplicate_groups(["in C++?", "in Rust", "in C#?"]) == [[0, 2], [1]]


def test_groups_are_transitive_and_in_order():
    chain = ["how are glacier caves formed in the alps", "how are glacier caves formed in the alp", "x y z"]
    assert duplicate_groups([*chain, "How are glacier caves formed in the alps?!"]) == [[0, 1, 3], [2]]
    assert duplicate_groups([]) == []


def test_queries_without_any_word_are_told_apart():
    assert duplicate_groups(["???", "!!!", "???"]) == [[0, 2], [1]]


def test_sizes_follow_the_fractions_and_the_seed_decides_who_goes_where():
    queries = [f"{i * 7919:x} {i * 104729:b}" for i in range(200)]
    assert len(duplicate_groups(queries)) == 200
    names = assign_splits(queries, FRACTIONS, 1)
    assert [names.count(name) for name in FRACTIONS] == [160, 20, 20]
    assert names != assign_splits(queries, FRACTIONS, 2)


def test_a_split_keeps_the_order_of_the_input():
    samples = [sample(f"{i * 7919:x}") for i in range(50)]
    for part in split_samples(samples, FRACTIONS, 3).values():
        assert [samples.index(one) for one in part] == sorted(samples.index(one) for one in part)


def test_an_empty_split_is_an_error():
    with pytest.raises(DataError) as error:
        split_samples([sample("one"), sample("two")], FRACTIONS, 0)
    assert str(error.value) == (
        "2 queries are too few for --splits dev=0.1: it would be empty. "
        "Leave that split out, raise its fraction, or add queries."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "--splits 'train' is not name=fraction. Write e.g. train=0.8 dev=0.1 test=0.1."),
        (["train=0", "test=1"], "--splits 'train=0' is not name=fraction. Write e.g. train=0.8 dev=0.1 test=0.1."),
        (["../x=1"], "--splits '../x=1' is not name=fraction. Write e.g. train=0.8 dev=0.1 test=0.1."),
        (["a=0.5", "a=0.5"], "--splits names 'a' twice. Give each split a name of its own."),
        (["a=0.5", "b=0.4"], "the --splits fractions sum to 0.9. Make them sum to 1."),
    ],
)
def test_bad_fractions(words, message):
    with pytest.raises(UsageError) as error:
        parse_fractions(words)
    assert str(error.value) == message


def test_good_fractions():
    assert parse_fractions(["train=.7", "dev=0.2", "test=0.1"]) == {"train": 0.7, "dev": 0.2, "test": 0.1}
    assert parse_fractions(["all=1"]) == {"all": 1.0}


def test_leaks_are_found_from_the_training_split_on_and_taken_out_of_it():
    splits = {
        "dev": [sample("what is a moraine", "shared")],
        "test": [sample("How are glacier caves formed?", "shared", "own")],
        "train": [
            sample("how are glacier caves formed", "shared"),
            sample("how are glacier caves formed 2"),
            sample("something else"),
        ],
    }
    leaks = find_leaks(splits)
    assert [(leak.split, leak.other, leak.exact, leak.near, leak.passages) for leak in leaks] == [
        ("train", "dev", [], [], 2),  # 'shared' and the negative 'no'
        ("train", "test", [0], [1], 2),
        ("dev", "test", [], [], 2),
    ]
    kept = without_leaks(splits, leaks)
    assert [one.query for one in kept["train"]] == ["something else"]
    assert (kept["dev"], kept["test"]) == (splits["dev"], splits["test"])


def test_training_splits_do_not_leak_into_each_other():
    splits = {"train_a": [sample("one query")], "train_b": [sample("one query")]}
    assert without_leaks(splits, find_leaks(splits)) == splits


@pytest.mark.parametrize(
    ("name", "expected"),
    [("train", True), ("my-train_2016", True), ("Train", True), ("test", False), ("trained", False)],
)
def test_names_of_training_splits(name, expected):
    assert is_training(name) is expected
