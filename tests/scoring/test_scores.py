"""Scoring that is stopped and started again, with a teacher whose scores can be reckoned by hand."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.base.records import RankingSample
from rag_core.files.chunk_store import ChunkStore
from rag_core.scoring import scores
from rag_core.scoring.chunks import Work
from tests.conftest import OverlapScorer
from tests.scoring.conftest import OverlapEncoder, score, scored


class Stopped(BaseException):
    """Stands for SIGKILL: nothing after it is executed but what holds the lock."""


texts = st.text("ab ", min_size=1, max_size=4).filter(str.strip)
samples_strategy = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=5)), min_size=1, max_size=8).map(
    lambda rows: [RankingSample(query, candidates=found, query_id=str(i)) for i, (query, found) in enumerate(rows)]
)


@pytest.mark.parametrize("make_model", [OverlapScorer, OverlapEncoder])
@settings(max_examples=40)
@given(samples=samples_strategy, chunk_rows=st.integers(1, 4), stops=st.lists(st.integers(0, 6), max_size=4))
def test_stopped_any_number_of_times_the_scores_are_the_same(tmp_path_factory, make_model, samples, chunk_rows, stops):
    folder = tmp_path_factory.mktemp("x")
    model = make_model()
    whole = score(samples, model, folder / "whole", chunk_rows)
    work = model.scored if isinstance(model, OverlapScorer) else model.encoded
    assert len(work) == len(set(work))  # nothing twice

    for stop in stops:
        with pytest.MonkeyPatch.context() as patch:
            writes = 0
            write = ChunkStore.write

            def stopping_write(*args):
                nonlocal writes
                if writes == stop:  # noqa: B023
                    raise Stopped
                writes += 1
                write(*args)  # noqa: B023

            patch.setattr(ChunkStore, "write", stopping_write)
            with contextlib.suppress(Stopped):
                score(samples, make_model(), folder / "stopped", chunk_rows)
    assert score(samples, make_model(), folder / "stopped", chunk_rows) == whole

    rows = [(sample.query_id, text) for sample in samples for text, _ in sample.passages()]
    assert [(pair.query_id, pair.passage) for pair in whole] == rows


def test_cosines_are_those_of_the_vectors_whatever_the_block(tmp_path, monkeypatch):
    samples = [
        RankingSample("a b", candidates=["a", "bb", "a"], query_id="1"),
        RankingSample("a b", candidates=["aa"], query_id="2"),
    ]
    model = OverlapEncoder()
    for i, floats in enumerate((1, 8, 2**24)):
        monkeypatch.setattr(scores, "_BLOCK_FLOATS", floats)
        (query,) = model.encode(["a b"], "query")
        passages = model.encode(["a", "bb", "aa"], "passage")
        found = [pair.score for pair in score(samples, model, tmp_path / str(i))]
        assert found == pytest.approx((passages @ query).tolist(), abs=1e-6)


def test_rows_are_found_in_every_folder_by_all_that_determines_them(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    samples = [RankingSample("q", candidates=["x", "y"], query_id="1")]
    score(samples, OverlapScorer(), tmp_path / "b")
    model = OverlapScorer()
    scored(samples, Work(model, "scope", [tmp_path / "a", tmp_path / "b"], 2))
    assert model.scored == []
    scored(samples, Work(model, "another model", [tmp_path / "a", tmp_path / "b"], 2))
    assert len(model.scored) == 2
