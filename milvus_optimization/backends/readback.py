"""What was built, held against what was asked for."""

from __future__ import annotations

from milvus_optimization.records import Setting


def built_as_asked(asked: Setting, seen: Setting | None) -> str:
    """Return why an index is not the one that was asked for, "" where it is.

    Args:
        asked: build parameters.
        seen: parameters as the backend tells them, which may be more; None where it tells none.
    """
    seen = seen or {}
    wrong = [
        f"{name} {value} was asked for, and {_told(seen, name)}"
        for name, value in asked.items()
        if not _equal(value, seen.get(name))
    ]
    return "; ".join(wrong)


def _told(seen: Setting, name: str) -> str:
    return f"{seen[name]} was built" if name in seen else "the backend does not know of it"


def _equal(asked: int | float | str, seen: int | float | str | None) -> bool:
    """Compare two values; a server tells a number as text."""
    if seen is None:
        return False
    if isinstance(asked, str) or isinstance(seen, str):
        return str(asked).lower() == str(seen).lower()
    return asked == seen


def plain_setting(told: dict[str, object]) -> Setting:
    """Return parameters that Milvus tells, with numbers as numbers."""
    return {name: _plain(value) for name, value in told.items()}


def _plain(value: object) -> int | float | str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    text = str(value)
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
