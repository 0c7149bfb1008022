"""What is given where lines are needed, and is something else: each is named, with the command that helps."""

import bz2
import gzip
import lzma
import zipfile

import pytest

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records, read_samples
from rag_core.files.qrels import read_qrels
from rag_core.files.runs import read_run

ROWS = b'{"query": "a", "candidates": ["x"]}\n' * 2
PREPARE = "Convert it: python -m rag_core.prepare --source jsonl --input {path} --output_dir DIR."


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        (
            "a.jsonl",
            b"PAR1\x15\x04",
            "is Parquet, where JSONL is needed. Write it as JSONL, one RankingSample per line.",
        ),
        ("a.parquet", b"PAR1\x15\x04", "is Parquet, where JSONL is needed. " + PREPARE),
        ("a.csv", b"query,candidates\n", "is CSV, where JSONL is needed. " + PREPARE),
        (
            "a b.tsv",
            b"query\tcandidates\n",
            "is TSV, where JSONL is needed. "
            "Convert it: python -m rag_core.prepare --source jsonl --input '{path}' --output_dir DIR.",
        ),
        ("a.csv.gz", gzip.compress(b"query,candidates\n", mtime=0), "is CSV, where JSONL is needed. " + PREPARE),
        (
            "a.arrow",
            b"\xff\xff\xff\xff",
            "is Arrow, where JSONL is needed. Write it as JSONL, one RankingSample per line.",
        ),
        (
            "a.jsonl",
            ROWS.replace(b"\n", b"\r"),
            "has lines that end in CR alone. "
            r"Convert it: tr '\r' '\n' < a.jsonl > a-converted.jsonl.",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(ROWS.replace(b"\n", b"\r"), mtime=0),
            "has lines that end in CR alone. "
            r"Convert it: tr '\r' '\n' < a.jsonl > a-converted.jsonl.",
        ),
        (
            "a.jsonl",
            ROWS.decode().encode("utf-16"),
            "is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 a.jsonl > a-converted.jsonl.",
        ),
        (
            "a.jsonl",
            ROWS.decode().encode("utf-16-le"),
            "is UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 a.jsonl > a-converted.jsonl.",
        ),
        (
            "rows",
            ROWS.decode().encode("utf-32"),
            "is UTF-32. Convert it: iconv -f UTF-32 -t UTF-8 rows > converted-rows.",
        ),
        (
            "a.json",
            b'\n [\n{"query": "a", "candidates": ["x"]}]\n',
            "is one JSON array, where each line is to be an "
            "object. Convert it: jq -c '.[]' a.json > a-converted.jsonl.",
        ),
        (
            "a.jsonl",
            gzip.compress(ROWS, mtime=0),
            "is compressed with gzip, and its name does not say so. Name it a.jsonl.gz.",
        ),
        ("a.jsonl.gz", ROWS, "is not compressed, and its name ends in .gz. Name it a.jsonl."),
        ("a.jsonl", bz2.compress(ROWS), "is compressed with bzip2. Unpack it, or compress it with gzip."),
        ("a.jsonl.xz", lzma.compress(ROWS), "is compressed with xz. Unpack it, or compress it with gzip."),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x04\x00", "is compressed with zstd. Unpack it, or compress it with gzip."),
    ],
)
def test_a_file_of_another_format(tmp_path, name, content, what):
    path = tmp_path / name
    path.write_bytes(content)
    for bad_rows in (None, BadRows(skip=True)):
        with pytest.raises(DataError) as error:
            read_samples(path, bad_rows=bad_rows)
        assert str(error.value) == f"{path}: {what.format(path=path)}"


def test_a_spreadsheet(tmp_path):
    path = tmp_path / "a.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sheet.xml", "")
    with pytest.raises(DataError) as error:
        read_samples(path)
    assert str(error.value) == f"{path}: is a zip archive or a spreadsheet. Unpack it; save a spreadsheet as CSV."


def test_prepare_is_named_for_samples_only(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("query,passage,score\n")
    with pytest.raises(DataError) as error:
        list(read_records(path, ScoredPair))
    assert str(error.value) == (f"{path}: is CSV, where JSONL is needed. Write it as JSONL, one ScoredPair per line.")


def test_judgements_may_be_a_tsv_and_not_parquet(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"query-id\tcorpus-id\tscore\r\nq\td\t1\r\n")
    assert read_qrels(path) == {"q": {"d": 1}}
    path.write_bytes(b"PAR1 0 d 1\n")
    assert read_qrels(path) == {"PAR1": {"d": 1}}
    path.write_bytes(b"PAR1\x15\x04")
    with pytest.raises(DataError) as error:
        read_qrels(path)
    assert str(error.value) == f"{path}: is Parquet, where text is needed. Write it as text."


@pytest.mark.parametrize("packed", [False, True])
def test_a_bad_byte_is_of_its_row(tmp_path, packed):
    path = tmp_path / ("a.jsonl.gz" if packed else "a.jsonl")
    content = ROWS + b'{"query": "caf\xe9", "candidates": ["x"]}\n' + ROWS
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    told = (
        f"{path}:3: is not UTF-8 (invalid continuation byte). "
        "Convert the file (iconv -f latin1 -t utf-8), or pass --skip_bad_rows to leave such rows out."
    )
    with pytest.raises(DataError) as error:
        read_samples(path, bad_rows=BadRows(skip=False))
    assert str(error.value) == told
    bad_rows = BadRows(skip=True)
    assert [sample.query_id for sample in read_samples(path, bad_rows=bad_rows)] == ["1", "2", "4", "5"]
    assert list(map(str, bad_rows.errors)) == [told]


@pytest.mark.parametrize(
    ("read", "content", "found"),
    [
        (read_qrels, b"q 0 caf\xe9 1\nq 0 d 1\n", {"q": {"d": 1}}),
        (read_run, b"q Q0 caf\xe9 1 2.0 t\nq Q0 d 2 1.0 t\n", {"q": {"d": 1.0}}),
    ],
)
def test_a_bad_byte_in_judgements_and_runs(tmp_path, read, content, found):
    path = tmp_path / "a"
    path.write_bytes(content)
    with pytest.raises(DataError, match="a:1: is not UTF-8"):
        read(path)
    bad_rows = BadRows(skip=True)
    assert read(path, bad_rows=bad_rows) == found
    assert len(bad_rows) == 1


def test_a_whole_file_is_read_whatever_its_first_bytes_remind_of(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"query": "PAR1", "candidates": ["a\\rb"]}\r\n')
    assert [sample.candidates for sample in read_records(path, RankingSample)] == [["a\rb"]]
    (tmp_path / "empty.jsonl.gz").write_bytes(b"")
    with pytest.raises(DataError, match="holds no RankingSample records"):
        read_samples(tmp_path / "empty.jsonl.gz")
