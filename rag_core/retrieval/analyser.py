"""What BM25 takes for the words of a text, in any script: one analyser for candidates, baselines and teachers.

Spaced text gives its words. Scripts that are written without spaces give overlapping pairs of letters, as in Lucene's
analyser for Chinese, Japanese and Korean: no dictionary to install, and none that lacks a word. A Han character counts
by itself, too, since many are words. Text in plain Latin letters gives what `\\w+` finds in it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import logging
import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import regex
from pydantic import TypeAdapter, ValidationError

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag, setting
from rag_core.base.outside_text import quoted
from rag_core.base.stage import StageArgs
from rag_core.files.manifest import UNKNOWN, Manifest, manifest_path, read_manifest

VERSION = "words-bigrams-1"

logger = logging.getLogger(__name__)

# PyStemmer's, without `porter`, which is an older `english`.
Stemmer = Literal[
    "arabic", "armenian", "basque", "catalan", "czech", "danish", "dutch", "dutch_porter", "english", "esperanto",
    "estonian", "finnish", "french", "german", "greek", "hindi", "hungarian", "indonesian", "irish", "italian",
    "lithuanian", "nepali", "norwegian", "persian", "polish", "portuguese", "romanian", "russian", "serbian", "sesotho",
    "spanish", "swedish", "tamil", "turkish", "yiddish",
]  # fmt: skip
# bm25s's.
StopWords = Literal[
    "chinese", "danish", "dutch", "english", "english_plus", "french", "german", "italian", "korean", "norwegian",
    "portuguese", "russian", "spanish", "swedish", "turkish",
]  # fmt: skip

_UNSPACED = (
    r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}ー"
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}]&&[\p{L}\p{Nl}]]"
)
_RUN = regex.compile(rf"(?V1)(?P<unspaced>(?:{_UNSPACED}\p{{M}}*)+)|(?:(?!{_UNSPACED})[\p{{L}}\p{{N}}_]\p{{M}}*)+")
# Latin, Greek and Cyrillic letters, punctuation and symbols: `\w+` finds the same there, ten times as fast.
_PLAIN = re.compile(r"[\x00-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u20cf\u2100-\u2bff]*")
_LETTER = regex.compile(r"\P{M}\p{M}*")
_HAN = regex.compile(r"\p{Han}")
_SPACE_BETWEEN_UNSPACED = regex.compile(rf"(?V1)(?<={_UNSPACED}\p{{M}}*) (?={_UNSPACED})")

# In Persian the joiner parts a word from its ending, as a space does; in Hindi it only chooses a shape.
_PERSIAN_JOINER = regex.compile(r"\u200c(?=\p{Arabic})")
# Soft hyphens, joiners, marks of direction, variants of an emoji: all that is not seen, but the space of width zero.
_UNSEEN = regex.compile(r"(?V1)[\p{Default_Ignorable_Code_Point}--\u200b]")
# NFKC would make `tm` a part of the word, and of 1½ the number 11.
_TRADE_MARK, _FRACTION = re.compile("[™℠]"), re.compile("(?=[¼½¾⅐-⅟↉])")
_DIGIT = regex.compile(r"(?V1)[\p{Nd}--[0-9]]")
# What Arabic and Hebrew writers leave out as a rule: the signs of vowels, and the stroke that stretches a word.
_LEFT_OUT = regex.compile(r"(?V1)[[\u0591-\u05c7\u064b-\u0652\u0670\u06d6-\u06ed]&&\p{M}]|\u0640")
# Most people type the bare alef. On tests/retrieval/languages, BM25 finds 6 of 10 Arabic passages first without this
# and `_LEFT_OUT`, 8 with the latter, 9 with both; also to write final yeh and teh marbuta as people do adds nothing.
_ALEF = re.compile("[\u0622\u0623\u0625\u0671]")


@dataclasses.dataclass(frozen=True)
class Analyser:
    """Turn a text into the terms that BM25 counts.

    Attributes:
        bm25_stemmer: language of the rules that reduce a word to its stem; `None` leaves words as they are.
        bm25_stop_words: language of the words that are left out.

    Raises:
        UsageError: there is a stemmer, and its library is missing.
    """

    bm25_stemmer: Stemmer | None = setting(None)
    bm25_stop_words: StopWords | None = setting(None)

    def __post_init__(self) -> None:
        if self.bm25_stemmer and importlib.util.find_spec("Stemmer") is None:
            raise UsageError(
                f"--bm25_stemmer {self.bm25_stemmer} needs PyStemmer, which is not installed",
                'Run: pip install "rag-optimization[stem]"',
            )

    @property
    def recipe(self) -> dict[str, Any]:
        """What stands in the manifest of an output that BM25 had a say in."""
        return {"analyser": VERSION, **dataclasses.asdict(self)}

    @property
    def name(self) -> str:
        """The settings as one types them."""
        asked = {name: value for name, value in dataclasses.asdict(self).items() if value}
        return " ".join(f"--{name} {value}" for name, value in asked.items()) or "no stemmer and no stop words"

    def terms(self, texts: Collection[str]) -> list[list[str]]:
        """Return the terms of each text, in its order."""
        stop_words = stop_words_of(self.bm25_stop_words)
        found = [[term for term in _terms(text) if term not in stop_words] for text in texts]
        if self.bm25_stemmer is None:
            return found
        from Stemmer import Stemmer as Snowball

        stemmer = Snowball(self.bm25_stemmer)
        return [stemmer.stemWords(terms) for terms in found]


PLAIN = Analyser()


@dataclasses.dataclass(kw_only=True)
class AnalyserArgs(StageArgs):
    """Flags of a stage that ranks by BM25."""

    bm25_stemmer: Stemmer | None = flag(
        "BM25: reduce words to their stems by Snowball's rules for this language (default: as the samples were "
        "prepared; when preparing, no)",
        None,
        metavar="LANGUAGE",
    )
    bm25_stop_words: StopWords | None = flag(
        "BM25: leave out the stop words of this language (default: as the samples were prepared; when preparing, no)",
        None,
        metavar="LANGUAGE",
    )

    @property
    def analyser(self) -> Analyser:
        """What the flags ask for; raises as `Analyser`."""
        return Analyser(self.bm25_stemmer, self.bm25_stop_words)


def settle_analyser(asked: Analyser, path: Path) -> Analyser:
    """Return the analyser that the candidates of a file were found by, `asked` where BM25 had no say in them.

    Args:
        path: samples, or the scores of samples; the manifests tell where they are from.

    Raises:
        UsageError: another one is asked for.
        DataError: the manifest names one that there is not.
    """
    manifest = read_manifest(path) or UNKNOWN
    flags = next((made.flags for made in (manifest, *_sources(manifest)) if "analyser" in made.flags), None)
    if flags is None:
        return asked
    asked_then = {name: flags.get(name) for name in ("bm25_stemmer", "bm25_stop_words")}
    try:
        found = TypeAdapter(Analyser).validate_python(asked_then)
    except ValidationError as error:
        what = f"names an analyser of BM25 that there is not ({quoted(str(asked_then))})"
        raise DataError(what, "Delete it to use its file without a manifest", path=manifest_path(path)) from error
    if flags["analyser"] != VERSION:
        logger.warning(
            "The candidates of %s were found by the analyser %s; this is %s",
            path,
            quoted(str(flags["analyser"])),
            VERSION,
        )
    if asked not in (PLAIN, found):
        raise UsageError(
            f"the candidates of {path} were found with {found.name}, and {asked.name} is asked for",
            "Leave the --bm25 flags out, or prepare the samples with them",
        )
    return found


def _sources(manifest: Manifest) -> Iterator[Manifest]:
    for path, content in (manifest.recipe.get("inputs") or {}).items():
        source = read_manifest(Path(path))
        if source and source.output.get("sha256") == content:
            yield source


def fold(text: str) -> str:
    """Return a text as it is compared: NFKC in lower case, digits as 0 to 9, without what is not seen or left out.

    Lower case, not case folding: that would write `ß` as `ss`, which the stemmer for German does where it is wanted.
    """
    if text.isascii():
        return text.lower()
    text = _UNSEEN.sub("", _PERSIAN_JOINER.sub(" ", text))
    text = _FRACTION.sub(" ", _TRADE_MARK.sub(" ", text))
    text = unicodedata.normalize("NFKC", text).lower().replace("i\u0307", "i")  # of İ
    text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0], digit[0])), text)
    return _ALEF.sub("\u0627", _LEFT_OUT.sub("", text))


def words(text: str) -> list[str]:
    """Return the runs of letters, marks and digits of a folded text; what has no spaces is one run."""
    if _PLAIN.fullmatch(text):
        return re.findall(r"\w+", text)
    return [run[0] for run in _RUN.finditer(text)]


def without_needless_spaces(text: str) -> str:
    """Take out the single spaces between letters of scripts that are written without spaces."""
    return text if text.isascii() else _SPACE_BETWEEN_UNSPACED.sub("", text)


def count_words(text: str) -> int:
    """Count what spaces separate; two letters of a script that is written without spaces count as a word."""
    if text.isascii():
        return len(text.split())
    return sum(max(1, _unspaced_letters(piece) // 2) for piece in text.split())


def _unspaced_letters(text: str) -> int:
    return sum(len(_LETTER.findall(run[0])) for run in _RUN.finditer(text) if run["unspaced"])


def _terms(text: str) -> list[str]:
    folded = fold(text)
    if _PLAIN.fullmatch(folded):
        return words(folded)
    found: list[str] = []
    for run in _RUN.finditer(folded):
        letters = _LETTER.findall(run[0]) if run["unspaced"] else []
        if len(letters) < 2:
            found.append(run[0])
            continue
        found += [first + second for first, second in itertools.pairwise(letters)]
        found += [letter for letter in letters if _HAN.match(letter)]
    return found


def stop_words_of(language: StopWords | None) -> frozenset[str]:
    """Return the stop words of a language as terms; none of no language."""
    if language is None:
        return frozenset()
    from bm25s import stopwords

    lists = {"english": stopwords.STOPWORDS_EN, "english_plus": stopwords.STOPWORDS_EN_PLUS}
    chosen = lists.get(language) or getattr(stopwords, f"STOPWORDS_{language.upper()}")
    return frozenset(map(fold, chosen))
