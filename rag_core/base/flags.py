"""Settings that are declared once: help, default, and whether they decide what a stage writes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from rag_core.base.errors import UsageError
from rag_core.base.outside_text import is_writable

_DECIDES = "decides"
_BOUNDS = "bounds"


def flag(
    help: str,
    default: Any = dataclasses.MISSING,
    *,
    decides: bool = True,
    least: float | None = None,
    most: float | None = None,
    **argparse_options: Any,
) -> Any:
    """Declare a field of an `Args` dataclass as a flag; without `default` it is required.

    Args:
        decides: whether it stands in the recipe of the output: another value makes another output. Paths do not; their
            content does, by its SHA-256.
        least, most: bounds of a number, or of each in a list; `None` for none.
    """
    return _field(default, {"help": help, "argparse": argparse_options, _DECIDES: decides, _BOUNDS: (least, most)})


def setting(default: Any = dataclasses.MISSING, *, decides: bool = True) -> Any:
    """Declare a field of a settings dataclass that is filled from flags; `decides` as in `flag`."""
    return _field(default, {_DECIDES: decides})


def _field(default: Any, metadata: dict[str, Any]) -> Any:
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def flags_of(args_type: type[Any]) -> list[dataclasses.Field[Any]]:
    """Return the fields that are flags."""
    return [field for field in dataclasses.fields(args_type) if field.init]


def check_bounds(args: Any) -> None:
    """Check the values of flags: numbers are finite and within their bounds, texts can be written.

    Raises:
        UsageError: one is not.
    """
    for field in flags_of(type(args)):
        value = getattr(args, field.name)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float) and not isinstance(one, bool):
                check_number(field.name, one, *field.metadata[_BOUNDS])
            elif isinstance(one, str) and not is_writable(one):
                raise UsageError(f"--{field.name} is not UTF-8", "Check the encoding of the terminal or the script")
            elif isinstance(one, str | Path) and "\0" in str(one):
                raise UsageError(f"--{field.name} has a NUL in it", "Check the path")


def check_number(name: str, number: float, least: float | None = None, most: float | None = None) -> None:
    """Check one number.

    Raises:
        UsageError: it is not finite, or out of bounds.
    """
    if math.isfinite(number) and (least is None or number >= least) and (most is None or number <= most):
        return
    if least is None and most is None:
        remedy = "a finite number"
    elif most is None:
        remedy = f"{least} or more"
    else:
        remedy = f"{most} or less" if least is None else f"a number from {least} to {most}"
    raise UsageError(f"--{name} is {number:g}", f"Pass {remedy}")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return what a flag is where it is not given, `dataclasses.MISSING` where it is required."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def decisive(settings: Any) -> dict[str, Any]:
    """Return the settings that decide the output, by name, in the order of their declaration.

    Settings within settings stand among the others.

    Args:
        settings: a dataclass whose fields are declared by `flag` or `setting`.
    """
    found: dict[str, Any] = {}
    for field in flags_of(type(settings)):
        if not field.metadata[_DECIDES]:
            continue
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= decisive(value)
        else:
            found[field.name] = value
    return found
