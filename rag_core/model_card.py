"""The README of a distilled model's folder: what it is, what taught it, and how to make it again. No training text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CARD = """\
---
library_name: sentence-transformers
pipeline_tag: text-ranking
base_model: {base_model}
tags: [sentence-transformers, cross-encoder, reranker, distillation]
---

# {name}

A cross-encoder, grown from `{base_model}` by distillation: it learned how far apart a teacher scores the passages of
a query. No human labels were used.

| | |
|---|---|
| teacher | {teacher} |
| training data | {queries} queries, {triplets} pairs of passages with the teacher's margin |
| training | {steps} steps, {seconds:.0f} seconds |
| settings | {settings} |

```python
from sentence_transformers import CrossEncoder

scores = CrossEncoder("{name}").predict([("a query", "a passage")])
```

Scores compare passages of one query; they are not probabilities. How well it ranks is for `evaluate` to say.
"""


def write_model_card(
    folder: Path,
    *,
    base_model: str,
    teacher: Mapping[str, Any] | None,
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Write `README.md` into a model's folder.

    Args:
        facts: `queries`, `triplets`, `steps` and `seconds` of the training.
    """
    card = _CARD.format(
        name=folder.name,
        base_model=Path(base_model).name if Path(base_model).is_dir() else base_model,
        teacher=(teacher or {}).get("name", "unknown (the scores came without manifest)"),
        settings=" ".join(f"--{name} {shlex.quote(json.dumps(value))}" for name, value in settings.items()),
        **facts,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
