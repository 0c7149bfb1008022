"""What both stages do that derive training data from a teacher's scores."""

import json

from rag_core.files.manifest import read_manifest
from reranker_distillation import create_triplets
from tests.reranker_distillation.test_stages import PAIR, PAIR_2


def test_queries_that_the_teacher_cannot_tell_apart_are_left_out(tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    flat = [PAIR.replace(b'"1"', b'"2"'), PAIR_2.replace(b'"1"', b'"2"').replace(b"0.25", b"0.4")]
    source.write_bytes(b"".join([PAIR, PAIR_2, *flat]))  # standard deviations 0.125 and 0.05
    command = ["--input_files", str(source), "--overwrite", "--min_spread"]
    for min_spread, left in (("0", ["1", "2"]), ("0.06", ["1"])):
        assert create_triplets.main([*command, min_spread]) == 0
        made = tmp_path / "in_triplets.jsonl"
        assert [json.loads(line)["query_id"] for line in made.read_text().splitlines()] == left
        assert read_manifest(made).skipped["queries_below_min_spread"] == 2 - len(left)
    capsys.readouterr()
    assert create_triplets.main([*command, "1"]) == 1
    sentence = "has no query whose scores have a standard deviation of 1. Lower --min_spread."
    assert capsys.readouterr().err == f"Error: {source}: {sentence}\n"
