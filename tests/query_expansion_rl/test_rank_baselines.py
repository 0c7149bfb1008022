"""rank_baselines through the front door: what it leaves, what it prints, what it refuses."""

import os
import signal

import pytest

from query_expansion_rl import rank_baselines
from query_expansion_rl.retrieval.searching import ExpandedQuery
from query_expansion_rl.retrieval.workspace import read_workspace
from rag_core.base.errors import DataError, StaleError
from rag_core.files.manifest import read_manifest
from tests.query_expansion_rl.aliases import (
    ALIASES,
    documents,
    encode,
    make_baselines,
    qrels,
    queries,
    write_aliases,
    write_lines,
)


def test_words_alone_find_nothing_and_their_expansion_finds_all(workspace):
    figures = workspace.summary.figures
    assert (figures["bm25"]["NDCG@10"], figures["rm3"]["NDCG@10"]) == (0, 0)
    assert figures["hybrid"]["NDCG@10"] == figures["rm3_hybrid"]["NDCG@10"] == figures["picked"]["NDCG@10"] == 1
    assert workspace.summary.headroom == 1
    searcher = workspace.searcher("bm25")
    for topic in workspace.of("test"):
        places, _ = searcher.search([ExpandedQuery(topic.query, ALIASES[topic.query])], 2)
        assert {list(workspace.corpus.documents)[place] for place in places[0]} == set(topic.relevant)


def test_a_hybrid_searcher_takes_expansions(workspace):
    searcher = workspace.searcher("hybrid", encode)
    places, _ = searcher.search([ExpandedQuery("MI", "cystic fibrosis", weight=0.1)], 2)
    assert {list(workspace.corpus.documents)[place] for place in places[0]} == {"d4-0", "d4-1"}


FILES = ("topics.jsonl", "judgements.jsonl", "rankings.jsonl", "baselines.json")
WAYS = {
    *("bm25", "rm3_default", "rm3", "rrf_bm25_rm3"),
    *("dense", "hybrid", "rm3_hybrid", "dense_prf", "rrf_rm3_dense", "rrf_rm3_hybrid_dense", "picked"),
}


def outputs(folder):
    return {name: (folder / "w" / name).read_bytes() for name in FILES}


def last_error(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_what_each_way_found_stands_in_the_workspace(workspace):
    rankings = workspace.rankings()
    assert set(rankings) == WAYS
    assert all(list(found) == [topic.query_id for topic in workspace.topics] for found in rankings.values())
    assert rankings["bm25"]["q0"].passages == []
    assert set(rankings["rm3_hybrid"]["q0"].passages[:2]) == {"d0-0", "d0-1"}
    assert set(workspace.milliseconds()) == WAYS - {"picked"}
    assert all(len(mine) == 10 for mine in workspace.gains().values())
    assert [len(workspace.of(split)) for split in ("train", "dev", "test")] == [10, 2, 8]
    assert (workspace.summary.tuned_by, workspace.summary.measured_by) == ("qrels", "qrels")
    assert (workspace.summary.best, workspace.summary.best_on) == ("dense", "train and dev")  # of equals the cheapest
    assert set(workspace.summary.tuned) == {"rm3", "rm3_hybrid", "dense_prf"}


def test_the_table_ends_in_a_sentence(tmp_path, encoders, capsys):
    assert make_baselines(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert [cell.strip() for cell in table[0].split("|")[1:-1]] == [
        *("way", "nDCG@10", "minus bm25", "wins", "losses", "harm", "MAP", "recall@100", "CPU ms"),
    ]
    assert [cell.strip() for cell in table[3].split("|")[1:8]] == [
        *("dense", "1.0000", "+1.0000 [+1.0000, +1.0000]", "8", "0", "0%", "1.0000"),
    ]
    assert any(line.startswith("picked: BM25 or one of 12 RM3 variants (with the hybrid's") for line in lines)
    assert lines[-2:] == [
        "Use dense: +1.0000 [+1.0000, +1.0000] nDCG@10 over bm25 on the test queries, and no training.",
        f"{tmp_path}/w",
    ]
    made = outputs(tmp_path)
    assert make_baselines(tmp_path) == 0
    again = capsys.readouterr().out.splitlines()
    assert (again, outputs(tmp_path)) == (lines, made)  # nothing is done twice, and all is told again
    assert len(encoders) == 1


def test_without_an_embedder_the_ways_are_those_of_words(tmp_path, overlap_teacher, capsys):
    source = write_aliases(tmp_path / "beir")
    command = ["--input", str(source), "--output_dir", str(tmp_path / "w"), "--teacher", "t"]
    assert rank_baselines.main(command) == 1  # BM25 finds nothing, so that there is nothing to judge
    assert "finds nothing that a teacher could judge" in last_error(capsys)
    lines = (source / "queries.jsonl").read_text().replace('"text": "', '"text": "patients of ward ')
    (source / "queries.jsonl").write_text(lines)
    assert rank_baselines.main([*command, "--overwrite", "--force"]) == 0
    workspace = read_workspace(tmp_path / "w")
    assert set(workspace.rankings()) == {"bm25", "rm3_default", "rm3", "rrf_bm25_rm3", "picked"}
    assert workspace.settings.vectors is None
    with pytest.raises(DataError, match="has no vectors"):
        workspace.searcher("dense")


def test_without_qrels_the_judge_measures_and_the_table_says_so(tmp_path, encoders, capsys):
    assert make_baselines(tmp_path, source=write_aliases(tmp_path / "beir", {})) == 0
    out, err = capsys.readouterr()
    assert "| way (by the judge) " in out
    assert "No test query is judged: dense agrees best with the judge on the train and dev queries" in out
    assert "WARNING: no train or dev query is judged, so nothing tells whether hybrid ranks better than bm25" in err
    summary = read_workspace(tmp_path / "w").summary
    assert (summary.tuned_by, summary.measured_by, summary.figures["hybrid"]["NDCG@10"]) == ("judge", "judge", 1)


def test_samples_are_a_corpus_too(tmp_path, encoders):
    texts, judged = documents(), qrels()
    rows = [
        {
            "query_id": key,
            "query": query,
            "positive": [texts[one] for one in judged[key]],
            "negative": [texts["d-none"]],
        }
        for key, query in queries().items()
    ]
    write_lines(tmp_path / "samples.jsonl", rows)
    assert make_baselines(tmp_path, source=tmp_path / "samples.jsonl") == 0
    assert read_workspace(tmp_path / "w").summary.figures["rm3_hybrid"]["NDCG@10"] == 1


def test_a_query_of_several_rows_is_one(tmp_path, encoders):
    source = write_aliases(tmp_path / "beir")
    path = source / "qrels" / "test.tsv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *rows[1::2], *rows[2::2], "q0\td0-0\t0", ""]))
    assert make_baselines(tmp_path, source=source) == 0
    assert read_workspace(tmp_path / "w").topics[0].relevant == {"d0-0": 1, "d0-1": 1}


@pytest.mark.parametrize(
    ("row", "what"), [("q99\td0-0\t1", "'q99' is not in queries"), ("q1\tx\t1", "'x' is not in the corpus")]
)
def test_an_unknown_id_is_told_with_its_line(tmp_path, encoders, capsys, row, what):
    source = write_aliases(tmp_path / "beir")
    path = source / "qrels" / "test.tsv"
    path.write_text(path.read_text() + row + "\n")
    assert make_baselines(tmp_path, source=source) == 1
    assert last_error(capsys).startswith(f"Error: {path}:42: {what}. Correct the row, or pass --skip_bad_rows")
    assert not (tmp_path / "w").exists()
    assert make_baselines(tmp_path, "--skip_bad_rows", source=source) == 0
    assert read_manifest(tmp_path / "w" / "documents.jsonl").skipped == {"bad_rows": 1}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--retriever", "hybrid"), "--teacher hybrid is the retriever itself, which agrees with itself already"),
        (("--fractions", "train=1"), "--fractions names train. Name train, dev and test"),
        (("--test_split", "dev"), "has no qrels/dev.tsv beside others (there: test)"),
        (("--judge_top", "0"), "--judge_top is 0. Pass a number from 1 to 100"),
        (("--bm25_b", "2"), "--bm25_b is 2. Pass a number from 0 to 1"),
    ],
)
def test_flags_that_do_not_go_together(tmp_path, capsys, flags, message):
    assert make_baselines(tmp_path, *flags) == 2
    assert message in last_error(capsys)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("flag", ["--retriever", "--teacher"])
def test_dense_ways_need_an_embedder(tmp_path, capsys, flag):
    source = write_aliases(tmp_path / "beir")
    command = ["--input", str(source), "--output_dir", str(tmp_path / "w")]
    assert rank_baselines.main([*command, flag, "hybrid"]) == 2
    expected = f"Error: {flag} hybrid needs an embedder. Pass --dense_model, or another {flag}."
    assert last_error(capsys) == expected


def test_other_settings_are_refused_and_overwritten_when_asked(tmp_path, encoders, capsys):
    assert make_baselines(tmp_path) == 0
    made = outputs(tmp_path)
    assert make_baselines(tmp_path, "--bm25_k1", "2") == 1
    assert "made with other settings: --bm25_k1 (was 1.2, is 2.0)" in last_error(capsys)
    assert outputs(tmp_path) == made
    assert make_baselines(tmp_path, "--bm25_k1", "2", "--overwrite") == 0
    assert read_workspace(tmp_path / "w").settings.k1 == 2
    assert outputs(tmp_path)["topics.jsonl"] == made["topics.jsonl"]


def test_a_file_that_was_changed_is_refused(tmp_path, encoders, capsys):
    assert make_baselines(tmp_path) == 0
    path = tmp_path / "w" / "topics.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"dev"', b'"test"'))
    assert make_baselines(tmp_path) == 1
    assert f"{path}: has changed since its manifest was written" in last_error(capsys)
    with pytest.raises(StaleError, match="has changed since its manifest was written"):
        read_workspace(tmp_path / "w")


def test_a_damaged_summary_is_told(workspace):
    path = workspace.folder / "baselines.json"
    path.write_text(path.read_text().replace('"judge_top": 10', '"judge_top": "five"'))
    path.with_name("baselines.json.manifest.json").unlink()
    with pytest.raises(DataError) as error:
        read_workspace(workspace.folder)
    assert "is no summary of rank_baselines (judge_top: Input should be a valid integer" in str(error.value)


def killed_at(folder, number):
    """Run the stage in a process that kills itself when it is about to write its file of this number.

    Return whether it was killed.
    """
    process = os.fork()
    if not process:
        writes = 0

        def counting(file, *rest, _write=os.fsync):
            nonlocal writes
            writes += 1
            if writes == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return _write(file, *rest)

        os.fsync = counting
        os._exit(make_baselines(folder))
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, encoders):
    whole = tmp_path / "whole"
    assert make_baselines(whole) == 0
    expected = {name: content for name, content in outputs(whole).items() if name != "baselines.json"}
    killed = tmp_path / "killed"
    number = kills = 0
    while killed_at(killed, number := number + 4):
        kills += 1
    assert kills >= 4
    found = outputs(killed)
    assert {name: found[name] for name in expected} == expected
    # The summary names the embedder's folder, which is another one here.
    assert found["baselines.json"].replace(bytes(killed), bytes(whole)) == outputs(whole)["baselines.json"]
    assert not list((killed / "w").glob("**/*.partial"))
