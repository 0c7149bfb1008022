import json
from collections import Counter

import pytest

from rag_core.base.errors import DataError
from rag_core.files.bad_rows import BadRows
from rag_core.retrieval.analyser import count_words
from rag_core.sources.corpus import Corpus
from rag_core.sources.mining import Mining
from tests.conftest import TINY
from tests.retrieval.languages import read_language
from tests.sources.rows import write_lines

STRICT = BadRows(skip=False)


PILE = [
    {
        "title": "Glacier caves",
        "text": "They form by melt water. In the ice of a glacier a cave grows. It falls in.",
    },
    {"text": "A lake holds water that came down the river. Fish live in the lake."},
    {"text": "Too short. It is."},
    {"text": "A lake holds water that came down the river. Fish live in the lake."},
]


def corpus(path, queries=None, rows=PILE, **settings):
    write_lines(path / "pile.jsonl", rows)
    made = {name: settings.pop(name) for name in ("query_from",) if name in settings}
    mining = Mining(**{"num_candidates": 3, "seed": 1, "vectors": path / "vectors"} | settings)
    made = {"query_from": "sentence", "num_queries": 9, "fractions": {"train": 0.5, "dev": 0.5}} | made
    source = Corpus(path / "pile.jsonl", queries, mining, **made)
    return source, Counter()


def all_samples(source, dropped):
    return {one.query: one.candidates for split in source.read(dropped, STRICT).values() for one in split}


def test_a_sentence_is_cut_out_of_its_passage(tmp_path):
    source, dropped = corpus(tmp_path)
    samples = all_samples(source, dropped)
    assert dropped == {"passages_without_a_query": 1}
    assert len(samples) == 2
    for query, candidates in samples.items():
        whole = next(f"{row.get('title', '')} {row['text']}" for row in PILE if query in row["text"])
        assert candidates[0] in whole.replace("caves ", "caves. ").replace(f"{query} ", "").replace(f" {query}", "")
        assert query not in candidates[0]
        assert all(query not in text for text in candidates)
        assert 2 <= len(candidates) <= 3


def test_a_title_is_a_query(tmp_path):
    rows = [{"title": f"How the {name} of glaciers form", "text": f"{name} form."} for name in ("caves", "lakes")]
    source, dropped = corpus(tmp_path, rows=[*PILE, *rows], query_from="title")
    samples = all_samples(source, dropped)
    assert dropped == {"passages_without_a_query": 3}
    assert {query: found[0] for query, found in samples.items()} == {row["title"]: row["text"] for row in rows}


def test_queries_of_a_log_keep_their_passages_whole(tmp_path):
    log = write_lines(tmp_path / "log.jsonl", [{"query": "fish in a lake"}, {"text": "melt"}, {"query": "melt"}])
    samples = all_samples(*corpus(tmp_path, log))
    assert set(samples) == {"fish in a lake", "melt"}
    assert samples["fish in a lake"][0] == PILE[1]["text"]


def test_a_query_that_matches_nothing_is_left_out(tmp_path, caplog):
    log = write_lines(tmp_path / "log.jsonl", [{"query": query} for query in ("fish", "\u732b", "melt", "lake")])
    source, dropped = corpus(tmp_path, log)
    assert set(all_samples(source, dropped)) == {"fish", "melt", "lake"}
    assert dropped == {"queries_without_candidates": 1}
    assert caplog.messages == [
        "1 of 4 queries (25%) share no word with any passage: they are left out (--dense_model would search by "
        "meaning). Where queries and passages are in different languages BM25 is of no use; for other forms of a word "
        "pass --bm25_stemmer"
    ]


def test_queries_of_which_none_matches(tmp_path):
    log = write_lines(tmp_path / "log.jsonl", [{"query": "\u732b"}, {"query": "\u72ac"}])
    with pytest.raises(DataError) as error:
        all_samples(*corpus(tmp_path, log))
    assert str(error.value) == (
        f"{tmp_path / 'pile.jsonl'}: has no word in common with any query. Pass --dense_model to search by meaning."
    )


def test_dense_search_finds_for_a_query_that_matches_nothing(tmp_path, tiny_encoder, caplog):
    log = write_lines(tmp_path / "log.jsonl", [{"query": query} for query in ("fish", "\u732b")])
    samples = all_samples(*corpus(tmp_path, log, dense_models=[tiny_encoder]))
    assert len(samples["\u732b"]) == 3
    assert "(50%) share no word with any passage: --dense_model alone finds their candidates." in caplog.text


@pytest.mark.parametrize("language", ["chinese", "japanese", "thai", "hindi", "arabic"])
def test_a_sentence_is_cut_out_of_any_script(tmp_path, language):
    passages, _ = read_language(language)
    joint = {"thai": " ", "hindi": " ", "arabic": " "}.get(language, "")
    texts = [joint.join(passages[i : i + 3]) for i in range(0, 30, 3)]
    source, dropped = corpus(tmp_path, rows=[{"text": text} for text in texts], num_candidates=5)
    samples = all_samples(source, dropped)
    assert len(samples) >= 8
    for query, candidates in samples.items():
        (whole,) = [text for text in texts if query in text]
        assert 5 <= count_words(query) <= 40
        assert candidates[0] in (whole.replace(query + joint, ""), whole.replace(joint + query, ""))


def test_a_title_without_spaces_is_a_query(tmp_path):
    titles = ("冰川里的冰洞怎么形成", "蜜蜂怎么告诉同伴花的方向", "冰洞")
    source, dropped = corpus(tmp_path, rows=[{"title": title, "text": "a"} for title in titles], query_from="title")
    assert set(all_samples(source, dropped)) == {*titles[:2]}
    assert dropped == {"passages_without_a_query": 1}


def test_dense_search_adds_what_bm25_does_not_find(tmp_path, tiny_encoder):
    samples = [json.loads(line) for line in (TINY / "train.jsonl").read_text().splitlines()]
    log = write_lines(tmp_path / "log.jsonl", [{"query": sample["query"]} for sample in samples])
    rows = [{"text": text} for sample in samples for text in sample["positive"] + sample["negative"]]
    sparse = all_samples(*corpus(tmp_path, log, rows, num_candidates=6))
    both = all_samples(*corpus(tmp_path, log, rows, num_candidates=6, dense_models=[tiny_encoder]))
    for query, found in both.items():
        assert len(found) == len(set(found)) == 6
        assert query not in sparse or found[0] == sparse[query][0]
    assert any(set(found) != set(both[query]) for query, found in sparse.items())
