"""A corpus of the size that indexes are made for: the documentation of all packages that are installed.

installed packages -> corpus.jsonl.gz, queries.jsonl, qrels/test.tsv (BEIR layout)

python benchmarks/milvus_corpus.py --output_dir runs/milvus_docs/corpus

A passage is a paragraph of a docstring, or a part of a long one. A query is the summary sentence of a docstring, which
is no passage; the other paragraphs of its docstring are relevant. These are weak labels: a paragraph of another
docstring may answer as well. What stands more than once is kept once, and its docstrings are no queries.
"""

from __future__ import annotations

import argparse
import ast
import gc
import gzip
import json
import random
import re
import sys
import sysconfig
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_SHORTEST, _LONGEST = 60, 300  # characters of a passage; MiniLM reads about 70 tokens of that
_QUERY_WORDS = range(5, 31)
_SENTENCE = re.compile(r"[A-Z][^(:>=-]*\.")


def main() -> int:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--most_passages", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    gc.disable()  # a syntax tree is so many objects that it would take most of the time
    found = dict(docstrings(Path(sysconfig.get_paths()["purelib"])))
    counted = Counter(passage for _, passages in found.values() for passage in passages)
    summaries = Counter(summary for summary, _ in found.values())
    generator = random.Random(args.seed)
    names = sorted(found)
    generator.shuffle(names)
    known: dict[str, str] = {}  # passage -> id
    queries, qrels = [], []
    for name in names:
        summary, passages = found[name]
        if len(known) >= args.most_passages:
            break
        ids = [known.setdefault(passage, f"{name}#{number}") for number, passage in enumerate(passages)]
        alone = summaries[summary] == 1 and all(counted[passage] == 1 for passage in passages)
        if len(queries) < args.queries and passages and alone and is_query(summary):
            queries.append({"_id": name, "text": summary})
            qrels += [(name, key, 1) for key in ids]
    (args.output_dir / "qrels").mkdir(parents=True, exist_ok=True)
    with gzip.open(args.output_dir / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        for text, key in known.items():
            file.write(json.dumps({"_id": key, "title": "", "text": text}) + "\n")
    rows = "".join(json.dumps(query) + "\n" for query in queries)
    (args.output_dir / "queries.jsonl").write_text(rows, encoding="utf-8")
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
    (args.output_dir / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(known)} passages, {len(queries)} queries, {len(qrels)} relevant")  # noqa: T201
    return 0


def docstrings(root: Path) -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Yield (qualified name, (summary, passages)) of the docstrings below a folder."""
    for path in sorted(root.rglob("*.py")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's docstrings
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            continue
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for number, node in enumerate(ast.walk(tree)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                summary, *rest = re.split(r"\n\s*\n", ast.get_docstring(node) or "")
                yield f"{module}.{node.name}.{number}", (" ".join(summary.split()), list(passages_of(rest)))


def passages_of(paragraphs: list[str]) -> Iterator[str]:
    """Yield the paragraphs of a docstring that are long enough, in parts that are short enough."""
    for paragraph in paragraphs:
        for part in textwrap.wrap(" ".join(paragraph.split()), _LONGEST, break_long_words=False):
            if len(part) >= _SHORTEST and part.isprintable():
                yield part


def is_query(summary: str) -> bool:
    """Tell a sentence from a signature, a heading or an essay."""
    return len(summary.split()) in _QUERY_WORDS and bool(_SENTENCE.fullmatch(summary)) and summary.isprintable()


if __name__ == "__main__":
    sys.exit(main())
