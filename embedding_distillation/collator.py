"""From soft labels to batches: each text of a batch is tokenised once, and stands in it once."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

from rag_core.base.records import RankingSample, SoftLabels
from rag_core.distillation.minibatches import cut_minibatches, cut_queries
from rag_core.engines.protocols import Role
from rag_core.engines.role_prompts import prompt_of
from rag_core.scoring.vectors import TextVectors

TextKey = tuple[Role, str]

_MOST_ANCHORS = 4096


@dataclass(frozen=True)
class Anchors:
    """Texts from elsewhere whose embeddings are to stay where they are.

    Attributes:
        per_query: how many of them go with each training query.
        seed: of what is drawn at random.
    """

    texts: Sequence[TextKey] = ()
    per_query: int = 0
    seed: int = 0

    @classmethod
    def draw(cls, samples: Sequence[RankingSample], per_query: int, seed: int) -> Anchors:
        """Take queries and passages of samples as anchors: all of them, or 4,096 drawn at random."""
        texts: dict[TextKey, None] = {}
        for sample in samples:
            texts["query", sample.query] = None
            texts |= {("passage", passage): None for passage, _ in sample.passages()}
        anchors = list(texts)
        if len(anchors) > _MOST_ANCHORS:
            anchors = random.Random(seed).sample(anchors, _MOST_ANCHORS)
        return cls(anchors, per_query, seed)

    def by_role(self) -> dict[Role, set[str]]:
        """Return the texts of each role."""
        return {
            "query": {text for role, text in self.texts if role == "query"},
            "passage": {text for role, text in self.texts if role == "passage"},
        }


def make_dataset(groups: Sequence[SoftLabels], anchors: Anchors) -> Dataset:
    """Return one row per query, with its candidates and with the anchor texts that go with it in every epoch.

    Where there are any, it also has those of its unscored candidates that other queries bring into a batch.
    """
    generator = random.Random(anchors.seed)
    prescreened = any(group.unscored for group in groups)
    brought = {passage for group in groups for passage in group.passages} if prescreened else set()
    rows = []
    for group in groups:
        drawn = generator.sample(anchors.texts, min(anchors.per_query, len(anchors.texts)))
        rows.append(
            {
                "query": group.query,
                "passages": group.passages,
                "scores": group.scores,
                "anchor_roles": [role for role, _ in drawn],
                "anchor_texts": [text for _, text in drawn],
                **({"unscored": _unscored(group, brought)} if prescreened else {}),
            }
        )
    return Dataset.from_list(rows)


def _unscored(group: SoftLabels, brought: Set[str]) -> list[str]:
    scored = set(group.passages)
    return [text for text in dict.fromkeys(group.unscored or ()) if text in brought and text not in scored]


@dataclass
class GroupedCollator(SentenceTransformerDataCollator):  # type: ignore[misc]  # untyped base
    """Tokenise the distinct texts of a batch of queries, with the student's own prompts for queries and passages.

    The batch holds:

    - `minibatches`, a list of model inputs; each has texts of one role and of similar length;
    - `order` (texts,), for each of their rows its place among the texts: queries, then passages, then anchors;
    - `queries` (queries,), `passages` (queries, candidates) and `anchors` (anchors,), indices of texts;
    - `passage_range`, the first place of the passages and the one after the last;
    - `mask` and `scores` (queries, candidates), which candidates are there, and the teacher's scores of them;
    - `unscored` (pairs, 2), where a file was prescreened: indices of a query and of a text that is a candidate of it
      without a score;
    - `teacher_vectors` (queries and passages, dimensions) and `anchor_vectors` (anchors, dimensions), where they are
      given.

    With `in_parts` it holds batches of a few queries each, see `cut_queries`.
    """

    mini_batch_size: int = 32
    role_prompts: Mapping[Role, str] = field(default_factory=dict)
    teacher_vectors: TextVectors | None = None
    anchor_vectors: TextVectors | None = None
    in_parts: bool = False

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        if self.in_parts:
            return cut_queries(features, self.mini_batch_size, self._collate)
        return self._collate(features)

    def _collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        queries: list[TextKey] = list(dict.fromkeys(("query", row["query"]) for row in features))
        passages: list[TextKey] = list(dict.fromkeys(("passage", text) for row in features for text in row["passages"]))
        anchors = list(
            dict.fromkeys(key for row in features for key in zip(row["anchor_roles"], row["anchor_texts"], strict=True))
        )
        taught = queries + passages
        index = {key: i for i, key in enumerate(taught)}
        texts = [*taught, *(key for key in anchors if key not in index)]
        index |= {key: i for i, key in enumerate(texts)}
        candidates = max(len(row["passages"]) for row in features)
        batch: dict[str, Any] = {
            "queries": torch.tensor([index["query", row["query"]] for row in features]),
            "passage_range": (len(queries), len(taught)),
            "passages": _padded([[index["passage", p] for p in row["passages"]] for row in features], len(queries)),
            "mask": torch.tensor([[i < len(row["passages"]) for i in range(candidates)] for row in features]),
            "scores": _padded([row["scores"] for row in features], 0.0),
            "anchors": torch.tensor([index[key] for key in anchors], dtype=torch.long),
            **self._minibatches(texts),
        }
        if "unscored" in features[0]:
            unscored = [
                (row, index.get(("passage", text))) for row, one in enumerate(features) for text in one["unscored"]
            ]
            found = [(row, place) for row, place in unscored if place is not None]
            batch["unscored"] = torch.tensor(found, dtype=torch.long).view(-1, 2)
        if self.teacher_vectors is not None:
            batch["teacher_vectors"] = torch.from_numpy(self.teacher_vectors.of(taught))
        if self.anchor_vectors is not None:
            batch["anchor_vectors"] = torch.from_numpy(self.anchor_vectors.of(anchors))
        return batch

    def _minibatches(self, texts: Sequence[TextKey]) -> dict[str, Any]:
        order: list[int] = []
        minibatches: list[dict[str, Any]] = []
        roles: tuple[Role, ...] = ("query", "passage")
        for role in roles:
            mine = [i for i, (of, _) in enumerate(texts) if of == role]
            if not mine:
                continue
            features = self.preprocess_fn([texts[i][1] for i in mine], prompt=self.role_prompts.get(role))
            cut, rows = cut_minibatches(features, self.mini_batch_size)
            minibatches += cut
            order += [mine[row] for row in rows]
        return {"minibatches": minibatches, "order": torch.tensor(order)}


def role_prompts(model: SentenceTransformer) -> dict[Role, str]:
    """Return the prompts that a model declares for queries and passages."""
    return {"query": prompt_of(model.prompts, "query"), "passage": prompt_of(model.prompts, "passage")}


def _padded(rows: list[list[Any]], filler: float) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *([filler] * (width - len(row)))] for row in rows])
