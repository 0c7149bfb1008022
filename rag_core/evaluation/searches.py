"""Exact search of whole corpora by the embedders of a report and by BM25: each text is embedded once, and kept."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_core.base.errors import DataError, EngineError
from rag_core.corpora.corpus import Corpus
from rag_core.corpora.embedding import canary_pairs
from rag_core.engines.identity import describe_models
from rag_core.engines.options import EngineName, EngineOptions
from rag_core.engines.protocols import Role, TextEncoder
from rag_core.evaluation.corpus_args import CorpusArgs, NamedCorpus
from rag_core.evaluation.rankers import Ranker
from rag_core.evaluation.retrieval import DEPTH, Searching, SearchRanker, SearchReport, measure_search, with_hybrids
from rag_core.files.bad_rows import BadRows
from rag_core.files.chunk_store import ChunkStore, row_key
from rag_core.metrics.ranking import Places
from rag_core.retrieval.analyser import Analyser, settle_analyser
from rag_core.retrieval.bm25 import nearest_passages
from rag_core.retrieval.dense import nearest
from rag_core.scoring.chunks import Work
from rag_core.scoring.room import check_room
from rag_core.scoring.settings import CHUNK_ROWS, describe_store, load, scope_of, settle
from rag_core.scoring.vectors import TextRows, TextVectors, embed_texts

if TYPE_CHECKING:
    from rag_core.evaluation.evaluate import EvaluateArgs
    from rag_core.evaluation.report import Report

_FEWEST_QUERIES = 2  # of a comparison

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class JudgedCorpus:
    """A corpus with its judged queries, read."""

    of: NamedCorpus
    corpus: Corpus
    analyser: Analyser


@dataclasses.dataclass(frozen=True)
class Embedder:
    """A model that searches, settled and not loaded yet.

    Attributes:
        scope: hash of all that determines a vector beside the text.
    """

    engine: EngineName
    options: EngineOptions
    scope: str


class CorpusSearch:
    """The corpora of a report, and what is done with them step by step; all of it nothing where there are none.

    Attributes:
        bad_rows: those left out of the corpora and their judgements.
    """

    def __init__(self, corpora: Sequence[NamedCorpus], analyser: Analyser, *, skip_bad_rows: bool) -> None:
        """Read the corpora.

        Args:
            analyser: of BM25, that is asked for.

        Raises:
            DataError: as `read_judged`.
            UsageError: the samples were prepared with another analyser than the one asked for.
        """
        self.bad_rows = BadRows(skip=skip_bad_rows)
        self._judged = [
            read_judged(corpus, settle_analyser(analyser, corpus.path), self.bad_rows) for corpus in corpora
        ]

    def settle(self, args: EvaluateArgs, options: Mapping[Ranker, EngineOptions]) -> dict[Searching, Embedder]:
        """Choose engine and precision of each model that searches.

        Args:
            options: of before, after and the teacher of reranking.

        Raises:
            EngineError: one is no embedder.
        """
        if not self._judged or not isinstance(args, CorpusArgs):
            return {}
        asked: dict[Searching, EngineOptions] = {"before": options["before"], "after": options["after"]}
        if args.corpus_teacher:
            names = [one.model.name for one in asked.values()]
            model = describe_models([*names, args.corpus_teacher], args.prompt_names())[-1]
            asked["teacher"] = dataclasses.replace(options["after"], model=model, dtype="auto")
            if model.takes_instruction:
                asked["teacher"] = dataclasses.replace(asked["teacher"], instruction=args.instruction)
        paths = [path for judged in self._judged for path in judged.of.source.files]
        return {role: _settled(one, paths) for role, one in asked.items()}

    def recipe(self, embedders: Mapping[Searching, Embedder]) -> dict[str, Any]:
        """Return what decides the figures beside the flags and the files."""
        if not self._judged:
            return {}
        return {
            "search": {role: embedder.scope for role, embedder in embedders.items()},
            "corpora": {judged.of.name: judged.analyser.recipe for judged in self._judged},
        }

    def add_to(self, report: Report, embedders: Mapping[Searching, Embedder], store: Path | None, seed: int) -> Report:
        """Return the report with what is found in the corpora; vectors stay in `store`."""
        if not self._judged or store is None:
            return report
        return dataclasses.replace(report, retrieval=search_corpora(self._judged, embedders, store, seed))


def read_judged(corpus: NamedCorpus, analyser: Analyser, bad_rows: BadRows) -> JudgedCorpus:
    """Read a corpus and its judgements. The documents are in the order of a hash of their ids, which decides ties.

    Raises:
        DataError: a row is bad and not left out, or fewer than 2 queries have a relevant document.
    """
    found = corpus.source.read(bad_rows)
    qrels = {key: judged for key, judged in found.qrels.items() if max(judged.values(), default=0) > 0}
    if len(qrels) < _FEWEST_QUERIES:
        what = f"has {len(qrels)} queries with a relevant document, a comparison needs {_FEWEST_QUERIES}"
        raise DataError(what, "Pass labelled samples, or a file of judgements", path=corpus.path)
    ids = sorted(found.documents, key=lambda key: hashlib.sha256(key.encode()).digest())
    documents = {key: found.documents[key] for key in ids}
    return JudgedCorpus(corpus, Corpus(documents, {key: found.queries[key] for key in qrels}, qrels), analyser)


def _settled(options: EngineOptions, paths: list[Path]) -> Embedder:
    model = options.model
    if model.kind != "bi-encoder":
        raise EngineError(
            f"{model.name} cannot search a corpus ({model.why}: a {model.kind})",
            "Pass an embedder, or leave out --corpus and --out_of_domain_corpus",
        )
    engine, options = settle("auto", options, paths)
    check_room([], options)
    return Embedder(engine, options, scope_of(engine, options))


def search_corpora(
    corpora: Sequence[JudgedCorpus], embedders: Mapping[Searching, Embedder], store: Path, seed: int
) -> list[SearchReport]:
    """Let each model search each corpus, and measure what it finds.

    Args:
        store: folder that keeps vectors, by their model; what is there is not embedded again.

    Raises:
        PipelineError: as engine and canary raise.
    """
    found: list[dict[SearchRanker, Places]] = [{"BM25": _search_words(judged)} for judged in corpora]
    names: dict[Searching, str] = {role: embedder.options.model.name for role, embedder in embedders.items()}
    by_scope: dict[str, list[Places]] = {}  # equal models find the same
    for role, embedder in embedders.items():
        if embedder.scope not in by_scope:
            logger.info("search with %s: %s", role, embedder.options.model.name)
            stores = _embed(corpora, embedder, store / embedder.scope)
            by_scope[embedder.scope] = [
                _search(judged, embedder.scope, stores, f"{role} in {judged.of.name}") for judged in corpora
            ]
        for rankings, places in zip(found, by_scope[embedder.scope], strict=True):
            rankings[role] = places
    return [
        measure_search(judged.of, judged.corpus, with_hybrids(rankings), names, seed)
        for judged, rankings in zip(corpora, found, strict=True)
    ]


def _search_words(judged: JudgedCorpus) -> Places:
    asked = list(judged.corpus.queries.values())
    places = np.full((len(asked), DEPTH), -1, dtype=np.int64)
    for row, best in enumerate(nearest_passages(asked, judged.corpus.texts(), DEPTH, judged.analyser)):
        places[row, : len(best)] = best
    return places


def _embed(corpora: Sequence[JudgedCorpus], embedder: Embedder, folder: Path) -> dict[Role, ChunkStore]:
    """Embed the texts that the store lacks; where it has all, the model is not loaded."""
    texts: dict[Role, list[str]] = {
        "query": [text for judged in corpora for text in judged.corpus.queries.values()],
        "passage": [text for judged in corpora for text in judged.corpus.texts()],
    }
    folder.mkdir(parents=True, exist_ok=True)
    stores = {role: ChunkStore([folder], role) for role in texts}
    if not any(store.missing(_keys(embedder.scope, role, texts[role])) for role, store in stores.items()):
        logger.info("all vectors of %s are in %s", embedder.options.model.name, folder)
        return stores
    model = load(embedder.engine, embedder.options, canary_pairs(texts["query"], texts["passage"]))
    if not isinstance(model, TextEncoder):  # a folder may hold another kind than its files say
        raise EngineError(f"{embedder.options.model.name} gives no vectors", "Pass an embedder")
    describe_store(folder, embedder.engine, embedder.options)
    work = Work(model, embedder.scope, [folder], CHUNK_ROWS[embedder.engine])
    stores = {role: embed_texts(rows, role, work, total=len(rows)) for role, rows in texts.items()}
    if model.truncated:
        logger.info("%d texts were cut to fit --max_length %d", model.truncated, embedder.options.max_length)
    if close := getattr(model, "close", None):  # a GPU may have no room for the next model beside it
        close()
    return stores


def _search(judged: JudgedCorpus, scope: str, stores: Mapping[Role, ChunkStore], desc: str) -> Places:
    queries = stores["query"].read(_keys(scope, "query", judged.corpus.queries.values()))
    vectors = TextVectors({"passage": stores["passage"]}, scope, queries.shape[1])
    passages = TextRows(vectors, "passage", judged.corpus.texts())
    return nearest(queries, passages, DEPTH, device=device(), desc=desc)[0]


def _keys(scope: str, role: Role, texts: Iterable[str]) -> list[bytes]:
    return [row_key(scope, role, text) for text in texts]


def device() -> str:
    """Return where vectors are compared: on a GPU where torch has one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
