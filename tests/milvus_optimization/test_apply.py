import json
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from milvus_optimization import apply
from milvus_optimization.collection.collection import check_has_words
from milvus_optimization.collection.connection import connected
from milvus_optimization.collection.plan import scratch_name
from rag_core.base.errors import EngineError

pytest.importorskip("milvus_lite")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("version", ["v2.5.0", "2.6.3", "v3.0-beta", "Zilliz Cloud", ""])
def test_a_server_has_words(version):
    check_has_words(version)


@pytest.mark.parametrize("version", ["v2.3.5-lite", "2.4.17"])
def test_an_older_server_has_no_bm25(version):
    with pytest.raises(EngineError) as error:
        check_has_words(version)
    assert str(error.value) == (
        f"this Milvus is of version {version}, and BM25 needs 2.5. Update it, or pass --dense_only to recommend."
    )


@pytest.fixture(autouse=True)
def bounded_memory():
    """milvus-lite takes any parameter, and one that is wrong had it ask for 21 GB."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12_000_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def flags(served, folder, **changed):
    given = {
        "recommendation": served / "recommendation" / "recommendation.json",
        "vectors": served / "vectors",
        "uri": folder / "milvus.db",
        "collection": "passages",
        "output_file": folder / "applied.json",
    } | changed
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


def applied(folder):
    return json.loads((folder / "applied.json").read_text())


def changed(served, folder, change):
    """Write a recommendation that differs from the one that was made."""
    content = json.loads((served / "recommendation" / "recommendation.json").read_text())
    change(content)
    path = folder / "recommendation.json"
    path.write_text(json.dumps(content))
    return path


def make_other(folder, name="passages", rows=3):
    """Make a collection that is not ours."""
    with connected(str(folder / "milvus.db")) as client:
        client.create_collection(name, dimension=4)
        client.insert(name, [{"id": number, "vector": [float(number), 1.0, 0.0, 0.0]} for number in range(rows)])
        client.flush(name)


def collections(folder):
    with connected(str(folder / "milvus.db")) as client:
        return {name: int(client.get_collection_stats(name)["row_count"]) for name in client.list_collections()}


def test_what_was_promised_is_measured_again(served, tmp_path, capsys):
    assert apply.main(flags(served, tmp_path)) == 0
    found = applied(tmp_path)
    promised = json.loads((served / "recommendation" / "recommendation.json").read_text())
    assert promised["index"]["index"] == "HNSW" and promised["first_stage"]["fusion"] == "weighted"
    figures = found["figures"]
    assert figures["recall@10"]["promised"] == promised["index"]["recall"]
    assert figures["recall@10"]["measured"] == pytest.approx(figures["recall@10"]["promised"], abs=0.01)
    assert figures["nDCG@10"]["measured"] == pytest.approx(promised["retrieval"]["ndcg"], abs=0.005)
    assert (found["rows"], found["kept"], found["collection"]) == (500, True, "passages")
    assert found["index_seen"] == {"index_type": "HNSW", "metric_type": "COSINE", **promised["index"]["build"]}
    assert "passages keeps what was promised, within 0.01." in capsys.readouterr().out
    assert collections(tmp_path) == {"passages": 500}
    assert apply.main(flags(served, tmp_path)) == 0  # finished, and still there
    assert collections(tmp_path) == {"passages": 500}


def test_a_search_need_not_wait_for_the_time_tick_of_a_server(served, tmp_path, monkeypatch):
    from pymilvus import MilvusClient

    asked = []
    make = MilvusClient.create_collection

    def spied(client, *arguments, **options):
        asked.append(options.get("consistency_level", "Bounded"))  # milvus-lite tells no level
        return make(client, *arguments, **options)

    monkeypatch.setattr(MilvusClient, "create_collection", spied)
    assert apply.main(flags(served, tmp_path)) == 0
    assert asked == ["Bounded"]


def test_a_collection_that_is_there_is_left_alone_without_replace(served, tmp_path, capsys):
    make_other(tmp_path)
    assert apply.main(flags(served, tmp_path)) == 1
    assert capsys.readouterr().err == (
        "Error: there is a collection passages already. Pass --replace to put the new one in its place, or name "
        "another --collection.\n"
    )
    assert collections(tmp_path) == {"passages": 3}
    assert apply.main([*flags(served, tmp_path), "--replace"]) == 0
    assert collections(tmp_path) == {"passages": 500}


def test_one_that_does_not_keep_the_promise_takes_no_name(served, tmp_path, capsys):
    make_other(tmp_path)

    def promise_more(content):
        content["first_stage"]["ndcg"] += 0.05

    path = changed(served, tmp_path, promise_more)
    assert apply.main([*flags(served, tmp_path, recommendation=path), "--replace"]) == 1
    told = capsys.readouterr().err
    assert "nDCG@10 is 0." in told and "was promised: the collection is left as mo_" in told
    found = applied(tmp_path)
    assert not found["kept"] and found["collection"] == scratch_name("passages")
    assert collections(tmp_path) == {"passages": 3, scratch_name("passages"): 500}


def test_an_alias_is_no_collection(served, tmp_path, capsys):
    make_other(tmp_path, "other")
    with connected(str(tmp_path / "milvus.db")) as client:
        client.create_alias("other", "passages")
    assert apply.main([*flags(served, tmp_path), "--replace"]) == 2
    assert capsys.readouterr().err == "Error: passages is an alias. Name a collection.\n"


KILLED = """
import os, signal, sys
from milvus_optimization import apply
from milvus_optimization.collection import collection
place, number = sys.argv[1], int(sys.argv[2])
kind = collection.MilvusClient if hasattr(collection, "MilvusClient") else __import__("pymilvus").MilvusClient
usual, calls = getattr(kind, place), [0]
def killed(*arguments, **options):
    calls[0] += 1
    if calls[0] == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return usual(*arguments, **options)
setattr(kind, place, killed)
collection._ROWS_AT_ONCE = 100
sys.exit(apply.main(sys.argv[3:]))
"""


@pytest.mark.parametrize(("place", "number"), [("insert", 3), ("rename_collection", 2)])
def test_killed_at_any_moment(served, tmp_path, place, number):
    make_other(tmp_path)
    command = [sys.executable, "-c", KILLED, place, str(number), *flags(served, tmp_path), "--replace"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    there = collections(tmp_path)
    former = f"{scratch_name('passages')}_old"
    assert 3 in (there.get("passages"), there.get(former))  # whole, under its name or set aside
    assert not (tmp_path / "applied.json").exists()
    assert apply.main([*flags(served, tmp_path), "--replace"]) == 0
    assert collections(tmp_path) == {"passages": 500}
    assert applied(tmp_path)["kept"]


def test_killed_after_the_name_was_taken_it_is_not_taken_for_someone_elses(served, tmp_path):
    command = [sys.executable, "-c", KILLED, "load_collection", "2", *flags(served, tmp_path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert collections(tmp_path) == {"passages": 500}
    assert apply.main(flags(served, tmp_path)) == 0
    assert applied(tmp_path)["kept"]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "invalid index type: SCANN",
            "invalid index type: SCANN. Sweep the indexes of this Milvus, then recommend again.",
        ),
        ("auth check failure", "refuses the token. Set RAG_MILVUS_TOKEN to user:password or a token."),
        ("out of luck", "refuses what is asked (out of luck). See its log."),
    ],
)
def test_what_milvus_raises_is_one_sentence(served, tmp_path, capsys, monkeypatch, message, told):
    from pymilvus import MilvusClient
    from pymilvus.exceptions import MilvusException

    def refuse(*_, **__):
        raise MilvusException(message=message)

    monkeypatch.setattr(MilvusClient, "create_collection", refuse)
    assert apply.main(flags(served, tmp_path)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"Error: {tmp_path}/milvus.db: {told}"


def test_another_process_has_the_file(served, tmp_path, capsys):
    code = "import time\nfrom milvus_optimization.collection.connection import connected\n"
    code += f"with connected({str(tmp_path / 'milvus.db')!r}):\n    print('open', flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        try:
            assert apply.main(flags(served, tmp_path)) == 1
        finally:
            other.kill()
    assert "another process has this milvus-lite database open" in capsys.readouterr().err


def wrong_dimension(content):
    content["index"]["dimensions"] = 8


def other_documents(content):
    content["index"]["rows"] = 499


def other_queries(content):
    content["report_queries"] = 12


def out_of_bounds(content):
    content["index"]["build"]["M"] = -3


def not_in_lite(content):
    content["index"]["index"], content["index"]["build"] = "DISKANN", {}


def not_of_milvus(content):
    content["first_stage"]["normalisation"] = "minmax"


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (wrong_dimension, 1, "was made for 8 dimensions, and the folder of --vectors has 16"),
        (other_documents, 1, "was made for 499 documents, and the folder of --vectors has 500"),
        (other_queries, 1, "was made for 12 queries to report on, and the folder of --vectors has 41"),
        (out_of_bounds, 2, "M of HNSW is -3. Pass a whole number from 2 to 128"),
        (not_in_lite, 1, "recommends DISKANN, which milvus-lite does not have"),
        (not_of_milvus, 1, "Milvus has no weighted fusion of scores normalised by 'minmax'"),
    ],
)
def test_a_recommendation_that_cannot_be_applied_is_refused_before_anything_is_made(
    served, tmp_path, capsys, change, code, told
):
    path = changed(served, tmp_path, change)
    assert apply.main(flags(served, tmp_path, recommendation=path)) == code
    assert told in capsys.readouterr().err
    assert not (tmp_path / "milvus.db").exists()


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({"uri": "milvus"}, 2, "--uri milvus does not end in .db"),
        ({"uri": "ftp://there"}, 2, "--uri is 'ftp://there'"),
        ({"uri": "http://root:secret@there:19530"}, 2, "--uri has a user or password in it"),
        ({"collection": "a-b"}, 2, "--collection is 'a-b'"),
        ({"collection": "mo_x"}, 2, "and not mo_ first"),
        ({"recommendation": "nowhere.json"}, 1, "nowhere.json: no such file"),
        ({"tolerance": -1}, 2, "--tolerance is -1"),
    ],
)
def test_flags_that_are_wrong(served, tmp_path, capsys, given, code, told):
    assert apply.main(flags(served, tmp_path, **given)) == code
    assert told in capsys.readouterr().err


def test_what_is_no_recommendation(served, tmp_path, capsys):
    path = tmp_path / "r.json"
    path.write_text('{"model": 3}')
    assert apply.main(flags(served, tmp_path, recommendation=path)) == 1
    assert "r.json: is no recommendation (" in capsys.readouterr().err


def test_the_code_that_is_written_runs(served, tmp_path):
    code = served / "recommendation" / "collection.py"
    command = [sys.executable, str(code), "--uri", str(tmp_path / "own.db"), "--vectors", str(served / "vectors")]
    made = subprocess.run([*command, "--query_id", "q1"], check=True, capture_output=True, text=True)
    found = [line.split()[1] for line in made.stdout.splitlines()]
    assert len(found) == 10
    with connected(str(tmp_path / "own.db")) as client:
        client.delete("documents", ids=["d7"])
        client.flush("documents")
    other = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (other.returncode, other.stderr) == (
        1,
        "documents has 499 rows, not 500: drop it, or name another --collection\n",
    )
    assert apply.main(flags(served, tmp_path)) == 0
    with connected(str(tmp_path / "milvus.db")) as client:
        client.load_collection("passages")
        assert _ours(client, served) == found


def _ours(client, served):
    from milvus_optimization.collection.collection import Collection
    from milvus_optimization.collection.remeasurement import read_material, read_recommendation

    path = served / "recommendation" / "recommendation.json"
    material = read_material(read_recommendation(path), served / "vectors", None, path)
    collection = Collection(client, "passages", material.plan, None)
    queries = list(material.judged.corpus.queries)
    place = queries.index("q1")
    vectors = np.asarray(material.vectors.queries[place : place + 1])
    (hits,) = collection.ranked(vectors, [material.judged.corpus.queries["q1"]], 10)
    return [hit["id"] for hit in hits]
