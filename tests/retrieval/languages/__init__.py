"""Small corpora in several languages, in our own words: 10 queries each, and passages that share words with them."""

import json
from pathlib import Path

FOLDER = Path(__file__).parent
LANGUAGES = ("chinese", "japanese", "thai", "hindi", "arabic", "german", "mixed")


def read_language(language):
    """Return the passages, and of each query the position of the passage that answers it."""
    rows = [json.loads(line) for line in (FOLDER / f"{language}.jsonl").read_text(encoding="utf-8").splitlines()]
    passages = [row["text"] for row in rows]
    return passages, {row["query"]: place for place, row in enumerate(rows) if "query" in row}


def write_beir(language, folder):
    """Write a language as a BEIR folder with the split `test`; return the folder."""
    passages, queries = read_language(language)
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{place}", "title": "", "text": text} for place, text in enumerate(passages)]
    asked = [{"_id": f"q{place}", "text": query} for query, place in queries.items()]
    for name, rows in (("corpus", documents), ("queries", asked)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    judged = "".join(f"q{place}\td{place}\t1\n" for place in queries.values())
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    return folder
