"""evaluate through its command: figures that can be reckoned, the verdict, the gate, and what is refused."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from query_expansion_rl.evaluate import main
from query_expansion_rl.learning.selector import FEATURES, SELECTION, Selector
from query_expansion_rl.records import Ranking
from query_expansion_rl.retrieval.workspace import read_workspace
from rag_core.files.jsonl import write_records
from tests.query_expansion_rl.alias_workspace import write_expansions, write_workspace


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A workspace and files of expansions: who knows names, who guesses, who misleads, several samples."""
    folder = tmp_path_factory.mktemp("alias")
    write_workspace(folder / "w", best="bm25")
    write_expansions(folder / "good.jsonl", "dpo", lambda i, _: f"name{i}" if i % 5 else "")
    write_expansions(folder / "random.jsonl", "random", lambda i, _: f"name{i}" if i % 3 == 0 else "common1")
    write_expansions(folder / "noise.jsonl", "noise", lambda i, _: f"name{(i * 7 + 1) % 80} common3", splits=("test",))
    write_expansions(folder / "four.jsonl", "four", lambda i, s: f"name{i + s - 2}", samples=4)
    return folder


@pytest.fixture
def evaluate(files, tmp_path, capsys):
    """Run the stage on files of expansions; return its exit code, the report, and what it printed."""

    def run(*names, output="report", flags=()):
        expansions = [str(files / f"{name}.jsonl") for name in names]
        argv = ["--baselines", str(files / "w"), "--output_dir", str(tmp_path / output), *map(str, flags)]
        code = main([*argv, "--expansions", *expansions] if expansions else argv)
        printed = capsys.readouterr()
        path = tmp_path / output / "report.json"
        return code, json.loads(path.read_text()) if path.exists() else None, printed

    return run


def rows_of(report):
    return {row["name"]: row for row in report["rows"]}


def test_the_table_of_a_method(evaluate):
    code, report, printed = evaluate("good")
    assert code == 0
    rows = rows_of(report)
    assert list(rows) == [
        *("bm25", "dense", "hybrid", "oracle over 3 ways"),
        *("dpo alone", "dpo", "dpo rrf", "dpo gated", "dpo + dense"),
    ]
    # Alone, a name finds its document, and no name finds nothing.
    named = sum(int(query_id[1:]) % 5 > 0 for query_id in rows["dpo alone"]["by_query"])
    assert rows["dpo alone"]["means"]["NDCG@10"] == pytest.approx(named / 40)
    change = rows["dpo"]["minus_retriever"]
    values = np.array([rows["dpo"]["by_query"][key] - old for key, old in rows["bm25"]["by_query"].items()])
    assert change["difference"] == pytest.approx(values.mean())
    assert change["low"] < change["difference"] < change["high"]
    assert (change["better"], change["worse"]) == ((values > 0).sum(), (values < 0).sum())
    assert rows["dpo"]["harm"] == change["worse"] / 40
    assert rows["dpo"]["tokens"] == 4 and rows["dpo"]["write_ms"] is None
    assert rows["dpo"]["search_ms"] > 0
    assert rows["bm25"]["minus_retriever"] is None and rows["bm25"]["minus_best"] is None
    assert report["headroom"] == pytest.approx(
        rows["oracle over 3 ways"]["means"]["NDCG@10"] - rows["bm25"]["means"]["NDCG@10"]
    )
    assert rows["oracle over 3 ways"]["minus_best"] is None
    assert report["verdict"]["sentence"] in printed.out


@pytest.fixture
def words_only(files, tmp_path, capsys):
    """Run the stage where there are no vectors, so that nothing but an expansion can help; return report and output."""

    def run(*names, flags=()):
        write_workspace(tmp_path / "w", vectors=False, best="bm25")
        argv = ["--baselines", tmp_path / "w", "--output_dir", tmp_path / "report", *flags, "--expansions"]
        assert main([str(word) for word in [*argv, *(files / f"{name}.jsonl" for name in names)]]) == 0
        return json.loads((tmp_path / "report" / "report.json").read_text()), capsys.readouterr().out

    return run


def test_an_expansion_is_recommended_where_it_beats_what_needs_none(words_only):
    report, printed = words_only("good", "random", flags=["--control", "random"])
    assert report["verdict"]["use"] == "dpo" and report["verdict"]["outcome"] == "expansion"
    sentence = report["verdict"]["sentence"]
    assert sentence.startswith("Use dpo: nDCG@10 0.") and " against bm25, the best way without training" in sentence
    assert "chosen among 6 rows on the dev queries" in sentence and report["dev_queries"] == 20
    assert "Minus the control random, which learned from random samples: its expansions alone +0." in sentence
    assert printed.splitlines()[-2] == f"Only 40 queries report. {sentence}"


def test_chosen_on_the_queries_that_report(words_only, files):
    write_expansions(files / "test_only.jsonl", "dpo", lambda i, _: f"name{i}", splits=("test",))
    report, _ = words_only("test_only")
    assert report["dev_queries"] == 0
    assert "on the queries that report it, which flatters it" in report["verdict"]["sentence"]


def test_a_row_that_harms_is_not_recommended(words_only):
    report, printed = words_only("noise")
    rows = rows_of(report)
    assert rows["noise"]["harm"] > 0
    assert report["verdict"]["use"] == "bm25" and report["verdict"]["outcome"] == "retriever"
    assert "No expansion is better beyond the interval" in report["verdict"]["sentence"]
    assert "Leave bm25 as it is" in printed
    assert report["dev_queries"] == 0  # none of its expansions are for them


def test_a_cheaper_way_that_does_better_is_not_passed_over(evaluate):
    """The best way by the dev queries is BM25 here, and dense search does far better on those that report."""
    _, report, _ = evaluate("good")
    rows = rows_of(report)
    assert rows["dpo + dense"]["minus_best"]["low"] > 0
    assert report["verdict"]["use"] == "bm25"
    assert "but dense reached 0.664 on these queries, without training" in report["verdict"]["sentence"]


def test_the_gate_never_lowers_what_the_teacher_sees(files):
    workspace = read_workspace(files / "w")
    from query_expansion_rl.report.rows import Comparison, Searchers
    from query_expansion_rl.report.written import read_written
    from rag_core.files.kept_times import KeptTimes

    topics = workspace.of("test")
    searchers = Searchers("bm25", workspace.word_searcher(), workspace.vector_searcher(), None, None)
    times = KeptTimes(files)
    comparison = Comparison(workspace, topics, searchers, times, query_weight=5.0, gate="teacher")
    alone = comparison.judge(comparison.training_free({}, "")[0].places)
    changed = 0
    for written in read_written([files / f"{name}.jsonl" for name in ("good", "noise", "four")], workspace):
        rows = {row.way: row for row in comparison.expanded(written)}
        gated = rows.get("gated") or rows["best gated"]
        seen = comparison.judge(gated.places)
        assert (seen >= alone).all()
        changed += (seen > alone).sum()
        passed = np.array([bool(gated.texts[topic.query_id]) for topic in topics])
        assert (seen[~passed] == alone[~passed]).all() and (seen[passed] > alone[passed]).all()
    assert changed > 0


def test_the_best_of_several_samples(evaluate):
    _, report, _ = evaluate("four")
    rows = rows_of(report)
    assert [name for name in rows if name.startswith("four")] == [
        *("four best of 4", "four best of 4 gated", "four best of 4 + dense", "four oracle of 4"),
    ]
    assert rows["four oracle of 4"]["means"]["NDCG@10"] >= rows["four best of 4"]["means"]["NDCG@10"]
    assert rows["four best of 4"]["tokens"] == 16
    assert rows["four oracle of 4"]["kind"] == "oracle"


def test_the_control(evaluate):
    _, report, _ = evaluate("good", "random", flags=["--control", "random", "--examples_of", "dpo"])
    found = {one["way"]: one for one in report["controls"]}
    assert list(found) == ["alone", "concat", "rrf", "gated", "dense"]
    rows = rows_of(report)
    for way, suffix in (("alone", " alone"), ("concat", ""), ("dense", " + dense")):
        mine, theirs = (np.array(list(rows[f"{name}{suffix}"]["by_query"].values())) for name in ("dpo", "random"))
        assert found[way]["difference"]["difference"] == pytest.approx((mine - theirs).mean())
        assert found[way]["control"] == "random"
    assert found["alone"]["difference"]["low"] > 0
    assert report["shown"] == "dpo" and report["gains"]
    assert {one["expansion"][:4] for one in report["gains"]} == {"name"}


def test_a_policy_that_writes_nothing(evaluate, files, tmp_path):
    workspace = read_workspace(files / "w")
    rows = [Ranking(topic.query_id, "select", [f"d{topic.query_id[1:]}"], [1.0]) for topic in workspace.of("test")]
    write_records(tmp_path / "select.jsonl", rows)
    _, report, _ = evaluate(flags=["--rankings", tmp_path / "select.jsonl"])
    row = rows_of(report)["select"]
    assert row["kind"] == "policy" and row["tokens"] is None
    assert row["means"] == {"NDCG@10": 1.0, "MAP": 1.0, "Recall@100": 1.0}
    assert report["verdict"]["use"] == "select"
    assert "Use select: nDCG@10 1.000" in report["verdict"]["sentence"]


def test_a_selection(evaluate, tmp_path):
    count = len(FEATURES)
    always_dense = Selector(["bm25", "dense"], [0.0] * count, [0.0, 1.0], [0.0, 0.0], [0.0] * count, [1.0] * count)
    (tmp_path / "select").mkdir()
    (tmp_path / "select" / SELECTION).write_text(json.dumps(dataclasses.asdict(always_dense)))
    _, report, _ = evaluate(flags=["--selections", tmp_path / "select"])
    rows = rows_of(report)
    assert rows["select"]["by_query"] == rows["dense"]["by_query"] and rows["select"]["kind"] == "policy"
    strange = dataclasses.replace(always_dense, variants=["bm25", "rm3"])
    (tmp_path / "select" / SELECTION).write_text(json.dumps(dataclasses.asdict(strange)))
    code, _, printed = evaluate(output="other", flags=["--selections", tmp_path / "select"])
    assert code == 1 and "chooses among ways that the workspace lacks (rm3)" in printed.err


def test_without_qrels_the_teacher_judges_and_the_headline_says_so(files, tmp_path, capsys):
    write_workspace(tmp_path / "w", qrels=False, best="hybrid")
    argv = ["--baselines", str(tmp_path / "w"), "--expansions", str(files / "good.jsonl")]
    assert main([*argv, "--output_dir", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["judged_by"] == "hybrid"
    assert "Nobody judged these queries" in capsys.readouterr().out
    rows = rows_of(report)
    assert rows["hybrid"]["means"]["NDCG@10"] == pytest.approx(1.0)  # the teacher agrees with itself
    assert rows["dpo gated"]["minus_retriever"]["worse"] == 0


def test_a_second_retriever_embeds_the_expansions(evaluate, monkeypatch):
    from query_expansion_rl import evaluate as stage

    asked = []

    class Encoder:
        def __init__(self, workspace, model, folder, **_):
            asked.append(model)

        def __call__(self, texts):
            rows = np.ones((len(texts), 8), dtype=np.float32)
            return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(stage, "ExpansionEncoder", Encoder)
    code, report, _ = evaluate("good", flags=["--second_retriever", "hybrid", "--dense_model", "elsewhere"])
    assert code == 0 and asked == ["elsewhere"]
    rows = rows_of(report)
    assert rows["hybrid (second)"]["means"] == rows["hybrid"]["means"]
    assert "dpo on hybrid" in rows
    assert "dpo on hybrid gated" not in rows  # the hybrid is the teacher, and likes no ranking better than its own
    values = np.array(list(rows["dpo on hybrid"]["by_query"].values()))
    theirs = np.array(list(rows["hybrid"]["by_query"].values()))
    assert rows["dpo on hybrid"]["minus_retriever"]["difference"] == pytest.approx((values - theirs).mean())


@pytest.mark.slow
def test_behind_a_reranker(evaluate, overlap_teacher, tmp_path):
    flags = ["--reranker", "t", "--reranker_depth", "5", "--score_store", tmp_path / "store"]
    code, report, _ = evaluate("good", flags=flags)
    assert code == 0
    names = [row["name"] for row in report["reranked"]]
    assert names[0] == "bm25 + reranker" and "dpo gated + reranker" in names
    assert not [name for name in names if "oracle" in name or "alone" in name]
    assert report["reranker"] == "t" and report["reranked_verdict"]["use"].endswith("+ reranker")
    scored = set(overlap_teacher.scored)
    overlap_teacher.scored.clear()
    evaluate("good", output="again", flags=flags)
    assert len(overlap_teacher.scored) == 11 * 5 and set(overlap_teacher.scored) <= scored  # the times alone


def test_what_is_finished_stays(evaluate, tmp_path):
    evaluate("good")
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    code, _, printed = evaluate("good")
    assert code == 0 and "is finished already" in printed.err
    assert "minus bm25" in printed.out
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before
    code, _, printed = evaluate("good", flags=["--query_weight", "2"])
    assert code == 1 and "--query_weight (was 5.0, is 2.0)" in printed.err
    code, report, _ = evaluate("good", flags=["--query_weight", "2", "--overwrite"])
    assert code == 0 and report["query_weight"] == 2


def test_expected_figures(evaluate, tmp_path):
    expected = tmp_path / "expected.json"
    row = {"file": "test", "ranker": "bm25", "metric": "Recall@100", "expected": 0.85, "tolerance": 0.2}
    expected.write_text(json.dumps([row]))
    assert evaluate("good", flags=["--expect", expected])[0] == 0
    expected.write_text(json.dumps([row | {"expected": 0.1}]))
    code, _, printed = evaluate("good", flags=["--expect", expected])
    assert code == 1 and "1 of 1 figures are not as expected" in printed.err


def other_rows(path, change):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    target = path.with_name("changed.jsonl")
    target.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    return target


@pytest.mark.parametrize(
    ("change", "flags", "code", "error"),
    [
        (lambda rows: [{**rows[0], "query_id": "q999"}], (), 1, "changed.jsonl:1: query_id 'q999' is not in topics"),
        (lambda rows: rows[:30], (), 1, "test queries have fewer than 1 expansions by 'dpo' (the first: 'q"),
        (lambda rows: [*rows, rows[0]], (), 1, "has sample 0 by 'dpo' twice"),
        (lambda rows: rows, ("--control", "rft"), 2, "--control rft is no method of the expansions. Pass one of: dpo"),
        (lambda rows: rows, ("--examples_of", "rft"), 2, "--examples_of rft is no row. Pass one of: bm25, dense"),
        (lambda rows: rows, ("--reranker_depth", "7"), 2, "--reranker_depth is for a reranker. Pass --reranker"),
        (lambda rows: [{**row, "method": "bm25"} for row in rows], (), 0, ""),
    ],
)
def test_what_is_refused(change, flags, code, error, evaluate, files, tmp_path, capsys):
    path = tmp_path / "good.jsonl"
    path.write_bytes((files / "good.jsonl").read_bytes())
    argv = ["--baselines", str(files / "w"), "--expansions", str(other_rows(path, change))]
    found = main([*argv, "--output_dir", str(tmp_path / "report"), *flags])
    printed = capsys.readouterr().err
    if code == 0:  # a method of the retriever's name
        assert found == 2 and "two rows are named bm25" in printed
        return
    assert found == code and error in printed
    assert not (tmp_path / "report").exists()


def test_two_files_of_one_method(evaluate, files):
    code, _, printed = evaluate("good", "good")
    assert code == 2 and "has the method 'dpo', which another file has, too" in printed.err


def test_expansions_of_other_topics(evaluate, files, tmp_path, capsys):
    from rag_core.files.manifest import Recipe, write_manifest

    path = tmp_path / "good.jsonl"
    path.write_bytes((files / "good.jsonl").read_bytes())
    write_manifest(path, Recipe("generate", {}, {"elsewhere/topics.jsonl": "0" * 64}))
    argv = ["--baselines", str(files / "w"), "--expansions", str(path), "--output_dir", str(tmp_path / "report")]
    assert main(argv) == 1
    assert "was made from another topics.jsonl" in capsys.readouterr().err


# Runs the stage in processes of their own, each killed when so many files are safely on disk.
KILLED = """
import json, os, signal, sys
import ir_measures, scipy.stats, bm25s, matplotlib.figure  # once for all of them
from query_expansion_rl import evaluate
from rag_core.files import provenance
import time
time.process_time = lambda: 1.0
provenance._git_state = lambda: None

ends = []
for moment, output in json.loads(sys.argv[1]):
    process = os.fork()
    if process == 0:
        sync, left = os.fsync, [moment]
        def deadly(descriptor):
            sync(descriptor)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        if moment:
            os.fsync = deadly
        os._exit(evaluate.main([*sys.argv[2:], "--output_dir", output]))
    ends.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
print(json.dumps(ends))
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_bytes_are_the_same(files, tmp_path):
    runs = [*([moment, "killed"] for moment in (1, 4, 7, 11, 13)), [0, "killed"], [0, "whole"]]
    argv = ["--baselines", str(files / "w"), "--expansions", str(files / "good.jsonl"), str(files / "four.jsonl")]
    command = [sys.executable, "-c", KILLED, json.dumps(runs), *argv]
    found = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True)
    ends = json.loads(found.stdout.splitlines()[-1])
    assert ends[-2:] == [0, 0] and -signal.SIGKILL in ends
    names = {"report.json", "report.html", "report.md", "report.json.manifest.json"}
    assert {path.name for path in (tmp_path / "killed").iterdir()} == names
    for name in ("report.json", "report.html", "report.md"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(tmp_path.glob("*.partial"))
