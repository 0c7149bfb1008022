"""How well a student finds the passages of a corpus, for the guard of the merge: candidate lists do not show it.

A corpus is a file in the BEIR layout with its qrels and queries, or the distinct passages of RankingSample files.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag
from rag_core.base.records import Document, Qrels, Query, passage_text
from rag_core.base.stage import StageArgs
from rag_core.corpora.corpus import Corpus
from rag_core.corpora.openings import SampleCorpus
from rag_core.distillation.measuring import Advance, Measure, Values, embed, half_precision, unseen
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_by_id
from rag_core.files.qrels import read_qrels
from rag_core.metrics.ranking import measure_places
from rag_core.retrieval.dense import nearest
from rag_core.sources.beir import find_part

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from rag_core.distillation.weight_merging import Domain

DEPTH = 10  # of NDCG@10
_PASSAGES = 5000

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class RetrievalDevArgs(StageArgs):
    """Flags of the corpora that are searched."""

    retrieval_dev_corpus: list[Path] = flag(
        "a BEIR corpus.jsonl, with --retrieval_dev_qrels; or RankingSample files, whose distinct passages are the "
        "corpus and whose labelled queries search it. In-domain: --merge auto takes no weight at which NDCG@10 of the "
        "search falls",
        [],
        decides=False,
    )
    retrieval_dev_qrels: Path | None = flag("judgements of --retrieval_dev_corpus", None, decides=False)
    retrieval_dev_queries: Path | None = flag(
        "its queries (default: queries.jsonl beside the corpus)", None, decides=False
    )
    out_of_domain_retrieval_dev_corpus: list[Path] = flag(
        "the same, of a domain in which the student must not get worse", [], decides=False
    )
    out_of_domain_retrieval_dev_qrels: Path | None = flag(
        "judgements of --out_of_domain_retrieval_dev_corpus", None, decides=False
    )
    out_of_domain_retrieval_dev_queries: Path | None = flag(
        "its queries (default: queries.jsonl beside the corpus)", None, decides=False
    )
    retrieval_dev_passages: int | None = flag(
        f"passages of each corpus that are searched: all that are judged, others at random (default: {_PASSAGES})",
        None,
        least=1,
    )

    def corpora(self) -> list[CorpusFiles]:
        """Return the files of each corpus that is to be searched.

        Raises:
            UsageError: flags contradict each other.
            DataError: there are no queries beside a corpus.
        """
        found = [
            CorpusFiles.of(
                "in-domain", self.retrieval_dev_corpus, self.retrieval_dev_qrels, self.retrieval_dev_queries
            ),
            CorpusFiles.of(
                "out-of-domain",
                self.out_of_domain_retrieval_dev_corpus,
                self.out_of_domain_retrieval_dev_qrels,
                self.out_of_domain_retrieval_dev_queries,
            ),
        ]
        if self.retrieval_dev_passages is not None and not any(found):
            raise UsageError(
                "--retrieval_dev_passages has nothing to draw from", "Pass --retrieval_dev_corpus, or leave it out"
            )
        return [files for files in found if files]

    def retrieval_dev_sets(self, seed: int, bad_rows: BadRows) -> list[tuple[Domain, RetrievalDevSet]]:
        """Read the corpora.

        Raises:
            DataError: a row is bad and not left out, or there is nothing to search for.
        """
        passages = self.retrieval_dev_passages or _PASSAGES
        return [(files.domain, RetrievalDevSet.read(files, passages, seed, bad_rows)) for files in self.corpora()]


@dataclasses.dataclass(frozen=True)
class CorpusFiles:
    """The files of a corpus.

    Attributes:
        passages: one file of documents where there are qrels, else files of samples.
        qrels, queries: of documents.
    """

    domain: Domain
    passages: Sequence[Path]
    qrels: Path | None = None
    queries: Path | None = None

    @classmethod
    def of(cls, domain: Domain, corpus: Sequence[Path], qrels: Path | None, queries: Path | None) -> CorpusFiles | None:
        """Settle which files belong to a corpus, `None` where there is none.

        Raises:
            UsageError: there are qrels or queries without what they belong to.
            DataError: there are no queries beside the corpus.
        """
        name = "retrieval_dev" if domain == "in-domain" else "out_of_domain_retrieval_dev"
        if not corpus and (qrels or queries):
            raise UsageError(f"--{name}_{'qrels' if qrels else 'queries'} lacks its corpus", f"Pass --{name}_corpus")
        if queries and not qrels:
            raise UsageError(
                f"--{name}_queries are known by --{name}_qrels only", f"Pass --{name}_qrels, or leave it out"
            )
        if qrels and len(corpus) > 1:
            raise UsageError(f"--{name}_qrels judge one corpus", f"Pass one file in --{name}_corpus")
        if not corpus:
            return None
        if qrels and not queries:
            queries = find_part(corpus[0].parent, "queries")
        return cls(domain, list(dict.fromkeys(corpus)), qrels, queries)

    @property
    def all(self) -> list[Path]:
        """Every file that is read."""
        return [*self.passages, *filter(None, (self.qrels, self.queries))]

    @property
    def name(self) -> str:
        """What it is called in reports; every BEIR corpus has the same file name."""
        first = self.passages[0]
        return f"{first.absolute().parent.name}/{first.name}" if self.qrels else first.name

    def read(self, bad_rows: BadRows) -> Corpus:
        """Read all.

        Raises:
            DataError: a row is bad and not left out, or an id stands twice.
        """
        if self.qrels and self.queries:
            documents = read_by_id(self.passages[0], Document, bad_rows=bad_rows)
            texts = {key: query.text for key, query in read_by_id(self.queries, Query, bad_rows=bad_rows).items()}
            return Corpus(
                documents, texts, read_qrels(self.qrels, queries=texts, documents=documents, bad_rows=bad_rows)
            )
        merged: tuple[dict[str, Document], dict[str, str], dict[str, Mapping[str, int]]] = ({}, {}, {})
        for number, path in enumerate(self.passages):
            found = SampleCorpus(path).read(bad_rows)
            merged[0].update(found.documents)
            merged[1].update({f"{number}:{key}": text for key, text in found.queries.items()})
            merged[2].update({f"{number}:{key}": judged for key, judged in found.qrels.items()})
        return Corpus(*merged)


@dataclasses.dataclass(frozen=True)
class RetrievalDevSet:
    """Judged queries that a student searches a corpus for.

    Attributes:
        documents: text by id, as they are embedded.
        texts: query by id, those that have a relevant document, as they are embedded.
    """

    guards_its_domain: ClassVar[bool] = True
    measures: ClassVar[tuple[Measure, ...]] = ("NDCG@10",)

    name: str
    documents: Mapping[str, str]
    texts: Mapping[str, str]
    qrels: Qrels

    @classmethod
    def read(cls, files: CorpusFiles, passages: int, seed: int, bad_rows: BadRows) -> RetrievalDevSet:
        """Read a corpus; of a large one keep all judged documents, and others that are drawn with the seed.

        Raises:
            DataError: as `CorpusFiles.read`, or no query has a relevant document.
        """
        corpus = files.read(bad_rows)
        qrels = {key: judged for key, judged in corpus.qrels.items() if max(judged.values(), default=0) > 0}
        if not qrels:
            raise DataError(
                "has no query with a relevant passage", "Pass labelled records, or qrels", path=files.passages[0]
            )
        judged = {document for grades in qrels.values() for document in grades}
        others = [key for key in corpus.documents if key not in judged]
        room = max(0, passages - len(judged))
        if len(others) > room:
            others = random.Random(seed).sample(others, room)
        kept = {*judged, *others}
        logger.info("%s: %d queries search %d of %d passages", files.name, len(qrels), len(kept), len(corpus.documents))
        documents = {key: passage_text(corpus.documents[key].title, corpus.documents[key].text) for key in kept}
        texts = {key: corpus.queries[key] for key in qrels}
        return cls(files.name, _longest_first(documents), _longest_first(texts), qrels)

    @property
    def queries(self) -> int:
        """How many search."""
        return len(self.texts)

    def count(self, model: object) -> int:
        """Return how many texts a student reads."""
        return len(self.documents) + len(self.texts)

    def measured(self, model: SentenceTransformer, batch_size: int, advance: Advance = unseen) -> dict[Measure, Values]:
        """Return NDCG@10 of exact search by cosine for each query; shape (queries,)."""
        with half_precision(model):
            queries = embed(model.encode_query, list(self.texts.values()), batch_size, advance)
            documents = embed(model.encode_document, list(self.documents.values()), batch_size, advance)
        places, _ = nearest(queries, documents, DEPTH)
        found = measure_places(self.qrels, list(self.texts), list(self.documents), places, ("NDCG@10",))["NDCG@10"]
        return {"NDCG@10": np.array([found[key] for key in self.texts])}


def _longest_first(texts: Mapping[str, str]) -> dict[str, str]:
    """Order texts for `embed`; the order says nothing of labels, which ties are broken by."""
    return dict(sorted(texts.items(), key=lambda item: (-len(item[1]), item[1], item[0])))
