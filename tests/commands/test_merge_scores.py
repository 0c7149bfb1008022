"""Several teachers' scores made into one, reckoned by hand; files that do not fit together."""

import json

import pytest

from rag_core import merge_scores
from rag_core.base.records import ScoredPair
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import Recipe, read_manifest, write_manifest
from rag_core.retrieval.analyser import VERSION

ROWS = [
    ("1", "wet dog", "a dog", 1),
    ("1", "wet dog", "wet wet dog", 0),
    ("1", "wet dog", "cat", None),
    ("2", "tea", "tea", None),
    ("2", "tea", "pot", None),
]


def pairs(*scores):
    return [
        ScoredPair(i, query, text, score, label) for (i, query, text, label), score in zip(ROWS, scores, strict=True)
    ]


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / "llm.jsonl", tmp_path / "embedder.jsonl"]
    write_records(paths[0], pairs(4.0, 0.0, -4.0, 3.0, 1.0))
    write_records(paths[1], reversed(pairs(0.2, 0.6, 0.2, 0.5, 0.5)))  # in another order
    return paths


def merged(tmp_path, *argv):
    output = tmp_path / "out" / "merged.jsonl"
    assert merge_scores.main([*map(str, argv), "--output_file", str(output), "--overwrite"]) == 0
    return list(read_records(output, ScoredPair))


def test_the_mean_of_standardised_scores(tmp_path, files):
    found = merged(tmp_path, "--input_files", *files)
    llm, embedder = [1.5**0.5, 0, -(1.5**0.5), 1, -1], [-(0.5**0.5), 2**0.5, -(0.5**0.5), 0, 0]
    expected = [(a + b) / 2 for a, b in zip(llm, embedder, strict=True)]
    assert [pair.score for pair in found] == pytest.approx(expected)
    assert [(pair.query_id, pair.query, pair.passage, pair.label) for pair in found] == ROWS
    weighted = merged(tmp_path, "--input_files", *files, "--weights", "3", "1")
    assert [pair.score for pair in weighted] == pytest.approx(
        [(3 * a + b) / 4 for a, b in zip(llm, embedder, strict=True)]
    )
    assert read_manifest(tmp_path / "out" / "merged.jsonl").score_unit == "standard deviations"


def test_reciprocal_rank_fusion_with_ties_at_their_mean_rank(tmp_path, files):
    found = merged(tmp_path, "--input_files", *files, "--method", "rank_fusion")
    ranks = [(1, 2.5), (2, 1), (3, 2.5), (1, 1.5), (2, 1.5)]
    assert [pair.score for pair in found] == pytest.approx([1 / (60 + a) + 1 / (60 + b) for a, b in ranks])
    assert read_manifest(tmp_path / "out" / "merged.jsonl").score_unit == "reciprocal rank"


def test_bm25_is_one_more_teacher(tmp_path, files):
    argv = ["--input_files", files[0], "--bm25", "--method", "rank_fusion", "--weights", "0", "1"]
    # Of "wet dog" the second passage has both words, the third none; of "tea" the first has the only one.
    assert [pair.score for pair in merged(tmp_path, *argv)] == pytest.approx([2 / (60 + r) for r in (2, 1, 3, 1, 2)])


def test_stop_words_have_no_say_in_bm25(tmp_path, files):
    texts = ("the the cat", "a dog", "a cat")
    write_records(files[0], [ScoredPair("1", "the dog", text, 0.0) for text in texts])
    argv = ["--input_files", files[0], "--bm25", "--method", "rank_fusion", "--weights", "0", "1"]
    found = merged(tmp_path, *argv, "--bm25_stop_words", "english")
    assert [pair.score for pair in found] == pytest.approx([2 / 62.5, 2 / 61, 2 / 62.5])
    flags = read_manifest(tmp_path / "out" / "merged.jsonl").flags
    assert (flags["analyser"], flags["bm25_stemmer"], flags["bm25_stop_words"]) == (VERSION, None, "english")


def test_the_manifest_says_who_taught(tmp_path, files):
    recipe = Recipe(stage="s", flags={}, inputs={}, model={"name": "big/llm"})
    write_manifest(files[0], recipe, score_unit="log-odds")
    merged(tmp_path, "--input_files", *files, "--bm25")
    model = read_manifest(tmp_path / "out" / "merged.jsonl").recipe["model"]
    assert model == {
        "name": "big/llm + unknown + BM25",
        "members": [{"name": "big/llm"}, {"name": "unknown"}, {"name": "BM25"}],
    }


def test_what_is_finished_is_not_made_again_unless_the_weights_change_hands(tmp_path, files, capsys):
    argv = ["--output_file", f"{tmp_path}/o.jsonl", "--weights", "3", "1", "--input_files"]
    assert merge_scores.main([*argv, *map(str, files)]) == 0
    assert merge_scores.main([*argv, *map(str, files)]) == 0
    assert "is finished already" in capsys.readouterr().err
    assert merge_scores.main([*argv, *map(str, reversed(files))]) == 1
    assert "exists already, made with other settings: --files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda rows: rows[1:], "has no score for query_id '1' ('wet dog') and passage 'a dog' of {first}"),
        (lambda rows: [*rows, {**rows[0], "passage": "new"}], "has 1 pairs that {first} has not"),
        (
            lambda rows: [{**row, "query": "other"} for row in rows],
            "has no score for query_id '1' ('wet dog') and passage 'a dog' of {first}",
        ),
    ],
)
def test_files_over_other_pairs_are_refused(change, sentence, tmp_path, files, capsys):
    rows = [{**json.loads(line), "query_id": "1"} for line in files[0].read_text().splitlines()][:3]
    files[0].write_text("".join(json.dumps(row) + "\n" for row in rows))
    files[1].write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    code = merge_scores.main(["--output_file", f"{tmp_path}/o.jsonl", "--input_files", *map(str, files)])
    expected = f"Error: {files[1]}: {sentence.format(first=files[0])}. Score the same samples with each teacher.\n"
    assert (code, capsys.readouterr().err) == (1, expected)
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["a", "b", "--weights", "1"], "1 weights for 2 teachers. Pass one for each file, and one for --bm25."),
        (["a", "--bm25", "--weights", "1", "-1"], "--weights are 1 -1. Pass 0 or more, and one above 0."),
        (
            ["a", "--bm25_stop_words", "german"],
            "--bm25_stemmer and --bm25_stop_words are for --bm25. Pass --bm25, or leave them out.",
        ),
        (["a", "o"], "o is both input and output. Choose another --output_file."),
    ],
)
def test_flags_that_make_no_sense(argv, sentence, capsys):
    assert merge_scores.main(["--output_file", "o", "--input_files", *argv]) == 2
    assert capsys.readouterr().err == f"Error: {sentence}\n"


def test_one_file_twice(tmp_path, files, capsys):
    argv = ["--output_file", f"{tmp_path}/o.jsonl", "--input_files", str(files[0]), str(files[0])]
    assert merge_scores.main(argv) == 2
    assert capsys.readouterr().err == "Error: an input file is given twice. Pass each once, and --weights.\n"
