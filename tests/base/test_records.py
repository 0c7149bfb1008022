import dataclasses

import pytest
from pydantic import ValidationError

from rag_core.base.records import Document, Passage, Query, RankingSample


def test_a_document_is_a_passage_with_an_id():
    document = Document("form by melt water.", "Glacier caves", id="d1")
    assert isinstance(document, Passage)
    assert dataclasses.asdict(document) == {"text": "form by melt water.", "title": "Glacier caves", "id": "d1"}
    with pytest.raises(ValidationError, match="has neither a title nor a text"):
        Document(" ", id="d1")


@pytest.mark.parametrize("make", [lambda: Query(" "), lambda: Query("ice", id=""), lambda: Document("ice", id=" ")])
def test_texts_and_ids_are_not_blank(make):
    with pytest.raises(ValidationError, match="is empty"):
        make()


def test_a_passage_in_both_lists_is_a_positive_and_stands_once():
    sample = RankingSample("q", positive=["a", "b", "a"], negative=["c", "a"])
    assert list(sample.passages()) == [("a", 1), ("b", 1), ("c", 0)]
