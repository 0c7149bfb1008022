"""Pages out of templates, in which text from outside stays text."""

from __future__ import annotations

from typing import Any

from rag_core.base.outside_text import visible


def render(package: str, template: str, *, autoescape: bool, **values: Any) -> str:
    """Return a template that stands in a package, filled; of texts, what is not seen is shown.

    Args:
        autoescape: whether texts are escaped, as HTML wants it.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # what is marked as HTML is ours
    )
    return environment.get_template(template).render(**values)
