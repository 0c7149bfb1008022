"""The stages of query expansion, as `cases` has the others: a workspace of a few queries, and short grids."""

import json

from query_expansion_rl import score_expansions
from query_expansion_rl.records import Rewarded
from query_expansion_rl.retrieval import tuning
from rag_core.base.records import RankingSample
from rag_core.files.jsonl import write_records
from tests.query_expansion_rl.alias_workspace import write_expansions, write_workspace
from tests.query_expansion_rl.aliases import write_embedder

QUERIES, DIMENSIONS = 12, 4
REPORT = ("e/report.json", "e/report.json.manifest.json", "e/report.html", "e/report.md")
_TOLD = ("hens", "banks", "rivers", "irons", "clocks", "trains", "bees", "roads")
_MADE = (
    "documents.jsonl", "queries.jsonl", "qrels.tsv", "e/documents.npy", "e/queries.npy", "topics.jsonl",
    "judgements.jsonl", "rankings.jsonl", "baselines.json",
)  # fmt: skip


def write_inputs(folder):
    """Write samples, the workspace `w`, its embedder `m`, and what each stage makes for the next."""
    samples = [
        RankingSample(f"why {word}", [f"{word} do {place}"], [f"nobody asks of {word}"], query_id=f"k{place}")
        for place, word in enumerate(_TOLD)
    ]
    write_records(folder / "asked.jsonl", samples)
    write_records(folder / "less.jsonl", samples[:-1])
    write_embedder(folder / "m")
    write_embedder(folder / "e")
    write_workspace(folder / "w", queries=QUERIES, dimensions=DIMENSIONS)
    words = {"queries": QUERIES, "samples": 2, "splits": ("train", "dev", "test")}
    path = write_expansions(folder / "expansions.jsonl", "keywords", _text, **words)
    write_records(folder / "rewarded.jsonl", map(_rewarded, map(json.loads, path.read_text().splitlines())))
    write_lines(folder / "questions.jsonl", [{"_id": f"n{n}", "text": f"alias{n} common{n}"} for n in range(4)])


def _text(number, sample):
    return f"name{number}" if sample else f"common1 name{number + 1}"


def _rewarded(row):
    return Rewarded(**row, reward=0.5 * row["sample"], parts={"gain": 0.5 * row["sample"]}, base=0.0)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def commands():
    """Return a module, its flags, its outputs, and flags that make another output, by name."""
    given = ["--baselines", "w"]
    made = {
        "rank_baselines": (
            ["--input", "asked.jsonl", "--dense_model", "e", "--output_dir", "out/w"],
            [f"w/{name}" for name in _MADE],
            ["--input", "less.jsonl"],
        ),
        "score_expansions": (
            [*given, "--input_file", "expansions.jsonl", "--output_file", "out/r.jsonl"],
            ["r.jsonl"],
            ["--length_cost", "0.1", "--free_words", "0"],
        ),
        "create_pairs": (
            [*given, "--input_file", "rewarded.jsonl", "--output_dir", "out/p"],
            ["p/demonstrations.jsonl", "p/preferences.jsonl"],
            ["--choose", "random", "--seed", "3"],
        ),
        "train select": (
            ["--method", "select", *given, "--output_dir", "out/s"],
            ["s"],
            ["--variants", "bm25", "dense"],
        ),
        "expansion evaluate": (
            [*given, "--expansions", "expansions.jsonl", "--output_dir", "out/e"],
            [REPORT],
            ["--query_weight", "2"],
        ),
        "expand": (
            [*given, "--model", "t", "--input_file", "questions.jsonl", "--output_file", "out/q.jsonl"],
            ["q.jsonl"],
            ["--query_weight", "2"],
        ),
    }
    modules = {"train select": "train", "expansion evaluate": "evaluate"}
    return {stage: (f"query_expansion_rl.{modules.get(stage, stage)}", *of) for stage, of in made.items()}


class StandingClock:
    process_time = perf_counter = monotonic = staticmethod(lambda: 0.0)


def fake(monkeypatch):
    """Let clocks stand still, try few settings and steps, and leave out pictures."""
    for module in ("retrieval.ways", "report.rows", "writing.writer"):
        monkeypatch.setattr(f"query_expansion_rl.{module}.time", StandingClock)
    for name in ("RM3_GRID", "DENSE_GRID", "PICKED_FROM"):
        monkeypatch.setattr(tuning, name, getattr(tuning, name)[:1])
    monkeypatch.setattr("query_expansion_rl.learning.selection._STEPS", 10)
    for module in ("baselines", "baseline_run"):  # an interval takes as long as all else
        monkeypatch.setattr(f"query_expansion_rl.report.{module}.FEWEST_TO_COMPARE", 99)
    monkeypatch.setattr("query_expansion_rl.report.page.make_sections", lambda report: [])
    monkeypatch.setattr(
        "query_expansion_rl.report.page._render",
        lambda name, _, report, *more: f"{name} {report.query_weight}".encode(),
    )
    monkeypatch.setattr(score_expansions, "_AT_ONCE", 8)
