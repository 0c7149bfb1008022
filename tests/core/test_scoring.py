"""Scoring that is stopped and started again, with a teacher whose scores can be reckoned by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.chunk_store import ChunkStore
from rag_core.errors import EngineError, StaleError
from rag_core.manifest import Recipe
from rag_core.records import RankingSample
from rag_core.scoring import score_samples, spread_pairs
from tests.conftest import OverlapScorer

RECIPE = Recipe(stage="s", flags={"dtype": "float32"}, inputs={"a.jsonl": "00"}, model={"name": "m"})


class Stopped(BaseException):
    """Stands for SIGKILL: nothing after it is executed but what holds the lock."""


class OverlapEncoder:
    """Vectors of the lengths of words, made so that their cosines are easy to compute in the test."""

    score_unit = "cosine"
    truncated = None
    dimensions = 4

    def __init__(self):
        self.encoded = []

    def encode(self, texts, role):
        self.encoded += [(role, text) for text in texts]
        vectors = np.array([[len(text), text.count("a") + 1, 1, role == "query"] for text in texts], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


texts = st.text("ab ", min_size=1, max_size=4).filter(str.strip)
samples_strategy = st.lists(st.tuples(texts, st.lists(texts, min_size=1, max_size=5)), min_size=1, max_size=8).map(
    lambda rows: [RankingSample(query, candidates=found, query_id=str(i)) for i, (query, found) in enumerate(rows)]
)


@pytest.mark.parametrize("make_model", [OverlapScorer, OverlapEncoder])
@settings(max_examples=40)
@given(samples=samples_strategy, chunk_rows=st.integers(1, 4), stops=st.lists(st.integers(0, 6), max_size=4))
def test_stopped_any_number_of_times_the_scores_are_the_same(tmp_path_factory, make_model, samples, chunk_rows, stops):
    folder = tmp_path_factory.mktemp("x")
    with ChunkStore(folder / "whole", RECIPE, overwrite=False) as store:
        model = make_model()
        whole = list(score_samples(samples, model, store, chunk_rows=chunk_rows))
    work = model.scored if isinstance(model, OverlapScorer) else model.encoded
    assert len(work) == len(set(work))  # nothing twice

    for stop in stops:
        writes = 0

        class StoppedStore(ChunkStore):
            def write(self, *args):
                nonlocal writes
                if writes == stop:  # noqa: B023
                    raise Stopped
                writes += 1
                super().write(*args)

        try:
            with StoppedStore(folder / "stopped", RECIPE, overwrite=False) as store:
                list(score_samples(samples, make_model(), store, chunk_rows=chunk_rows))
        except Stopped:
            pass
    with ChunkStore(folder / "stopped", RECIPE, overwrite=False) as store:
        assert list(score_samples(samples, make_model(), store, chunk_rows=chunk_rows)) == whole

    rows = [(sample.query_id, text) for sample in samples for text, _ in sample.passages()]
    assert [(pair.query_id, pair.passage) for pair in whole] == rows


def store(tmp_path, recipe=RECIPE, overwrite=False):
    return ChunkStore(tmp_path / "out.jsonl", recipe, overwrite=overwrite)


def test_a_damaged_chunk_and_a_chunk_of_another_plan_are_not_used(tmp_path):
    with store(tmp_path) as chunks:
        chunks.write("pair-0", ["k1", "k2"], np.array([1, 2], dtype=np.float32))
        assert chunks.read("pair-0", ["k1", "k2"]).tolist() == [1, 2]
        assert chunks.read("pair-0", ["k1", "k3"]) is None
        assert chunks.read("pair-1", ["k1"]) is None
        path = chunks.directory / "pair-0.npz"
        path.write_bytes(path.read_bytes()[:-30])
        assert chunks.read("pair-0", ["k1", "k2"]) is None


def test_unfinished_work_of_other_settings_stands_in_the_way_until_overwrite(tmp_path):
    with store(tmp_path) as chunks:
        chunks.write("pair-0", ["k"], np.array([1], dtype=np.float32))
    other = Recipe(stage="s", flags={"dtype": "bfloat16"}, inputs={"a.jsonl": "01"}, model={"name": "m"})
    with pytest.raises(StaleError) as error, store(tmp_path, other):
        pass
    assert str(error.value) == (
        f"{tmp_path / 'out.jsonl.partial'}: holds unfinished work made with other settings: "
        "--dtype (was 'float32', is 'bfloat16'); the content of the input. "
        "Use the former settings to go on, or pass --overwrite to start afresh."
    )
    with store(tmp_path, overwrite=True) as chunks:
        assert chunks.read("pair-0", ["k"]) is not None  # the same recipe: nothing to gain from starting afresh
    with store(tmp_path, other, overwrite=True) as chunks:
        assert chunks.read("pair-0", ["k"]) is None
    assert json.loads((tmp_path / "out.jsonl.partial" / "recipe.json").read_text())["flags"] == {"dtype": "bfloat16"}


def test_a_second_process_on_the_same_output(tmp_path):
    with store(tmp_path), pytest.raises(StaleError, match="another process is working on this output"), store(tmp_path):
        pass


def test_a_score_that_is_not_finite(tmp_path):
    class Broken(OverlapScorer):
        def score(self, pairs):
            return np.full(len(pairs), np.nan, dtype=np.float32)

    with store(tmp_path) as chunks, pytest.raises(EngineError, match="not finite"):
        list(score_samples([RankingSample("q", candidates=["a"])], Broken(), chunks, chunk_rows=2))


def test_canary_pairs_come_from_all_over_the_file():
    rows = [RankingSample(f"q{i}", candidates=[f"{i}a", f"{i}b", f"{i}c"]) for i in range(100)]
    chosen = spread_pairs(rows, 20)
    assert len(set(chosen)) == 20
    assert chosen[0] == ("q0", "0a")
    assert chosen[-1] == ("q99", "99c")
    assert spread_pairs(rows[:1], 20) == [("q0", "0a"), ("q0", "0c")]
