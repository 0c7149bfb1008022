"""The stage over a backend whose curves are known: what is tried, left out, ignored, failed, and gone on with."""

import json

import numpy as np
import pytest

from milvus_optimization.indexes import passes, strategy
from tests.milvus_optimization.fake_backend import FLAT, MICROSECOND, FakeBackend, graph
from tests.milvus_optimization.swept import write_vectors


@pytest.fixture(scope="session")
def larger_vectors(tmp_path_factory):
    return write_vectors(tmp_path_factory.mktemp("vectors") / "larger", rows=1200)


def test_a_table_is_measured_build_by_build(swept, capsys):
    swept.grid = [FLAT, graph(10, 40), graph(20, 60, M=16)]
    assert swept.run() == 0
    assert swept.told() == [
        ("FLAT", None, "ok"), ("GRAPH", 10, "ok"), ("GRAPH", 40, "ok"), ("GRAPH", 20, "ok"), ("GRAPH", 60, "ok"),
    ]  # fmt: skip
    assert swept.builds() == ["build FLAT", "build GRAPH 8", "build GRAPH 16"]
    assert [one.recall for one in swept.trials()] == pytest.approx([1, 0.3, 0.6, 0.4, 0.8])
    assert swept.done[0] == "insert 200" and swept.done.count("insert 200") == 1 and swept.done[-1] == "close"
    output = capsys.readouterr().out
    assert output.splitlines()[0].startswith("| index | build | search | recall")
    assert "| GRAPH | M 8   | ef 40  | 0.600  |" in output
    assert output.endswith(f"{swept.output}\n")


def test_a_trial_says_what_it_found(swept):
    swept.grid = [FLAT, graph(40)]
    assert swept.run() == 0
    flat, one = swept.trials()
    assert (one.cpu_ms_p50, one.cpu_ms_p95) == (40 * 1000 * MICROSECOND, 40 * 1000 * MICROSECOND)
    assert (one.wall_ms_p50, one.qps) == (None, None)
    assert (one.rows, one.dimensions, one.k, one.queries, one.noisy) == (200, 8, 10, 120, False)
    assert (one.build_seen, one.build_cpu_s, one.index_bytes, one.backend_version) == ({"M": 8}, 1.5, 4000, "fake 1")
    assert set(one.filtered) == {"50 %", "10 %", "1 %"} and one.peak_rss > 10**7
    # The relevant document is the nearest, as a rule: four lost of ten at the end of the list lose no quality.
    assert one.top1_kept == 1 and flat.ndcg > 0.8 and set(one.by_query) == {f"q{row}" for row in range(120)}
    assert (flat.loss.difference, flat.loss.low, flat.loss.high) == (0, 0, 0)
    assert one.recall_100 is None and flat.recall_100 >= flat.ndcg  # ef 40 has no 100 results


def test_a_loss_is_of_the_report_half(swept):
    swept.grid = [FLAT, graph(40, index="PRUNED")]
    assert swept.run() == 0
    flat, pruned = swept.trials()
    report = json.loads(swept.output.with_name("trials.jsonl.manifest.json").read_text())["report_queries"]
    assert pruned.top1_kept == 0 and pruned.loss.high < 0 and pruned.loss.worse <= report < 120
    assert pruned.loss.difference == pytest.approx(pruned.ndcg - flat.ndcg, abs=1e-6)


def test_a_build_is_left_where_recall_is_all_there_is(swept):
    swept.grid = [FLAT, graph(70, 80, 160, 320)]
    assert swept.run() == 0
    assert swept.told()[2:] == [("GRAPH", 80, "ok"), ("GRAPH", 160, "skipped"), ("GRAPH", 320, "skipped")]
    assert swept.trials()[-1].reason == "recall is 0.999 or more before it"
    assert "search GRAPH 160" not in swept.done


def test_a_build_is_left_where_quality_is_that_of_flat_twice(swept):
    swept.grid = [FLAT, graph(40, 50, 60, 70)]
    assert swept.run() == 0
    assert swept.told()[1:] == [
        ("GRAPH", 40, "ok"), ("GRAPH", 50, "ok"), ("GRAPH", 60, "skipped"), ("GRAPH", 70, "skipped"),
    ]  # fmt: skip
    assert swept.trials()[-1].reason == "nDCG is within 0.0005 of FLAT's 2 times before it"


def test_few_judged_queries_do_not_end_a_build(swept, capsys):
    swept.grid = [FLAT, graph(40, 50, 60)]
    assert swept.run("--tune_fraction", "0.1") == 0
    assert [status for *_, status in swept.told()] == ["ok"] * 4
    assert (
        "judged queries to choose by are few: what they choose may be worse than a default. Judge 100"
        in capsys.readouterr().err
    )


def test_an_index_that_is_not_there_is_told_and_the_sweep_goes_on(swept, capsys):
    swept.grid = [FLAT, graph(10, 20, index="NONE"), graph(10)]
    assert swept.run() == 0
    assert [status for *_, status in swept.told()] == ["ok", "unsupported", "unsupported", "ok"]
    assert swept.builds() == ["build FLAT", "build NONE 8", "build GRAPH 8"]
    assert "2 unsupported: NONE M 8: there is no NONE here" in capsys.readouterr().out


def test_a_build_that_is_not_as_asked_is_ignored_unsearched(swept):
    swept.grid = [FLAT, graph(10, 20, index="DEAF", M=4)]
    assert swept.run() == 0
    assert [one.status for one in swept.trials()] == ["ok", "ignored", "ignored"]
    assert "M" in swept.trials()[1].reason and swept.trials()[1].build_seen == {"M": 16}
    assert swept.searched() == ["search FLAT"]


def test_what_finds_everything_is_no_index(swept, larger_vectors):
    swept.folder, swept.lost = larger_vectors, lambda *_: 0
    assert swept.run() == 0
    assert [status for *_, status in swept.told()] == ["ok", "ignored", "skipped", "skipped", "skipped"]
    assert swept.trials()[1].reason == "recall is 1.000 at ef 10 already: this is a search through all vectors"


def test_a_width_that_is_not_read_is_told(swept, larger_vectors):
    swept.folder, swept.lost = larger_vectors, lambda index, *_: 7 if index == "GRAPH" else 0
    swept.grid = [FLAT, graph(10, 40)]
    assert swept.run() == 0
    assert {one.reason for one in swept.trials()[1:]} == {"recall is 0.300 at ef 10 and at ef 40 alike"}


def test_a_failure_is_tried_once_more_at_the_end(swept):
    swept.grid, swept.faults["search 20"] = [FLAT, graph(10, 20), graph(10, M=16)], ["the server is busy"]
    assert swept.run() == 0
    assert [status for *_, status in swept.told()] == ["ok"] * 4
    assert swept.builds() == ["build FLAT", "build GRAPH 8", "build GRAPH 16", "build GRAPH 8"]


def test_what_fails_again_is_told(swept):
    swept.grid, swept.faults["build GRAPH"] = [FLAT, graph(10, 20)], ["no room", "no room"]
    assert swept.run() == 0
    assert [(one.status, one.reason) for one in swept.trials()[1:]] == [("failed", "no room. Start it.")] * 2
    assert swept.facts()["statuses"] == {"ok": 1, "failed": 2}


def test_a_server_that_is_gone_stops_the_run_which_goes_on_when_it_is_back(swept, capsys):
    swept.grid = [FLAT, graph(10, 20, 30, 40, index="PRUNED"), graph(10, M=16)]
    swept.faults.update({"search 20": ["refused"], "search 30": ["refused"], "search 40": ["refused"]})
    assert swept.run() == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1] == (
        "Error: 3 trials in a row have failed, the last one (PRUNED) with: refused. Start it. Run the same command "
        "again to go on, where need be with --indexes without those that fail."
    )
    assert not swept.output.exists()
    assert swept.run() == 0
    assert [status for *_, status in swept.told()] == ["ok"] * 6
    assert swept.searched() == ["search PRUNED 20", "search PRUNED 30", "search PRUNED 40", "search GRAPH 10"]


def test_two_failures_in_a_row_do_not_end_it(swept):
    swept.grid = [FLAT, graph(10, 20, index="PRUNED"), graph(10, 20), graph(10, M=16)]
    swept.faults |= {"search 20": ["refused"], "build GRAPH": ["refused"]}  # a build counts once
    assert swept.run() == 0
    assert [status for *_, status in swept.told()] == ["ok"] * 6


def test_without_flat_there_is_nothing_to_hold_against(swept, capsys):
    swept.faults["build FLAT"] = ["refused"]
    assert swept.run() == 1
    assert capsys.readouterr().err.splitlines()[-1] == "Error: refused. Start it."
    assert list(swept.output.parent.iterdir()) == []  # so that nothing stands in the way of other settings
    assert swept.run("--k", "11") == 0


def test_a_finished_output_is_left_alone(swept):
    assert swept.run() == 0
    assert swept.run() == 0
    assert swept.done == []
    assert swept.run("--k", "11") == 1
    assert swept.run("--k", "11", "--overwrite") == 0
    assert {one.k for one in swept.trials()} == {11}


def test_other_choices_go_on_with_what_is_measured(swept):
    swept.grid, swept.faults["search 40"] = [FLAT, graph(10, 40, 80)], ["gone"] * 9
    swept.faults["search 80"] = ["gone"] * 9
    assert swept.run() == 1
    swept.grid = [FLAT, graph(10)]
    assert swept.run("--indexes", "GRAPH") == 0
    assert swept.searched() == []
    assert [status for *_, status in swept.told()] == ["ok", "ok"]


def test_after_the_budget_nothing_is_begun(swept):
    assert swept.run("--budget_seconds", "0") == 0
    assert [status for *_, status in swept.told()] == ["ok", *["skipped"] * 4]
    assert swept.trials()[1].reason == "--budget_seconds are over"


def test_judged_queries_are_timed_first_and_all_of_them_judge(swept, tmp_path, swept_vectors):
    lines = (swept_vectors / "qrels.tsv").read_text().splitlines()
    (tmp_path / "few.tsv").write_text("\n".join(lines[:81]) + "\n")
    swept.grid = [FLAT]
    assert swept.run("--qrels", str(tmp_path / "few.tsv"), "--queries", "30") == 0
    (flat,) = swept.trials()
    assert flat.queries == 30 and set(flat.by_query) == {f"q{row}" for row in range(80)}
    assert swept.facts()["tune_queries"] + swept.facts()["report_queries"] == 80


def test_without_qrels_it_says_where_they_may_come_from(swept, tmp_path, capsys):
    swept.folder = write_vectors(tmp_path / "unjudged", rows=60, queries=30)
    (swept.folder / "qrels.tsv").unlink()
    assert swept.run() == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"Error: {swept.folder}: has no qrels, and quality is measured by them. Pass --qrels FILE")


def test_without_queries_to_report_on_there_is_nothing_to_say(swept, capsys):
    assert swept.run("--tune_fraction", "1") == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"Error: {swept.folder / 'qrels.tsv'}: judges 120 queries to choose by and 0 to report on, and at least "
        "1 and 2 are needed. Judge more queries, or pass another --tune_fraction."
    )


def test_builds_are_screened_on_a_part_and_told_on_the_whole(swept, tmp_path):
    swept.folder = write_vectors(tmp_path / "many", rows=2000)
    bad = graph(20, 40, index="PRUNED")
    swept.lost = lambda index, *_: 9 if index == "PRUNED" else 3
    swept.grid = [FLAT, bad, graph(20), graph(20, index="NONE")]
    assert swept.run("--screen_fraction", "0.5") == 0
    assert swept.builds() == [
        "build FLAT",
        "build PRUNED 8",
        "build GRAPH 8",
        "build NONE 8",
        "build FLAT",
        "build GRAPH 8",
    ]
    assert [(one.index, one.status, one.screened_rows) for one in swept.trials()] == [
        ("FLAT", "ok", None), ("PRUNED", "skipped", 1000), ("PRUNED", "skipped", 1000), ("GRAPH", "ok", None),
        ("NONE", "unsupported", 1000),
    ]  # fmt: skip
    assert swept.trials()[1].reason == "screened out: other builds are better on a part of the documents"
    assert swept.trials()[1].recall is None


@pytest.mark.parametrize(
    "flags, code, message",
    [
        (["--backend", "server", "--uri", "http://me:secret@x"], 2, "--uri has a user or password in it. "
         "Set RAG_MILVUS_TOKEN=user:password, and leave it out of --uri."),
        (["--backend", "server"], 2, "--backend server needs --uri. Pass --uri http://HOST:19530."),
        (["--uri", "http://x"], 2, "--uri is of a server, and --backend is faiss. Pass --backend server."),
        (["--evaluations", "9"], 2, "--evaluations is for --search optuna. Pass both, or neither."),
        (["--screen_fraction", "0.2", "--backend", "lite"], 2,
         "--screen_fraction weighs recall against time, and milvus-lite's time means nothing. Leave it out."),
        (["--screen_fraction", "0.2"], 2,
         "--screen_fraction 0.2 of 200 documents is 40, fewer than 1000. "
         "Leave it out: so few are measured in seconds."),
        (["--k", "9"], 2, "--k is 9. Pass a number from 10 to 100."),
        (["--model", "other"], 1, "{folder}: has no vectors of 'other'. Pass --model with one of: model."),
    ],
)  # fmt: skip
def test_errors_are_one_sentence(swept, capsys, flags, code, message):
    assert swept.run(*flags) == code
    assert capsys.readouterr().err.splitlines()[-1] == f"Error: {message.format(folder=swept.folder)}"
    assert swept.done == [] and not swept.output.exists()


def test_of_a_server_the_clock_and_further_clients_tell(swept, monkeypatch):
    connected = []

    class Server(FakeBackend):
        tells_cpu_time, tells_wall_time = False, True

        def connect(self):
            connected.append(Server(self.clock, []))
            connected[-1].__dict__.update(vars(self) | {"done": connected[-1].done})
            return connected[-1]

    clock = passes.time
    monkeypatch.setattr(strategy, "open_backend", lambda *_, **__: Server(clock, swept.done))
    swept.grid = [FLAT, graph(10)]
    assert swept.run("--backend", "server", "--uri", "http://localhost:19530") == 0
    _, one = swept.trials()
    assert one.cpu_ms_p50 is None
    assert (one.wall_ms_p50, one.wall_ms_p95, one.wall_ms_p99) == (10 * 1000 * MICROSECOND,) * 3
    # The clock of the fake stands still while others search, so that all clients together are as fast as one.
    assert one.qps == pytest.approx(dict.fromkeys("124", 1 / (10 * MICROSECOND)))
    assert len(connected) == 2 * (1 + 2 + 4) and all(client.done[-1] == "close" for client in connected)


def test_two_passes_that_differ_are_noisy(swept, monkeypatch):
    swept.grid = [FLAT, graph(10)]
    asked = []

    class Slower(FakeBackend):
        def search(self, queries, k, parameters, *, below=None):
            found = super().search(queries, k, parameters, below=below)
            if parameters and len(queries) == 1:
                asked.append(1)
                self.clock.seconds += (
                    5 * MICROSECOND * (len(asked) > 140)
                )  # the second pass, after 20 to warm up and 120
            return found

    clock = passes.time
    monkeypatch.setattr(strategy, "open_backend", lambda *_, **__: Slower(clock, swept.done))
    assert swept.run() == 0
    assert [one.noisy for one in swept.trials()] == [False, True]
    assert len(asked) == 260


def test_a_damaged_trial_is_measured_again(swept, capsys):
    swept.faults["search 20"] = ["gone"] * 9
    swept.grid = [FLAT, graph(10, 20), graph(20, M=16)]
    assert swept.run() == 1
    folder = swept.output.with_name("trials.jsonl.partial") / "trials"
    for path in folder.glob("*.jsonl"):
        path.write_bytes(path.read_bytes()[:50])
    (folder / "exact.npz").write_bytes(b"PK\x03\x04")
    swept.faults.clear()
    assert swept.run() == 0
    assert "is measured again" in capsys.readouterr().err
    assert [status for *_, status in swept.told()] == ["ok"] * 4
    assert np.isfinite([one.recall for one in swept.trials()]).all()
