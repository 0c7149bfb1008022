"""BM25 in seven languages through the commands: what prepare finds, evaluate measures and merge_scores ranks agree."""

import json

import numpy as np
import pytest

from embedding_distillation import evaluate as evaluate_embedder
from rag_core import merge_scores, prepare
from rag_core.base.records import ScoredPair
from rag_core.files.jsonl import read_groups, read_samples
from rag_core.files.manifest import read_manifest
from rag_core.retrieval.analyser import VERSION
from reranker_distillation import evaluate, generate_logits
from tests.retrieval.languages import LANGUAGES, read_language, write_beir


def prepared(tmp_path, language, *flags):
    folder = write_beir(language, tmp_path / "beir")
    out = tmp_path / "data"
    argv = ["--source", "beir", "--input", str(folder), "--output_dir", str(out), "--num_candidates", "40"]
    assert prepare.main([*argv, *flags]) == 0
    return out / "test.jsonl"


def evaluated(tmp_path, test, *flags, stage=evaluate):
    command = ["--before", "m", "--after", "m", "--in_domain", str(test), "--output_dir", str(tmp_path / "report")]
    assert stage.main([*command, *flags]) == 0
    (file,) = json.loads((tmp_path / "report" / "report.json").read_text())["files"]
    return file["means"]["BM25"], read_manifest(tmp_path / "report" / "report.json").flags


def merged(tmp_path, test, *flags):
    assert generate_logits.main(["--teacher", "t", "--input_files", str(test)]) == 0
    output = tmp_path / "merged.jsonl"
    argv = ["--input_files", str(test).replace(".jsonl", "_logits.jsonl"), "--output_file", str(output), "--bm25"]
    assert merge_scores.main([*argv, "--weights", "0", "1", *flags]) == 0
    return read_groups(output, ScoredPair), read_manifest(output).flags


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_bm25_finds_is_the_same_in_every_command(language, tmp_path, overlap_teacher):
    passages, _ = read_language(language)
    test = prepared(tmp_path, language)
    samples = read_samples(test)
    assert all(len(sample.negative) == len(passages) - 1 for sample in samples)
    means, flags = evaluated(tmp_path, test)
    groups, merged_flags = merged(tmp_path, test)
    # The passages of the file are those of the corpus, so each command has the same statistics.
    assert set(passages) == {text for text, _ in samples[0].passages()}
    ranks = []
    for sample, group in zip(samples, groups, strict=True):
        scores = np.array([pair.score for pair in group])
        ranks.append(int((scores >= scores[[pair.label for pair in group].index(1)]).sum()))
        others = [pair.score for text in sample.negative for pair in group if pair.passage == text]
        assert others == sorted(others, reverse=True)  # merge_scores orders the negatives as prepare found them
    assert sum(rank == 1 for rank in ranks) >= 8
    assert means["MRR@10"] == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]), abs=0.02)
    stands = {"analyser": VERSION, "bm25_stemmer": None, "bm25_stop_words": None}
    assert stands.items() <= read_manifest(test).flags.items()
    assert flags["analysers"] == {"test.jsonl": stands}
    assert stands.items() <= merged_flags.items()


@pytest.mark.parametrize("stage", [evaluate, evaluate_embedder])
def test_a_stemmer_of_the_samples_goes_on_to_every_command(stage, tmp_path, overlap_teacher, capsys):
    pytest.importorskip("Stemmer")
    asked = ["--bm25_stemmer", "german", "--bm25_stop_words", "german"]
    test = prepared(tmp_path, "german", *asked)
    stands = {"analyser": VERSION, "bm25_stemmer": "german", "bm25_stop_words": "german"}
    _, flags = evaluated(tmp_path, test, stage=stage)
    assert flags["analysers"] == {"test.jsonl": stands}
    _, flags = merged(tmp_path, test)
    assert {**flags, **stands} == flags
    capsys.readouterr()
    command = ["--before", "m", "--after", "m", "--in_domain", str(test), "--output_dir", str(tmp_path / "other")]
    assert stage.main([*command, "--bm25_stemmer", "english"]) == 2
    assert capsys.readouterr().err == (
        f"Error: the candidates of {test} were found with --bm25_stemmer german --bm25_stop_words german, and "
        "--bm25_stemmer english is asked for. Leave the --bm25 flags out, or prepare the samples with them.\n"
    )


def test_queries_that_match_nothing_are_said_everywhere(tmp_path, overlap_teacher, capsys):
    folder = write_beir("german", tmp_path / "beir")
    queries = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in queries]
    for row in rows[:3]:
        row["text"] = f"冰川 {row['_id']}"
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "data"
    argv = ["--source", "beir", "--input", str(folder), "--num_candidates", "5", "--output_dir"]
    assert prepare.main([*argv, str(out)]) == 0
    said = "3 of 10 queries (30%) share no word with any"
    assert f"{said} passage: their negatives are drawn at random. Where " in capsys.readouterr().err
    first, second, third, *_ = (sample.negative for sample in read_samples(out / "test.jsonl"))
    assert len(first) == len(second) == len(third) == 4
    assert len({*first, *second, *third}) > 6
    evaluated(tmp_path, out / "test.jsonl")
    assert (
        f"{out / 'test.jsonl'}: {said} of their candidates: BM25's order is chance. Where " in capsys.readouterr().err
    )
    merged(tmp_path, out / "test.jsonl")
    assert f"{said} of their candidates: BM25 has no say in their scores. Where " in capsys.readouterr().err
    # The seed draws them.
    for name, seed in (("again", "42"), ("another", "1")):
        assert prepare.main([*argv, str(tmp_path / name), "--seed", seed]) == 0
    contents = [(tmp_path / name / "test.jsonl").read_bytes() for name in ("data", "again", "another")]
    assert contents[0] == contents[1] != contents[2]
