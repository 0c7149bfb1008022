import os
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_core.base.records import RankingSample
from rag_core.retrieval.analyser import Analyser
from rag_core.retrieval.bm25 import BM25, bm25_scores, filled_at_random, nearest_passages, unmatched_note
from tests.retrieval.languages import LANGUAGES, read_language

ROOT = Path(__file__).parent.parent.parent
WORDS = st.lists(st.sampled_from(["ice", "cave", "lake", "snow", "melt"]), min_size=1, max_size=6).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=12), WORDS, st.integers(1, 14))
def test_nearest_passages_are_the_head_of_a_full_stable_sort(passages, query, count):
    scores = BM25(passages).scores(query)
    expected = [int(i) for i in np.argsort(-scores, kind="stable")[:count] if scores[i] > 0]
    assert nearest_passages([query], passages, count) == [expected]
    assert {i for i, score in enumerate(scores) if score > 0} == {
        i for i, passage in enumerate(passages) if set(passage.split()) & set(query.split())
    }


def test_a_query_that_shares_no_word_has_no_nearest_passages():
    assert nearest_passages(["ice", "猫", "???"], ["ice age", "snow"], 2) == [[0], [], []]
    assert nearest_passages(["ice"], ["...", "!"], 2) == [[]]


@given(st.sets(st.integers(0, 19)).map(sorted), st.integers(1, 25), st.integers(0, 3))
def test_what_is_missing_is_drawn_at_random(places, count, seed):
    filled = filled_at_random(places, 20, count, random.Random(seed))
    assert filled[: len(places)] == places
    assert len(filled) == len(set(filled)) == max(len(places), min(count, 20))
    assert set(filled) <= set(range(20))


def test_draws_are_not_the_first_passages_and_not_the_same():
    generator = random.Random(1)
    first, second = (filled_at_random([5], 1000, 4, generator)[1:] for _ in range(2))
    assert first != second
    assert max(first + second) > 100


def test_the_note_has_the_share_and_what_to_do():
    assert unmatched_note(12, 100, "any passage", "they are left out") == (
        "12 of 100 queries (12%) share no word with any passage: they are left out. Where queries and passages are in "
        "different languages BM25 is of no use; for other forms of a word pass --bm25_stemmer"
    )


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_right_passage_is_first_in_every_language(language, form):
    passages, queries = read_language(language)
    assert len(queries) == 10 and len(passages) > 20
    asked = [unicodedata.normalize(form, query) for query in queries]
    found = nearest_passages(asked, passages, 1)
    right = sum(places[:1] == [place] for places, place in zip(found, queries.values(), strict=True))
    assert right >= 8, language


def test_stems_find_other_forms_of_a_word():
    pytest.importorskip("Stemmer")
    passages = ["Die Kette reinigen und jedes Glied einfetten", "Das Rad der Zeit"]
    assert nearest_passages(["Ketten"], passages, 1) == [[]]
    assert nearest_passages(["Ketten"], passages, 1, Analyser(bm25_stemmer="german")) == [[0]]


def test_scores_of_samples_are_by_the_analyser():
    samples = [RankingSample("der Tee", candidates=["der Hund", "grüner Tee"])]
    ((dog, tea),) = bm25_scores(samples)
    assert dog > 0 and tea > 0
    ((dog, tea),) = bm25_scores(samples, Analyser(bm25_stop_words="german"))
    assert dog == 0 and tea > 0


def test_bm25_starts_no_jax_on_a_gpu(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("")
    (tmp_path / "jax" / "lax.py").write_text(
        "import os\ndef top_k(*_):\n    print('jax on', os.environ.get('JAX_PLATFORMS'))\n"
    )
    code = "from rag_core.retrieval.bm25 import BM25; BM25(['a word', 'another'])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    env.pop("JAX_PLATFORMS", None)
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "jax on cpu\n"
