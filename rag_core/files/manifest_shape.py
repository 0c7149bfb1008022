"""The shape of a stored manifest, as far as anything relies on it: other people's files may be of any."""

from __future__ import annotations

from typing import Any, Required

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from rag_core.base.outside_text import quoted


@with_config(ConfigDict(extra="allow"))
class _Model(TypedDict, total=False):
    name: str


@with_config(ConfigDict(extra="allow"))
class _Recipe(TypedDict, total=False):
    """See `manifest.Recipe`."""

    stage: str
    flags: dict[str, Any] | None
    inputs: dict[str, str] | None
    model: _Model | None


@with_config(ConfigDict(extra="allow"))
class _Output(TypedDict, total=False):
    sha256: str
    files: dict[str, int]


@with_config(ConfigDict(extra="allow"))
class _Manifest(TypedDict, total=False):
    """A stage may add any fact."""

    recipe: Required[_Recipe]
    output: _Output
    command: str
    teacher: _Model | None
    score_unit: str | None
    instruction: str | None
    rows: int | None
    skipped: dict[str, int] | None


MANIFEST, RECIPE = TypeAdapter(_Manifest), TypeAdapter(_Recipe)


def shape_fault(content: object, kind: TypeAdapter[Any]) -> str | None:
    """Say what is wrong with the shape of stored JSON, `None` where nothing is.

    Args:
        kind: `MANIFEST` or `RECIPE`.
    """
    try:
        kind.validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return quoted(f"{'.'.join(map(str, first['loc'])) or 'all'}: {first['msg']}")
    return None
