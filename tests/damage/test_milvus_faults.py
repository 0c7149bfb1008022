"""What befalls a stage of Milvus optimisation: no room, a Milvus that does something else, files that do not fit."""

import json
import resource

import numpy as np
import pytest

from milvus_optimization import apply, compare_vectors, sweep_indexes
from milvus_optimization.backends import lite_store
from milvus_optimization.collection.collection import drop_ours
from milvus_optimization.collection.plan import scratch_name
from tests.damage import cases, harness, milvus_cases

STAGES = [
    "embed_corpus", "compare_vectors", "sweep_indexes", "tune_retrieval", "recommend", "apply", "pool_candidates",
    "judge_pool", "create_triplets", "generate_scores", "merge_scores", "prepare", "write_queries",
    "reranker generate_logits",
]  # fmt: skip
LIMITS = (10, 700, 3000)  # bytes of a file

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", STAGES, indirect=True)
def test_without_room_it_says_so_and_goes_on_when_there_is_some(case, place):
    """A limit on the size of files is met like a full disk."""
    former = harness.tree(place)
    assert case.run() == 0
    final = harness.tree(place)
    said = place.parent / "said"

    def run(most):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        return case.run()

    ended = []
    for most in LIMITS:
        harness.restore(place, former)
        reading = said.with_name(f"said-{most}")
        limited = harness.fork(lambda most=most: run(most), reading)
        ended.append(harness.wait(limited))
        if ended[-1] == 0:
            continue
        left = harness.tree(place)
        for output, was, made, now in zip(
            case.outputs, *(cases.parts(case.outputs, tree) for tree in (former, final, left)), strict=True
        ):
            assert now in (was, made), (most, output)
        assert case.run() == 0, most
        assert harness.tree(place) == final, most
    assert ended[0] == 1


@pytest.fixture
def applied(place, monkeypatch):
    """Run apply beside collections of others."""
    milvus_cases.start("apply", place)
    _, flags, *_ = milvus_cases.commands("e")["apply"]
    return lambda *more: apply.main([*flags, *more])


def test_an_index_of_another_metric_takes_no_name(applied, place, capsys, monkeypatch):
    monkeypatch.setattr(milvus_cases.Milvus, "metric", "L2")
    former = (place / "milvus" / "passages").read_bytes()
    assert applied() == 1
    assert "the index is another: metric_type COSINE was asked for, and L2 was built. " in capsys.readouterr().err
    assert (place / "milvus" / "passages").read_bytes() == former
    monkeypatch.undo()


def test_the_former_collection_is_there_whole_at_every_moment(place):
    name, module = "apply", milvus_cases.commands("e")["apply"]
    case = cases.Case(*module)
    milvus_cases.start(name, place)
    former = harness.tree(place)
    aside = f"milvus/{scratch_name('passages')}_old"
    moments = harness.moments(place, case.run)
    final = harness.tree(place)
    for moment in moments:
        there = [moment.tree.get(path) for path in ("milvus/passages", aside)]
        assert former["milvus/passages"] in there or there[0] == final["milvus/passages"], moment
    assert any(aside in moment.tree for moment in moments)


def test_nothing_that_is_not_scratch_is_dropped(place):
    milvus_cases.start("apply", place)
    client = milvus_cases.Milvus(place / "milvus")
    with pytest.raises(ValueError, match="passages is no scratch name"):
        drop_ours(client, "passages")
    assert client.list_collections() == ["mo_theirs", "other", "passages"]


def test_without_replace_nothing_is_made(place, capsys):
    _, flags, *_ = milvus_cases.commands("e")["apply"]
    milvus_cases.start("apply", place)
    former = harness.tree(place)
    assert apply.main([flag for flag in flags if flag != "--replace"]) == 1
    assert "there is a collection passages already. Pass --replace" in capsys.readouterr().err
    assert harness.tree(place) == former


def test_an_old_milvus_lite_is_told_by_every_stage_that_opens_it(place, capsys, monkeypatch):
    monkeypatch.setattr(lite_store, "version", lambda package: "3.2.1")
    swept = ["--vectors", "v", "--output_file", "out/i", "--backend", "lite", "--indexes", "FLAT"]
    _, flags, *_ = milvus_cases.commands("e")["apply"]
    for stage, argv in ((sweep_indexes, swept), (apply, [*flags, "--uri", "out/a.db"])):
        assert stage.main(argv) == 1
        assert "milvus-lite is 3.2.1, older than 3.2.2. Run: pip install" in capsys.readouterr().err
    assert not (place / "a.db").exists()


@pytest.mark.parametrize(("module", "flags"), [(compare_vectors, []), (sweep_indexes, ["--indexes", "FLAT"])])
def test_qrels_that_name_what_is_not_there(module, flags, place, capsys):
    path = place.parent / "mine.tsv"
    own = (place.parent / "v" / "qrels.tsv").read_text()
    argv = ["--vectors", "v", "--output_file", "out/x.jsonl", *flags]
    for row, told in (("q1\tnone\t1", "'none' is not in the corpus"), ("none\td1\t1", "'none' is not in queries")):
        path.write_text(f"{own}{row}\n")
        assert module.main([*argv, "--qrels", str(path)]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"Error: {path}:{len(own.splitlines()) + 1}: {told}. "), error
    assert module.main([*argv, "--qrels", str(path), "--skip_bad_rows"]) == 0
    said = capsys.readouterr().err
    assert "WARNING: 15 judged queries to choose by are few: " in said
    assert json.loads((place / "x.jsonl.manifest.json").read_text())["skipped"] == {"bad_rows": 1}


def test_qrels_that_are_a_link_to_nowhere_are_not_taken_for_none(place, capsys):
    path = place.parent / "v" / "qrels.tsv"
    path.unlink()
    path.symlink_to("nowhere")
    assert compare_vectors.main(["--vectors", "v", "--output_file", "out/x.jsonl"]) == 1
    assert "v/qrels.tsv: is a link to what is not there" in capsys.readouterr().err


def test_queries_of_other_dimensions(place, capsys):
    np.save(place.parent / "v" / "m" / "queries.npy", np.eye(9, dtype=np.float32)[[0] * milvus_cases.QUERIES])
    assert sweep_indexes.main(["--vectors", "v", "--output_file", "out/x.jsonl"]) == 1
    assert "v/m/queries.npy: has 9 dimensions, and the documents have 8. Run" in capsys.readouterr().err
