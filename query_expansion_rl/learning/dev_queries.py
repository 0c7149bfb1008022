"""What a policy that is being trained writes for the dev queries, and what that is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from query_expansion_rl.records import Topic
from query_expansion_rl.rewards.reward import Reward, Sample
from query_expansion_rl.writing.forms import Form
from rag_core.base.errors import DataError

_BATCH = 32
_LENGTH = 2048  # tokens of prompt and answer, at most

NAMES = ("dev", "dev_error", "dev_truth", "dev_tokens", "dev_cut", "dev_empty", "dev_distinct_1")
"""Mean reward and its standard error, true change of nDCG@10 (where there are qrels), mean tokens, shares of cut and of
empty answers, and the share of distinct words among all that were written."""


@dataclass(frozen=True)
class DevQueries:
    """The dev queries that the judge has gains for.

    Attributes:
        truth: the reward by qrels, a second measure that nothing is chosen by; `None` without.
    """

    topics: Sequence[Topic]
    form: Form
    reward: Reward
    truth: Reward | None

    def __post_init__(self) -> None:
        if not self.topics:
            raise DataError(
                "the workspace has no dev query with gains, and nothing tells when to stop",
                "Run rank_baselines with more queries, or other --fractions",
            )

    def measure(self, model: Any, tokenizer: Any) -> dict[str, float]:
        """Return what greedy answers are worth, by the names above; the model is left in evaluation mode."""
        from rag_core.engines.generation import Sampling
        from rag_core.engines.generators import TransformersGenerator

        model.eval()
        room = min(_LENGTH, getattr(model.config, "max_position_embeddings", None) or _LENGTH)
        writer = TransformersGenerator.of(model, tokenizer, max_length=room, batch_size=_BATCH)
        sampling = Sampling(self.form.max_new_tokens, stop=self.form.stop)
        answers = [row[0] for row in writer.generate([self.form.prompt(one.query) for one in self.topics], sampling)]
        texts = [
            self.form.read(answer.text, topic.query, cut=answer.cut)
            for answer, topic in zip(answers, self.topics, strict=True)
        ]
        samples = [
            Sample(topic.query_id, text, answer.cut)
            for topic, text, answer in zip(self.topics, texts, answers, strict=True)
        ]
        rewards = [worth.reward for worth in self.reward.score_all(samples)]
        count = len(rewards)
        mean = sum(rewards) / count
        spread = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / max(count - 1, 1) / count)
        found = [mean, spread, self._truth(samples), *_of_answers(answers), sum(not text for text in texts) / count]
        return dict(zip(NAMES, [*found, distinct_1(texts)], strict=True))

    def _truth(self, samples: Sequence[Sample]) -> float:
        judged = [one for one in samples if self.truth and self.truth.measures(one.query_id)]
        if not judged or not self.truth:
            return 0.0
        return sum(worth.parts["gain"] for worth in self.truth.score_all(judged)) / len(judged)


def _of_answers(answers: Sequence[Any]) -> tuple[float, float]:
    return sum(one.tokens for one in answers) / len(answers), sum(one.cut for one in answers) / len(answers)


def distinct_1(texts: Sequence[str]) -> float:
    """Return the share of distinct words among all words of texts, 0 of none: Li et al. 2016, arXiv:1510.03055."""
    written = [word for text in texts for word in text.lower().split()]
    return len(set(written)) / len(written) if written else 0.0
