"""Every stage that writes, with the smallest input there is and a model that is quick: what the tests of damage run."""

import dataclasses
import functools
import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from query_expansion_rl.records import Topic
from rag_core import demo_models, write_queries
from rag_core.base.records import RankingSample, ScoredPair, SoftLabels, Triplet
from rag_core.engines.generation import Answer
from rag_core.engines.loading import LOADERS
from rag_core.files import manifest
from rag_core.files.jsonl import write_records
from rag_core.scoring.settings import CHUNK_ROWS
from tests.conftest import OverlapScorer, write_model
from tests.damage import expansion_cases, milvus_cases

_TOPICS = ("hens lay eggs", "a bank lends money", "rivers carry sand")


class Encoder:
    """Vectors that can be told apart, of texts."""

    score_unit = "cosine"
    truncated = 0
    dimensions = 4

    def encode(self, texts, role):
        rows = [[len(text), text.count("a") + 1, text.count("e"), role == "query"] for text in texts]
        return np.array([np.array(row) / np.linalg.norm(row) for row in rows], dtype=np.float32)


class Writer:
    """Asks for the first word of a passage, or for the last ones of a query."""

    def generate(self, prompts, sampling):
        words = [(prompt.text or prompt.question.splitlines()[-2].split()[-1]).split()[0] for prompt in prompts]
        samples = range(sampling.num_samples)
        return [[Answer(f"what is {word} here{' and there' * i}", 5, cut=False) for i in samples] for word in words]


@dataclasses.dataclass
class Case:
    """A command.

    Attributes:
        outputs: below `out`: a file or a folder, or several files that belong together.
        former: flags that make another output of the same name.
        start: writes what is there before, into the folder.
    """

    module: str
    flags: list[str]
    outputs: list[str | tuple[str, ...]]
    former: list[str]
    start: Callable[[Path], None] = lambda folder: None

    def run(self, *more):
        return importlib.import_module(self.module).main([*self.flags, *more, "--log_level", "error"])

    def make_former(self, folder):
        assert self.run(*self.former) == 0
        for path in folder.rglob("model.safetensors") if not self.former else ():  # the settings tell nothing
            path.write_bytes(b"former")


def parts(outputs, tree):
    """Return of each output what of a tree is its own."""
    return [
        {
            path: content
            for path, content in tree.items()
            if (path in unit if isinstance(unit, tuple) else path == unit or path.startswith(f"{unit}/"))
        }
        for unit in outputs
    ]


def write_inputs(folder):
    """Write records of each kind, two or three of each."""
    samples = [
        RankingSample(f"do {topic}", [topic], [other for other in _TOPICS if other != topic], query_id=str(number))
        for number, topic in enumerate(_TOPICS)
    ]
    write_records(folder / "samples.jsonl", samples)
    scored = [
        ScoredPair(sample.query_id, sample.query, text, 1.5 * label - place / 7, label)
        for sample in samples
        for place, (text, label) in enumerate(sample.passages())
    ]
    write_records(folder / "scored.jsonl", scored)
    write_records(folder / "other.jsonl", [dataclasses.replace(row, score=-row.score) for row in scored])
    triplets = [
        Triplet(sample.query_id, sample.query, sample.positive[0], text, 1.0 + place)
        for sample in samples
        for place, text in enumerate(sample.negative)
    ]
    write_records(folder / "triplets.jsonl", triplets)
    labels = [
        SoftLabels(sample.query_id, sample.query, [text for text, _ in sample.passages()], [0.9, 0.5, 0.1])
        for sample in samples
    ]
    write_records(folder / "labels.jsonl", labels)
    milvus_cases.write_inputs(folder)
    expansion_cases.write_inputs(folder)
    splits = ("train", "dev", "test")
    topics = [Topic(f"q{number}", f"why {topic}", splits[number % 3]) for number, topic in enumerate(_TOPICS)]
    write_records(folder / "topics.jsonl", topics)
    (folder / "passages.jsonl").write_text(
        "".join(
            f'{{"text": "{topic} all day long. So they say where {topic}."}}\n' for topic in (*_TOPICS, "iron rusts")
        )
    )


def generate_logits(pipeline, teacher, former):
    return Case(
        f"{pipeline}_distillation.generate_logits",
        ["--input_files", "samples.jsonl", "--teacher", teacher, "--output_dir", "out"],
        ["samples_logits.jsonl"],
        former,
    )


def derive(module, suffix, former):
    flags = ["--input_files", "scored.jsonl", "other.jsonl", "--output_suffix", suffix, "--output_dir", "out"]
    return Case(module, flags, [f"scored{suffix}.jsonl", f"other{suffix}.jsonl"], former)


def train(pipeline, source, student):
    flags = ["--train_file", source, "--student", student, "--output_dir", "out/m", "--max_steps", "2"]
    flags += ["--per_device_train_batch_size", "2", "--save_steps", "1", "--save_total_limit", "1"]
    flags += ["--save_strategy", "steps"]
    return Case(f"{pipeline}_distillation.train", flags, ["m"], ["--learning_rate", "1e-2"])


REPORT = ("r/report.json", "r/report.md", "r/report.html", "r/per_query.jsonl", "r/report.json.manifest.json")


def evaluate(pipeline, before, more=(), kept=()):
    searches = pipeline == "embedding"

    def start(folder):
        if searches:
            shutil.copytree(before, folder / "after")
            with (folder / "after" / "model.safetensors").open("ab") as weights:  # another model than before
                weights.write(b"\0")
        else:
            write_model(folder / "after")
        (folder / "after" / "README.md").write_text("# after\n")
        (folder / "after.manifest.json").write_text('{"recipe": {"stage": "x"}}')

    flags = ["--before", before, "--after", "out/after", "--in_domain", "samples.jsonl", "--output_dir", "out/r"]
    flags += [*more, *(["--corpus", "samples.jsonl"] if searches else [])]
    outputs = [REPORT, "r/scores/samples_before.jsonl", "r/scores/samples_after.jsonl", "after/README.md", *kept]
    return Case(f"{pipeline}_distillation.evaluate", flags, outputs, ["--seed", "3", "--dtype", "bfloat16"], start)


def commands(encoder, cross_encoder):
    """Return every case by its name."""
    split = ["--source", "jsonl", "--input", "samples.jsonl", "--splits", "train=0.5", "dev=0.5"]
    dense = ["--source", "corpus", "--input", "passages.jsonl", "--splits", "train=1", "--num_candidates", "3"]
    dense += ["--random_share", "0.34"]
    merge = ["--input_files", "scored.jsonl", "other.jsonl", "--output_file", "out/m.jsonl"]
    prescreen = ["--prescreen", encoder, "--prescreen_keep", "1", "--prescreen_random", "1"]
    return {
        "reranker generate_logits": generate_logits("reranker", "t", ["--instruction", "Find the tip"]),
        "embedding generate_logits": generate_logits("embedding", encoder, ["--max_length", "100"]),
        "generate_logits with a prescreening": Case(
            "reranker_distillation.generate_logits",
            ["--input_files", "samples.jsonl", "--teacher", "t", "--output_dir", "out", *prescreen],
            ["samples_logits.jsonl"],
            ["--seed", "3"],
        ),
        "create_triplets": derive("reranker_distillation.create_triplets", "_t", ["--num_negatives", "1"]),
        "generate_scores": derive("embedding_distillation.generate_scores", "_s", ["--max_passages", "2"]),
        "reranker train": train("reranker", "triplets.jsonl", cross_encoder),
        "embedding train": train("embedding", "labels.jsonl", encoder),
        "reranker evaluate": evaluate("reranker", "t", ["--first_stage", "bm25", "--mix", "0.3"], ["after/mix.json"]),
        "embedding evaluate": evaluate("embedding", encoder),
        "prepare": Case(
            "rag_core.prepare",
            [*split, "--output_dir", "out"],
            ["train.jsonl", "dev.jsonl"],
            ["--seed", "3"],
        ),
        "prepare with vectors": Case(
            "rag_core.prepare",
            [*dense, "--dense_model", encoder, "--output_dir", "out"],
            ["train.jsonl"],
            ["--seed", "3"],
        ),
        "write_queries": Case(
            "rag_core.write_queries",
            ["--model", "t", "--input", "passages.jsonl", "--output", "out/q.jsonl"],
            ["q.jsonl"],
            ["--seed", "3"],
        ),
        "generate_expansions": Case(
            "query_expansion_rl.generate_expansions",
            ["--baselines", ".", "--model", "t", "--num_samples", "2", "--output_file", "out/x.jsonl"],
            ["x.jsonl"],
            ["--seed", "3"],
        ),
        "check_teacher": Case(
            "rag_core.check_teacher",
            ["--teacher", "t", "--student", "s", "--dataset", "samples.jsonl", "--output_dir", "out/c", "--force"],
            ["c/check.json", "c/teacher.jsonl", "c/student.jsonl"],
            ["--queries", "2"],
        ),
        "merge_scores": Case("rag_core.merge_scores", merge, ["m.jsonl"], ["--weights", "1", "2"]),
        "calibrate": Case(
            "rag_core.calibrate",
            ["--model", encoder, "--input_files", "scored.jsonl", "--output_dir", "out/m", "--target", "labels"],
            ["m"],
            ["--max_length", "100"],
        ),
        "export": Case(
            "rag_core.export",
            ["--model", cross_encoder, "--dataset", "samples.jsonl", "--output_dir", "out/m"],
            ["m"],
            ["--seed", "3"],
        ),
        "demo_models": Case(
            "rag_core.demo_models", ["--output_dir", "out"], ["all-MiniLM-L6-v2", "all-mpnet-base-v2"], []
        ),
        **{
            stage: Case(*given, start=functools.partial(milvus_cases.start, stage))
            for stage, given in milvus_cases.commands(encoder).items()
        },
        **{stage: Case(*given) for stage, given in expansion_cases.commands().items()},
    }


def fake(monkeypatch):
    """Let quick models stand for those that are loaded, and leave out what is slow and writes nothing."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.setattr(manifest, "provenance", lambda: {"command": "python -m it"})
    for engine in ("vllm", "transformers"):
        monkeypatch.setitem(LOADERS, engine, lambda options, canary: OverlapScorer().loaded(options, canary))
    monkeypatch.setitem(LOADERS, "sentence-transformers", _student)
    for engine in CHUNK_ROWS:
        monkeypatch.setitem(CHUNK_ROWS, engine, 5)
    monkeypatch.setattr(write_queries, "_CHUNK", 2)
    monkeypatch.setattr("query_expansion_rl.writing.writer._CHUNK", 2)
    monkeypatch.setattr("rag_core.engines.loading.load_generator", lambda engine, options: Writer())
    monkeypatch.setattr("rag_core.evaluation.pages._html", lambda report, evaluations, seed: f"<p>{seed}</p>")
    monkeypatch.setattr("rag_core.evaluation.pages._markdown", lambda report: f"{report.models}")
    monkeypatch.setattr("rag_core.metrics.significance._RESAMPLES", 99)
    monkeypatch.setattr("rag_core.release.graph.check_packages", lambda form: None)
    monkeypatch.setattr("rag_core.release.graph.PlainGraph", Graph)
    monkeypatch.setattr("rag_core.release.proof.prove", lambda model, folder, samples, length, seed: Proof(seed))
    monkeypatch.setattr("rag_core.release.reliability.reliability_diagram", lambda *_: Diagram())
    monkeypatch.setattr("sentence_transformers.base.model.BaseModel._create_model_card", lambda *_, **__: None)
    monkeypatch.setattr("transformers.trainer.speed_metrics", lambda *_, **__: {})
    monkeypatch.setattr("rag_core.distillation.trainer.time", StandingClock)
    fake_packages(monkeypatch)
    milvus_cases.fake(monkeypatch)
    expansion_cases.fake(monkeypatch)


def fake_packages(monkeypatch):
    """Let the pretrained models be of four bytes."""
    weights = "9f64a747e1b97f131fabb6b447296c9b6f0201e79fb3c5356e6c77e89b6a806a"  # of what `_unpack` writes
    monkeypatch.setattr(demo_models, "_WEIGHTS", dict.fromkeys(demo_models._WEIGHTS, weights))
    for name in ("_copy_student", "_join_teacher"):
        monkeypatch.setattr(demo_models, name, _unpack)


def _student(options, canary):
    return OverlapScorer().loaded(options, canary) if options.model.kind == "cross-encoder" else Encoder()


def _unpack(folder):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\x01\x02\x03\x04")


class StandingClock:
    monotonic = staticmethod(lambda: 0.0)


class Diagram:
    svg = "<svg/>"


class Graph:
    def __init__(self, model, folder, calibration):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(b"graph")

    def write(self, folder, form, precision, exclude):
        for name in ("model.onnx", "tokenizer.json", "export.json"):
            (folder / name).write_text(f"{form} {precision}")


@dataclasses.dataclass
class Proof:
    seed: int

    def rows(self):
        return [["", "same"], ["seed", f"{self.seed}"]]

    def fault(self, precision, max_map_drop):
        return None

    def as_dict(self):
        return {"seed": self.seed}
