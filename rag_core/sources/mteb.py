"""The reranking sets of MTEB, from a hub or a local folder, in either layout.

Older (`mteb/askubuntudupquestions-reranking`): one file per split, rows of query, positive, negative. Newer
(`mteb/AskUbuntuDupQuestions`): the configs corpus, queries, qrels (or default) and top_ranked. Whatever the
hub, the files are brought to a local folder first, so that the manifest can say which ones they were.
"""

from __future__ import annotations

import gzip
import io
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from rag_core.base.errors import DataError
from rag_core.base.outside_text import first_line, quoted
from rag_core.base.records import RankingSample, passage_text
from rag_core.files.bad_rows import FIX_ROW, BadRows
from rag_core.files.inputs import DAMAGED_GZIP, TOO_LONG, lines_of, open_input, reading
from rag_core.files.table_rows import check_parquet, texts_of
from rag_core.sources.splits import Splits

Hub = Literal["huggingface", "modelscope"]

# The wording of MTEB's own prompts, which Qwen3-Embedding and Qwen3-Reranker are evaluated with.
INSTRUCTIONS = {
    "stackoverflowdupquestions": "Retrieve duplicate questions from StackOverflow forum",
    "scidocs": "Given a title of a scientific paper, retrieve the titles of other relevant papers",
    "scidocsrr": "Given a title of a scientific paper, retrieve the titles of other relevant papers",
    "askubuntudupquestions": "Retrieve duplicate questions from AskUbuntu forum",
}
_HUB_NAMES = {key: f"mteb/{key}-reranking" for key in INSTRUCTIONS} | {"scidocsrr": "mteb/SciDocsRR"}
_DATA_FILES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet", ".csv", ".arrow")

T = TypeVar("T")
Row = Mapping[str, Any]


class MtebSet:
    """A data set with its own splits."""

    flags: Mapping[str, Any] = {}

    def __init__(self, name: str, hub: Hub) -> None:
        key = name.rstrip("/").rpartition("/")[2].lower().removesuffix("-reranking")
        self.instruction = INSTRUCTIONS.get(key)
        self.mined: Mapping[str, int] = {}
        self._folder = (
            Path(name).resolve() if Path(name).is_dir() else _download(_HUB_NAMES.get(name.lower(), name), hub)
        )
        self.inputs = sorted(path for path in self._folder.rglob("*") if path.name.endswith(_DATA_FILES))
        for path in self.inputs:
            _check_lines(path)
        self._configs = _read(self._folder, _config_names)
        self._nested = {"corpus", "queries"} <= set(self._configs)
        qrels = next((name for name in ("qrels", "default") if name in self._configs), None)
        if qrels is None:
            raise DataError(
                f"has neither query/positive/negative rows nor qrels (configs: {quoted(', '.join(self._configs))})",
                "Pass an MTEB reranking set",
                path=self._folder,
            )
        self._main = qrels
        self.splits = _read(self._folder, lambda folder: _split_names(folder, qrels))

    def read(self, dropped: Counter[str], bad_rows: BadRows) -> Splits:
        """Read every split; empty passages, which some public sets have, are dropped.

        Raises:
            DataError: the files are damaged, or not in either layout.
        """
        rows = self._nested_rows if self._nested else self._flat_rows
        splits = {}
        for split in self.splits:
            try:
                samples = [*self._samples(rows(split), dropped, bad_rows, split)]
            except (TypeError, AttributeError) as error:  # `datasets` takes any JSON value for a column
                raise DataError(
                    f"the split {split} has something else where texts are needed ({quoted(str(error))})",
                    "Pass an MTEB reranking set",
                    path=self._folder,
                ) from error
            if not samples:
                raise DataError(f"the split {split} holds no sample", "Check the files", path=self._folder)
            splits[split] = samples
        return splits

    def _samples(
        self, rows: Iterator[Row], dropped: Counter[str], bad_rows: BadRows, split: str
    ) -> Iterator[RankingSample]:
        for number, row in enumerate(rows, start=1):
            try:
                sample = _sample(row, dropped)
            except ValueError as error:
                bad_rows.add(DataError(f"row {number} of the split {split}: {error}", FIX_ROW, path=self._folder))
            else:
                if sample is not None:
                    yield sample

    def _flat_rows(self, split: str) -> Iterator[Row]:
        columns = self._columns(self._main, split, ("query", "positive", "negative"))
        for number, (query, positive, negative) in enumerate(zip(*columns, strict=True), start=1):
            yield {"query_id": f"{split}-{number}", "query": query, "positive": positive, "negative": negative}

    def _nested_rows(self, split: str) -> Iterator[Row]:
        passages = self._texts("corpus", split)
        queries = self._texts("queries", split)
        judged: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for query, passage, score in zip(
            *self._columns(self._main, split, ("query-id", "corpus-id", "score")), strict=True
        ):
            judged[str(query)][str(passage)] = score
        ranked: dict[str, Sequence[Any]] = {}
        if "top_ranked" in self._configs:
            ranked = dict(zip(*self._columns("top_ranked", split, ("query-id", "corpus-ids")), strict=True))
        candidates = {str(query): dict.fromkeys(map(str, ids)) for query, ids in ranked.items()}
        for query, scores in judged.items():
            ids = [*(candidates.get(query) or scores)]
            relevant = [key for key, score in scores.items() if score > 0]
            unknown = [key for key in (*ids, *relevant) if key not in passages]
            if unknown or query not in queries:
                raise DataError(
                    f"split {split}: {quoted(repr(unknown[0] if unknown else query))} is judged but not in "
                    f"{'the corpus' if unknown else 'the queries'}",
                    "Fetch the files again",
                    path=self._folder,
                )
            yield {
                "query_id": query,
                "query": queries[query],
                "positive": [passages[key] for key in relevant],
                "negative": [passages[key] for key in ids if scores.get(key, 0) <= 0],
            }

    def _texts(self, config: str, split: str) -> dict[str, str]:
        table = self._table(config, split)
        keys = table.get("_id", table.get("id"))
        if keys is None or "text" not in table:
            raise self._lacks(config, ("_id", "text"), table)
        titles = table.get("title") or [None] * len(keys)
        return {
            str(key): passage_text(title, text) for key, title, text in zip(keys, titles, table["text"], strict=True)
        }

    def _columns(self, config: str, split: str, names: Sequence[str]) -> list[list[Any]]:
        table = self._table(config, split)
        if not set(names) <= set(table):
            raise self._lacks(config, names, table)
        return [table[name] for name in names]

    def _lacks(self, config: str, names: Sequence[str], table: Mapping[str, Any]) -> DataError:
        return DataError(
            f"{config} has the columns {quoted(', '.join(table))}, where {', '.join(names)} are needed",
            "Pass an MTEB reranking set",
            path=self._folder,
        )

    def _table(self, config: str, split: str) -> dict[str, list[Any]]:
        """Return column -> values; where a config has no such split but only one, as its one file, that is meant."""

        def read(folder: Path) -> dict[str, list[Any]]:
            from datasets import load_dataset

            splits = _split_names(folder, config)
            chosen = splits[0] if split not in splits and len(splits) == 1 else split
            # A cache of its own: the library's is keyed by path and time stamp, and would be kept for ever.
            with tempfile.TemporaryDirectory() as cache:
                data = load_dataset(str(folder), config, split=chosen, cache_dir=cache)
                columns: dict[str, list[Any]] = data.to_dict()
                return columns

        return _read(self._folder, read)


def _sample(row: Row, dropped: Counter[str]) -> RankingSample | None:
    texts = {}
    for side in ("positive", "negative"):
        given = texts_of(side, row[side]) if isinstance(row[side], str) else row[side] or []
        texts[side] = [text for text in given if text and text.strip()]
        dropped["empty_passages"] += len(given) - len(texts[side])
    if not (row["query"] or "").strip():
        dropped["empty_queries"] += 1
        return None
    if not (texts["positive"] or texts["negative"]):
        dropped["queries_without_passages"] += 1
        return None
    return RankingSample(query_id=row["query_id"], query=row["query"], **texts)


def _check_lines(path: Path) -> None:
    """Check that a file is one, and that no line of a text is too long, before `datasets` waits for it or holds it."""
    if path.suffix == ".parquet":
        check_parquet(path)
        return
    with open_input(path) as stored, reading(path):
        if path.suffix == ".arrow":
            return
        lines = gzip.GzipFile(fileobj=stored) if path.suffix == ".gz" else io.BufferedReader(stored)
        try:
            for number, line in enumerate(lines_of(lines), start=1):
                if line is None:
                    raise DataError(f"is {TOO_LONG}", "Check that each row has its own line", path=path, line=number)
        except DAMAGED_GZIP as error:
            raise DataError(
                f"the gzip file is damaged or cut off ({error})", "Copy or fetch the file again", path=path
            ) from error


def _config_names(folder: Path) -> list[str]:
    from datasets import get_dataset_config_names

    names: list[str] = get_dataset_config_names(str(folder))
    return names


def _split_names(folder: Path, config: str) -> list[str]:
    from datasets import get_dataset_split_names

    names: list[str] = get_dataset_split_names(str(folder), config)
    return names


def _read(folder: Path, read: Callable[[Path], T]) -> T:
    from datasets.exceptions import DatasetsError

    try:
        return read(folder)
    except (DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise DataError(
            f"cannot be read as a data set ({first_line(cause).rstrip('.')})",
            "Pass a folder with the files of an MTEB reranking set, or fetch them again",
            path=folder,
        ) from error


def _download(name: str, hub: Hub) -> Path:
    """Bring a data set's files here and return their folder.

    Raises:
        DataError: the hub cannot be reached, or has no such data set.
    """
    if hub == "modelscope":
        return _download_from_modelscope(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except RepositoryNotFoundError as error:
        raise DataError(f"Hugging Face has no data set {name}", "Check --name") from error
    except (OSError, ValueError) as error:
        raise _unreachable(name, "Hugging Face", error) from error


def _download_from_modelscope(name: str) -> Path:
    try:
        from modelscope import dataset_snapshot_download
        from modelscope.hub.errors import FileDownloadError, NotExistError, RequestError
    except ImportError as error:
        raise DataError("--hub modelscope needs the package modelscope", "pip install modelscope") from error
    try:
        return Path(dataset_snapshot_download(name))
    except NotExistError as error:
        raise DataError(f"ModelScope has no data set {name}", "Check --name") from error
    except (OSError, ValueError, FileDownloadError, RequestError) as error:
        raise _unreachable(name, "ModelScope", error) from error


def _unreachable(name: str, hub: str, error: Exception) -> DataError:
    return DataError(
        f"{name} is no local folder, and cannot be fetched from {hub} ({first_line(error).rstrip('.')})",
        "Check the name and the network, or fetch the files elsewhere and pass their folder as --name",
    )
