"""A sweep that is killed before any of its file operations goes on with the rest, and ends in the same table."""

import pytest

from tests.damage import harness
from tests.milvus_optimization.fake_backend import FLAT, graph
from tests.milvus_optimization.swept import write_vectors

GRID = [FLAT, graph(10, 20), graph(10, index="NONE")]
TRIALS = 4
SIGNALS = 5  # moments at which the process is killed for real

pytestmark = pytest.mark.slow


@pytest.fixture
def small(swept, tmp_path):
    swept.folder = write_vectors(tmp_path / "vectors", rows=60, queries=20)
    swept.output = tmp_path / "out" / "trials.jsonl"
    swept.output.parent.mkdir()
    swept.grid = GRID
    return swept


def in_short(trials):
    return [(one.trial_id, one.status, one.reason, one.recall, one.ndcg, one.cpu_ms_p50) for one in trials]


def whole(tree):
    """Return how many trials are kept in a tree."""
    kept = [content for path, content in tree.items() if "/trials/" in path and path.endswith(".jsonl")]
    return sum(content.endswith(b"}\n") for content in kept)


def tried(swept):
    """Return what a run has measured or tried to build, each once."""
    return [one for one in dict.fromkeys(swept.done) if one.startswith("search") or one == "build NONE 8"]


def test_before_every_file_operation(small):
    folder = small.output.parent
    moments = harness.moments(folder, lambda: small.run("--log_level", "error"))
    undisturbed = in_short(small.trials())
    assert len(tried(small)) == len(undisturbed) == TRIALS
    seen, counts = set(), set()
    for moment in moments:
        key = frozenset(moment.tree.items())
        if key in seen:
            continue
        seen.add(key)
        harness.restore(folder, moment.tree)
        assert small.run("--log_level", "error") == 0, moment
        assert in_short(small.trials()) == undisturbed, moment
        if "trials.jsonl" not in moment.tree:
            assert len(tried(small)) == TRIALS - whole(moment.tree), moment
            counts.add(whole(moment.tree))
        assert {path.name for path in folder.iterdir()} == {"trials.jsonl", "trials.jsonl.manifest.json"}, moment
    assert counts == set(range(TRIALS + 1))


def test_by_a_signal(small):
    folder = small.output.parent
    moments = harness.moments(folder, lambda: small.run("--log_level", "error"))
    undisturbed, last = in_short(small.trials()), moments[-1].number
    for number in range(3, last, last // SIGNALS):
        harness.restore(folder, {})
        assert harness.killed(folder, lambda: small.run("--log_level", "error"), number)
        kept = whole(harness.tree(folder))
        assert small.run("--log_level", "error") == 0
        assert in_short(small.trials()) == undisturbed
        assert len(tried(small)) in (TRIALS - kept, 0)
