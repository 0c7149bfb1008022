"""Which corpora an embedder searches in `evaluate`: the flags, and the files that they name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag
from rag_core.engines.role_prompts import PromptArgs

if TYPE_CHECKING:
    from rag_core.corpora.openings import CorpusInput

_PLACES: dict[Literal["in-domain", "out-of-domain"], str] = {"in-domain": "", "out-of-domain": "out_of_domain_"}


@dataclasses.dataclass(kw_only=True)
class CorpusArgs(PromptArgs):
    """Flags of a stage that measures exact search."""

    corpus: list[Path] = flag(
        "measure search over this corpus of the training domain, too: with --qrels the parts of a corpus.jsonl, "
        "without RankingSample files: the labelled queries of the first are searched over the passages of all",
        [],
        decides=False,
    )
    qrels: Path | None = flag(
        "--corpus: judgements, graded or not, as BEIR's qrels/test.tsv or TREC's four columns", None, decides=False
    )
    queries: Path | None = flag(
        "--qrels: the queries (default: queries.jsonl or queries.jsonl.gz beside the corpus)", None, decides=False
    )
    out_of_domain_corpus: list[Path] = flag("as --corpus, of another domain", [], decides=False)
    out_of_domain_qrels: Path | None = flag("as --qrels, for --out_of_domain_corpus", None, decides=False)
    out_of_domain_queries: Path | None = flag("as --queries, for --out_of_domain_corpus", None, decides=False)
    corpus_teacher: str | None = flag("an embedder that searches the corpora, too", None, decides=False)
    score_store: Path | None = flag(
        "folder that keeps vectors and scores for other runs with the same models (with --corpus, default: "
        "scores/store in --output_dir)",
        None,
        decides=False,
    )

    def store_in(self, folder: Path) -> Path | None:
        """Return where vectors stay: where nothing is asked for, in a folder; `None` where no corpus is searched."""
        return self.score_store or (folder / "store" if self.corpus or self.out_of_domain_corpus else None)


@dataclasses.dataclass(frozen=True)
class NamedCorpus:
    """A corpus that is to be searched.

    Attributes:
        name: in the report: of BEIR's layout the folder, of samples the file with the queries.
        path: the first of its files.
    """

    name: str
    path: Path
    domain: Literal["in-domain", "out-of-domain"]
    source: CorpusInput


def open_corpora(args: CorpusArgs) -> list[NamedCorpus]:
    """Find the files that the flags name; nothing is read.

    Raises:
        UsageError: flags do not go together.
        DataError: there are no queries beside a corpus.
    """
    from rag_core.corpora.openings import JudgedFiles, SampleCorpus

    found = []
    for domain, prefix in _PLACES.items():
        corpora, qrels, queries = (getattr(args, f"{prefix}{name}") for name in ("corpus", "qrels", "queries"))
        if qrels and not corpora:
            raise UsageError(f"--{prefix}qrels judges a corpus, which is missing", f"Pass --{prefix}corpus, too")
        if queries and not qrels:
            raise UsageError(f"--{prefix}queries needs judgements", f"Pass --{prefix}qrels, too, or leave it out")
        if qrels:
            asked = queries or _queries_beside(corpora[0], prefix)
            name = corpora[0].resolve().parent.name
            found.append(NamedCorpus(name, corpora[0], domain, JudgedFiles(corpora, asked, [qrels])))
        elif corpora:
            found.append(NamedCorpus(corpora[0].name, corpora[0], domain, SampleCorpus(*corpora)))
    if len({corpus.name for corpus in found}) < len(found):
        raise UsageError(
            f"both corpora are called {found[0].name}",
            "Rename one: the report names a corpus by its folder, or by its first file of samples",
        )
    if args.corpus_teacher and not found:
        raise UsageError("--corpus_teacher searches a corpus, which is missing", "Pass --corpus, or leave it out")
    return found


def files_of(corpora: Sequence[NamedCorpus]) -> list[Path]:
    """Return the files of all corpora, with their queries and judgements."""
    return [path for corpus in corpora for path in corpus.source.files]


def _queries_beside(corpus: Path, prefix: str) -> Path:
    for name in ("queries.jsonl", "queries.jsonl.gz"):
        if os.path.lexists(path := corpus.with_name(name)):
            return path
    raise DataError("has no queries.jsonl beside it", f"Pass --{prefix}queries FILE", path=corpus)
