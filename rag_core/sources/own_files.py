"""Your own files of samples, JSONL or tables: one that is split, or several that are splits already."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rag_core.base.errors import DataError, UsageError
from rag_core.files.bad_rows import BadRows
from rag_core.files.formats import is_table
from rag_core.files.jsonl import read_samples
from rag_core.files.manifest import task_instruction
from rag_core.sources.splits import Splits, split_samples


class OwnFiles:
    """One file is split by `fractions`; of several, each is a split, named by its stem."""

    def __init__(self, paths: Sequence[Path], fractions: Mapping[str, float], seed: int) -> None:
        self.inputs = [file for path in paths for file in _files(path)]
        self._fractions = fractions if len(self.inputs) == 1 else None
        self._seed = seed
        self.instruction = task_instruction(self.inputs)
        self.mined: Mapping[str, int] = {}
        self.flags = {} if self._fractions is None else {"splits": dict(self._fractions)}
        stems = [_stem(file) for file in self.inputs]
        self.splits = stems if self._fractions is None else list(self._fractions)
        for stem, times in Counter(stems).items():
            if times > 1:
                raise UsageError(f"--input has {times} files named {stem}", "Rename them: each becomes one output")

    def read(self, dropped: Counter[str], bad_rows: BadRows) -> Splits:
        """Read the files.

        Raises:
            DataError: as `jsonl.read_samples`, and where a split would be empty.
        """
        files = [read_samples(path, bad_rows=bad_rows, tables=True) for path in self.inputs]
        if self._fractions is not None:
            return split_samples(files[0], self._fractions, self._seed)
        return dict(zip(self.splits, files, strict=True))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith((".jsonl", ".jsonl.gz")) or is_table(file))
    if not files:
        raise DataError("holds no .jsonl, .csv, .tsv or .parquet file", "Check the path", path=path)
    return files


def _stem(file: Path) -> str:
    name = file.name.removesuffix(".gz")
    return name.removesuffix(".jsonl") if name.endswith(".jsonl") or not is_table(file) else Path(name).stem
