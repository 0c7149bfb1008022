"""Equal models are scored once, also after a kill."""

from itertools import chain
from pathlib import Path

import pytest

from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.evaluation.score_folder import ScoreFolder
from rag_core.files.jsonl import read_samples
from rag_core.files.manifest import read_manifest
from rag_core.scoring import settings


@pytest.fixture
def files(tiny_data):
    return [tiny_data / "train.jsonl", tiny_data / "test.jsonl"]


@pytest.fixture
def score(files, tmp_path, overlap_teacher):
    """Return a function of role=options that scores the files, as a run of its own."""

    def run(**models):
        return ScoreFolder(tmp_path / "scores", stage="test", skip_bad_rows=False).score(models, files)

    return run


def options(name, **settings):
    return EngineOptions(describe_model(name), **settings)


def pairs_of(path):
    return sorted({(sample.query, text) for sample in read_samples(path) for text, _ in sample.passages()})


def test_a_model_with_several_roles_is_scored_once(score, files, overlap_teacher):
    made = score(before=options("m"), after=options("m"), teacher=options("m"))
    assert sorted(overlap_teacher.scored) == sorted(chain.from_iterable(map(pairs_of, files)))
    for path in files:
        outputs = [made[name][path] for name in ("before", "after", "teacher")]
        assert [output.name for output in outputs] == [f"{path.stem}_{name}.jsonl" for name in made]
        assert len({output.read_bytes() for output in outputs}) == 1
        manifests = [read_manifest(output) for output in outputs]
        assert [manifest.output["path"] for manifest in manifests] == [str(output) for output in outputs]
        assert [manifest.rows for manifest in manifests] == [len(pairs_of(path))] * 3
        assert [manifest.score_unit for manifest in manifests] == ["log-odds"] * 3
        assert [manifest.skipped for manifest in manifests] == [{"bad_rows": 0}] * 3


@pytest.mark.parametrize(("role", "suffix"), [("after", ""), ("before", ""), ("after", ".manifest.json")])
def test_what_is_not_there_is_taken_from_what_is(role, suffix, score, files, overlap_teacher):
    """As a kill leaves it between two of them, or between a file and its manifest; or another model had the role."""
    models = {"before": options("m"), "after": options("m")}
    made = score(**models)[role][files[1]]
    content = made.read_bytes()
    made.with_name(made.name + suffix).unlink()
    overlap_teacher.scored.clear()
    score(**models)
    assert overlap_teacher.scored == []
    assert made.read_bytes() == content
    assert read_manifest(made).rows == len(pairs_of(files[1]))
    assert not list(made.parent.glob("*.partial"))


def test_what_decides_a_score_makes_another_model(score, files, overlap_teacher):
    every_pair = sorted(chain.from_iterable(map(pairs_of, files)))
    score(before=options("b"), after=options("a"), teacher=options("t", instruction="Find the tip"))
    assert sorted(overlap_teacher.scored) == sorted(2 * every_pair)  # a and b are copies of one model
    overlap_teacher.scored.clear()
    Path("b", "vocab.txt").write_text("other")
    score(before=options("b"), after=options("a"))
    assert sorted(overlap_teacher.scored) == every_pair
    overlap_teacher.scored.clear()
    score(before=options("a"), after=options("a", dtype="float16"), teacher=options("a", batch_size=1))
    assert sorted(overlap_teacher.scored) == sorted(2 * every_pair)


def test_a_run_that_was_killed_goes_on(score, files, overlap_teacher, monkeypatch):
    for engine in ("transformers", "vllm"):
        monkeypatch.setitem(settings.CHUNK_ROWS, engine, 5)
    models = {"before": options("m"), "after": options("m")}
    whole = overlap_teacher.score

    def dies(pairs):
        if len(overlap_teacher.scored) > 9:
            raise KeyboardInterrupt
        return whole(pairs)

    with monkeypatch.context() as patch:
        patch.setattr(overlap_teacher, "score", dies)
        with pytest.raises(KeyboardInterrupt):
            score(**models)
    every_pair = sorted(chain.from_iterable(map(pairs_of, files)))
    assert 0 < len(overlap_teacher.scored) < len(every_pair)
    made = score(**models)
    assert sorted(overlap_teacher.scored) == every_pair
    assert made["before"][files[1]].read_bytes() == made["after"][files[1]].read_bytes()
