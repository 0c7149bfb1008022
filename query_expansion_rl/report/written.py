"""What was written for the queries of a workspace, and what others found for them: the files that are compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from query_expansion_rl.learning.selector import read_selection
from query_expansion_rl.records import Expansion, Ranking, Topic
from query_expansion_rl.retrieval.workspace import RANKINGS, Workspace
from query_expansion_rl.rewards.samples import check_made_for, read_expansions
from rag_core.base.errors import DataError, UsageError
from rag_core.base.outside_text import quoted
from rag_core.files.bad_rows import NoBadRows
from rag_core.files.jsonl import numbered_records
from rag_core.files.manifest import UNKNOWN, read_manifest


@dataclass(frozen=True)
class Written:
    """The expansions of one method.

    Attributes:
        samples: query id -> its expansions, by their number.
        milliseconds: of an expansion, as whoever wrote them measured it; `None` where nobody did.
    """

    method: str
    path: Path
    samples: Mapping[str, Sequence[Expansion]]
    milliseconds: float | None = None

    @property
    def most_samples(self) -> int:
        """How many expansions the query with the most has."""
        return max(map(len, self.samples.values()))

    def lacks(self, topics: Sequence[Topic]) -> list[str]:
        """Return the queries that have no expansion."""
        return [topic.query_id for topic in topics if topic.query_id not in self.samples]

    def check_covers(self, topics: Sequence[Topic]) -> None:
        """Check that each of the queries has as many expansions as the others.

        Raises:
            DataError: one has fewer.
        """
        few = [topic.query_id for topic in topics if len(self.samples.get(topic.query_id, ())) < self.most_samples]
        if few:
            raise DataError(
                f"{len(few)} of {len(topics)} {topics[0].split} queries have fewer than {self.most_samples} "
                f"expansions by {quoted(repr(self.method))} (the first: {quoted(repr(few[0]))})",
                f"Run generate_expansions with --split {topics[0].split}",
                path=self.path,
            )


def read_written(paths: Sequence[Path], workspace: Workspace) -> list[Written]:
    """Read files of expansions, a method each or several.

    Raises:
        DataError: a row is bad, of an unknown query, or the second of that number.
        StaleError: a file was made for other topics.
        UsageError: a method stands in two files.
    """
    found: dict[str, Written] = {}
    for path in paths:
        by_method: dict[str, dict[str, dict[int, Expansion]]] = {}
        for one in read_expansions(path, Expansion, workspace, NoBadRows()):
            by_method.setdefault(one.method, {}).setdefault(one.query_id, {})[one.sample] = one
        milliseconds = (read_manifest(path) or UNKNOWN).number("milliseconds_per_expansion")
        for method, rows in by_method.items():
            _check_new(method, found, path)
            ordered = {key: [samples[number] for number in sorted(samples)] for key, samples in rows.items()}
            found[method] = Written(method, path, ordered, milliseconds)
    return list(found.values())


def read_rankings(paths: Sequence[Path], workspace: Workspace) -> dict[str, dict[str, Ranking]]:
    """Read files of rankings; return method -> query id -> ranking.

    Raises:
        DataError, StaleError, UsageError: as `read_written`.
    """
    found: dict[str, dict[str, Ranking]] = {}
    for path in paths:
        check_made_for(path, workspace)
        before = set(found)
        for line, one in numbered_records(path, Ranking, NoBadRows()):
            if what := workspace.unknown(one.query_id, one.passages):
                remedy = "Pass --baselines with the folder that the file was made for"
                raise DataError(what, remedy, path=path, line=line)
            if one.method in before:
                _check_new(one.method, found, path)
            rows = found.setdefault(one.method, {})
            if one.query_id in rows:
                what = f"query_id {quoted(repr(one.query_id))} has two rankings by {quoted(repr(one.method))}"
                raise DataError(what, "Keep one of them", path=path, line=line)
            rows[one.query_id] = one
    return found


def selected_rankings(paths: Sequence[Path], workspace: Workspace) -> dict[str, dict[str, Ranking]]:
    """Return what selections choose among the ways of a workspace: name of a selection -> query id -> ranking.

    Raises:
        DataError: a selection is damaged, or chooses among other ways.
        StaleError: it was made for other topics.
        UsageError: two have one name.
    """
    found: dict[str, dict[str, Ranking]] = {}
    for path in paths:
        check_made_for(path, workspace)
        selector, ways, gains = read_selection(path), workspace.rankings(), workspace.gains()
        missing = [name for name in selector.variants if name not in ways]
        if missing:
            what = f"chooses among ways that the workspace lacks ({quoted(', '.join(missing))})"
            raise DataError(what, "Pass --baselines with the folder that it was made for", path=path)
        name = path.resolve().name
        _check_new(name, found, path)
        rows = found.setdefault(name, {})
        for topic in workspace.topics:
            if lacks := [way for way in selector.variants if topic.query_id not in ways[way]]:
                what = f"{quoted(repr(lacks[0]))} has no ranking of the query {quoted(repr(topic.query_id))}"
                raise DataError(what, "Run rank_baselines again", path=workspace.folder / RANKINGS)
            of_query = {way: ways[way][topic.query_id] for way in selector.variants}
            chosen = of_query[selector.choose(topic.query, of_query, gains[topic.query_id])]
            rows[topic.query_id] = Ranking(topic.query_id, name, chosen.passages, chosen.scores)
    return found


def _check_new(method: str, found: Collection[str], path: Path) -> None:
    if method in found:
        what = f"{path} has the method {quoted(repr(method))}, which another file has, too"
        raise UsageError(what, "Give one of them another --method")
