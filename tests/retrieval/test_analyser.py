"""What BM25 takes for words, script by script, and that plain Latin text is read as `\\w+` reads it."""

import importlib.util
import re
import string
import typing
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.base.errors import UsageError
from rag_core.files.inputs import sha256
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.retrieval import analyser
from rag_core.retrieval.analyser import PLAIN, Analyser, StopWords, count_words, fold, settle_analyser, words
from tests.conftest import TINY

# Precomposed letters of European languages, curly quotes and dashes, what code has: text as it is mostly written.
LATIN = string.printable + "äöüÄÖÜßàâçéèêëîïôûùÉñáíóúåæøÅÆØœŒščžŠČŽłŁőű¿¡«»„“”‘’–—…§°€£"  # noqa: RUF001


def terms(text, **settings):
    return Analyser(**settings).terms([text])[0]


@given(st.text(LATIN, max_size=60))
def test_plain_latin_text_is_read_as_before(text):
    assert terms(text) == re.findall(r"\w+", text.lower())


def test_the_text_of_data_tiny_is_read_as_before():
    for path in TINY.glob("*.jsonl"):
        text = path.read_text(encoding="utf-8")
        assert terms(text) == re.findall(r"\w+", text.lower())


def test_where_the_short_way_is_taken_the_long_one_finds_the_same():
    assigned = (char for char in map(chr, range(0x2C00)) if unicodedata.category(char) != "Cn")
    plain = [char for char in assigned if analyser._PLAIN.fullmatch(char)]
    assert len(plain) > 3000
    for char in plain:
        text = f"a{char}b {char}"
        assert [run[0] for run in analyser._RUN.finditer(text)] == re.findall(r"\w+", text), hex(ord(char))


@given(st.text(max_size=20))
def test_folding_twice_changes_nothing(text):
    assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("绿茶很香", ["绿茶", "茶很", "很香", "绿", "茶", "很", "香"]),
        ("茶", ["茶"]),
        ("データを消す", ["デー", "ータ", "タを", "を消", "消す", "消"]),
        ("ﾃﾞｰﾀ", ["デー", "ータ"]),
        ("ชาเขียว", ["ชา", "าเ", "เขี", "ขีย", "ยว"]),
        ("ຊາ ເຢັນ", ["ຊາ", "ເຢັ", "ຢັນ"]),
        ("តែបៃតង", ["តែបៃ", "បៃត", "តង"]),
        ("လက်ဖက်", ["လက်", "က်ဖ", "ဖက်"]),
        ("한국어 문서", ["한국어", "문서"]),
    ],
)
def test_scripts_without_spaces_give_pairs_of_letters(text, expected):
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iPhone15を買う", ["iphone15", "を買", "買う", "買"]),
        ("用Python3读CSV文件", ["用", "python3", "读", "csv", "文件", "文", "件"]),
        ("ＵＳＢ－Ｃ", ["usb", "c"]),  # noqa: RUF001
        ("LINEบนiPad", ["line", "บน", "ipad"]),
        ("๒๕๖๗ ٢٠٢٤ २०२४", ["2567", "2024", "2024"]),
        ("฿5", ["5"]),
    ],
)
def test_mixed_text_is_taken_run_by_run(text, expected):
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Café Müller", "Cafe\u0301 Mu\u0308ller"),
        ("हिन्दी", "हि\u200dन्दी"),  # a joiner chooses a shape only
        ("क़लम", "\u0915\u093cलम"),
        ("الشاي الأخضر", "الشَّاي الاخضر"),
        ("الخبز", "الخـــبز"),
        ("می‌خواهم", "می خواهم"),
        ("ranking", "rank\u00ading"),
        ("İstanbul", "istanbul"),
        ("ﬁnd", "find"),
        ("CO₂", "CO2"),
        ("Java™", "java"),
        ("2½ cups", "2 1/2 cups"),
        ("❤️ tea", "❤ tea"),
    ],
)
def test_one_word_in_two_spellings(one, other):
    assert terms(one) == terms(other)


@pytest.mark.parametrize("word", ["किताब", "हिन्दी", "नमस्ते", "தமிழ்", "ภาษา", "q̃uen", "שָׁלוֹם", "বাংলা"])
def test_marks_are_parts_of_words(word):
    assert words(fold(word)) == [fold(word)]


def test_words_that_differ_by_a_vowel_sign_differ():
    assert terms("कल") != terms("काल")
    assert set(terms("किताब")).isdisjoint(terms("ताब"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("how do caves form", 4), ("naïve café", 2), ("冰川里的冰洞是怎么形成的", 6), ("iPhone15を 買う", 2)],
)
def test_words_are_counted_where_there_are_no_spaces(text, expected):
    assert count_words(text) == expected


def test_stop_words_go_and_stems_stay():
    assert terms("Die Ketten der Fahrräder", bm25_stop_words="german") == ["ketten", "fahrräder"]
    # Decomposed letters, too.
    assert terms(unicodedata.normalize("NFD", "für Tee"), bm25_stop_words="german") == ["tee"]
    assert terms("which cats", bm25_stop_words="english_plus") == ["cats"]


def test_a_stemmer_reduces_words_of_texts():
    pytest.importorskip("Stemmer")
    settings = {"bm25_stemmer": "german", "bm25_stop_words": "german"}
    assert Analyser(**settings).terms(["Die Ketten der Fahrräder", "eine Kette", "绿茶"]) == [
        ["kett", "fahrrad"],
        ["kett"],
        ["绿茶", "绿", "茶"],
    ]


def test_every_language_that_a_flag_names_is_there():
    for language in typing.get_args(StopWords):
        assert len(analyser.stop_words_of(language)) > 20, language
    snowball = pytest.importorskip("Stemmer")
    assert {*typing.get_args(analyser.Stemmer), "porter"} == {*snowball.algorithms()}


def test_a_stemmer_without_its_library(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "Stemmer" else find(name))
    with pytest.raises(UsageError) as error:
        Analyser(bm25_stemmer="german")
    assert str(error.value) == (
        '--bm25_stemmer german needs PyStemmer, which is not installed. Run: pip install "rag-optimization[stem]".'
    )


def made(path, stage, flags, inputs=()):
    write_records(path, [])
    write_manifest(path, Recipe(stage, flags, {str(one): sha256(one) for one in inputs}))
    return path


GERMAN = Analyser(bm25_stop_words="german")
FRENCH = Analyser(bm25_stop_words="french")


def test_the_analyser_is_that_of_the_candidates(tmp_path):
    samples = made(tmp_path / "test.jsonl", "prepare", GERMAN.recipe)
    scores = made(tmp_path / "scores.jsonl", "generate_logits", {}, [samples])
    for path in (samples, scores):
        assert settle_analyser(PLAIN, path) == GERMAN
        assert settle_analyser(GERMAN, path) == GERMAN
        with pytest.raises(UsageError) as error:
            settle_analyser(FRENCH, path)
        assert str(error.value) == (
            f"the candidates of {path} were found with --bm25_stop_words german, and --bm25_stop_words french is asked "
            "for. Leave the --bm25 flags out, or prepare the samples with them."
        )


def test_the_analyser_is_free_where_bm25_had_no_say_or_nobody_knows(tmp_path):
    old = made(tmp_path / "old.jsonl", "prepare", {"num_candidates": 20})
    scores = made(tmp_path / "scores.jsonl", "generate_logits", {}, [old])
    (tmp_path / "mine.jsonl").write_text("")
    for path in (old, scores, tmp_path / "mine.jsonl"):
        assert settle_analyser(GERMAN, path) == GERMAN
        assert settle_analyser(PLAIN, path) == PLAIN


def test_samples_that_changed_since_they_were_scored_say_nothing(tmp_path):
    samples = made(tmp_path / "test.jsonl", "prepare", {})
    scores = made(tmp_path / "scores.jsonl", "generate_logits", {}, [samples])
    samples.write_text("{}\n")
    write_manifest(samples, Recipe("prepare", GERMAN.recipe, {}))
    assert settle_analyser(PLAIN, scores) == PLAIN


def test_another_version_of_the_analyser_is_said(tmp_path, caplog):
    path = made(tmp_path / "test.jsonl", "prepare", {**GERMAN.recipe, "analyser": "words-bigrams-9"})
    assert settle_analyser(PLAIN, path) == GERMAN
    assert caplog.messages == [
        f"The candidates of {path} were found by the analyser words-bigrams-9; this is {analyser.VERSION}"
    ]
