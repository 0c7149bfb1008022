"""A small workspace in which a query knows only the short name of what its passage calls by the long one."""

import json

SYLLABLES = ["ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu"]


def long_name(number):
    """Return a word that stands in the passage that answers query `number`, and in no query."""
    return "".join(SYLLABLES[int(digit)] for digit in f"{number:03d}")


def write_workspace(folder, *, queries=12, qrels=True, splits=("train", "train", "dev", "test"), **changed):
    """Write the files of a workspace without manifests; query `q7` asks for `s7`, which `d7` calls by its long name.

    Args:
        splits: of the queries, in turns.
        changed: fields of `baselines.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = range(queries)
    answers = [{"_id": f"d{n}", "text": f"{long_name(n)} is a river of the {n % 3}nd kind"} for n in numbers]
    others = [{"_id": f"x{n}", "text": f"s{n} stands for a town with {n % 5} bridges"} for n in numbers]
    topics = [
        {"query_id": f"q{n}", "query": f"s{n}", "split": splits[n % len(splits)]}
        | ({"relevant": {f"d{n}": 1}} if qrels else {})
        for n in numbers
    ]
    judged = [{"query_id": f"q{n}", "passage_id": f"d{n}", "gain": 2.0, "teacher": "oracle"} for n in numbers]
    judged += [{"query_id": f"q{n}", "passage_id": f"x{n}", "gain": 1.0, "teacher": "oracle"} for n in numbers]
    summary = {
        "retriever": {"retriever": "bm25", "k1": 1.2, "b": 0.75},
        "teacher": "oracle",
        "judge_top": 5,
        "tuned": {},
        "tuned_by": "qrels",
        "measured_by": "qrels",
        "best": "bm25",
        "best_on": "dev",
        "headroom": 0.5,
        "figures": {},
        "table": [],
        "advice": "Use it.",
    }
    write_rows(folder / "documents.jsonl", [*answers, *others])
    write_rows(folder / "queries.jsonl", ({"_id": topic["query_id"], "text": topic["query"]} for topic in topics))
    write_rows(folder / "topics.jsonl", topics)
    write_rows(folder / "judgements.jsonl", judged)
    (folder / "baselines.json").write_text(json.dumps(summary | changed))
    return folder


def write_rows(path, rows):
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def expansion(query_id, text, sample=0, **fields):
    """Return a row of an expansion."""
    row = {"query_id": query_id, "method": "keywords", "sample": sample, "text": text, "tokens": 5, "cut": False}
    return row | fields


def write_samples(path, queries=12):
    """Write four expansions of each query: one that finds its passage, one beside it, one that is another's, none."""
    rows = []
    for n in range(queries):
        texts = ["bridges", long_name(n), f"{long_name(n)} {long_name((n + 1) % queries)} river kind", ""]
        rows += [expansion(f"q{n}", text, sample) for sample, text in enumerate(texts)]
    return write_rows(path, rows)
