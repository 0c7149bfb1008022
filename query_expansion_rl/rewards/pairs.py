"""What is learned from: the best samples of a query, and pairs of its best and its worst; or random ones, the control.

SFT on the best samples looked like a gain over the untrained model, and SFT on random ones of the same queries gained
the same: the shorter prompt and the cleaned texts had done it, not the reward. So a learner is held against the
control.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from query_expansion_rl.records import Demonstration, Preference, Rewarded

Choice = Literal["best", "random"]


@dataclass(frozen=True)
class Pairs:
    """What was chosen, and how many queries had nothing to choose from, by reason."""

    demonstrations: list[Demonstration]
    preferences: list[Preference]
    left_out: Counter[str]


def choose_pairs(
    groups: Mapping[str, Sequence[Rewarded]],
    prompt: Callable[[str], str],
    choice: Choice,
    *,
    best: int,
    min_margin: float,
    seed: int,
) -> Pairs:
    """Choose from each query's samples; the control has as many of each query as the choice by reward has.

    A demonstration is worth 0 or more, so nothing is imitated that makes a ranking worse. A sample without a text is
    neither. Of equal rewards the first sample is taken, of equal texts one.

    Args:
        groups: query id -> its samples, in order.
        prompt: query id -> what the model is asked.
        best: demonstrations of a query, at most.
        min_margin: least difference of reward between the best and the worst sample of a query.
        seed: of the control.
    """
    found = Pairs([], [], Counter())
    generator = random.Random(seed)
    for query_id, group in groups.items():
        samples = list({row.text: row for row in reversed(group) if row.text}.values())[::-1]
        ranked = sorted(samples, key=lambda row: -row.reward)  # stable
        shown = [row for row in ranked if row.reward >= 0][:best]
        apart = len(ranked) > 1 and ranked[0].reward - ranked[-1].reward >= max(min_margin, 1e-9)
        pair = [ranked[0], ranked[-1]] if apart else []
        found.left_out["without_demonstration"] += not shown
        found.left_out["without_pair"] += not pair
        if choice == "random":
            shown = generator.sample(samples, len(shown))
            pair = generator.sample(samples, len(pair))
        asked = prompt(query_id)
        found.demonstrations.extend(
            Demonstration(query_id=query_id, prompt=asked, completion=row.text, reward=row.reward) for row in shown
        )
        if pair:
            chosen, rejected = pair
            margin = round(chosen.reward - rejected.reward, 6)
            found.preferences.append(
                Preference(query_id=query_id, prompt=asked, chosen=chosen.text, rejected=rejected.text, margin=margin)
            )
    return found
