"""The vectors of a corpus by one model: through the engines and their chunk store, into two arrays."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import EngineError, UsageError
from rag_core.corpora.corpus import ARRAYS, Corpus, check_vectors
from rag_core.engines.canary import CANARY_PAIRS
from rag_core.engines.options import EngineName, EngineOptions
from rag_core.engines.protocols import Pair, Role, TextEncoder
from rag_core.files.atomic import atomic_write
from rag_core.files.chunk_store import ChunkStore, row_key
from rag_core.files.inputs import sha256
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished
from rag_core.scoring.chunks import Work
from rag_core.scoring.engine_args import EngineArgs, engine_options
from rag_core.scoring.room import check_room
from rag_core.scoring.settings import CHUNK_ROWS, describe_store, load, scope_of, settle, what_scores
from rag_core.scoring.vectors import embed_texts

Floats = npt.NDArray[np.float32]

_WRITTEN_AT_ONCE = 2**13  # vectors: 25 MB of 768 dimensions
# Queries first: they are few, and what is wrong with a model shows early.
_ROLES: dict[str, Role] = {"queries.npy": "query", "documents.npy": "passage"}

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ModelRun:
    """A model that is to embed a corpus, settled but not loaded.

    Attributes:
        name: folder of its vectors, in `folder`.
        folder: of the corpus.
        score_store: where vectors stay for good; `None` for nowhere.
        afresh: whether what is finished is made again.
    """

    name: str
    engine: EngineName
    options: EngineOptions
    folder: Path
    stage: str
    score_store: Path | None
    afresh: bool

    def recipes(self) -> dict[Path, Recipe]:
        """Return the arrays with what decides them: of the texts, those of the same role alone."""
        flags, identity = what_scores(self.engine, self.options)
        texts = {name: self.folder / ARRAYS[name] for name in _ROLES}
        return {
            self.folder / self.name / name: Recipe(self.stage, flags, {str(path): sha256(path)}, identity)
            for name, path in texts.items()
        }

    def embed(self, corpus: Corpus) -> None:
        """Make the arrays that are not there.

        Raises:
            PipelineError: as the engine and its canary raise, or an array of other settings stands there.
            DataError: a text has no direction.
        """
        todo = self._left(self.recipes())
        if not todo:
            return
        with ExitStack() as stack:
            # Rows are found by their texts, so that those of another corpus are no hindrance.
            works = [
                stack.enter_context(UnfinishedWork(path, recipe, overwrite=self.afresh, ignoring=("inputs",)))
                for path, recipe in todo.items()
            ]
            if left := self._left(todo):  # another run may have made some in the meantime
                # The first folder takes the chunks. That of the queries goes as soon as they are found finished.
                self._embed(corpus, left, [work.directory for work in reversed(works)])
            for work in works:
                work.remove()

    def _left(self, recipes: dict[Path, Recipe]) -> dict[Path, Recipe]:
        return {path: recipe for path, recipe in recipes.items() if self.afresh or not is_finished(path, recipe)}

    def _embed(self, corpus: Corpus, arrays: dict[Path, Recipe], folders: list[Path]) -> None:
        texts = {"queries.npy": list(corpus.queries.values()), "documents.npy": corpus.texts()}
        model = load(self.engine, self.options, canary_pairs(texts["queries.npy"], texts["documents.npy"]))
        if not isinstance(model, TextEncoder):  # a server may run another kind than its files say
            raise EngineError(f"{self.options.model.name} gives no vectors", "Pass an embedder")
        scope = scope_of(self.engine, self.options)
        if self.score_store:
            folders = [self.score_store / scope, *folders]
            folders[0].mkdir(parents=True, exist_ok=True)
            describe_store(folders[0], self.engine, self.options)
        work = Work(model, scope, folders, CHUNK_ROWS[self.engine])
        for path, recipe in arrays.items():
            rows, role = texts[path.name], _ROLES[path.name]
            store = embed_texts(rows, role, work, total=len(rows))
            _write(path, _blocks(store, [row_key(scope, role, text) for text in rows]), (len(rows), model.dimensions))
            write_manifest(
                path,
                recipe,
                rows=len(rows),
                dimensions=model.dimensions,
                score_unit=model.score_unit,
                batch_size=self.options.batch_size,
            )
            logger.info("%s: %d vectors of %d dimensions", path, len(rows), model.dimensions)
        if model.truncated:
            logger.info("%d texts were cut to fit --max_length %d", model.truncated, self.options.max_length)
        if close := getattr(model, "close", None):  # a GPU may have no room for the next model beside it
            close()


def folder_names(models: Sequence[str], engine: str) -> dict[str, str]:
    """Return folder name -> model.

    Raises:
        UsageError: two models have one, or a server is to run several.
    """
    names = {(Path(model) if Path(model).name.strip(".") else Path(model).resolve()).name: model for model in models}
    if len(names) < len(models):
        raise UsageError("two models have the same last part of their names", "Rename one: it names a folder")
    if engine == "server" and len(names) > 1:
        raise UsageError("a server runs one model", "Run the stage once per model, with the same --output_dir")
    return names


def settle_runs(
    args: EngineArgs,
    names: Mapping[str, str],
    files: Sequence[Path],
    folder: Path,
    stage: str,
    *,
    score_store: Path | None = None,
    afresh: bool = False,
) -> list[ModelRun]:
    """Settle engine, precision and instruction of each model, without loading any.

    Args:
        names: folder name -> model.
        files: of the corpus; they may name an instruction.
        folder: of the corpus.
        score_store, afresh: as of `ModelRun`.

    Raises:
        EngineError: a model is no embedder.
    """
    from rag_core.engines.identity import describe_models

    models = describe_models(list(names.values()), args.prompt_names())
    someone_takes_it = any(model.takes_instruction for model in models)
    runs = []
    for name, model in zip(names, models, strict=True):
        if model.kind != "bi-encoder":
            raise EngineError(f"{model.name} gives no vectors ({model.why}: a {model.kind})", "Pass an embedder")
        options = engine_options(args, model)
        if someone_takes_it and not model.takes_instruction:
            options = dataclasses.replace(options, instruction=None)
        engine, options = settle("auto" if args.engine == "ray" else args.engine, options, list(files))
        check_room([], options)
        runs.append(ModelRun(name, engine, options, folder, stage, score_store, afresh))
    return runs


def _blocks(store: ChunkStore, keys: Sequence[bytes]) -> Iterator[Floats]:
    for start in range(0, len(keys), _WRITTEN_AT_ONCE):
        yield store.read(keys[start : start + _WRITTEN_AT_ONCE])


def _write(path: Path, blocks: Iterator[Floats], shape: tuple[int, int]) -> None:
    """Write an array block by block; it is there whole, or the former one is."""
    written = 0
    with atomic_write(path) as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)  # type: ignore[no-untyped-call]
        for block in blocks:
            check_vectors(block, path, first_row=written)
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
            written += len(block)


def canary_pairs(queries: Sequence[str], documents: Sequence[str]) -> list[Pair]:
    """Return distinct pairs of a query and a document from all over the corpus, to try a model on."""
    places = np.linspace(0, len(documents) - 1, num=min(len(documents), CANARY_PAIRS)).astype(int)
    return list(
        dict.fromkeys((queries[number % len(queries)], documents[place]) for number, place in enumerate(places))
    )
