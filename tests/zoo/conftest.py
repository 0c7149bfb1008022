"""The pairs of the zoo as files, and its folders."""

import json

import pytest

from rag_core.base.records import RankingSample, ScoredPair, SoftLabels, Triplet
from rag_core.files.jsonl import write_records
from tests.zoo.encoders import PAIRS


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The pairs as records of each stage."""
    folder = tmp_path_factory.mktemp("files")
    passages = [passage for _, passage in PAIRS]
    samples = [
        RankingSample(query, positive=[passage], negative=[text for text in passages if text != passage])
        for query, passage in PAIRS
    ]
    write_records(folder / "samples.jsonl", samples)
    triplets, pairs, labels = [], [], []
    for number, (query, passage) in enumerate(PAIRS):
        others = [text for text in passages if text != passage]
        id = str(number)
        triplets += [Triplet(id, query, passage, text, 1.0 + place) for place, text in enumerate(others)]
        pairs += [ScoredPair(id, query, passage, 2.0, 1)]
        pairs += [ScoredPair(id, query, text, -1.0 - place, 0) for place, text in enumerate(others)]
        labels += [SoftLabels(id, query, [passage, *others], [0.9, 0.5, 0.3, 0.1])]
    write_records(folder / "triplets.jsonl", triplets)
    write_records(folder / "scored.jsonl", pairs)
    write_records(folder / "labels.jsonl", labels)
    rows = (json.dumps({"text": text}) for text in passages)
    (folder / "passages.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """Build each folder once; return it with what is right for it."""
    from transformers.utils import logging

    logging.get_logger()  # takes the stream that is there now, and not a test's own, which is closed at its end
    root, built = tmp_path_factory.mktemp("zoo"), {}

    def get(builder):
        if builder not in built:
            folder = root / builder.__name__
            built[builder] = folder, builder(folder)
        return built[builder]

    return get
