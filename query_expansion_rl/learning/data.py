"""What each method learns from, and the form that it is trained in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from query_expansion_rl.records import Demonstration, Preference
from query_expansion_rl.retrieval.workspace import TOPICS, Workspace
from query_expansion_rl.writing.forms import Form, Output, read_form, untrained_form
from rag_core.base.errors import DataError, StaleError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.files.bad_rows import BadRows
from rag_core.files.inputs import sha256
from rag_core.files.jsonl import numbered_records
from rag_core.files.manifest import UNKNOWN, read_manifest


def settle_form(model: str, train_file: Path | None, prompt: Output | None, max_new_tokens: int | None) -> Form:
    """Return the form to train in: without examples, and as the training file or the model has it.

    Raises:
        UsageError: the flags ask for another than the training file was made for.
    """
    told = (read_manifest(train_file) or UNKNOWN).facts.get("form") if train_file else None
    known = _form(told) if told else read_form(Path(model))
    if known and prompt not in (None, known.output):
        source = train_file if told else model
        raise UsageError(f"--prompt is {prompt}, and {source} is for {known.output}", "Leave out --prompt")
    form = known or untrained_form(prompt or "keywords", style="completion", shots=0)
    form = dataclasses.replace(form, shots=0, style="completion")
    return dataclasses.replace(form, max_new_tokens=max_new_tokens) if max_new_tokens else form


def _form(told: object) -> Form | None:
    try:
        return TypeAdapter(Form).validate_json(json.dumps(told))
    except ValidationError:
        return None


def read_training_rows(
    path: Path, method: Literal["rft", "dpo", "grpo"], workspace: Workspace, bad_rows: BadRows
) -> Sequence[Demonstration | Preference]:
    """Read what `create_pairs` made; every query is a train query of the workspace.

    Raises:
        DataError: a row is bad, or of a query that is not to be learned from.
        StaleError: the file was made for other topics.
    """
    inputs = (read_manifest(path) or UNKNOWN).recipe.get("inputs") or {}
    made_for = {digest for name, digest in inputs.items() if Path(name).name == TOPICS}
    if made_for and sha256(workspace.folder / TOPICS) not in made_for:
        raise StaleError(
            f"was made from another {TOPICS} than {workspace.folder / TOPICS}",
            "Pass --baselines with the folder that it was made for, or make it again",
            path=path,
        )
    splits = {topic.query_id: topic.split for topic in workspace.topics}
    record: type[Demonstration | Preference] = Demonstration if method == "rft" else Preference
    rows = []
    for line, row in numbered_records(path, record, bad_rows):
        if splits.get(row.query_id) != "train":
            what = f"query_id {quoted(repr(row.query_id))} is no train query of {workspace.folder}"
            bad_rows.add(DataError(what, "Run create_pairs again", path=path, line=line))
        else:
            rows.append(row)
    if not rows:
        raise DataError("has no row of a train query", "Run create_pairs again", path=path)
    return rows
