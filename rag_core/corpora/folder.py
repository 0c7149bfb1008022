"""The texts of a corpus on their way into a folder: three files, which are of one run or refused."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from rag_core.corpora.corpus import DOCUMENTS, QRELS, QUERIES, Corpus
from rag_core.corpora.openings import query_records
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import (
    UNKNOWN,
    Recipe,
    is_made,
    manifest_path,
    read_manifest,
    task_instruction,
    unfinished_differences,
    write_manifest,
)
from rag_core.files.qrels import write_qrels
from rag_core.files.unfinished import UnfinishedWork, check_apart, is_finished

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CorpusFolder:
    """A folder, and the recipe of the corpus that is to stand in it."""

    folder: Path
    recipe: Recipe

    def is_finished(self) -> bool:
        """Tell whether the corpus is written.

        Raises:
            StaleError: something else stands in the place of one of its files.
        """
        documents = self.folder / DOCUMENTS
        begun = unfinished_differences(documents, self.recipe) == []
        made = is_finished(documents, self.recipe)
        if begun and not made:
            return False
        # Judgements that somebody has put beside an unlabelled corpus are left alone.
        judged = not made or (read_manifest(documents) or UNKNOWN).facts.get("judged")
        found = [is_made(self.folder / name, self.recipe) for name in (QUERIES, *([QRELS] if judged else []))]
        return made and all(found)

    def write(self, corpus: Corpus, *, overwrite: bool, bad_rows: int) -> None:
        """Write a corpus, the documents last; by their manifest it is known as finished.

        Args:
            bad_rows: how many were left out of it.

        Raises:
            StaleError: another process writes it.
            UsageError: a file is read from the place where one would be written.
        """
        for name in (QUERIES, QRELS):
            check_apart(self.folder / name, self.recipe)
        documents = self.folder / DOCUMENTS
        before = [self.folder / QUERIES, self.folder / QRELS]
        with UnfinishedWork(documents, self.recipe, overwrite=overwrite, before=before) as work:
            if not overwrite and self.is_finished():  # written by another run, in the meantime
                return
            self._write_queries(corpus)
            rows = write_records(documents, corpus.documents.values())
            write_manifest(
                documents,
                self.recipe,
                rows=rows,
                queries=len(corpus.queries),
                judged=len(corpus.qrels),
                instruction=task_instruction([Path(path) for path in self.recipe.inputs]),
                skipped={"bad_rows": bad_rows},
            )
            work.remove()
        logger.info(
            "%s: %d documents, %d queries, %d judged", self.folder, rows, len(corpus.queries), len(corpus.qrels)
        )

    def _write_queries(self, corpus: Corpus) -> None:
        queries, qrels = self.folder / QUERIES, self.folder / QRELS
        write_manifest(queries, self.recipe, rows=write_records(queries, query_records(corpus)))
        if corpus.qrels:
            write_manifest(qrels, self.recipe, rows=write_qrels(qrels, corpus.qrels))
        else:
            for path in (qrels, manifest_path(qrels)):
                path.unlink(missing_ok=True)
