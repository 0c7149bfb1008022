"""Which of the prompts that an embedder declares stands before a query, and which before a passage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rag_core.base.flags import flag
from rag_core.base.stage import StageArgs
from rag_core.engines.protocols import Role

# The names that sentence-transformers looks for, in its order.
_NAMES: Mapping[Role, tuple[str, ...]] = {"query": ("query",), "passage": ("document", "passage", "corpus")}
USUAL: Mapping[Role, str] = {role: names[0] for role, names in _NAMES.items()}


@dataclasses.dataclass(frozen=True)
class PromptNames:
    """The names of prompts that the user asks for; `None` is a name that sentence-transformers looks for."""

    query: str | None = None
    passage: str | None = None

    def choose(self, prompts: Mapping[str, str]) -> dict[Role, str]:
        """Return the name of each role's prompt among those of a model, without a role that has none."""
        asked: dict[Role, str | None] = {"query": self.query, "passage": self.passage}
        chosen: dict[Role, str] = {}
        for role, name in asked.items():
            found = next((name for name in ([name] if name else []) + [*_NAMES[role]] if name in prompts), None)
            if found is not None:
                chosen[role] = found
        return chosen

    def missing(self, prompts: Mapping[str, str]) -> list[str]:
        """Return the names that a model does not have."""
        return [name for name in (self.query, self.passage) if name and name not in prompts]


AS_DECLARED = PromptNames()


def prompt_of(prompts: Mapping[str, str], role: Role) -> str:
    """Return what stands before the texts of a role, by the first name that sentence-transformers looks for."""
    return next((prompts[name] for name in _NAMES[role] if name in prompts), "")


@dataclasses.dataclass(kw_only=True)
class PromptArgs(StageArgs):
    """Flags of a stage that embeds texts: what decides is the prompt itself, which the model's identity holds."""

    query_prompt_name: str | None = flag(
        "embedders: name of the prompt that stands before queries, of those that the model declares, e.g. s2p_query "
        "(default: query)",
        None,
        decides=False,
    )
    passage_prompt_name: str | None = flag(
        "embedders: name of the prompt that stands before passages (default: document, passage or corpus)",
        None,
        decides=False,
    )

    def prompt_names(self) -> PromptNames:
        """Return the names asked for."""
        return PromptNames(self.query_prompt_name, self.passage_prompt_name)
