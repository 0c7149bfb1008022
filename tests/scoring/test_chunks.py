"""How rows are cut into chunks, in whatever order an engine finishes them."""

import logging
from itertools import pairwise

import numpy as np
import pytest

from rag_core.base.errors import EngineError
from rag_core.base.records import RankingSample
from rag_core.files.chunk_store import ChunkStore
from rag_core.scoring import chunks
from rag_core.scoring.chunks import Chunks, keep_values
from tests.conftest import OverlapScorer
from tests.scoring.conftest import score


def test_windows_and_chunks_in_any_order_make_no_difference(tmp_path, monkeypatch):
    samples = [RankingSample(f"q{i // 3}", candidates=["a", f"{i} b", "c"], query_id=str(i)) for i in range(20)]
    expected = score(samples, OverlapScorer(), tmp_path / "whole", 1000)

    class Backwards(OverlapScorer):
        """As an engine with several workers: all chunks are drawn, and the last is finished first."""

        def score_chunks(self, chunks):
            self.chunks = [list(chunk) for chunk in chunks]
            yield from reversed([(i, self.score(chunk)) for i, chunk in enumerate(self.chunks)])

    for window in (1, 2, 7, 100):
        monkeypatch.setattr(chunks, "_WINDOW_ROWS", window)
        model = Backwards()
        assert score(samples, model, tmp_path / str(window), 4) == expected
        assert len(model.scored) == len(set(model.scored))
        for before, after in pairwise(model.chunks):
            assert before[-1][0] != after[0][0]  # a query's pairs stay together


def test_a_query_of_very_many_candidates_is_cut(tmp_path):
    model = OverlapScorer()
    sizes = []
    model.score = lambda pairs: sizes.append(len(pairs)) or np.ones(len(pairs), dtype=np.float32)
    score([RankingSample("q", candidates=[str(i) for i in range(25)], query_id="1")], model, tmp_path, 5)
    assert sizes == [10, 10, 5]


def test_a_score_that_is_not_finite(tmp_path):
    class Broken(OverlapScorer):
        def score(self, pairs):
            return np.full(len(pairs), np.nan, dtype=np.float32)

    with pytest.raises(EngineError, match="not finite"):
        score([RankingSample("q", candidates=["a"])], Broken(), tmp_path / "x")


@pytest.mark.parametrize(("unit", "names"), [("pair", "pairs"), ("query", "queries"), ("passage", "passages")])
def test_what_is_done_is_logged_where_there_is_no_bar(tmp_path, monkeypatch, caplog, unit, names):
    monkeypatch.setattr(chunks, "_SECONDS_BETWEEN_NOTES", -1)
    caplog.set_level(logging.INFO)
    cut = Chunks(["bb", "ccc", "a"], str.encode, ChunkStore([tmp_path], "text"), 2, by_length=True)
    keep_values(cut, ((i, np.ones(len(chunk), dtype=np.float32)) for i, chunk in enumerate(cut)), unit, 3)
    assert [message.split("/s")[0].rpartition(",")[0] for message in caplog.messages] == [
        f"2 of 3 {names}",
        f"3 of 3 {names}",
    ]
