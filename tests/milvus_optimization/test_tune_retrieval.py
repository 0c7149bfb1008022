"""tune_retrieval from the command line: what it measures, chooses and refuses, and what a kill costs."""

import json
import os
import signal
import subprocess
import sys

import pytest

from milvus_optimization.records import RetrievalTrial
from milvus_optimization.tune_retrieval import main
from rag_core.engines import identity
from rag_core.files.jsonl import read_records
from rag_core.files.kept_times import KeptTimes
from rag_core.files.manifest import Recipe, read_manifest, write_manifest
from rag_core.files.qrels import read_qrels, write_qrels
from tests.conftest import TINY
from tests.milvus_optimization.retrieval_corpus import write_corpus

SMALL = ["--rrf_k", "1", "60", "--weights", "0.3", "0.5", "--raw_weights", "0.9", "--depth", "10", "20"]
SMALL += ["--bm25_k1", "0.9", "--bm25_b", "0.4"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("vectors"), models=("after", "before"))


@pytest.fixture
def tune(corpus, tmp_path, capsys):
    def run(*flags, vectors=corpus, output="out.jsonl"):
        output = tmp_path / output
        code = main(["--vectors", str(vectors), "--output_file", str(output), *SMALL, *map(str, flags)])
        printed = capsys.readouterr()
        run.log = printed.err
        return code, list(read_records(output, RetrievalTrial)) if code == 0 else printed.err, printed.out

    return run


def families(trials):
    return [(t.fusion, t.normalisation, t.parameter, t.depth, t.bm25.get("k1"), t.reranker_depth) for t in trials]


def test_every_way_is_measured_once_the_defaults_always(tune, tmp_path):
    _, trials, printed = tune("--model", "after")
    fusions = [("rrf", "rank", 1.0), ("rrf", "rank", 60.0)]
    fusions += [("weighted", "arctan", 0.3), ("weighted", "arctan", 0.5), ("weighted", "none", 0.9)]
    fusions += [("weighted", "minmax", 0.3), ("weighted", "minmax", 0.5)]
    k1 = next(trial.bm25["k1"] for trial in trials if trial.depth == 10)
    assert families(trials) == [
        ("dense", "none", None, 0, None, 0),
        ("bm25", "none", None, 0, 1.2, 0),
        ("bm25", "none", None, 0, 0.9, 0),
        ("rrf", "rank", 60.0, 100, 1.2, 0),
        ("weighted", "arctan", 0.5, 100, 1.2, 0),
        ("weighted", "minmax", 0.5, 100, 1.2, 0),
        *((*fusion, depth, k1, 0) for fusion in fusions for depth in (10, 20)),
    ]
    assert len({trial.trial_id for trial in trials}) == len(trials)
    alone = {trial.bm25["k1"]: trial.ndcg_tune for trial in trials if trial.fusion == "bm25"}
    assert alone[k1] == max(alone.values())
    assert f"fusions take k1 {k1:g} and b" in tune.log
    for trial in trials:
        assert trial.model == "after" and len(trial.by_query) == 120
        assert (trial.bm25_ms > 0) == (trial.fusion != "dense") and trial.rerank_ms == 0
    manifest = read_manifest(tmp_path / "out.jsonl")
    assert manifest.facts["tune_queries"] + manifest.facts["report_queries"] == 120
    assert manifest.rows == len(trials) and not (tmp_path / "out.jsonl.partial").exists()
    assert "| lite, server | " in printed and "| dense only" in printed


def test_the_choice_is_better_than_either_alone_and_by_the_tune_half(tune):
    _, trials, printed = tune("--model", "after")
    dense, words = trials[0], trials[1]
    best = max((t for t in trials if t.normalisation != "minmax"), key=lambda trial: trial.ndcg_tune)
    assert best.ndcg > dense.ndcg + 0.05 and best.ndcg > words.ndcg
    (row,) = [line for line in printed.splitlines() if line.startswith("| lite, server")]
    assert f"{best.parameter:g}" in row.split("|")[2]
    assert f"{best.ndcg - dense.ndcg:+.4f} [" in row.split("|")[3]


def test_dense_values_are_reckoned_from_the_vectors(tune, corpus):
    import numpy as np

    _, trials, _ = tune("--model", "before")
    vectors = {name: np.load(corpus / "before" / f"{name}.npy") for name in ("documents", "queries")}
    cosines = vectors["queries"] @ vectors["documents"].T
    for line in (corpus / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, _ = line.split("\t")
        row = cosines[int(query[1:])]
        rank = 1 + int((row > row[int(document[1:])]).sum())
        assert trials[0].by_query[query] == pytest.approx(1 / np.log2(rank + 1) if rank <= 10 else 0, abs=1e-6)


def test_several_models_stand_side_by_side(tune):
    _, both, printed = tune()
    _, alone, _ = tune("--model", "before", output="alone.jsonl")
    assert [trial.model for trial in both] == ["after"] * (len(both) // 2) + ["before"] * (len(both) // 2)
    for mine, other in zip([trial for trial in both if trial.model == "before"], alone, strict=True):
        assert (mine.trial_id, mine.by_query) == (other.trial_id, other.by_query)
    assert "after\n\n| way to rank" in printed and "before\n\n| way to rank" in printed


def test_a_stemmer_stands_in_the_trial_and_in_its_id(tune):
    _, plain, _ = tune("--model", "after")
    code, stemmed, _ = tune("--model", "after", "--bm25_stemmer", "english", output="stemmed.jsonl")
    assert code == 0 and stemmed[1].bm25 | {"stemmer": ""} == plain[1].bm25 | {"stemmer": ""}
    assert stemmed[1].bm25["stemmer"] == "english" and stemmed[1].trial_id != plain[1].trial_id
    assert stemmed[0].trial_id == plain[0].trial_id


def test_with_few_queries_the_defaults_alone_are_measured(tune, tmp_path):
    code, trials, printed = tune(vectors=write_corpus(tmp_path / "few", queries=24))
    assert code == 0 and len(trials) == 5
    assert families(trials)[1:3] == [("bm25", "none", None, 0, 1.2, 0), ("rrf", "rank", 60.0, 100, 1.2, 0)]
    assert "queries to choose by are fewer than 20: the defaults are measured, and no fusion is tuned" in tune.log
    assert "too few queries" in printed


def test_below_fifty_queries_are_warned_of(tune, tmp_path):
    code, trials, _ = tune(vectors=write_corpus(tmp_path / "few", queries=70))
    assert code == 0 and len(trials) > 5
    assert "judged queries to choose by are few: what they choose may be worse than a default. Judge 100" in tune.log


@pytest.mark.parametrize(
    ("flags", "code", "error"),
    [
        (["--weights", "1.5"], 2, "--weights is 1.5. Pass a number from 0 to 1."),
        (["--rrf_k", "0"], 2, "--rrf_k is 0. Pass a number from 1 to 16383."),  # all that Milvus takes
        (["--depth", "0"], 2, "--depth is 0. Pass a number from 1 to 16384."),
        (["--bm25_b", "2"], 2, "--bm25_b is 2. Pass a number from 0 to 1."),
        (["--reranker_depth", "5"], 2, "--reranker_depth is for a reranker. Pass --reranker as well, or leave it out."),
        (["--max_length", "99"], 2, "--max_length is for a reranker. Pass --reranker as well, or leave it out."),
        (["--model", "other"], 1, "has no vectors of 'other'. Pass --model with one of: after, before."),
        (
            ["--tune_fraction", "1"],
            1,
            "qrels.tsv: judges 120 queries to choose by and 0 to report on, and at least 1 and 2 are",
        ),
        (["--tune_fraction", "nan"], 2, "--tune_fraction is nan. Pass a number from 0 to 1."),
    ],
)
def test_bad_flags(tune, flags, code, error):
    found, printed, _ = tune(*flags)
    assert found == code
    assert error in printed and printed.startswith("Error: ") and printed.count("\n") == 1


@pytest.mark.parametrize("flag", ["--fusion", "--normalisation"])
def test_unknown_choices(tune, flag):
    with pytest.raises(SystemExit, match="2"):
        tune(flag, "best")


def test_without_qrels_nothing_can_be_chosen(tune, tmp_path):
    code, error, _ = tune(vectors=write_corpus(tmp_path / "unjudged", qrels=False))
    assert code == 1
    assert "unjudged: has no qrels, and quality is measured by them. Pass --qrels FILE: labels" in error


def test_other_judgements_take_the_place_of_the_folders_own(tune, corpus, tmp_path):
    rows = (corpus / "qrels.tsv").read_text().splitlines()
    (tmp_path / "mine.tsv").write_text("\n".join([*rows[:101], "q0\tnone\t1", ""]))
    flags = ["--model", "after", "--qrels", tmp_path / "mine.tsv"]
    code, error, _ = tune(*flags)
    assert code == 1 and "mine.tsv:102: 'none' is not in the corpus" in error
    code, trials, _ = tune(*flags, "--skip_bad_rows")
    assert code == 0 and set(trials[0].by_query) == {f"q{number}" for number in range(100)}
    manifest = read_manifest(tmp_path / "out.jsonl")
    assert manifest.facts["judged_by"] == "labels" and manifest.skipped == {"bad_rows": 1}
    code, error, _ = tune("--model", "after")
    assert code == 1 and "made with other settings: --skip_bad_rows" in error


def test_a_teacher_judges_instead_of_the_labels(tune, corpus, tmp_path):
    labels = read_qrels(corpus / "qrels.tsv")
    other = {query: {next(iter(labels[key])): 1} for query, key in zip(labels, reversed(labels), strict=True)}
    write_qrels(tmp_path / "teacher.tsv", other)
    recipe = Recipe("milvus_optimization.judge_pool", {}, {})
    write_manifest(tmp_path / "teacher.tsv", recipe, teacher={"name": "a teacher"})
    _, by_labels, _ = tune("--model", "after", output="labels.jsonl")
    _, by_teacher, _ = tune("--model", "after", "--qrels", tmp_path / "teacher.tsv")
    assert [t.trial_id for t in by_labels] == [t.trial_id for t in by_teacher]
    assert by_labels[0].ndcg > by_teacher[0].ndcg + 0.1
    assert read_manifest(tmp_path / "out.jsonl").facts["judged_by"] == "a teacher"


def test_bad_judgements_are_left_out_and_counted_where_that_is_asked_for(tune, corpus, tmp_path):
    (tmp_path / "qrels.tsv").write_text((corpus / "qrels.tsv").read_text() + "nobody\tnothing\t1\n")
    code, error, _ = tune("--qrels", tmp_path / "qrels.tsv")
    assert code == 1
    assert "qrels.tsv:" in error
    code, _, _ = tune("--model", "after", "--qrels", tmp_path / "qrels.tsv", "--skip_bad_rows")
    assert code == 0
    assert read_manifest(tmp_path / "out.jsonl").skipped == {"bad_rows": 1}


def test_an_embedder_is_no_reranker(tune, monkeypatch):
    info = identity.ModelInfo("e", "bi-encoder", "its folder says so")
    monkeypatch.setattr(identity, "describe_model", lambda *_: info)
    code, error, _ = tune("--reranker", "e")
    assert code == 1
    assert error == "Error: e is an embedder (its folder says so). Pass a cross-encoder or an LLM reranker.\n"


def test_what_is_finished_stays_and_other_flags_are_told(tune, tmp_path):
    tune("--model", "after")
    before = (tmp_path / "out.jsonl").read_bytes(), (tmp_path / "out.jsonl").stat().st_mtime_ns
    code, _, printed = tune("--model", "after", "--seed", "7")
    assert code == 0 and "| lite, server" in printed
    assert before == ((tmp_path / "out.jsonl").read_bytes(), (tmp_path / "out.jsonl").stat().st_mtime_ns)
    code, error, _ = tune("--model", "after", "--fusion", "rrf")
    assert code == 1 and "--fusion (was ['rrf', 'weighted'], is ['rrf'])" in error
    assert tune("--model", "after", "--fusion", "rrf", "--overwrite")[0] == 0


def test_a_reranker_orders_the_best_of_each_family(tune, overlap_teacher):
    _, plain, _ = tune("--model", "after")
    overlap_teacher.scored.clear()
    code, trials, printed = tune(
        "--model", "after", "--reranker", "t", "--reranker_depth", "5", "20", output="reranked.jsonl"
    )
    assert code == 0
    first, ordered = trials[: len(plain)], trials[len(plain) :]
    assert [trial.trial_id for trial in first] == [trial.trial_id for trial in plain]
    assert [trial.reranker_depth for trial in ordered] == [5, 20] * 6
    kinds = [(trial.fusion, trial.normalisation) for trial in ordered[::2]]
    assert kinds == [(f, n) for f, n in dict.fromkeys((t.fusion, t.normalisation) for t in first)]
    for trial in ordered:
        family = [t for t in first if (t.fusion, t.normalisation) == (trial.fusion, trial.normalisation)]
        best = max(family, key=lambda one: one.ndcg_tune)
        assert (trial.parameter, trial.depth, trial.bm25) == (best.parameter, best.depth, best.bm25)
        assert trial.reranker == "t" and trial.rerank_ms > 0
        assert (trial.by_query != best.by_query) or trial.fusion == "bm25"  # which this reranker agrees with
    assert " reranked" in printed
    # each pair once, besides those of the times: eleven queries for either depth
    timed = 11 * (5 + 20)
    assert len(overlap_teacher.scored) - timed == len(set(overlap_teacher.scored[timed:]))


def test_the_reranker_moves_its_first_documents_only():
    import numpy as np

    from rag_core.scoring.reranking import reranked

    places = np.array([[3, 1, 2, 0], [5, 4, -1, -1]])
    scores = {(0, 3): 0.1, (0, 1): 0.5, (0, 2): 0.5, (0, 0): 9.0, (1, 5): 0.0, (1, 4): 1.0}
    assert reranked(places, 3, scores).tolist() == [[1, 2, 3, 0], [4, 5, -1, -1]]
    assert reranked(places, 1, scores).tolist() == places.tolist()


def test_scores_that_are_kept_are_not_computed_again(tune, overlap_teacher, tmp_path):
    flags = ["--model", "after", "--reranker", "t", "--reranker_depth", "10", "--score_store", tmp_path / "store"]
    tune(*flags)
    overlap_teacher.scored.clear()
    _, again, _ = tune(*flags, output="again.jsonl")
    assert len(overlap_teacher.scored) == 11 * 10  # the times alone
    assert again[-1].reranker_depth == 10


# Runs the stage in processes of their own, which are killed at a moment: when so many files are safely on disk, or
# (output) when the output is there and its manifest is not. The last one may end.
KILLED = """
import json, os, signal, sys
import ir_measures, scipy.stats, bm25s  # once for all of them
from rag_core.engines import identity
from rag_core.engines.loading import LOADERS
from rag_core.files import provenance
from rag_core.scoring.settings import CHUNK_ROWS
from milvus_optimization import tune_retrieval
from tests.conftest import OverlapScorer

# Without transformers, whose import takes longer than all the runs.
identity.describe_model = lambda name, _: identity.ModelInfo(name, "llm-reranker", "a test")
provenance._git_state = lambda: None  # a process of its own each time
teacher = OverlapScorer()
LOADERS["transformers"] = LOADERS["vllm"] = teacher.loaded
CHUNK_ROWS["transformers"] = CHUNK_ROWS["vllm"] = 100

def child(moment, argv):
    sync, left = os.fsync, [moment]
    def deadly(descriptor):
        sync(descriptor)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    if moment == "output":
        tune_retrieval.write_manifest = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    elif moment:
        os.fsync = deadly
    return tune_retrieval.main(argv)

ends = []
for moment, output in json.loads(sys.argv[1]):
    process = os.fork()
    if process == 0:
        code = child(moment, [*sys.argv[2:], "--output_file", output])
        os._exit(code if code else 100 + (len(teacher.scored) > 0))
    ends.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
print("ends", json.dumps(ends))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path, overlap_teacher):
    corpus = write_corpus(tmp_path / "vectors", queries=60, models=("after",))
    output, undisturbed = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    moments = [3, 9, 9, "output", 0]
    runs = [(0, str(undisturbed)), *((moment, str(output)) for moment in moments)]
    flags = ["--reranker", "t", "--reranker_depth", "5", "10", *SMALL, "--engine", "transformers", "--dtype", "float32"]
    argv = [sys.executable, "-c", KILLED, json.dumps(runs), "--vectors", str(corpus), *flags]
    environment = os.environ | {"PYTHONPATH": str(TINY.parent.parent)}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment)
    assert "ends " in done.stdout, done.stderr
    # The first has scored, the last had neither to score nor to time again.
    assert json.loads(done.stdout.partition("ends ")[2]) == [101, *[-signal.SIGKILL] * 4, 100]
    assert not (tmp_path / "killed.jsonl.partial").exists()
    killed, whole = (list(read_records(path, RetrievalTrial)) for path in (output, undisturbed))
    assert [_without_times(trial) for trial in killed] == [_without_times(trial) for trial in whole]
    assert killed[-1].rerank_ms > 0


def test_times_are_those_of_the_run_that_was_killed(tmp_path):
    assert KeptTimes(tmp_path).keep("bm25", 1.25) == 1.25
    assert KeptTimes(tmp_path).keep("bm25", 9.0) == 1.25 == KeptTimes(tmp_path).get("bm25")
    assert KeptTimes(tmp_path).get("rerank 10") is None


def _without_times(trial):
    return {name: value for name, value in vars(trial).items() if not name.endswith("_ms")}
