"""The written report: every part of it is there, and what data spells is text."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from rag_core.engines.identity import ModelInfo
from rag_core.engines.options import EngineOptions
from rag_core.evaluation import latency as measurement
from rag_core.evaluation.depth import measure_depths
from rag_core.evaluation.latency import Latency, RerankingTime, report_latency
from rag_core.evaluation.pages import write_report
from rag_core.evaluation.report import make_report
from rag_core.evaluation.score_folder import ScoreFolder
from rag_core.evaluation.tables import format_table
from tests.conftest import ROOT
from tests.evaluation.cases import (
    DEEPER_IS_WORSE,
    NOTHING,
    SAMPLES,
    TRAINING,
    evaluation,
    long_evaluation,
    report,
    without_teacher,
)

SVG = "{http://www.w3.org/2000/svg}"


def parse(page):
    """Read a page as strictly as XML; what HTML may leave out is put in."""
    text = page.read_text().removeprefix("<!doctype html>").replace("<details open>", '<details open="">')
    return ElementTree.fromstring(re.sub(r"<(meta [^>]*|br)>", r"<\1/>", text))


def test_the_page_is_well_formed_and_has_every_section(tmp_path):
    found = report(training=TRAINING)
    write_report(tmp_path, found, [evaluation()], 1)
    page = parse(tmp_path / "report.html")
    text = " ".join(" ".join(page.itertext()).split())
    for words in (
        "before b after m teacher t training teacher t, loss kl, steps 2, seconds 3.5",
        "data/test.jsonl in-domain, 8 of 8 queries measured",
        "5 queries better than before, 1 worse, 2 the same share of the teacher's lead closed: MAP",
        "5 better, 1 worse",
        "The 5 largest gains",
        "query 4 average precision +0.667, best positive at rank 3, now 1 first before, not relevant bad "
        "first after, relevant good",
        "The 1 largest losses",
        "student: alpha 0.5, as asked.",
    ):
        assert words in text
    captions = [caption.text for caption in page.iter("figcaption")]
    assert captions == [
        "What each ranker reaches",
        "What changed, query by query",
        "Does the student score as the teacher does?",
        "Loss by step",
        "How much of the training is kept",
    ]
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_every_picture_says_what_is_on_it(tmp_path):
    write_report(tmp_path, report(training=TRAINING), [evaluation()], 1)
    page = parse(tmp_path / "report.html")
    pictures = list(page.iter(f"{SVG}svg"))
    assert [svg.get("role") for svg in pictures] == ["img"] * 5
    bars, changes, scatter, losses, trade_off = (svg.find(f"{SVG}title").text for svg in pictures)
    assert bars.startswith("data/test.jsonl, means. MAP: BM25 0.333, before 0.583, after 0.854, teacher 1.000; MRR@10:")
    assert changes.endswith("5 queries better, 1 worse; not drawn: 2 the same")
    assert re.search(r"24 of 24 pairs. before: rank correlation -?0\.\d{3}; after: rank correlation 0\.\d{3}$", scatter)
    said = "training: from 2 to 1.5 at step 2; unseen: from 1 to 1 at step 2; dev files: from 0.5 to 0.5 at step 2"
    assert losses == f"Loss by step. {said}"
    assert trade_off.endswith("student: alpha 0.5, in-domain 0.6000; with $ and $: alpha 1, in-domain 0.7000")


def test_the_page_needs_no_network_and_no_script(tmp_path):
    write_report(tmp_path, report(training=TRAINING), [evaluation()], 1)
    for element in parse(tmp_path / "report.html").iter():
        assert element.tag not in ("script", "link", "img", "iframe")
        for name, value in element.attrib.items():
            if name.rpartition("}")[2] in ("href", "src"):
                assert value.startswith(("#", "data:image/png;base64,"))


def test_the_same_evaluation_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, report(training=TRAINING), [evaluation()], 1)
    for name in ("report.json", "report.md", "report.html", "per_query.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_markdown(tmp_path):
    found = report(training=TRAINING)
    write_report(tmp_path, found, [evaluation()], 1)
    markdown = (tmp_path / "report.md").read_text()
    assert format_table(found) in markdown
    assert "- training: teacher `t`, loss `kl`, steps `2`, seconds `3.5`\n" in markdown
    assert re.search(r"\n\| MAP +\| \+0\.2708 \[.*\| 5 +\| 1 +\| 2 +\| 65% \[", markdown)
    assert "### The 5 largest gains\n\n1. **query 4** (+0.667; best positive at rank 3, now 1)\n" in markdown
    assert "   - before, first (not relevant): bad\n   - after, first (relevant): good\n" in markdown


def test_what_a_text_spells_is_text_in_both_forms(tmp_path):
    spelled = "<script>x</script> | **a**\n# [b](c) `d` $e$ &amp;"
    samples = [replace(sample, query=spelled) for sample in SAMPLES]
    found = replace(evaluation(), samples=samples, path=Path("a<b>/long_name.jsonl"))
    write_report(tmp_path, report(found), [found], 1)
    (query, *_) = [span.text for span in parse(tmp_path / "report.html").iter("span") if span.get("class") == "query"]
    assert query == spelled
    plain = r"\<script\>x\</script\> \| \*\*a\*\* \# \[b\](c) \`d\` \$e\$ \&amp;"
    assert f"1. **{plain}** (+0.667" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["files"][0]["examples"]["gains"][0]["query"] == spelled


def test_without_a_teacher_or_what_training_left_the_page_does_without(tmp_path):
    without = without_teacher()
    write_report(tmp_path, make_report([without], {"before": "b", "after": "m"}, NOTHING, 1), [without], 1)
    page = parse(tmp_path / "report.html")
    assert len(list(page.iter(f"{SVG}svg"))) == 2
    assert "Training" not in [head.text for head in page.iter("h2")]
    assert json.loads((tmp_path / "report.json").read_text())["files"][0]["gap_closed"] is None


def test_the_three_forms_are_those_of_before(tmp_path, monkeypatch):
    """All that may stand in a report, against files that were written when a report was a dict."""

    def measure(options, requests):
        speed = 1234.5 if options.model.kind == "bi-encoder" else None
        times = {depth: RerankingTime(100 / depth, depth * 1.1, depth * 1.7) for depth in requests}
        return Latency(speed is not None, 1, 12_000_000, 345_000_000, speed, times)

    monkeypatch.setattr(measurement, "measure_apart", measure)
    evaluations = [long_evaluation(DEEPER_IS_WORSE), evaluation()]
    options = {
        "before": EngineOptions(ModelInfo("models/b", "bi-encoder", "test"), dtype="float32"),
        "after": EngineOptions(ModelInfo("models/m", "cross-encoder", "test"), dtype="float32"),
    }
    scores = ScoreFolder(tmp_path / "scores", stage="test", skip_bad_rows=False)
    found = make_report(evaluations, {"before": "models/b", "after": "models/m", "teacher": "t"}, TRAINING, 1)
    found = replace(
        found,
        latency=report_latency(evaluations[0], options, [], scores, queries=5, seed=1),
        files=[replace(file, depth=measure_depths(of, 1)) for file, of in zip(found.files, evaluations, strict=True)],
    )
    write_report(tmp_path, found, evaluations, 1)
    for name in ("report.json", "report.md", "report.html"):
        written = (tmp_path / name).read_text(encoding="utf-8")
        # Of pictures, another release of matplotlib draws the same in other numbers.
        without_pictures = re.sub("<svg .*?</svg>", "<svg/>", written, flags=re.DOTALL)
        assert without_pictures == (ROOT / "tests" / "golden" / name).read_text(encoding="utf-8"), name
