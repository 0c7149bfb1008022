"""A thousand mutated rows through every stage that reads rows: each is taken, or told in a sentence with file and line.

Rows are checked before any model is loaded, so each row goes up to there, by itself among good ones. Then all that were
taken go through the whole stage together, and all that were not are left out by --skip_bad_rows.
"""

import dataclasses
import functools
import json
import re
from pathlib import Path

import pytest

import embedding_distillation.evaluate
import embedding_distillation.generate_logits
import embedding_distillation.generate_scores
import embedding_distillation.train
import rag_core.calibrate
import rag_core.check_teacher
import rag_core.distillation.derive
import rag_core.distillation.train_stage
import rag_core.export
import rag_core.merge_scores
import rag_core.prepare
import rag_core.rank
import rag_core.write_queries
import reranker_distillation.create_triplets
import reranker_distillation.evaluate
import reranker_distillation.generate_logits
import reranker_distillation.train
from rag_core.base import stage as stage_module
from rag_core.base.flags import flags_of
from rag_core.base.records import Document, Passage, Query, RankingSample, ScoredPair, SoftLabels, Triplet
from rag_core.engines import identity
from rag_core.evaluation import evaluate as evaluate_module
from rag_core.evaluation import training_record
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import numbered_records, read_records, write_records
from rag_core.sources import mining, own_files
from tests.damage import expansion_readers, milvus_readers
from tests.damage.harness import ALL
from tests.damage.mutations import mutated_rows

COUNT = 1000 if ALL else 300

SAMPLES = [
    {
        "query_id": f"s{i}",
        "query": f"how to sort {i}",
        "positive": [f"use sort {i}", "or sorted"],
        "negative": [f"no {i}"],
    }
    for i in range(3)
]
PAIRS = [
    {"query_id": f"q{i}", "query": f"how to sort {i}", "passage": f"use sort {j}", "score": 1.5 * j - i, "label": j}
    for i in range(6)
    for j in (0, 1)
]
TRIPLETS = [
    {"query_id": f"q{i}", "query": f"how to sort {i}", "positive": "use sort", "negative": f"no {j}", "score": 0.5 + j}
    for i in range(2)
    for j in (0, 1)
]
LISTS = [
    {"query_id": f"q{i}", "query": f"how to sort {i}", "passages": ["use sort", f"no {i}"], "scores": [1.5, -0.5 * i]}
    for i in range(2)
]
_TEXT = "Sorting puts a list in order number {0}. Use the function sorted for a copy of list {0}. It is stable."
PASSAGES = [{"title": f"Sorting of lists {i}", "text": _TEXT.format(i)} for i in range(4)]
DOCUMENTS = [{"_id": f"d{i}", **row} for i, row in enumerate(PASSAGES)]
QUERIES = [{"_id": f"q{i}", "text": f"how to put list {i} in order"} for i in range(3)]
GOOD = {
    RankingSample: SAMPLES, ScoredPair: PAIRS, Triplet: TRIPLETS, SoftLabels: LISTS, Passage: PASSAGES,
    Document: DOCUMENTS, Query: QUERIES,
}  # fmt: skip
ALL_GOOD = GOOD | milvus_readers.GOOD | expansion_readers.GOOD


class RowsTakenError(Exception):
    """All rows have been read and checked."""


def stop(*_, **__):
    raise RowsTakenError


@dataclasses.dataclass(frozen=True)
class Reader:
    """A stage, and the file of its inputs whose rows are mutated.

    Attributes:
        argv: FILE stands for the path of that file, FOLDER for its folder, a record for a good file of its rows.
        stop: where the stage stops once the rows are read: (module, name).
        file: where the rows stand.
        skips: whether --skip_bad_rows leaves bad ones out; where not, no error may name it.
    """

    module: object
    record: type
    argv: str
    stop: tuple = (identity, "describe_model")
    file: str = "rows.jsonl"
    skips: bool = True


BOTH = (identity, "describe_models")
WRITING = (rag_core.distillation.derive, "UnfinishedWork")
TRAINING = (rag_core.distillation.train_stage, "parse_training_arguments")
MEASURING = (evaluate_module, "_models")
SPLITTING = (own_files, "split_samples")
SEARCHING = (mining, "nearest_passages")
MERGING = (rag_core.merge_scores, "UnfinishedWork")
RERANKER, EMBEDDER = reranker_distillation, embedding_distillation

READERS = {
    "reranker generate_logits": Reader(RERANKER.generate_logits, RankingSample, "--teacher t --input_files FILE"),
    "reranker create_triplets": Reader(RERANKER.create_triplets, ScoredPair, "--input_files FILE", WRITING),
    "reranker train": Reader(RERANKER.train, Triplet, "--output_dir out --train_file FILE", TRAINING),
    "reranker train, lists": Reader(
        RERANKER.train, SoftLabels, "--output_dir out --loss kl --train_file FILE", TRAINING
    ),
    "reranker train, dev files": Reader(
        RERANKER.train, ScoredPair, "--output_dir out --train_file Triplet --dev_files FILE", TRAINING
    ),
    "reranker evaluate": Reader(
        RERANKER.evaluate, RankingSample, "--after s --output_dir out --in_domain FILE", MEASURING
    ),
    "reranker evaluate, first stage": Reader(
        RERANKER.evaluate,
        ScoredPair,
        "--after s --output_dir out --in_domain RankingSample --first_stage FILE",
        MEASURING,
        skips=False,  # a pair that is left out would have no score
    ),
    "embedding generate_logits": Reader(EMBEDDER.generate_logits, RankingSample, "--teacher t --input_files FILE"),
    "embedding generate_scores": Reader(EMBEDDER.generate_scores, ScoredPair, "--input_files FILE", WRITING),
    "embedding train": Reader(EMBEDDER.train, SoftLabels, "--output_dir out --train_file FILE", TRAINING),
    "embedding train, anchors": Reader(
        EMBEDDER.train, RankingSample, "--output_dir out --train_file SoftLabels --anchor_files FILE", TRAINING
    ),
    "embedding train, corpus": Reader(
        EMBEDDER.train, RankingSample, "--output_dir out --train_file SoftLabels --retrieval_dev_corpus FILE", TRAINING
    ),
    "embedding evaluate, scores of the teacher": Reader(
        EMBEDDER.evaluate,
        ScoredPair,
        "--after s --output_dir out --in_domain RankingSample --teacher_scores FILE",
        MEASURING,
    ),
    "embedding evaluate, corpus": Reader(
        EMBEDDER.evaluate, RankingSample, "--after s --output_dir out --corpus FILE", MEASURING
    ),
    "prepare jsonl": Reader(
        rag_core.prepare, RankingSample, "--source jsonl --splits all=1 --output_dir out --input FILE", SPLITTING
    ),
    "prepare corpus": Reader(rag_core.prepare, Passage, "--source corpus --output_dir out --input FILE", SEARCHING),
    "prepare corpus, queries": Reader(
        rag_core.prepare, Query, "--source corpus --output_dir out --input Passage --queries FILE", SEARCHING
    ),
    "prepare beir, corpus": Reader(
        rag_core.prepare, Document, "--source beir --output_dir out --input FOLDER", SEARCHING
    ),
    "prepare beir, queries": Reader(
        rag_core.prepare, Query, "--source beir --output_dir out --input FOLDER", SEARCHING
    ),
    "write_queries": Reader(rag_core.write_queries, Passage, "--model m --output out.jsonl --input FILE"),
    "merge_scores": Reader(rag_core.merge_scores, ScoredPair, "--output_file out.jsonl --input_files FILE", MERGING),
    "check_teacher": Reader(
        rag_core.check_teacher, RankingSample, "--teacher t --student s --output_dir out --dataset FILE", BOTH
    ),
    "calibrate": Reader(rag_core.calibrate, ScoredPair, "--model m --output_dir out --input_files FILE"),
    "calibrate, old scores": Reader(
        rag_core.calibrate, ScoredPair, "--model m --output_dir out --input_files ScoredPair --old_scores FILE"
    ),
    "rank": Reader(rag_core.rank, RankingSample, "--model m --passages FILE", BOTH),
    "export": Reader(rag_core.export, RankingSample, "--model m --output_dir out --dataset FILE"),
    "export, calibration": Reader(
        rag_core.export,
        RankingSample,
        "--model m --output_dir out --dataset RankingSample --precision int8 --calibration_file FILE",
    ),
    **{name: Reader(*given) for name, given in milvus_readers.READERS.items()},
    **{name: Reader(*given) for name, given in expansion_readers.READERS.items()},
}

# Of these nobody can tell which row is right, or they are of several rows: they are told with --skip_bad_rows, too.
OF_SEVERAL_ROWS = (
    "stands in more than one row", "stands for two queries", "twice. Keep one", "has two rows",
    "has one candidate, which", "queries have one candidate", "has no score for", "with one target only",
    "has two rankings by", "is not in the corpus", "is not in queries", "holds figures of",
    "were measured on", "has a tune half of",
)  # fmt: skip


@functools.cache
def rows_of(record):
    others = [GOOD[other][0] for other in GOOD if other is not record]
    return mutated_rows(ALL_GOOD[record], others, seed=20, count=COUNT)


def lay_out(folder, name, reader):
    """Write the good files; return the path of the one whose rows are mutated, its good lines, and the arguments."""
    for record, rows in ALL_GOOD.items():
        (folder / record.__name__).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "beir" / "qrels").mkdir(parents=True)
    for stem, rows in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        (folder / "beir" / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "beir" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td0\t1\n")
    milvus_readers.lay_out(folder, GOOD)
    expansion_readers.lay_out(folder, GOOD)
    path = folder / reader.file
    if "beir" in name:
        path = folder / "beir" / ("corpus.jsonl" if reader.record is Document else "queries.jsonl")
    known = {"FILE": path, "FOLDER": path.parent, **{one.__name__: folder / one.__name__ for one in ALL_GOOD}}
    argv = [str(known.get(word, word)) for word in reader.argv.split()]
    good = path.read_bytes().splitlines() if "/" in reader.file else map(_line, ALL_GOOD[reader.record])
    return path, list(good), argv


def _line(row):
    return json.dumps(row).encode()


class _NoWork:
    directory = Path("out.partial")

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def remove(self):
        pass


def files_of(folder):
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_every_row_is_taken_or_told(name, tmp_path, monkeypatch, capsys):
    reader = READERS[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_module, "make_parser", functools.cache(stage_module.make_parser))
    monkeypatch.setattr(*reader.stop, stop)
    # What takes time and reads no rows.
    monkeypatch.setattr(training_record, "read_training", lambda *_: None)
    monkeypatch.setattr(rag_core.prepare, "UnfinishedWork", _NoWork)
    if name in expansion_readers.READERS:
        expansion_readers.fake(monkeypatch, _NoWork)
    path, good, argv = lay_out(tmp_path, name, reader)
    path.touch()
    there = files_of(tmp_path)
    taken, bad, wrong = [], [], []
    for number, line in enumerate(rows_of(reader.record)):
        place = number % (len(good) + 1)
        with path.open("r+b") as file:  # to begin anew would wait for the disk
            file.write(b"\n".join([*good[:place], line, *good[place:]]) + b"\n")
            file.truncate()
        try:
            code = reader.module.main(argv)
        except RowsTakenError:
            taken.append(line)
            capsys.readouterr()
            continue
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a traceback is what must not be
            wrong.append((line[:200], repr(error)[:300]))
            continue
        said = capsys.readouterr().err
        if code != 1 or flags_of_others(said, reader) or not told(said, path, place) or files_of(tmp_path) != there:
            wrong.append((line[:200], code, said[-300:], sorted(set(files_of(tmp_path)) - set(there))))
        elif place and not any(words in said for words in OF_SEVERAL_ROWS):
            bad.append(line)
    assert not wrong, f"{len(wrong)} of {COUNT}: " + "\n".join(map(str, wrong[:8]))
    assert len(taken) > COUNT / 10 and len(bad) > COUNT / 10
    if "scores of the teacher" in name or not reader.skips:  # a pair that is left out would have no score
        return
    path.write_bytes(b"\n".join([*good, *bad]) + b"\n")
    with pytest.raises(RowsTakenError):
        pytest.fail(f"{reader.module.main([*argv, '--skip_bad_rows'])} {capsys.readouterr().err[-500:]}")


def told(said, path, place):
    """Tell whether the last line is one sentence that names file and row."""
    last = said.strip().rpartition("\n")[2]
    line = rf":{place + 1}" if place and not any(words in last for words in OF_SEVERAL_ROWS) else r"(:\d+)?"
    return re.match(rf"Error: {re.escape(str(path))}{line}: .+\.$", last) is not None and len(last) < 1000


def flags_of_others(said, reader):
    """Return the flags that an error names and that are of no use there."""
    named = set(re.findall(r"--(\w+)", said.strip().rpartition("\n")[2]))
    known = {field.name for field in flags_of(reader.module.Args)} - ({"skip_bad_rows"} if not reader.skips else set())
    return named - known


def taken_together(record, path):
    """Write all rows that are taken, but for those that say something else of a query or passage than one before."""
    path.write_bytes(b"\n".join(rows_of(record)) + b"\n")
    kept, said = [], {}
    for _, row in numbered_records(path, record, BadRows(skip=True)):
        texts = [row.passage] if isinstance(row, ScoredPair) else []
        if said.setdefault(row.query_id, row.query) != row.query or (row.query_id, *texts) in said:
            continue
        if isinstance(row, SoftLabels) and len(row.passages) < 2:
            continue
        said[row.query_id, *texts] = None
        kept.append(row)
    assert len(kept) > COUNT / 10
    write_records(path, kept)
    return len(kept)


@pytest.mark.slow
def test_rows_that_are_taken_go_all_the_way(tmp_path, overlap_teacher, tiny_encoder, capsys):
    def made(module, argv):
        assert module.main(argv.split()) == 0, capsys.readouterr().err
        return capsys.readouterr().out.split("\n")[0]

    samples, pairs, lists, triplets = (tmp_path / f"{name}.jsonl" for name in ("samples", "pairs", "lists", "triplets"))
    count = taken_together(RankingSample, samples)
    scored = Path(made(RERANKER.generate_logits, f"--teacher t --max_length 100000 --input_files {samples}"))
    assert len({pair.query_id for pair in read_records(scored, ScoredPair)}) == count
    prepared = made(rag_core.prepare, f"--source jsonl --splits all=1 --output_dir {tmp_path}/all --input {samples}")
    assert len(list(read_records(Path(prepared) / "all.jsonl", RankingSample))) <= count
    made(rag_core.rank, f"--model t --passages {samples}")
    taken_together(ScoredPair, pairs)
    for path in (scored, pairs):
        merged = made(
            rag_core.merge_scores, f"--input_files {path} --bm25 --output_file {path.with_suffix('')}_m.jsonl"
        )
        for source in (path, merged):
            derived = made(RERANKER.create_triplets, f"--input_files {source} --num_negatives all")
            assert list(read_records(Path(derived), Triplet))
            derived = made(EMBEDDER.generate_scores, f"--input_files {source} --skip_bad_rows")
            assert list(read_records(Path(derived), SoftLabels))
    taken_together(Triplet, triplets)
    taken_together(SoftLabels, lists)
    training = "--max_length 24 --max_steps 1 --per_device_train_batch_size 1000 --save_strategy no"
    files = f"--dev_files {scored.with_suffix('')}_m.jsonl --student {tiny_encoder} {training}"
    made(RERANKER.train, f"--train_file {triplets} --output_dir {tmp_path}/r {files}")
    made(EMBEDDER.train, f"--train_file {lists} --anchor_files {samples} --output_dir {tmp_path}/e {files}")
