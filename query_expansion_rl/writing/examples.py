"""Examples for prompts, of a domain that nobody's corpus is about: what a weak model copies of them is easily seen."""

from __future__ import annotations

KEYWORDS = (
    (
        "how to get coffee out of a wool carpet",
        "stain removal, rug, vinegar, blotting, spill",
    ),
    (
        "why do potatoes sprout in the kitchen",
        "storage, warmth, cellar, shoots, shelf life",
    ),
    (
        "quiet bicycle for short trips with luggage",
        "cargo bike, belt drive, pannier rack, commuter",
    ),
)
"""Queries, and words of passages that answer them: few, since a weak model writes as many, and an answer has an end."""

DOCUMENTS = (
    (
        "how to get coffee out of a wool carpet",
        "Blot a fresh coffee spill with a dry cloth and never rub it. Mix cold water with a spoonful of white vinegar "
        "and a drop of dish soap, dab the stain from its edge inwards, and rinse the wool with clear water.",
    ),
    (
        "why do potatoes sprout in the kitchen",
        "Warmth and light end the rest of a stored tuber, and it grows shoots. Keep potatoes in a dark, airy cellar or "
        "cupboard at about eight degrees, away from onions and apples, whose gas makes them sprout sooner.",
    ),
)
"""Queries, and passages that answer them."""
