"""Rows that cannot be used: the first one ends the stage, or with `--skip_bad_rows` all are left out and counted."""

from __future__ import annotations

from rag_core.base.errors import DataError

_LEAVE_OUT = ", or pass --skip_bad_rows to leave such rows out"
FIX_ROW = f"Correct the row{_LEAVE_OUT}"


class BadRows:
    """What was wrong with the rows that a stage has left out.

    Attributes:
        skip: whether bad rows are left out.
        errors: one for each row, in the order in which they were read.
    """

    def __init__(self, *, skip: bool) -> None:
        self.skip = skip
        self.errors: list[DataError] = []

    def __len__(self) -> int:
        return len(self.errors)

    def add(self, error: DataError) -> None:
        """Leave a row out.

        Raises:
            DataError: the one that is given, where rows are not to be left out.
        """
        if not self.skip:
            raise error
        self.errors.append(error)

    def again(self) -> BadRows:
        """Return an empty one of the same kind, for a file that is read another time."""
        return BadRows(skip=self.skip)


class NoBadRows(BadRows):
    """Of a file whose rows must all be good: the first bad one is told without a word of a flag that is of no use."""

    def __init__(self) -> None:
        super().__init__(skip=False)

    def add(self, error: DataError) -> None:
        """Raise it."""
        remedy = error.remedy.replace(_LEAVE_OUT, "")
        raise DataError(error.what, remedy, path=error.path, line=error.line) from error

    def again(self) -> BadRows:
        """Return another one."""
        return NoBadRows()
