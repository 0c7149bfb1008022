import ast
import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from unittest.mock import MagicMock

import pytest

from milvus_optimization.recommend import main
from milvus_optimization.report import plots
from rag_core.metrics import significance
from tests.milvus_optimization.measured import (
    MODEL,
    defaults,
    index,
    means,
    query_ids,
    retrieval,
    swapped,
    sweep,
    variants,
    write_measured,
)

HOSTILE = '"""\nimport os\n<script>alert(1)</script> & $x_{1}$ `${y}` \x1b[2J\u202e |'


@pytest.fixture
def drawn():
    """Ask for real figures."""


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Draw no figures, but for who asks for them, and few samples: both take most of the time."""
    monkeypatch.setattr(significance, "_RESAMPLES", 199)
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(plots, "new_figure", lambda: (None, MagicMock()))
        monkeypatch.setattr(plots, "_wide_figure", lambda height: (None, MagicMock()))
        monkeypatch.setattr(plots, "_logarithmic", lambda axes: None)
        monkeypatch.setattr(plots, "svg", lambda figure, description: "<svg></svg>")


def recommendation(folder):
    return json.loads((folder / "report" / "recommendation.json").read_text())


def page(folder, name="report.html"):
    return (folder / "report" / name).read_text()


def run(folder, *flags, **inputs):
    return main([*write_measured(folder, **inputs), *flags])


def test_says_in_a_sentence_what_to_use_and_what_it_is_worth(tmp_path, capsys):
    assert run(tmp_path) == 0
    found = recommendation(tmp_path)
    assert found["sentence"] == (
        "Use IVF_SQ8 (nlist 8, nprobe 32) and weighted fusion (0.4 dense, 0.6 BM25) of 50 candidates each: nDCG@10 "
        "0.6700 on 70 queries that it was not chosen on, +0.0700 [+0.0700, +0.0700] against dense only; the index "
        "itself changes it by -0.0012 [-0.0012, -0.0012]. It is better than the best default, equal weights: "
        "+0.0400 [+0.0400, +0.0400]."
    )
    assert found["sentence"] in capsys.readouterr().out
    assert (found["verdict"], found["variant"], found["judged_by"]) == ("better", "sq8", "labels")
    assert (found["tune_queries"], found["report_queries"]) == (90, 70)
    assert "by_query" not in found["index"] and found["retrieval"]["by_query"] == {}


def test_the_tune_half_chooses_and_the_report_half_has_no_say(tmp_path):
    ways = [*defaults(), retrieval("rrf", 0.70, 0.61, parameter=1.0), retrieval("rrf", 0.61, 0.70, parameter=5.0)]
    indexes = [index(ms=4.0), index("HNSW", 0.001, 0.04, ms=0.3), index("IVF_FLAT", 0.04, 0.001, ms=0.2)]
    assert run(tmp_path / "a", ways=ways, indexes=indexes) == 0
    first = recommendation(tmp_path / "a")
    assert (first["index"]["index"], first["retrieval"]["parameter"]) == ("HNSW", 1.0)
    assert first["retrieval"]["ndcg"] == pytest.approx(0.61)  # of the report half, and not the better one
    exchanged = [swapped(trial) for trial in ways]
    assert run(tmp_path / "b", ways=exchanged, indexes=[indexes[0], *map(swapped, indexes[1:])]) == 0
    second = recommendation(tmp_path / "b")
    assert (second["index"]["index"], second["retrieval"]["parameter"]) == ("IVF_FLAT", 5.0)


def test_losses_of_the_report_half_decide_nothing(tmp_path):
    indexes = [index(ms=4.0), index("HNSW", 0.001, 0.3, ms=0.3), index("IVF_FLAT", 0.001, 0.0, ms=0.4)]
    assert run(tmp_path, indexes=indexes) == 0
    assert recommendation(tmp_path)["index"]["index"] == "HNSW"


@pytest.mark.parametrize(
    ("flags", "name", "search"),
    [
        ([], "IVF_SQ8", {"nprobe": 32}),
        (["--max_loss", "0.0005"], "FLAT", {}),
        (["--min_recall", "0.98"], "HNSW", {"ef": 64}),
        (["--max_loss", "0.1"], "IVF_FLAT", {"nprobe": 1}),
        (["--max_mb", "5", "--target", "server"], "IVF_RABITQ", {"nprobe": 8}),
        (["--max_ms", "0.15", "--max_loss", "0.031"], "HNSW", {"ef": 10}),
    ],
)
def test_the_cheapest_within_the_constraints(tmp_path, flags, name, search):
    assert run(tmp_path, *flags) == 0
    found = recommendation(tmp_path)
    assert (found["index"]["index"], found["index"].get("search")) == (name, search)
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    given.pop("--target", None)
    assert found["constraints"] == {"max_loss": 0.005} | {key[2:]: float(value) for key, value in given.items()}


def test_flat_is_enough_where_exact_search_is_fast(tmp_path):
    assert run(tmp_path, indexes=[index(ms=0.36), *sweep()[1:]]) == 0
    found = recommendation(tmp_path)
    assert found["index"]["index"] == "FLAT"
    assert (
        "FLAT is enough: exact search of 60 vectors takes 0.36 ms a query, and IVF_SQ8 (nlist 8, nprobe 32) would "
        "save 0.06 ms."
    ) in found["sentence"]
    assert run(tmp_path / "limit", "--max_ms", "0.32", indexes=[index(ms=0.36), *sweep()[1:]]) == 0
    assert recommendation(tmp_path / "limit")["index"]["index"] == "IVF_SQ8"


def test_flat_that_nothing_else_can_replace_is_not_said_to_be_enough(tmp_path):
    assert run(tmp_path, "--max_loss", "0.0005") == 0
    assert (
        "FLAT is the cheapest that keeps the constraints: exact search of 60 vectors takes 4 ms a query."
    ) in recommendation(tmp_path)["sentence"]


def test_of_lite_alone_the_smallest(tmp_path):
    indexes = [index(backend="lite"), index("HNSW_SQ", mb=3, backend="lite"), index("HNSW", mb=9, backend="lite")]
    assert run(tmp_path, indexes=indexes) == 0
    assert recommendation(tmp_path)["index"]["index"] == "HNSW_SQ"
    assert "milvus-lite tells no times" in page(tmp_path)


def test_a_server_tells_by_the_clock_before_faiss_does(tmp_path):
    times = {"backend": "server", "wall_ms_p95": 9.0}
    slow = [index(wall_ms_p50=5.0, **times), index("HNSW", wall_ms_p50=2.0, build={"M": 48}, **times)]
    assert run(tmp_path, "--target", "server", indexes=[*sweep(), *slow]) == 0
    assert recommendation(tmp_path)["index"]["build"] == {"M": 48}


def test_an_index_that_was_screened_or_is_not_there_is_not_taken(tmp_path):
    part = dataclasses.replace(index("HNSW", ms=0.01), screened_rows=30)
    assert run(tmp_path, indexes=[*sweep(), part, index("IVF_PQ", ms=0.01)]) == 0
    assert recommendation(tmp_path)["index"]["index"] == "IVF_SQ8"


def test_no_trial_keeps_the_constraints(tmp_path, capsys):
    assert run(tmp_path, "--max_ms", "0.01", "--max_mb", "20") == 1
    assert capsys.readouterr().err == (
        "Error: none of 5 index trials keeps the constraints; the nearest is IVF_FLAT (nlist 8, nprobe 1), with a loss "
        "of 0.05 (--max_loss 0.005) and a median time of 0.05 (--max_ms 0.01) and a size in MB of 30 (--max_mb 20). "
        "Relax that, or sweep more settings.\n"
    )
    assert not (tmp_path / "report").exists()


def test_a_figure_that_is_asked_for_and_not_known(tmp_path, capsys):
    assert run(tmp_path, "--max_ms", "5", indexes=[index(backend="lite")]) == 1
    assert "the nearest is FLAT, with no figure for --max_ms" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("best", "verdict", "said"),
    [
        (0.64, "better", "It is better than the best default, equal weights"),
        (0.63, "equal", "Tuning gained nothing that is sure over the best default, equal weights"),
        (0.60, "worse", "It is worse than the best default: take equal weights"),
    ],
)
def test_the_verdict_is_of_the_report_half(tmp_path, best, verdict, said):
    ways = [*defaults(), retrieval("weighted", 0.7, best, parameter=0.3, seed=7)]
    assert run(tmp_path, ways=[*ways[:3], dataclasses.replace(ways[3], **_noisy(ways, best, verdict))]) == 0
    found = recommendation(tmp_path)
    assert found["verdict"] == verdict
    assert said in found["sentence"]


def _noisy(ways, best, verdict):
    """Keep the difference from equal weights the same on every query, but where it is to be chance."""
    if verdict == "equal":
        return {}
    shift = {key: ways[2].by_query[key] + (best - 0.63) for key in query_ids()}
    chosen = {key: ways[3].by_query[key] for key in query_ids()}
    from milvus_optimization.quality.halves import is_tune_query

    by_query = {key: chosen[key] if is_tune_query(key, 0.5) else shift[key] for key in query_ids()}
    return {"by_query": by_query}


def test_too_few_queries_to_choose_by(tmp_path):
    ids = query_ids(22)
    assert run(tmp_path, ids=ids) == 0
    found = recommendation(tmp_path)
    assert (found["tune_queries"], found["verdict"]) == (14, "too few queries")
    assert "14 queries are too few to choose by: take a default until more are judged." in found["sentence"]


def test_without_bm25_dense_search_is_chosen_and_said_to_be_worse(tmp_path):
    assert run(tmp_path, "--dense_only") == 0
    found = recommendation(tmp_path)
    assert (found["retrieval"]["fusion"], found["verdict"]) == ("dense", "worse")
    assert not found["retrieval"]["bm25"] and "BM25Func" not in (tmp_path / "report" / "collection.py").read_text()


def test_the_reranker_is_told_apart_from_what_milvus_does(tmp_path):
    first = retrieval("rrf", 0.65, 0.65, parameter=10.0)
    second = dataclasses.replace(
        retrieval("rrf", 0.72, 0.71, parameter=10.0, seed=3), reranker="models/judge", reranker_depth=20, rerank_ms=41.0
    )
    assert run(tmp_path, ways=[*defaults(), first, second]) == 0
    found = recommendation(tmp_path)
    assert found["retrieval"]["reranker_depth"] == 20
    assert found["first_stage"]["reranker_depth"] == 0 and found["first_stage"]["parameter"] == 10.0
    assert "the first 20 reranked by judge" in found["sentence"]
    assert "<td>reranker</td>" in page(tmp_path)
    assert "is no part of" in page(tmp_path, "collection.py")


def test_the_code_tells_milvus_to_refine(tmp_path):
    build = {"M": 16, "efConstruction": 100, "sq_type": "SQ8", "refine_type": "FP16"}
    refined = index("HNSW_SQ", ms=0.1, build=build, search={"ef": 64, "refine_k": 4})
    assert run(tmp_path, "--target", "server", indexes=[index(ms=4.0), refined]) == 0
    told = build | {"refine": True}
    assert f'build = {{"params": {told}}}' in page(tmp_path, "collection.py")


@pytest.mark.parametrize(
    ("name", "build", "search", "deep"),
    [
        ("SCANN", {"nlist": 8}, {"nprobe": 4, "reorder_k": 40}, {"nprobe": 4, "reorder_k": 50}),
        ("DISKANN", {}, {"search_list": 20}, {"search_list": 50}),
    ],
)
def test_a_search_of_fifty_candidates_is_wide_enough_for_them(tmp_path, name, build, search, deep):
    narrow = index(name, ms=0.1, build=build, search=search, backend="server", wall_ms_p50=0.1)
    flat = index(backend="server", wall_ms_p50=4.0)
    assert run(tmp_path, "--target", "server", indexes=[flat, narrow]) == 0
    assert f'"params": {deep}' in page(tmp_path, "collection.py")


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.text = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_hostile_text_is_text(tmp_path, drawn):
    ids = [f'q{number}"><b>{number}' for number in range(160)]
    ways = [*defaults(ids=ids), retrieval("weighted", 0.68, 0.67, ids=ids, parameter=0.4)]
    ways = [dataclasses.replace(trial, model=HOSTILE) for trial in ways]
    first = dataclasses.replace(ways[3], trial_id="x", reranker=HOSTILE, reranker_depth=10, ndcg_tune=ways[3].ndcg_tune)
    better = {key: value + 0.01 for key, value in first.by_query.items()}
    first = dataclasses.replace(first, by_query=better, ndcg=first.ndcg + 0.01, ndcg_tune=first.ndcg_tune + 0.01)
    failed = index(status="failed", reason=HOSTILE, ids=ids)
    indexes = [dataclasses.replace(trial, model=HOSTILE) for trial in [*sweep(ids=ids), failed]]
    queries = dict.fromkeys(ids, HOSTILE)
    assert run(tmp_path, ids=ids, ways=[*ways, first], indexes=indexes, queries=queries) == 0
    tags = _Tags()
    tags.feed(page(tmp_path))
    assert not [tag for tag, _ in tags.seen if tag in ("script", "b", "img", "iframe", "link")]
    assert not [a for _, attributes in tags.seen for a in attributes if a.startswith("on")]
    assert "<script>alert(1)</script>" in "".join(tags.text)
    for text in (page(tmp_path), page(tmp_path, "report.md")):
        assert "\x1b" not in text and "\u202e" not in text
    assert "<script>" not in page(tmp_path, "report.md").replace("\\<script\\>", "")
    code = ast.parse(page(tmp_path, "collection.py"))
    imported = {name.name for node in ast.walk(code) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"argparse", "json", "os", "numpy"}
    assert not [node for node in ast.walk(code) if isinstance(node, ast.Call) and "alert" in ast.dump(node)]
    model = next(n for n in code.body if isinstance(n, ast.Assign) and n.targets[0].id == "MODEL")
    assert model.value.value == HOSTILE


def test_the_page_needs_nothing_from_elsewhere(tmp_path, drawn):
    assert run(tmp_path) == 0
    text = page(tmp_path)
    assert not re.search(r"(src|href)=[\"'](?!#)", text)
    assert text.count('<svg role="img"') == 4  # waterfall, recall against loss, latency, size


def test_recall_against_loss_names_the_pair(tmp_path):
    assert run(tmp_path) == 0
    assert (
        "IVF_RABITQ (nlist 8, nprobe 8) and IVF_FLAT (nlist 8, nprobe 1) have about the same recall@10, 0.877 and "
        "0.875. In nDCG@10 the first is +0.0506 [+0.0506, +0.0506] above the second: better on 70 queries, worse on "
        "0. Whoever optimises recall takes them for equals."
    ) in html.unescape(page(tmp_path))


def test_what_was_not_measured_is_listed(tmp_path):
    assert run(tmp_path) == 0
    text = page(tmp_path, "report.md")
    assert re.search(r"\| faiss +\| DISKANN +\| unsupported \| 1 +\| no such index in faiss", text)
    assert re.search(r"\| faiss +\| HNSW\\_PQ|\| faiss +\| HNSW_PQ", text)


def test_models_stand_side_by_side(tmp_path):
    other = {"model": "before"}
    ways = [*defaults(), retrieval("rrf", 0.66, 0.66, parameter=5.0)]
    ways += [dataclasses.replace(trial, model="before") for trial in defaults(seed=4)]
    ways += [retrieval("rrf", 0.64, 0.64, **other)]
    shift = {key: value - 0.02 for key, value in ways[4].by_query.items()}
    ways[4] = dataclasses.replace(ways[4], by_query=shift, **means(shift))
    assert run(tmp_path, "--model", MODEL, ways=ways) == 0
    text = page(tmp_path, "report.md")
    assert re.search(rf"\| {MODEL} +\| 0.6000 +\| 0.5988 +\| 0.6600 +\| +\|", text)
    assert re.search(r"\| before +\| 0.5800 +\| +\| 0.6400", text)
    assert re.search(rf"\| {MODEL} minus before +\| \+0.0200 [^|]*\| +\| \+0.0200 ", text)


def test_another_judgement_of_the_same_ways_to_rank(tmp_path):
    ways = [*defaults(), retrieval("rrf", 0.7, 0.7, parameter=5.0)]
    labelled = [*defaults(seed=9), retrieval("rrf", 0.55, 0.56, parameter=5.0, seed=8)]
    labelled = [dataclasses.replace(b, trial_id=a.trial_id) for a, b in zip(ways, labelled, strict=True)]
    assert run(tmp_path, ways=ways, labelled=labelled) == 0
    text = page(tmp_path, "report.md")
    assert "By labels one would choose another" in text
    assert re.search(r"chosen by labels: rank fusion|chosen by labels: weighted fusion", text)
    assert "Spearman correlation of -0.200" in text


def test_who_judged_is_said(tmp_path):
    flags = write_measured(tmp_path)
    for name in ("retrieval_trials", "index_trials", "variants"):
        _manifest(tmp_path / f"{name}.jsonl", "Qwen3-Reranker")
    assert main(flags) == 0
    found = recommendation(tmp_path)
    assert found["judged_by"] == "Qwen3-Reranker"
    assert found["sentence"].endswith("Judged by the scores of Qwen3-Reranker, not by labels.")
    _manifest(tmp_path / "index_trials.jsonl", "another")
    assert main([*flags, "--overwrite"]) == 1


def _manifest(path, judge):
    from rag_core.files.manifest import Recipe, write_manifest

    write_manifest(path, Recipe("somewhere", {}, {}), judged_by=judge)


def test_inputs_that_do_not_belong_together(tmp_path, capsys):
    flags = write_measured(tmp_path, indexes=[dataclasses.replace(index(), rows=7)])
    assert main(flags) == 1
    assert "were measured on 7 documents, and" in capsys.readouterr().err
    flags = write_measured(tmp_path, indexes=[index(ids=query_ids(50))])
    assert main(flags) == 1
    assert "holds figures of 50 queries, which are not the 160 of the retrieval trials" in capsys.readouterr().err
    flags = write_measured(tmp_path)
    assert main([*flags, "--tune_fraction", "0.3"]) == 1
    assert "Pass the --tune_fraction that it was made with" in capsys.readouterr().err
    assert main([*flags, "--model", "none"]) == 1
    assert f"Pass --model with one of: {MODEL}." in capsys.readouterr().err
    (tmp_path / "retrieval_trials.jsonl").unlink()
    assert main(flags) == 1
    assert "retrieval_trials.jsonl: no such file" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_a_file_that_was_split_otherwise_is_refused(tmp_path, capsys):
    """Or an index, or what it is compared with, would be chosen by queries that are reported."""
    for name, row in (("indexes", index()), ("forms", variants()[0]), ("labelled", retrieval())):
        other = dataclasses.replace(row, ndcg_tune=row.ndcg_tune + 0.01)
        assert run(tmp_path / name, **{name: [other]}) == 1
        assert "has a tune half of nDCG@10 0.6100, which is 0.6000 here. Pass the --tune_fraction" in (
            capsys.readouterr().err
        )


def test_variants_of_another_judge_are_refused(tmp_path, capsys):
    flags = write_measured(tmp_path)
    _manifest(tmp_path / "variants.jsonl", "another")
    assert main(flags) == 1
    assert "variants.jsonl: was judged by another, and the retrieval trials by labels" in capsys.readouterr().err


def test_flat_must_have_been_measured(tmp_path, capsys):
    assert run(tmp_path, indexes=[index("HNSW")]) == 1
    assert "the index trials of small have no FLAT, which every index is compared with" in capsys.readouterr().err


def test_a_finished_report_stays_and_another_needs_overwrite(tmp_path, capsys):
    assert run(tmp_path) == 0
    before = (tmp_path / "report" / "report.html").stat().st_mtime_ns
    (tmp_path / "report" / "applied").mkdir()
    flags = write_measured(tmp_path)
    assert main(flags) == 0
    assert (tmp_path / "report" / "report.html").stat().st_mtime_ns == before
    assert main([*flags, "--max_loss", "0.1"]) == 1
    assert "made with other settings: --max_loss (was 0.005, is 0.1)" in capsys.readouterr().err
    assert main([*flags, "--max_loss", "0.1", "--overwrite"]) == 0
    assert recommendation(tmp_path)["index"]["index"] == "IVF_FLAT"
    assert (tmp_path / "report" / "applied").is_dir()
