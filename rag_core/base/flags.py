"""Settings that are declared once: help, default, and whether they decide what a stage writes."""

from __future__ import annotations

import dataclasses
from typing import Any

_DECIDES = "decides"


def flag(help: str, default: Any = dataclasses.MISSING, *, decides: bool = True, **argparse_options: Any) -> Any:
    """Declare a field of an `Args` dataclass as a flag; without `default` it is required.

    Args:
        decides: whether it stands in the recipe of the output: another value makes another output. Paths do not; their
            content does, by its SHA-256.
    """
    return _field(default, {"help": help, "argparse": argparse_options, _DECIDES: decides})


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
