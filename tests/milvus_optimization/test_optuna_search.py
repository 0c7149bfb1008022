"""Optuna over the same table: it finds what the grid finds, and builds each index once."""

import builtins
import sys

import pytest

from tests.milvus_optimization.fake_backend import FLAT, graph

GRID = [FLAT, graph(10, 20, index="PRUNED"), graph(10, 20, 30, M=16), graph(10, index="NONE")]


@pytest.fixture
def table(swept):
    swept.grid = GRID
    return swept


def in_short(trials):
    return [(one.trial_id, one.status, one.reason, one.recall, one.loss, one.build_seen) for one in trials]


def test_with_as_many_evaluations_as_settings_it_is_the_grid(table):
    assert table.run("--tune_fraction", "0.1") == 0  # with few tune queries, no build is left before its end
    by_grid = table.trials()
    assert table.run("--tune_fraction", "0.1", "--search", "optuna", "--evaluations", "7", "--overwrite") == 0
    assert in_short(table.trials()) == in_short(by_grid)
    assert sorted(table.builds()) == ["build FLAT", "build GRAPH 16", "build NONE 8", "build PRUNED 8"]


def test_it_tries_half_and_names_the_others(table):
    assert table.run("--search", "optuna") == 0
    trials = table.trials()
    assert [one.status for one in trials].count("skipped") == 3
    assert {one.reason for one in trials if one.status == "skipped"} == {"Optuna did not propose it"}
    assert trials[0].status == "ok" and len(trials) == 7


def test_a_stopped_search_proposes_the_same_again(table):
    assert table.run("--search", "optuna", "--evaluations", "5") == 0
    undisturbed = table.told()
    table.output.unlink()
    table.output.with_name("trials.jsonl.manifest.json").unlink()
    for width in (10, 20, 30):
        table.faults[f"search {width}"] = ["gone"] * 9
    assert table.run("--search", "optuna", "--evaluations", "5") == 1
    table.faults.clear()
    assert table.run("--search", "optuna", "--evaluations", "5") == 0
    assert "search FLAT" not in table.done
    assert sum(status == "skipped" for *_, status in table.told()) == sum(
        status == "skipped" for *_, status in undisturbed
    )


def test_after_the_budget_it_ends(table):
    assert table.run("--search", "optuna", "--budget_seconds", "0") == 0
    assert [status for *_, status in table.told()] == ["ok", *["skipped"] * 6]


def test_without_optuna_it_says_what_to_install(table, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "optuna", raising=False)
    real = builtins.__import__

    def missing(name, *args, **more):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert table.run("--search", "optuna") == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        'Error: --search optuna needs Optuna. Run: pip install "rag-optimization[optuna]", or leave --search out.'
    )
