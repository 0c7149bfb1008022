"""What the jobs of studies.py share: data, mined candidates, the teacher's scores and lists."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from study_jobs import CANDIDATES, MINED, PRESCREENED, SETS, SOURCES, Job, Places


def shared_work(places: Places, jobs: list[Job]) -> Iterator[list[tuple[Path, list[str]]]]:
    """Yield waves of (log, commands): what several jobs read, the later waves from the earlier ones."""
    log = places.work / "logs"
    names = [name for name in SETS if (places.given / SOURCES[name]).exists()]
    yield [(log / f"data-{name}.txt", _data_commands(places, name)) for name in names]
    _write_texts(places, names)
    read = {word for job in jobs for command in job.commands for word in command.split()}
    mined = [(name, way) for name in names for way in MINED if any(f"{name}_{way}" in word for word in read)]
    yield [(log / f"mined-{name}-{way}.txt", [_mine(places, name, way)]) for name, way in mined]
    yield [(log / f"scores-{name}.txt", _score_commands(places, name)) for name in names]
    yield [(log / f"lists-{name}-{way}.txt", _list_commands(places, name, way, read)) for name, way in mined]


def _data_commands(places: Places, name: str) -> list[str]:
    given, output = places.given / SOURCES[name], places.work / "data" / name
    if name != "scifact":
        places.work.mkdir(parents=True, exist_ok=True)
        files = []
        for split in ("train", "dev", "test"):
            found = next(path for path in given.glob(f"{split}.jsonl*") if "manifest" not in path.name)
            link = places.work / f"{name}_{split}{found.name.removeprefix(split)}"
            link.write_bytes(found.read_bytes())
            files.append(str(link))
        return [f"rag_core.prepare --source jsonl --input {' '.join(files)} --output_dir {output}"]
    beir = f"--source beir --input {given} --num_candidates 20 --drop_leaks --output_dir {output}/beir"
    own = "--splits scifact_train=0.85 scifact_dev=0.15"
    return [
        f"rag_core.prepare {beir}",
        f"rag_core.prepare --source jsonl --input {output}/beir/train.jsonl {own} --output_dir {output}",
        f"rag_core.prepare --source jsonl --input {output}/beir/test.jsonl --splits scifact_test=1 "
        f"--output_dir {output}",
    ]


def _write_texts(places: Places, names: list[str]) -> None:
    """Write the queries that are trained on without their candidates, and the passages that they are to find."""
    for name in names:
        train = [json.loads(line) for line in places.data(name, "train").read_text(encoding="utf-8").splitlines()]
        _write(places.work / f"{name}_queries.jsonl", [{"query": row["query"]} for row in train])
        if name == "scifact":
            with gzip.open(places.given / "scifact" / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
                passages = [{key: row[key] for key in ("title", "text")} for row in map(json.loads, lines)]
        else:
            samples = train + [json.loads(line) for line in places.data(name, "test").read_text().splitlines()]
            texts = dict.fromkeys(text for row in samples for text in (*row["positive"], *row["negative"]))
            passages = [{"text": text} for text in texts]
        _write(places.work / f"{name}_passages.jsonl", passages)


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _mine(places: Places, name: str, way: str) -> str:
    flags = MINED[way].format(student=places.student, teacher=places.teacher)
    return (
        f"rag_core.prepare --source corpus --input {places.work}/{name}_passages.jsonl "
        f"--queries {places.work}/{name}_queries.jsonl --num_candidates {CANDIDATES} --splits {name}_{way}=1 "
        f"--output_dir {places.work}/mined {flags}"
    )


def _score_commands(places: Places, name: str) -> list[str]:
    files = " ".join(str(places.data(name, split)) for split in ("train", "dev", "test"))
    return [
        _score(places, name, files),
        f"embedding_distillation.generate_scores --input_files {places.scores(name, 'train')} "
        f"--output_dir {places.work}/lists",
    ]


def _list_commands(places: Places, name: str, way: str, read: set[str]) -> list[str]:
    """Return what scores mined candidates, all of them or what is left by each prescreening that is read."""
    mined = f"{places.work}/mined/{name}_{way}.jsonl"
    commands = []
    for screened, counts in {"": "", **(PRESCREENED if way == "both" else {})}.items():
        lists = f"{name}_{way}" + (f"_{screened}" if screened else "")
        if str(places.lists(lists)) not in read:
            continue
        suffix = f"_{screened}_logits" if screened else "_logits"
        flags = f"--output_suffix {suffix}"
        if counts:
            keep, others = counts.split()
            flags += f" --prescreen {places.student} --prescreen_keep {keep} --prescreen_random {others}"
        commands += [
            _score(places, name, mined, flags),
            f"embedding_distillation.generate_scores --input_files {places.work}/scores/{name}_{way}{suffix}.jsonl "
            f"--output_dir {places.work}/lists",
        ]
    return commands


def _score(places: Places, name: str, files: str, flags: str = "") -> str:
    return (
        f"embedding_distillation.generate_logits --teacher {places.teacher} --max_length {SETS[name]} "
        f"--output_dir {places.work}/scores --score_store {places.work}/store {flags} --input_files {files}"
    )
