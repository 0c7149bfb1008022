"""Scoring that is stopped and started again, with a teacher whose scores can be reckoned by hand."""

import contextlib
import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.base.errors import EngineError, StaleError
from rag_core.base.records import RankingSample
from rag_core.files.chunk_store import ChunkStore
from rag_core.files.manifest import Recipe
from rag_core.files.unfinished import UnfinishedWork
from rag_core.scoring.chunks import Work
from rag_core.scoring.samples import spread_pairs
from rag_core.scoring.scores import score_samples
from rag_core.scoring.vectors import embed_samples
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


def score(samples, model, folder, chunk_rows=2):
    folder.mkdir(exist_ok=True)
    return scored(samples, Work(model, "scope", [folder], chunk_rows))


def scored(samples, work):
    return [pair for _, pairs in score_samples(samples, work) for pair in pairs]


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
        monkeypatch.setattr("rag_core.scoring.scores._BLOCK_FLOATS", floats)
        (query,) = model.encode(["a b"], "query")
        passages = model.encode(["a", "bb", "aa"], "passage")
        scores = [pair.score for pair in score(samples, model, tmp_path / str(i))]
        assert scores == pytest.approx((passages @ query).tolist(), abs=1e-6)


def test_a_text_of_two_files_is_embedded_once_and_the_longest_come_first(tmp_path):
    model = OverlapEncoder()
    work = Work(model, "scope", [tmp_path], 100)
    first = RankingSample("q", candidates=["a", "bbb"], query_id="1")
    second = RankingSample("q", candidates=["bbb", "cc", "q"], query_id="1")
    embed_samples([first, second], work)
    assert model.encoded == [("query", "q"), ("passage", "bbb"), ("passage", "cc"), ("passage", "a"), ("passage", "q")]
    scored([second], work)
    assert len(model.encoded) == 5


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


def test_a_damaged_chunk_is_not_used(tmp_path, caplog):
    chunks = ChunkStore([tmp_path], "pair")
    assert chunks.missing([b"k1", b"k2"]) == [0, 1]
    chunks.write([b"k1", b"k2"], np.array([1, 2], dtype=np.float32))
    chunks.write([b"k3"], np.array([3], dtype=np.float32))
    assert ChunkStore([tmp_path], "pair").read([b"k3", b"k1", b"k2", b"k1"]).tolist() == [3, 1, 2, 1]
    assert ChunkStore([tmp_path], "query").missing([b"k1"]) == [0]
    path = max(tmp_path.glob("pair-*.npy"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-3])
    chunks = ChunkStore([tmp_path], "pair")
    assert chunks.missing([b"k1", b"k2", b"k3"]) == [0, 1]
    assert f"{path} cannot be read: its rows are computed again" in caplog.messages
    with pytest.raises(KeyError, match="k2"):
        chunks.read([b"k3", b"k2"])


def work_on(tmp_path, recipe=RECIPE, overwrite=False):
    return UnfinishedWork(tmp_path / "out.jsonl", recipe, overwrite=overwrite)


def test_unfinished_work_of_other_settings_stands_in_the_way_until_overwrite(tmp_path):
    with work_on(tmp_path) as work:
        (work.directory / "kept").touch()
    other = Recipe(stage="s", flags={"dtype": "bfloat16"}, inputs={"a.jsonl": "01"}, model={"name": "m"})
    with pytest.raises(StaleError) as error, work_on(tmp_path, other):
        pass
    assert str(error.value) == (
        f"{tmp_path / 'out.jsonl.partial'}: holds unfinished work made with other settings: "
        "--dtype (was 'float32', is 'bfloat16'); the content of the input. "
        "Use the former settings to go on, or pass --overwrite to start afresh."
    )
    with work_on(tmp_path, overwrite=True) as work:
        assert (work.directory / "kept").exists()  # the same recipe: nothing to gain from starting afresh
    with work_on(tmp_path, other, overwrite=True) as work:
        assert not (work.directory / "kept").exists()
    assert json.loads((tmp_path / "out.jsonl.partial" / "recipe.json").read_text())["flags"] == {"dtype": "bfloat16"}


def test_a_second_process_on_the_same_output(tmp_path):
    with work_on(tmp_path), pytest.raises(StaleError, match="another process is working on this output"):
        work_on(tmp_path).__enter__()


def test_of_the_processes_of_torchrun_the_first_holds_the_lock(tmp_path, monkeypatch):
    with work_on(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with work_on(tmp_path):
            pass


def test_a_score_that_is_not_finite(tmp_path):
    class Broken(OverlapScorer):
        def score(self, pairs):
            return np.full(len(pairs), np.nan, dtype=np.float32)

    with pytest.raises(EngineError, match="not finite"):
        score([RankingSample("q", candidates=["a"])], Broken(), tmp_path / "x")


def test_canary_pairs_come_from_all_over_the_file():
    rows = [RankingSample(f"q{i}", candidates=[f"{i}a", f"{i}b", f"{i}c"]) for i in range(100)]
    chosen = spread_pairs(rows, 20)
    assert len(set(chosen)) == 20
    assert chosen[0] == ("q0", "0a")
    assert len({int(query[1:]) // 10 for query, _ in chosen}) >= 9
    assert spread_pairs(rows[:1], 20) == [("q0", "0a"), ("q0", "0c")]


def test_windows_and_chunks_in_any_order_make_no_difference(tmp_path, monkeypatch):
    samples = [RankingSample(f"q{i // 3}", candidates=["a", f"{i} b", "c"], query_id=str(i)) for i in range(20)]
    expected = score(samples, OverlapScorer(), tmp_path / "whole", 1000)

    class Backwards(OverlapScorer):
        """As an engine with several workers: all chunks are drawn, and the last is finished first."""

        def score_chunks(self, chunks):
            self.chunks = [list(chunk) for chunk in chunks]
            yield from reversed([(i, self.score(chunk)) for i, chunk in enumerate(self.chunks)])

    for window in (1, 2, 7, 100):
        monkeypatch.setattr("rag_core.scoring.chunks._WINDOW_ROWS", window)
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


def test_a_score_store_serves_other_files(tiny_data, overlap_teacher):
    from reranker_distillation import generate_logits

    flags = ["--teacher", "t", "--score_store", f"{tiny_data}/store", "--input_files"]
    (tiny_data / "again.jsonl").write_bytes((tiny_data / "train.jsonl").read_bytes())
    assert generate_logits.main([*flags, f"{tiny_data}/train.jsonl"]) == 0
    paid = len(overlap_teacher.scored)
    assert generate_logits.main([*flags, f"{tiny_data}/again.jsonl"]) == 0
    assert len(overlap_teacher.scored) == paid
    outputs = [(tiny_data / f"{name}_logits.jsonl").read_bytes() for name in ("train", "again")]
    assert outputs[0] == outputs[1]
    assert not list(tiny_data.glob("*.partial"))
    (folder,) = (tiny_data / "store").iterdir()
    assert json.loads((folder / "model.json").read_text())["model"]["name"] == "t"
    # Another prompt is another score.
    assert generate_logits.main([*flags, f"{tiny_data}/again.jsonl", "--instruction", "other", "--overwrite"]) == 0
    assert len(overlap_teacher.scored) == 2 * paid


def test_an_input_that_changes_while_it_is_scored(tiny_data, overlap_teacher, monkeypatch, capsys):
    from reranker_distillation import generate_logits

    path = tiny_data / "train.jsonl"
    score_once = overlap_teacher.score

    def changing_score(pairs):
        path.write_bytes(path.read_bytes() + b"\n")
        return score_once(pairs)

    monkeypatch.setattr(overlap_teacher, "score", changing_score)
    assert generate_logits.main(["--teacher", "t", "--input_files", str(path)]) == 1
    assert "train.jsonl: has changed while it was being scored" in capsys.readouterr().err
    assert not (tiny_data / "train_logits.jsonl").exists()
