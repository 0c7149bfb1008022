"""The form that a model is asked in: its own where it was trained for one, else the one of the flags."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from query_expansion_rl.writing.forms import Form, Output, Style, read_form, untrained_form
from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.base.stage import StageArgs


@dataclasses.dataclass(kw_only=True)
class FormArgs(StageArgs):
    """Flags of a stage that asks a model for expansions; the stage settles them by `choose_form`."""

    prompt: Output | None = flag(
        "what is asked for: words, or a passage that might answer the query (default: what the model was trained for, "
        "else keywords)",
        None,
        decides=False,
    )
    shots: int | None = flag(
        "examples in the prompt (default: 3 for keywords, 2 for a document, 0 for a model of ours)",
        None,
        decides=False,
        least=0,
    )
    prompt_style: Literal["auto", "chat", "completion"] = flag(
        "completion is plain text that any model goes on with; chat is for models that follow instructions (auto: what "
        "the model was trained for, else completion)",
        "auto",
        decides=False,
    )
    max_new_tokens: int | None = flag(
        "tokens of an answer at most (default: 24 for keywords, 64 for a document)", None, decides=False, least=1
    )


def choose_form(args: FormArgs, model: str) -> Form:
    """Return the form to ask a model in.

    Raises:
        UsageError: the model was trained for another than the one asked for.
        DataError: the model's folder tells its form in a damaged file.
    """
    own = read_form(Path(model))
    if own is None:
        style: Style = "completion" if args.prompt_style == "auto" else args.prompt_style
        return untrained_form(
            args.prompt or "keywords", style=style, shots=args.shots, max_new_tokens=args.max_new_tokens
        )
    asked: dict[str, object] = {"prompt": args.prompt, "shots": args.shots}
    if args.prompt_style != "auto":
        asked["prompt_style"] = args.prompt_style
    trained = {"prompt": own.output, "shots": own.shots, "prompt_style": own.style}
    for name, value in asked.items():
        if value not in (None, trained[name]):
            raise UsageError(f"{model} was trained with --{name} {trained[name]}, not {value}", f"Leave --{name} out")
    return dataclasses.replace(own, max_new_tokens=args.max_new_tokens or own.max_new_tokens)


def recipe_of(form: Form) -> dict[str, object]:
    """Return what of a form decides the expansions, by the names of the flags."""
    return {
        "prompt": form.output,
        "shots": form.shots,
        "prompt_style": form.style,
        "max_new_tokens": form.max_new_tokens,
    }
