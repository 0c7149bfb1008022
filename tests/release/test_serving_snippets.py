"""The lines of docs/SERVING.md for other frameworks find and rank as our engine does."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from rag_core.distillation.student import StudentSettings
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_model
from rag_core.engines.options import EngineOptions
from reranker_distillation.training import load_student
from tests.conftest import marked_code

QUERY = "how are caves made"
PASSAGES = ["melt water carves them", "a cave", "the fence keeps ants out"]
PROMPTS = {"query": "ants : ", "document": "water : "}

# What the lines leave behind, as texts in their order and scores where the framework shows any.
FRAMEWORKS = {
    "langchain": (
        "langchain_community",
        """
        "found": [(document.page_content, score) for document, score in found],
        "ranked": [
            (document.page_content, float(cross_encoder.score([("a query", document.page_content)])[0]))
            for document in ranked
        ],
        """,
    ),
    "llamaindex": (
        "llama_index",
        """
        "found": [(node.text, node.score) for node in found],
        "ranked": [(node.text, node.score) for node in ranked],
        """,
    ),
    "haystack": (
        "haystack_integrations",
        """
        "found": [(document.content, document.score) for document in found],
        "ranked": [(document.content, document.score) for document in ranked],
        """,
    ),
}


@pytest.fixture(scope="module")
def prompted_encoder(tiny_encoder, tmp_path_factory):
    """An embedder with prompts, which a framework that overlooks them would show."""
    folder = str(tmp_path_factory.mktemp("prompted"))
    SentenceTransformer(tiny_encoder, prompts=PROMPTS).save(folder, create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def grown(tiny_encoder, tmp_path_factory):
    """A cross-encoder as `train` grows one from an embedder."""
    torch.manual_seed(1)
    folder = str(tmp_path_factory.mktemp("grown"))
    load_student(StudentSettings(describe_model(tiny_encoder), 64)).save_pretrained(folder, create_model_card=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_ranks_as_we_do(framework, prompted_encoder, grown, tmp_path):
    package, left_behind = FRAMEWORKS[framework]
    if find_spec(package) is None:
        pytest.skip(f"{framework} is not installed (extra frameworks)")
    code = f"{marked_code('docs/SERVING.md', framework)}\nprint('@', json.dumps({{{left_behind}}}))"
    ours = {
        "runs/mine/embedder": prompted_encoder,
        "runs/mine/model": grown,
        '["a passage", "another passage"]': repr(PASSAGES),
        '"a query"': repr(QUERY),
    }
    for theirs, value in ours.items():
        assert theirs in code
        code = code.replace(theirs, value)
    # In a process of its own: frameworks change how a process logs. None may call home.
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{code}"],
        env=os.environ | {"HAYSTACK_TELEMETRY_ENABLED": "False", "ANONYMIZED_TELEMETRY": "False"},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("@")]
    pairs = [(QUERY, passage) for passage in PASSAGES]
    reranker = load_model("sentence-transformers", EngineOptions(describe_model(grown), dtype="float32"), pairs)
    encoder = load_model(
        "sentence-transformers", EngineOptions(describe_model(prompted_encoder), dtype="float32"), pairs
    )
    cosines = encoder.encode(PASSAGES, "passage") @ encoder.encode([QUERY], "query")[0]
    for name, scores in (("found", cosines), ("ranked", reranker.score(pairs))):
        theirs = json.loads(line[1:])[name]
        assert [text for text, _ in theirs] == [PASSAGES[i] for i in np.argsort(-scores)]
        np.testing.assert_allclose([score for _, score in theirs], sorted(scores, reverse=True), rtol=0, atol=1e-5)
