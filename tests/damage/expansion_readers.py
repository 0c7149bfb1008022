"""The stages of query expansion that read rows, as `test_mutated_rows` has the others."""

import json

from query_expansion_rl import (
    create_pairs,
    evaluate,
    expand,
    generate_expansions,
    rank_baselines,
    score_expansions,
    train,
)
from query_expansion_rl.learning import selection
from query_expansion_rl.records import Demonstration, Expansion, Judgement, Preference, Ranking, Rewarded, Topic
from rag_core.base.records import Document, Query, RankingSample
from rag_core.corpora.folder import CorpusFolder
from rag_core.distillation import train_args
from rag_core.engines import identity
from tests.query_expansion_rl.aliases import write_embedder

_IDS = [f"q{number}" for number in range(3)]
_FOUND = {"passages": ["d0", "d1", "d2"], "scores": [2.5, 1.5, 0.5]}
_WRITTEN = [
    {"query_id": query_id, "method": "words", "sample": sample, "text": f"sorted {sample}", "tokens": 4, "cut": False}
    for query_id in _IDS
    for sample in (0, 1)
]
_WORTH = {"reward": 0.25, "parts": {"gain": 0.25, "copy": -0.0}, "base": 0.5}

GOOD = {
    Topic: [
        {"query_id": query_id, "query": f"how to put list {query_id} in order", "split": split, "relevant": {"d0": 1}}
        for query_id, split in zip(_IDS, ("train", "dev", "test"), strict=True)
    ],
    Judgement: [
        {"query_id": query_id, "passage_id": f"d{place}", "gain": 2.0 - place, "teacher": "hybrid"}
        for query_id in _IDS
        for place in (0, 1)
    ],
    Ranking: [{"query_id": query_id, "method": way, **_FOUND} for way in ("bm25", "rm3") for query_id in _IDS],
    Expansion: _WRITTEN,
    Rewarded: [row | _WORTH | {"reward": 0.25 * row["sample"]} for row in _WRITTEN],
    Demonstration: [
        {"query_id": "q0", "prompt": "Query: list\nKeywords:", "completion": f"sorted {n}", "reward": 0.5}
        for n in range(2)
    ],
    Preference: [
        {"query_id": "q0", "prompt": "Query: list\nKeywords:", "chosen": "sorted", "rejected": f"{n}", "margin": 0.5}
        for n in range(2)
    ],
}  # fmt: skip
_SUMMARY = {
    "retriever": {"retriever": "bm25", "k1": 1.2, "b": 0.75, "vectors": "m"},
    "teacher": "hybrid", "judge_top": 2, "tuned": {}, "tuned_by": "qrels", "measured_by": "qrels", "best": "bm25",
    "best_on": "dev", "headroom": 0.5, "figures": {}, "table": [], "advice": "",
}  # fmt: skip
_WHERE = "--baselines workspace"
_RANK = "--output_dir out --dense_model embedder --input"
_SELECT = "--method select --output_dir out --baselines FOLDER"
_LEARN = "--model m --output_dir out --baselines workspace --train_file FILE --method"

# As the fields of a Reader: module, record, argv, stop, file, whether there is --skip_bad_rows for its rows.
READERS = {
    "rank_baselines": (rank_baselines, RankingSample, f"{_RANK} FILE", (CorpusFolder, "write")),
    "rank_baselines beir, queries": (rank_baselines, Query, f"{_RANK} FOLDER", (CorpusFolder, "write")),
    "generate_expansions, topics": (
        generate_expansions, Topic, "--baselines FOLDER --split train dev test --model m --output_file out.jsonl",
        (identity, "describe_model"), "workspace/topics.jsonl", False,
    ),
    "create_pairs, topics": (
        create_pairs, Topic, "--baselines FOLDER --input_file Rewarded --output_dir out",
        (create_pairs, "read_expansions"), "workspace/topics.jsonl", False,
    ),
    "train select, judgements": (
        train, Judgement, _SELECT, (selection, "_read"), "workspace/judgements.jsonl", False,
    ),
    "train select, rankings": (
        train, Ranking, _SELECT, (selection, "_ways"), "workspace/rankings.jsonl", False,
    ),
    "score_expansions": (
        score_expansions, Expansion, f"{_WHERE} --output_file out.jsonl --input_file FILE",
        (score_expansions, "UnfinishedWork"),
    ),
    "create_pairs": (
        create_pairs, Rewarded, f"{_WHERE} --output_dir out --input_file FILE", (create_pairs, "UnfinishedWork"),
    ),
    "train rft": (train, Demonstration, f"{_LEARN} rft", (train_args, "decisive_settings")),
    "train dpo": (train, Preference, f"{_LEARN} dpo", (train_args, "decisive_settings")),
    "evaluate expansions": (
        evaluate, Expansion, f"{_WHERE} --output_dir out --expansions FILE", (evaluate, "_recipe"), "rows.jsonl", False,
    ),
    "evaluate rankings": (
        evaluate, Ranking, f"{_WHERE} --output_dir out --rankings FILE", (evaluate, "_recipe"), "rows.jsonl", False,
    ),
    "expand": (expand, Query, f"{_WHERE} --model m --output_file out.jsonl --input_file FILE"),
}  # fmt: skip


def lay_out(folder, good):
    """Write a workspace, without its vectors, and an embedder."""
    write_embedder(folder / "embedder")
    place = folder / "workspace"
    place.mkdir()
    rows = {"documents": good[Document], "queries": good[Query]}
    rows |= {"topics": GOOD[Topic], "judgements": GOOD[Judgement], "rankings": GOOD[Ranking]}
    for name, of in rows.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of))
    (place / "baselines.json").write_text(json.dumps(_SUMMARY))


def fake(monkeypatch, no_work):
    """Leave out what takes time and reads no rows."""
    monkeypatch.setattr(train, "UnfinishedWork", no_work)
    monkeypatch.setattr(rank_baselines, "_embedders", lambda *_, **__: (None, []))
    monkeypatch.setattr("query_expansion_rl.learning.training.parse_arguments", lambda *_, **__: None)
