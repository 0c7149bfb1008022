"""SIGKILL before every file operation of every stage: outputs are whole, and the next run ends in the same bytes."""

import re

import pytest

from tests.damage import cases, harness
from tests.damage.harness import ALL

CASES = [
    "reranker generate_logits", "embedding generate_logits", "generate_logits with a prescreening",
    "create_triplets", "generate_scores",
    "reranker train", "embedding train", "reranker evaluate", "embedding evaluate", "prepare", "prepare with vectors",
    "write_queries", "check_teacher", "merge_scores", "calibrate", "export", "demo_models",
    "embed_corpus", "compare_vectors", "sweep_indexes", "tune_retrieval", "recommend", "apply", "pool_candidates",
    "judge_pool", "generate_expansions", "rank_baselines", "score_expansions", "create_pairs", "train select",
    "expansion evaluate", "expand",
]  # fmt: skip
ALWAYS_REPLACES = {"reranker evaluate", "embedding evaluate", "check_teacher"}
LEARNS = {"reranker train", "embedding train"}

# What a run writes anew, whatever is there of it. Of moments that differ in it alone, one in so many is gone on from.
ANEW = re.compile(r"[^/]+\.partial/(model|export|graph|report|\.removed|all-[^/]+|checkpoint-\d+)(/|$)")
ONE_IN = 40

EVERY = 1 if ALL else 3  # of the moments, one in so many is gone on from; each is looked at
AGAIN = 2  # of how many moments the run that goes on is killed everywhere, too
SIGNALS = 6  # of how many moments a run is killed for real

pytestmark = pytest.mark.slow


def read_again(tree):
    """Return what of a tree the next run reads: of checkpoints, the last whole one, which has its state."""
    states = [path for path in tree if path.endswith("/trainer_state.json") and tree[path].endswith(b"}\n")]
    last = max(states, default="-").rpartition("/")[0]
    return {path: content for path, content in tree.items() if not ANEW.match(path) or (last and path.startswith(last))}


def faults_of(case, moment, former, final):
    """Return what is wrong with what a kill leaves: an output that is neither whole, nor absent, nor the former one."""
    found = []
    trees = [cases.parts(case.outputs, tree) for tree in (former, final, moment.tree)]
    for output, was, made, left in zip(case.outputs, *trees, strict=True):
        if left not in (was, made):
            found.append(f"{moment}: {output} is half of each: {sorted(left)}")
        manifest = f"{output}.manifest.json"
        if manifest not in moment.tree or made.get(output, b"") is not None:
            continue  # a file is told by its hash
        of_another = [of for of, tree in ((was, former), (made, final)) if tree.get(manifest) == moment.tree[manifest]]
        if left not in of_another:
            found.append(f"{moment}: the manifest is not that of {output}")
    return found


class Damage:
    """A case and its folder, with what it makes undisturbed, and what was wrong after the moments that were tried."""

    def __init__(self, case, place, flags):
        self.case, self.place, self.flags = case, place, flags
        self.former = harness.tree(place)
        self.seen, self.left_out, self.faults = set(), 0, []
        self.moments = self.moments_of_a_run()
        self.final = harness.tree(place)

    def run(self):
        return self.case.run(*self.flags)

    def moments_of_a_run(self):
        codes = []
        moments = harness.moments(self.place, lambda: codes.append(self.run()))
        assert codes == [0]
        return moments

    def is_new(self, tree):
        key = frozenset(tree.items())
        if key in self.seen:
            return False
        self.seen.add(key)
        read = frozenset(read_again(tree).items())
        if read in self.seen - {key}:
            self.left_out += 1
            return self.left_out % ONE_IN == 0
        self.seen.add(read)
        return True

    def go_on(self, moment, end=""):
        """Run again from what a kill left."""
        harness.restore(self.place, moment.tree)
        if code := self.run():
            self.faults.append(f"{moment}{end}: then exits with {code}")
        left = harness.tree(self.place)
        if left != self.final:
            paths = sorted(path for path in left.keys() | self.final if left.get(path, 0) != self.final.get(path, 0))
            self.faults.append(f"{moment}{end}: then leaves {paths}")

    def try_all(self):
        """Go on from each moment; return those that had a tree of their own."""
        tried = []
        for moment in self.moments:
            self.faults += faults_of(self.case, moment, self.former, self.final)
            if self.is_new(moment.tree):
                tried.append(moment)
        tried = tried[::EVERY]
        for moment in tried:
            self.go_on(moment)
        return tried

    def kill_again(self, tried):
        """Go on from what a kill of a run leaves that goes on from what a kill left."""
        for first in tried[len(tried) // (AGAIN + 1) :: max(1, len(tried) // (AGAIN + 1))][:AGAIN]:
            harness.restore(self.place, first.tree)
            for second in self.moments_of_a_run():
                self.faults += faults_of(self.case, second, self.former, self.final)
                if self.is_new(second.tree):
                    self.go_on(second, f" of the run after {first}")

    def kill_for_real(self):
        """Send the signal, and compare with what was seen of that moment."""
        at = {moment.number: moment for moment in self.moments if not moment.derived}
        for number in list(at)[:: max(1, len(at) // SIGNALS)]:
            harness.restore(self.place, self.former)
            if not harness.killed(self.place, self.run, number):
                self.faults.append(f"{at[number]}: no signal arrived")
            if harness.tree(self.place) != at[number].tree:
                self.faults.append(f"{at[number]}: a signal leaves something else")


@pytest.mark.parametrize("overwrite", [False, True], ids=["fresh", "overwrite"])
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_killed_before_every_file_operation(case, place, overwrite, request):
    name = request.node.callspec.params["case"]
    if overwrite:
        case.make_former(place)
    flags = ["--overwrite"] if overwrite and name not in ALWAYS_REPLACES else []
    damage = Damage(case, place, flags)
    tried = damage.try_all()
    if name not in LEARNS:  # torch cannot learn in a process that was forked
        damage.kill_again(tried)
        damage.kill_for_real()
    assert not damage.faults, "\n".join(damage.faults[:20])
    assert len(damage.moments) > 15
