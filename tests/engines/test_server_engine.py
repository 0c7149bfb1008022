"""Teachers on a server, which is a fake one here: what it is asked, and what becomes of everything that goes wrong."""

import base64
import dataclasses
import json
import logging
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import tenacity

from rag_core.base.errors import EngineError
from rag_core.engines import embedding_prompt, generators, server, yes_no_prompt
from rag_core.engines.generation import Prompt, Sampling, token_ids
from rag_core.engines.identity import describe_model
from rag_core.engines.loading import choose_engine, load_generator, load_model
from rag_core.engines.options import EngineOptions, ServerOptions
from rag_core.engines.protocols import ChunkPairScorer, ChunkTextEncoder, PairScorer, TextEncoder
from rag_core.engines.sentence_transformers_engine import BiEncoder
from rag_core.engines.tokenizer import load_tokenizer
from rag_core.engines.yes_no_prompt import DEFAULT_INSTRUCTION, YesNoPrompt
from rag_core.files.manifest import read_manifest
from rag_core.scoring.settings import CHUNK_ROWS
from reranker_distillation import generate_logits
from tests.conftest import write_model
from tests.tiny_qwen import DECLARED_INSTRUCTION, MAX_LENGTH

KEY = "sk-very-secret"
SHORT = 4  # a --server_timeout to wait for, in seconds, of which half is time enough for an answer on a busy machine


class FakeServer(ThreadingHTTPServer):
    """A server whose answers the test sets.

    Attributes:
        routes: path -> function of the request's body (`None` of a GET) -> answer.
        trouble: functions of the handler that take the place of the next answers to POSTs; `None` is none.
        seen: (path, body, headers) of every request.
        busiest: requests under way at once, at most.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.routes, self.trouble, self.seen = {}, [], []
        self.lock = threading.Lock()
        self.busy = self.busiest = 0
        self.seconds = 0.0

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.handle_request(None)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            trouble = self.server.trouble.pop(0) if self.server.trouble else None
            self.server.busy += 1
            self.server.busiest = max(self.server.busiest, self.server.busy)
        time.sleep(self.server.seconds)
        try:
            (trouble or Handler.handle_request)(self, *([] if trouble else [body]))
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def handle_request(self, body):
        self.server.seen.append((self.path, body, dict(self.headers)))
        if self.path in self.server.routes:
            self.send(200, self.server.routes[self.path](body))
        else:
            self.send(404, {"detail": "Not Found"})

    def send(self, status, content, **headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def failing(status, content=b"overloaded", **headers):
    return lambda handler: handler.send(status, content, **headers)


def dropping(handler):
    handler.close_connection = True
    handler.connection.close()


def cut_short(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


@pytest.fixture
def fake():
    with FakeServer() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch, qwen_tokenizer):
    monkeypatch.setattr(server, "_BACKOFF", tenacity.wait_random_exponential(multiplier=0.001, max=0.01))
    monkeypatch.setattr(yes_no_prompt, "load_tokenizer", lambda model: qwen_tokenizer)


def models(*names, reads=4096):
    return lambda _: {"data": [{"id": name, "max_model_len": reads} for name in names]}


def logprobs(prompt):
    """Return made-up ones that tell prompts apart: log p(yes) - log p(no) is the sum of its ids in thousands."""
    return {"token_id:5": -0.5, "token_id:9693": sum(prompt) / 1000 - 3000.0, "token_id:2152": -3000.0}


def complete(body):
    """Answer in reverse order: rows are known by their index."""
    answers = [
        {"index": i, "logprobs": {"top_logprobs": [logprobs(prompt)]}} for i, prompt in enumerate(body["prompt"])
    ]
    return {"choices": answers[::-1]}


@pytest.fixture
def vllm(fake):
    """A server with one LLM reranker."""
    fake.routes = {"/v1/models": models("its-name"), "/v1/completions": complete}
    return fake


def options(model, fake, *, concurrency=64, server_timeout=600.0, **settings):
    server = ServerOptions(fake.url, concurrency, server_timeout)
    return EngineOptions(
        describe_model(str(model)), server=server, **{"max_length": MAX_LENGTH, "batch_size": 4} | settings
    )


@pytest.fixture
def load(vllm, tiny_qwen, pairs):
    return lambda **settings: load_model("server", options(tiny_qwen, vllm, **settings), pairs[:20])


@pytest.fixture
def expected(qwen_tokenizer, pairs):
    prompts, _ = YesNoPrompt(qwen_tokenizer, DEFAULT_INSTRUCTION, MAX_LENGTH).token_ids(pairs)
    return np.array([sum(prompt) / 1000 for prompt in prompts])


def test_scores_and_what_is_asked_for(vllm, load, pairs, expected):
    scorer = load()
    assert isinstance(scorer, PairScorer)
    assert isinstance(scorer, ChunkPairScorer)
    assert scorer.score_unit == "log-odds"
    scores = scorer.score(pairs)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert scorer.truncated == 1
    assert scorer.score([]).shape == (0,)
    path, body, headers = vllm.seen[-1]
    assert path == "/v1/completions"
    assert {name: value for name, value in body.items() if name != "prompt"} == {
        "model": "its-name",
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 0,
        "logprob_token_ids": [9693, 2152],
        "return_tokens_as_token_ids": True,
    }
    assert len(body["prompt"]) == 4
    assert "Authorization" not in headers


def test_a_converted_reranker_is_asked_for_what_its_head_gives(fake, tmp_path, pairs, expected):
    write_model(tmp_path / "converted", "Qwen3ForSequenceClassification", num_labels=1)

    def pool(body):
        rows = [{"index": i, "data": [sum(prompt) / 1000]} for i, prompt in enumerate(body["input"])]
        return {"data": rows[::-1]}

    fake.routes = {"/v1/models": models("its-name", reads=MAX_LENGTH), "/pooling": pool}
    scorer = load_model("server", options(tmp_path / "converted", fake), pairs[:20])
    assert scorer.score_unit == "log-odds"
    np.testing.assert_allclose(scorer.score(pairs), expected, rtol=1e-6)
    _, body, _ = fake.seen[-1]
    assert {name: value for name, value in body.items() if name != "input"} == {
        "model": "its-name",
        "task": "classify",
        "use_activation": False,
    }


def test_a_single_answer_cannot_be_had_from_a_server(fake, tmp_path):
    write_model(tmp_path / "single")
    for name, content in {
        "modules.json": [
            {"type": "sentence_transformers.base.modules.Transformer", "path": ""},
            {"type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore", "path": "1"},
        ],
        "1/config.json": {"true_token_id": 9454, "false_token_id": None},
    }.items():
        (tmp_path / "single" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "single" / name).write_text(json.dumps(content))
    (tmp_path / "single" / "chat_template.jinja").write_text("{{ messages[0].content }}{{ messages[1].content }}")
    fake.routes = {"/v1/models": models("its-name")}
    with pytest.raises(EngineError, match=r"single is the logit of one token, .*\. Pass --engine vllm or transformers"):
        load_model("server", options(tmp_path / "single", fake), [])


def test_chunks_are_computed_over_their_ends_within_the_bound(vllm, load, pairs, expected):
    scorer = load(concurrency=6, batch_size=2)
    vllm.seconds, vllm.busiest = 0.1, 0
    taken = []

    def chunks():
        for start in range(0, 48, 8):  # four requests each
            taken.append(start)
            yield pairs[start : start + 8]

    found = scorer.score_chunks(chunks())
    number, first = next(found)
    assert (number, taken) == (0, [0, 8, 16, 24]), "two behind the first keep six connections busy, one is tokenised"
    rest = list(found)
    assert [number for number, _ in rest] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(np.concatenate([first, *(scores for _, scores in rest)]), expected[:48], rtol=1e-6)
    assert vllm.busiest == 6


@pytest.mark.parametrize(
    "trouble",
    [failing(429), failing(500), failing(503, b"<html>"), dropping, cut_short],
    ids=["429", "500", "503", "dropped", "cut short"],
)
def test_a_request_that_fails_is_sent_again(vllm, load, pairs, expected, trouble):
    scorer = load()
    vllm.trouble = [trouble, None, trouble, trouble]
    np.testing.assert_allclose(scorer.score(pairs), expected, rtol=1e-6)
    assert not vllm.trouble


@pytest.mark.parametrize(
    "asked", [lambda: "0.3", lambda: formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"]
)
def test_retry_after_is_honoured(vllm, load, pairs, asked):
    scorer = load()
    vllm.trouble = [failing(429, **{"Retry-After": asked()})]
    start = time.monotonic()
    scorer.score(pairs[:1])
    assert 0.3 <= time.monotonic() - start < 30, "neither at once nor after --server_timeout"


def test_a_slow_answer_is_asked_for_again(vllm, load, pairs, expected):
    scorer = load(server_timeout=SHORT)
    vllm.trouble = [lambda handler: time.sleep(SHORT)]  # half of it is what a single answer may take
    np.testing.assert_allclose(scorer.score(pairs), expected, rtol=1e-6)


def test_a_server_that_stays_away(vllm, load, pairs, caplog):
    scorer = load(server_timeout=SHORT)
    vllm.trouble = [failing(503, b"down\nfor today")] * 100_000
    with pytest.raises(EngineError) as caught:
        scorer.score(pairs)
    assert str(caught.value) == (
        f"the server {vllm.url} gave no answer for {SHORT} seconds (HTTP 503: down for today). Check that it runs, "
        "then run the same command again to go on where it stopped. If it is only slow, lower --concurrency or "
        "--batch_size, or raise --server_timeout."
    )
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"the server {vllm.url} does not answer (HTTP 503: down for today); trying again for up to {SHORT} seconds"
    ], "once a minute, not once a request"


def test_no_server(tiny_qwen, pairs):
    nowhere = EngineOptions(describe_model(tiny_qwen), server=ServerOptions("http://127.0.0.1:9", timeout=0.1))
    with pytest.raises(EngineError, match=r"the server http://127\.0\.0\.1:9 gave no answer .*refused\)\. Check that"):
        load_model("server", nowhere, pairs)


def test_what_is_refused_is_not_asked_for_again(vllm, load, pairs):
    scorer = load()
    vllm.trouble = [failing(400, {"error": {"message": f"{'a too long prompt ' * 100}"}})]
    seen = len(vllm.seen)
    with pytest.raises(EngineError) as caught:
        scorer.score(pairs[:4])
    assert str(caught.value).startswith(f"the server {vllm.url} refuses /v1/completions (HTTP 400: ")
    assert str(caught.value).endswith("). Check --server_url and --teacher, and what the server was started with.")
    assert len(str(caught.value)) < 500
    assert len(vllm.seen) == seen


@pytest.mark.parametrize(
    "answer",
    [b"<html>hello", {"choices": []}, {"choices": [{"index": 1}]}, {"choices": [{"index": 0, "logprobs": None}]}, [1]],
)
def test_an_answer_of_another_form(vllm, load, pairs, answer):
    scorer = load()
    vllm.routes["/v1/completions"] = lambda body: answer
    with pytest.raises(EngineError, match=r"answers /v1/completions in a form that is not understood \(.*\)\. Check"):
        scorer.score(pairs[:1])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"token_id:5": -0.1, "token_id:9693": -1.0}, r"no log-probability for the answer with token id 2152\. Serve "),
        ({"yes": -1.0, "no": -2.0}, r"no log-probability for the answer with token id 2152\. Serve "),
        ({"token_id:9693": 0.0, "token_id:2152": -9999.0}, r"1 of 1 scores of the teacher are not finite"),
    ],
)
def test_an_answer_that_is_missing_is_an_error(vllm, load, pairs, found, message):
    scorer = load()
    vllm.routes["/v1/completions"] = lambda body: {"choices": [{"index": 0, "logprobs": {"top_logprobs": [found]}}]}
    with pytest.raises(EngineError, match=message):
        scorer.score(pairs[:1])


def test_which_model_of_a_server(vllm, load, tiny_qwen):
    vllm.routes["/v1/models"] = models("a", tiny_qwen)
    load()
    assert vllm.seen[-1][1]["model"] == tiny_qwen
    vllm.routes["/v1/models"] = models("a", "b")
    with pytest.raises(EngineError) as caught:
        load()
    assert str(caught.value) == (
        f"the server {vllm.url} has a, b, and not {tiny_qwen}. "
        "Pass one of its models as --teacher, or start it with --served-model-name."
    )


def test_a_server_that_reads_too_little(vllm, load):
    vllm.routes["/v1/models"] = models("its-name", reads=MAX_LENGTH)
    with pytest.raises(EngineError) as caught:
        load()
    assert str(caught.value) == (
        f"the server {vllm.url} reads 256 tokens, where --max_length 256 needs 257. "
        "Pass --max_length 255, or start it with --max-model-len 257."
    )


def test_the_key_is_sent_and_never_told(vllm, load, pairs, monkeypatch, caplog):
    monkeypatch.setenv("RAG_SERVER_API_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    scorer = load(server_timeout=SHORT)
    assert all(headers["Authorization"] == f"Bearer {KEY}" for _, _, headers in vllm.seen)
    said = []
    for status in (401, 500):
        vllm.trouble = [failing(status, f"wrong key {KEY}".encode())] * 100_000
        with pytest.raises(EngineError) as caught:
            scorer.score(pairs[:1])
        said.append(str(caught.value))
    assert said[0] == (
        f"the server {vllm.url} refuses /v1/completions (HTTP 401: wrong key ***). "
        "Put the server's key into the environment variable RAG_SERVER_API_KEY."
    )
    assert KEY not in said[1] + caplog.text


@pytest.mark.parametrize("encoded", [True, False])
def test_an_llm_embedder(fake, tiny_llm_embedder, embedder_tokenizer, pairs, monkeypatch, encoded):
    monkeypatch.setattr(embedding_prompt, "load_tokenizer", lambda model: embedder_tokenizer)

    def embed(body):
        rows = [np.array([len(ids), ids[0], ids[-1]], dtype="<f4") for ids in body["input"]]
        values = [base64.b64encode(row.tobytes()).decode() if encoded else row.tolist() for row in rows]
        return {"data": [{"index": i, "embedding": value} for i, value in enumerate(values)][::-1]}

    fake.routes = {"/v1/models": models("its-name"), "/v1/embeddings": embed}
    encoder = load_model("server", options(tiny_llm_embedder, fake), pairs[:20])
    assert isinstance(encoder, TextEncoder)
    assert isinstance(encoder, ChunkTextEncoder)
    assert (encoder.dimensions, encoder.score_unit) == (3, "cosine")
    encoder.truncated = 0
    texts = ["river", "bank rate", "word " * 500, "index", "loan"]
    vectors = encoder.encode(texts, "passage")
    prompts = [embedder_tokenizer.encode(text) for text in texts]
    wanted = np.array([[min(len(ids), MAX_LENGTH), ids[0], 151643] for ids in prompts])
    np.testing.assert_allclose(vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), rtol=1e-6)
    assert encoder.truncated == 1
    assert encoder.encode([], "query").shape == (0, 3)
    encoder.encode(["river"], "query")
    assert fake.seen[-1][1] == {
        "model": "its-name",
        "input": [embedder_tokenizer.encode(f"Instruct: {DECLARED_INSTRUCTION}\nQuery:river")],
        "encoding_format": "base64",
    }


def embed_tei(body):
    return [[float(len(text)), 1.0] for text in body["inputs"]]


def tei(reads=256, rows=3):
    return lambda _: {"model_id": "its/name", "max_input_length": reads, "max_client_batch_size": rows}


def test_embedders_on_tei_are_sent_text(fake, tiny_llm_embedder, pairs):
    fake.routes = {"/info": tei(), "/embed": embed_tei}
    encoder = load_model("server", options(tiny_llm_embedder, fake, instruction="Find it"), pairs[:20])
    vectors = encoder.encode(["abc", "abcd", "abcde", "a"], "passage")
    np.testing.assert_allclose(vectors[1], np.array([4, 1]) / np.sqrt(17), rtol=1e-6)
    assert [len(body["inputs"]) for _, body, _ in fake.seen[-2:]] in ([3, 1], [1, 3]), "no more than TEI takes"
    encoder.encode(["abc"], "query")
    assert fake.seen[-1][1] == {"inputs": ["Instruct: Find it\nQuery:abc"], "normalize": False, "truncate": True}


@pytest.mark.parametrize("prompts", [{}, {"query": "q: ", "document": "d: "}, {"query": "q: ", "passage": "p: "}])
def test_other_embedders_get_the_prompts_that_sentence_transformers_puts(fake, tiny_encoder, tmp_path, prompts):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(tiny_encoder)
    model.prompts = prompts
    model.save(str(tmp_path), create_model_card=False)
    local = BiEncoder(EngineOptions(describe_model(str(tmp_path)), dtype="float32"))
    plain = SentenceTransformer(tiny_encoder)

    def embed(body):
        rows = plain.encode(body["input"], normalize_embeddings=False)
        return {"data": [{"index": i, "embedding": row.tolist()} for i, row in enumerate(rows)]}

    fake.routes = {"/v1/models": models("its-name", reads=128), "/v1/embeddings": embed}
    encoder = load_model("server", options(tmp_path, fake), [("a query", "one"), ("a query", "two words")])
    for role in ("query", "passage"):
        expected = local.encode(["one", "two words"], role)
        np.testing.assert_allclose(encoder.encode(["one", "two words"], role), expected, atol=1e-6)
    assert fake.seen[-1][1]["truncate_prompt_tokens"] == 128
    assert encoder.truncated is None


def test_a_cross_encoder_on_vllm(fake, tiny_cross_encoder, pairs):
    def score(body):
        rows = enumerate(zip(body["text_1"], body["text_2"], strict=True))
        return {"data": [{"index": i, "score": len(left) - len(right) / 8} for i, (left, right) in rows][::-1]}

    fake.routes = {"/v1/models": models("its-name"), "/score": score}
    scorer = load_model("server", options(tiny_cross_encoder, fake), pairs[:20])
    assert (scorer.score_unit, scorer.truncated) == ("logit", None)
    np.testing.assert_allclose(scorer.score(pairs), [len(left) - len(right) / 8 for left, right in pairs])
    body = fake.seen[-1][1]
    assert {name: body[name] for name in body.keys() - {"text_1", "text_2"}} == {
        "model": "its-name",
        "use_activation": False,
        "truncate_prompt_tokens": MAX_LENGTH,
    }


def test_a_cross_encoder_on_tei(fake, tiny_cross_encoder, pairs):
    def rerank(body):
        rows = [{"index": i, "score": len(body["query"]) - len(text) / 8} for i, text in enumerate(body["texts"])]
        return sorted(rows, key=lambda row: -row["score"])

    fake.routes = {"/info": tei(), "/rerank": rerank}
    scorer = load_model("server", options(tiny_cross_encoder, fake), pairs[:20])
    np.testing.assert_allclose(scorer.score(pairs), [len(left) - len(right) / 8 for left, right in pairs])
    body = fake.seen[-1][1]
    assert {name: body[name] for name in body.keys() - {"query", "texts"}} == {"raw_scores": True, "truncate": True}


def write(body):
    """Answer in reverse order; an answer names the sum of its prompt's ids, and the seed."""
    answers = [f"{sum(ids)} {body.get('seed')}" for ids in body["prompt"] for _ in range(body.get("n", 1))]
    rows = [{"index": i, "text": text, "finish_reason": "length"} for i, text in enumerate(answers)]
    return {"choices": rows[::-1]}


def texts_of(answers):
    return [[answer.text for answer in found] for found in answers]


@pytest.fixture(scope="module")
def chat_tokenizer(qwen_chat):
    return load_tokenizer(qwen_chat)


@pytest.fixture
def writer(vllm, qwen_chat, chat_tokenizer, monkeypatch):
    monkeypatch.setattr(generators, "load_tokenizer", lambda model: chat_tokenizer)
    vllm.routes["/v1/completions"] = write
    return load_generator("server", options(qwen_chat, vllm, batch_size=2))


@pytest.fixture
def questions(chat_tokenizer):
    """Prompts, the third of which is too long, and the sum of each one's ids."""
    prompts = [Prompt("Ask. ", text) for text in ("ice", "a lake", "ice " * 400, "the snow that became ice", "a lake")]
    return prompts, [sum(ids) for ids in token_ids(chat_tokenizer, prompts, MAX_LENGTH - 8)]


def test_a_generator_gives_each_prompt_its_answer(vllm, writer, questions):
    prompts, sums = questions
    vllm.seen.clear()
    answers = writer.generate(prompts, Sampling(max_new_tokens=8))
    assert texts_of(answers) == [[f"{found} None"] for found in sums]
    assert all(answer.cut and answer.tokens > 2 for (answer,) in answers)
    assert sorted(len(body.pop("prompt")) for _, body, _ in vllm.seen) == [1, 2, 2]
    assert [(path, body) for path, body, _ in vllm.seen] == [
        ("/v1/completions", {"model": "its-name", "max_tokens": 8, "temperature": 0.0, "top_p": 1.0})
    ] * 3


def test_a_generator_draws_with_a_seed_one_higher_per_prompt(vllm, writer, questions):
    prompts, sums = questions
    vllm.seen.clear()
    drawn = writer.generate(prompts, Sampling(max_new_tokens=8, temperature=0.7, top_p=0.9, seed=3))
    assert texts_of(drawn) == [[f"{found} {3 + number}"] for number, found in enumerate(sums)]
    assert {(len(body["prompt"]), body["temperature"], body["top_p"]) for _, body, _ in vllm.seen} == {(1, 0.7, 0.9)}
    unseeded = writer.generate(prompts, Sampling(max_new_tokens=8, temperature=0.7))
    assert texts_of(unseeded) == [[f"{found} None"] for found in sums]


def test_a_generator_asks_for_several_answers_and_where_they_end(vllm, writer, questions):
    prompts, sums = questions
    vllm.seen.clear()
    warm = Sampling(max_new_tokens=8, temperature=0.7, seed=3, num_samples=2, stop=("\n",))
    answers = writer.generate(prompts, warm)
    assert texts_of(answers) == [[f"{found} {3 + 2 * number}"] * 2 for number, found in enumerate(sums)]
    assert {(body["n"], *body["stop"]) for _, body, _ in vllm.seen} == {(2, "\n")}
    vllm.seen.clear()
    answers = writer.generate(prompts, dataclasses.replace(warm, seed=None))
    assert texts_of(answers) == [[f"{found} None"] * 2 for found in sums]
    assert len(vllm.seen) == 3


def test_servers_that_write_nothing_or_too_little(fake, vllm, qwen_chat):
    vllm.routes["/v1/models"] = models("its-name", reads=100)
    with pytest.raises(
        EngineError, match=r"reads 100 tokens, where --max_length 256 needs 256\. Pass --max_length 100"
    ):
        load_generator("server", options(qwen_chat, vllm))
    fake.routes = {"/info": tei()}
    with pytest.raises(EngineError, match=r"is TEI, which writes no text\. Serve the model with vllm serve"):
        load_generator("server", options(qwen_chat, fake))


def test_what_tei_cannot_do(fake, tiny_cross_encoder, tiny_qwen, pairs):
    fake.routes = {"/info": tei(reads=512)}
    with pytest.raises(EngineError, match=r"cuts a text at its own 512 tokens, not at 256\. Pass --max_length 512, or"):
        load_model("server", options(tiny_cross_encoder, fake), pairs)
    with pytest.raises(EngineError, match=r"is TEI, which cannot score with an LLM reranker\. Serve the teacher with"):
        load_model("server", options(tiny_qwen, fake), pairs)


def test_a_server_is_never_chosen_by_itself(tiny_encoder):
    assert choose_engine(describe_model(tiny_encoder), "server") == ("server", "as asked")
    assert choose_engine(describe_model(tiny_encoder), "auto")[0] == "sentence-transformers"


@pytest.fixture
def command(vllm, tiny_qwen, tiny_data):
    files = ["--input_files", f"{tiny_data}/test.jsonl", "--max_length", "256", "--batch_size", "4"]
    return ["--teacher", str(tiny_qwen), "--engine", "server", "--server_url", vllm.url, *files]


def test_the_stage_and_its_manifest(vllm, command, tiny_data, capsys, monkeypatch):
    monkeypatch.setenv("RAG_SERVER_API_KEY", KEY)
    assert generate_logits.main([*command, "--log_level", "debug"]) == 0
    manifest = read_manifest(tiny_data / "test_logits.jsonl")
    assert manifest.rows == 24
    assert manifest.recipe["flags"]["dtype"] == "the server's"
    assert manifest.recipe["flags"]["engine"] == "server"
    for hidden in (KEY, vllm.url, "concurrency", "server_timeout"):
        assert hidden not in json.dumps(dataclasses.asdict(manifest))
    captured = capsys.readouterr()
    assert KEY not in captured.out + captured.err
    assert f"server: {vllm.url} has its-name" in captured.err
    # Another address is no other teacher.
    elsewhere = [*command[:5], "http://elsewhere:1", *command[6:]]
    assert generate_logits.main([*elsewhere, "--concurrency", "3"]) == 0
    assert "is finished already" in capsys.readouterr().err


def test_a_run_that_gave_up_goes_on(vllm, command, tiny_data, capsys, monkeypatch):
    monkeypatch.setitem(CHUNK_ROWS, "server", 4)
    flags = ["--server_timeout", str(SHORT), "--concurrency", "1"]
    vllm.trouble = [None] * 5 + [failing(503)] * 100_000
    assert generate_logits.main([*command, *flags]) == 1
    assert (
        f"Error: the server {vllm.url} gave no answer for {SHORT} seconds (HTTP 503: overloaded)."
        in capsys.readouterr().err
    )
    kept = sum(len(np.load(chunk)) for chunk in (tiny_data / "test_logits.jsonl.partial").glob("pair-*.npy"))
    assert 0 < kept < 24
    vllm.trouble.clear()
    vllm.seen.clear()
    assert generate_logits.main([*command, *flags]) == 0
    scored = sum(len(body["prompt"]) for path, body, _ in vllm.seen if path == "/v1/completions")
    assert scored == 12 + 24 - kept, "the canary, and what was not there yet"


def test_a_dry_run_asks_no_server(vllm, command, capsys):
    assert generate_logits.main([*command, "--dry_run"]) == 0
    assert "to compute       24 pairs of 24 distinct ones" in capsys.readouterr().out
    assert vllm.seen == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--dtype", "float32"], "--dtype float32 has no effect on a server. Start the server with it."),
        (["--engine", "auto"], "--engine server and --server_url belong together. Pass both or neither."),
        (["--server_url", "http://localhost:80OO"], "--server_url is not of the form http://host:port. "),
        (["--reference", "a-model"], "--reference cannot be loaded on a server. Pass --reference none, and compare"),
        (["--server_url", "localhost:8000"], "--server_url is not of the form http://host:port. "),
        (["--server_url", f"http://user:{KEY}@localhost:8000"], "--server_url is not of the form http://host:port. "),
        (["--concurrency", "0"], "--concurrency and --server_timeout must be above 0. Pass --concurrency 1 or more"),
    ],
)
def test_flags_that_contradict_each_other(command, capsys, change, message):
    assert generate_logits.main([*command, *change]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Error: {message}")
    assert KEY not in error
