"""Names and texts that are markup somewhere are text on every page of a report."""

import dataclasses
import functools
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markupsafe import escape

from rag_core.base.outside_text import visible
from rag_core.evaluation import plots
from rag_core.evaluation.depth import measure_depths
from rag_core.evaluation.latency import Latency, LatencyReport, LatencyRow, RerankingTime
from rag_core.evaluation.pages import write_report
from rag_core.evaluation.report import Examples, make_report
from rag_core.evaluation.tables import format_table
from tests.evaluation.cases import MERGE, TRAINING, evaluation
from tests.injections import TEXTS, blocks, columns, elements

COST = Latency(False, 1, 12_000_000, 345_000_000, None, {10: RerankingTime(10.0, 1.1, 1.7)})


@functools.cache
def measured():
    """A report, whose figures take seconds."""
    report = make_report([evaluation()], {"before": "b", "after": "m", "teacher": "t"}, TRAINING, 1)
    return dataclasses.replace(
        report, files=[dataclasses.replace(report.files[0], depth=measure_depths(evaluation(), 1))]
    )


def spelled(text):
    """A report in which a text stands wherever one that is not ours may stand, and its evaluation."""
    report, file = measured(), evaluation()
    file = dataclasses.replace(
        file, path=Path(text), samples=[dataclasses.replace(sample, query=text) for sample in file.samples]
    )
    gains, losses = (
        [dataclasses.replace(one, query=text, first_before=text, first_after=text) for one in examples]
        for examples in (report.files[0].examples.gains, report.files[0].examples.losses)
    )
    merge = dataclasses.replace(MERGE, reason=text, files=[dataclasses.replace(c, measure=text) for c in MERGE.files])
    facts = {**TRAINING.facts, "teacher": text, "loss": [text], "merge": text}
    row = LatencyRow(text, f"models/{text}", "float32", 64, 0.5, (0.4, 0.6), COST)
    report = dataclasses.replace(
        report,
        models={"before": text, "after": f"models/{text}", "teacher": text},
        files=[dataclasses.replace(report.files[0], path=text, examples=Examples(gains, losses))],
        training=dataclasses.replace(TRAINING, facts=facts, merges={text: merge, f"{text} ": merge}),
        latency=LatencyReport(text, 5, [], 1, [10], [row, dataclasses.replace(row, name="before")]),
    )
    return report, file


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write the pages with a text, without pictures."""
    for name in ("pictures_of_file", "pictures_of_training", "pictures_of_latency"):
        monkeypatch.setattr(plots, name, lambda *_: [])

    def write(text):
        report, file = spelled(text)
        write_report(tmp_path, report, [file], 1)
        read = {name: (tmp_path / f"report.{name}").read_text(encoding="utf-8") for name in ("html", "md", "json")}
        return report, read, (tmp_path / "per_query.jsonl").read_text(encoding="utf-8")

    return write


def test_what_a_text_spells_is_text_on_every_page(written):
    report, plain, _ = written("plain")
    table = format_table(report)
    for kind, text in TEXTS.items():
        report, found, per_query = written(text)
        assert elements(found["html"]) == elements(plain["html"]), kind
        assert blocks(found["md"]) == blocks(plain["md"]), kind
        assert columns(found["md"]) == columns(plain["md"]), kind
        assert columns(format_table(report)) == columns(table), kind
        for page in ("html", "md"):
            assert visible(found[page]) == found[page], kind
        if len(text) < 200:
            assert f">{escape(visible(text))}<" in found["html"], kind
        raw = json.loads(found["json"])
        assert raw["models"]["before"] == raw["files"][0]["examples"]["gains"][0]["query"] == text, kind
        assert [json.loads(line)["query"] for line in per_query.split("\n")[:-1]] == [text] * 8, kind


def test_a_path_that_is_no_utf8_is_written(written):
    _, found, _ = written("caf\udce9")
    assert json.loads(found["json"])["models"]["before"] == "caf\udce9"
    assert "`caf`" in found["md"]
    assert "<td>caf</td>" in found["html"]


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 10, 20])
def test_what_a_name_spells_is_a_label_of_a_picture(first):
    texts = [*TEXTS.values()][first : first + 10]
    curves = [dataclasses.replace(curve, measure=texts[0]) for curve in MERGE.files]
    merges = {text: dataclasses.replace(MERGE, files=curves) for text in texts}
    rows = [LatencyRow(text, text, "float32", 64, 0.5, (0.4, 0.6), COST) for text in texts]
    for picture in (
        plots.trade_off(merges),
        plots.quality_against_latency(LatencyReport(texts[-1], 5, [], 1, [10], rows)),
    ):
        drawn = ElementTree.fromstring(picture.svg)
        assert visible(picture.svg) == picture.svg
        tags = {element.tag.rpartition("}")[2] for element in drawn.iter()}
        assert not tags & {"script", "img", "foreignObject"}
        labels = " ".join(element.text for element in drawn.iter() if element.text)
        for text in texts:
            line = " ".join(visible(text).split())
            assert (line if len(line) <= 40 else line[:20]) in labels
