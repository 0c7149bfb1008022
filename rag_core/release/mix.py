"""`mix.json` in a reranker's folder: by which weight its scores are mixed with those of which first stage."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from rag_core.base.errors import DataError, UsageError
from rag_core.base.markdown import code, code_block, escaped
from rag_core.base.outside_text import quoted
from rag_core.files.atomic import atomic_write
from rag_core.files.inputs import read_whole
from rag_core.files.manifest import MIX, read_manifest
from rag_core.release.model_card import shown_name
from rag_core.retrieval.analyser import Analyser

_AGAIN = "Run evaluate with --first_stage and --mix auto to make it"
_BM25 = "BM25"
_CONFIG = ConfigDict(strict=True, extra="ignore")


@dataclass(frozen=True, config=_CONFIG)
class FirstStage:
    """Which first stage it is.

    Attributes:
        name: of the model without the folder that it stands in; "BM25".
        sha256, revision: of a model in a folder, or on a hub; both `None` where nobody knows.
        analyser: BM25's; `None` of a model.
    """

    name: str
    sha256: str | None = None
    revision: str | None = None
    analyser: Analyser | None = None

    @classmethod
    def bm25(cls, analyser: Analyser) -> FirstStage:
        """Return BM25 with an analyser."""
        return cls(_BM25, analyser=analyser)

    @classmethod
    def model(cls, identity: Mapping[str, Any]) -> FirstStage:
        """Return a model by what tells it from others, as `engines.identity.ModelInfo` has it."""
        exact = {name: identity.get(name) for name in ("sha256", "revision")}
        told = {name: value for name, value in exact.items() if isinstance(value, str)}  # a manifest may be anyone's
        return cls(shown_name(identity["name"]), told.get("sha256"), told.get("revision"))

    @property
    def flag(self) -> str | None:
        """What to pass as --first_stage, `None` where nobody knows which model it was."""
        if self.analyser is not None:
            return "bm25"
        return self.name if self.sha256 or self.revision else None

    def is_same(self, other: FirstStage) -> bool:
        """Tell whether another is this one: the same weights in a folder of another name are."""
        if (self.analyser is None) != (other.analyser is None):
            return False
        if self.analyser is not None:
            return True
        if self.sha256 or other.sha256:
            return self.sha256 == other.sha256
        return (self.name, self.revision) == (other.name, other.revision)


@dataclass(frozen=True, config=_CONFIG)
class Mix:
    """The content of `mix.json`: score = (1 - weight) * first stage + weight * reranker, standardised per query.

    Attributes:
        chosen_on: the name of the file that chose the weight; `None` where it was given.
    """

    weight: Annotated[float, Field(ge=0, le=1)]
    first_stage: FirstStage
    chosen_on: str | None = None

    def check_first_stage(self, asked: FirstStage) -> None:
        """Check that a first stage is the one that the weight is for.

        Raises:
            UsageError: it is another one.
        """
        if self.first_stage.is_same(asked):
            return
        kept, flag = self.first_stage.name, self.first_stage.flag
        other = "another version of it" if asked.name == kept else quoted(asked.name)
        remedy = "run evaluate with this one and --mix auto"
        raise UsageError(
            f"the kept weight is for the first stage {quoted(kept)}, and --first_stage is {other}",
            f"Pass --first_stage {quoted(flag)}, or {remedy}" if flag else remedy.capitalize(),
        )


def write_mix(folder: Path, mix: Mix) -> bool:
    """Keep a mix in a reranker's folder; tell whether that is one of ours: what has no manifest stays as it is."""
    if read_manifest(folder) is None:
        return False
    with atomic_write(folder / MIX) as file:
        file.write(
            json.dumps(dataclasses.asdict(mix), indent=2, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        )
    return True


def read_mix(folder: Path) -> Mix:
    """Return the mix that is kept in a reranker's folder.

    Raises:
        DataError: there is none, or what stands there is not one.
    """
    path = folder / MIX
    if not path.exists():
        raise DataError("no weight of a mix is kept there", _AGAIN, path=path)
    try:
        return TypeAdapter(Mix).validate_json(read_whole(path, _AGAIN))
    except ValidationError as error:
        what = error.errors()[0]
        place = ".".join(map(str, what["loc"]))
        reason = quoted(f"{place}: {what['msg']}" if place else what["msg"])
        raise DataError(f"is not what evaluate keeps ({reason})", _AGAIN, path=path) from error


def markdown(mix: Mix, name: str) -> str:
    """Return a mix as a section of a model card.

    Args:
        name: of the reranker.
    """
    chosen = "was given" if mix.chosen_on is None else f"was chosen on {escaped(mix.chosen_on)}"
    lines = [
        "## Mix",
        f"Reorders what {code(mix.first_stage.name)} ranks. The mixed score of a passage is {1 - mix.weight:.4g} "
        f"times the first stage's score plus {mix.weight:.4g} times this model's. Each is standardised over the "
        f"candidates of the query: minus their mean, divided by their standard deviation. The weight {chosen}.",
    ]
    if mix.first_stage.flag is not None:
        models = f"--model {shlex.quote(name)} --first_stage {shlex.quote(mix.first_stage.flag)}"
        command = f'python -m rag_core.rank {models} --query "a query" --passages passages.txt'
        lines.append(code_block("bash", command))
    return "\n\n".join(lines)
