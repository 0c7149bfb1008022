"""In which form a model is asked for an expansion, and what is taken of its answer.

Keywords after QueStER (arXiv:2511.05301), a passage that might answer the query after query2doc (Wang et al. 2023,
arXiv:2303.07678) and HyDE (Gao et al. 2022, arXiv:2212.10496).
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from query_expansion_rl.writing.examples import DOCUMENTS, KEYWORDS
from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.engines.generation import Prompt
from rag_core.files.inputs import read_json

Output = Literal["keywords", "document"]
Style = Literal["completion", "chat"]

FORM_FILE = "expander.json"
VERSION = "forms-1"  # of the texts below and the examples; it stands in the manifests

_AGAIN = "Train the model again, or delete the file to use it as an untrained model"
_EXAMPLES = {"keywords": KEYWORDS, "document": DOCUMENTS}
_LABELS = {"keywords": "Keywords", "document": "Passage"}
_NEW_TOKENS = {"keywords": 24, "document": 64}
_TASKS = {
    "keywords": "Write the words that stand in passages that answer the query and are not in the query itself, "
    "separated by commas. Answer with the words and nothing else.",
    "document": "Write a short passage of two sentences that answers the query, as a reference work would have it. "
    "Answer with the passage and nothing else.",
}


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid"))
class Form:
    """A form to ask in.

    Attributes:
        shots: examples in the prompt; a model that was trained to write in the form needs none.
        style: "completion" is plain text that a model goes on with; "chat" is a turn of a user.
        max_new_tokens: of an answer.
    """

    output: Output
    shots: Annotated[int, Field(ge=0)]
    style: Style
    max_new_tokens: Annotated[int, Field(gt=0)]

    @property
    def stop(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        return ("\n",) if self.style == "completion" else ()

    def text(self, query: str) -> str:
        """Return what is asked in plain text; a model is trained on it + " " + an expansion + its end token."""
        return "\n\n".join([*map(self._shown, _EXAMPLES[self.output][: self.shots]), self._asked(query)])

    def prompt(self, query: str) -> Prompt:
        """Return what a model is given."""
        task = f"{_TASKS[self.output]}\n\n" if self.style == "chat" else ""
        return Prompt(task + self.text(query), style=self.style)

    def read(self, answer: str, query: str, *, cut: bool = False) -> str:
        """Return the expansion in an answer, "" where there is none.

        It is the first line, without the items (keywords, or sentences of a passage) that stand there twice, are the
        query itself, or are copied from an example in the prompt.

        Args:
            cut: whether the answer has no end: its last item is left out, where there is another.
        """
        line = _first_line(answer, _LABELS[self.output])
        separator = r"[,;|]" if self.output == "keywords" else r"(?<=[.!?])\s+"
        items = [item.strip(" \t\"'`*-•") for item in re.split(separator, line)]
        if cut and len(items) > 1:
            items.pop()
        copied = [known for _, text in _EXAMPLES[self.output][: self.shots] for known in re.split(separator, text)]
        seen = {_plain(query), "", *map(_plain, copied)}
        kept = []
        for item in items:
            if _plain(item) not in seen:
                seen.add(_plain(item))
                kept.append(item)
        return (", " if self.output == "keywords" else " ").join(kept)

    def _shown(self, example: tuple[str, str]) -> str:
        query, text = example
        return f"{self._asked(query)} {text}"

    def _asked(self, query: str) -> str:
        return f"Query: {' '.join(query.split())}\n{_LABELS[self.output]}:"


_FORM = TypeAdapter(Form)


def untrained_form(
    output: Output, *, style: Style, shots: int | None = None, max_new_tokens: int | None = None
) -> Form:
    """Return the form for a model that was not trained for one.

    Args:
        shots: `None` for as many as there are.
        max_new_tokens: `None` for 24 of keywords, 64 of a document.
    """
    known = len(_EXAMPLES[output])
    shots = known if shots is None else min(shots, known)
    return Form(output, shots, style, max_new_tokens or _NEW_TOKENS[output])


def read_form(model_folder: Path) -> Form | None:
    """Return the form that a model was trained to write in; `None` where it was trained for none.

    Raises:
        DataError: what stands in the folder is not one.
    """
    path = model_folder / FORM_FILE
    if not path.exists():
        return None
    try:
        return _FORM.validate_json(json.dumps(read_json(path, _AGAIN)))  # strict, but for what JSON has no type for
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = f"is not a form ({quoted(': '.join([*map(str, first['loc']), first['msg']]))})"
        raise DataError(what, _AGAIN, path=path) from error


def write_form(model_folder: Path, form: Form) -> None:
    """Write the form that a model was trained to write in into its folder."""
    (model_folder / FORM_FILE).write_text(json.dumps(dataclasses.asdict(form), indent=2) + "\n", encoding="utf-8")


def _first_line(answer: str, label: str) -> str:
    """Return the first line of an answer that says something, without its label; "" within thoughts."""
    answer = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL)
    if "<think>" in answer:
        return ""
    for line in map(str.strip, answer.splitlines()):
        said = re.sub(rf"^[*\s]*{label}[*\s]*:[*\s]*", "", line, flags=re.IGNORECASE)
        if said and not said.endswith(":"):
            return said
    return ""


def _plain(text: str) -> str:
    """Return a text without what makes no difference between two items."""
    return " ".join(re.findall(r"\w+", text.casefold()))
