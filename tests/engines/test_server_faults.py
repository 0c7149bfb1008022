"""A hostile server: each of its faults ends in one sentence or is got over, within bounds on time and memory."""

import base64
import contextlib
import gzip
import json
import socket
import struct
import threading
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tenacity

from rag_core.engines import server, server_answers
from reranker_distillation import generate_logits
from tests.conftest import TINY, write_model

KEY = "sk-very-secret"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\u202e\u200b\x9b31m"
SHORT = 0.3  # a --server_timeout that runs out
LONG = 30.0  # one that does not
MOST_SECONDS = 15.0  # of a whole run, on a busy machine; what drips does so for a minute
MOST_MIB = 64
GREAT = 384 << 20  # bytes of an endless answer: enough to be seen, and no harm to who reads them


class Hostile:
    """A server that answers as the test says, one request a connection.

    Attributes:
        faults: path -> functions of the connection, which take the place of the next answers; the last one stays.
        seen: (path, headers) of every request.
    """

    def __init__(self):
        self.faults, self.seen = {}, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        went_away = (OSError, ValueError, IndexError)  # also in the middle of its request
        with contextlib.suppress(*went_away), connection, connection.makefile("rb") as request:
            path = request.readline().split()[1].decode()
            headers = dict(line.decode().strip().split(": ", 1) for line in iter(request.readline, b"\r\n"))
            size = next((int(value) for name, value in headers.items() if name.lower() == "content-length"), 0)
            body = json.loads(request.read(size) or b"null")
            self.seen.append((path, headers))
            faults = self.faults.get(path, [])
            fault = faults.pop(0) if len(faults) > 1 else faults[0] if faults else None
            good = as_it_should(path, body)
            if fault is None:
                connection.sendall(ok(good) if good else answer(404))
            elif isinstance(fault, bytes):
                connection.sendall(fault)
            else:
                fault(connection, good)


def as_it_should(path, body):
    if path == "/v1/models":
        return {"data": [{"id": "its-name", "max_model_len": 4096}]}
    if path == "/score":
        return {"data": [{"index": i, "score": score} for i, score in enumerate(lengths(body["text_2"]))]}
    if path == "/v1/embeddings":
        return {"data": [{"index": i, "embedding": [size, 1, 0]} for i, size in enumerate(lengths(body["input"]))]}
    return None


def lengths(texts):
    return [len(text) / 8 for text in texts]


def answer(status, body=b"", *headers, version="1.1", length=True):
    lines = [f"HTTP/{version} {status} Whatever", *headers, "Connection: close"]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def ok(content, *headers, **how):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return answer(200, body, *headers, **how)


def dripping(start, byte=b"1", seconds=0.05):
    """Send a byte twenty times a second, for as long as somebody reads, and for a minute at most."""

    def send(connection, _):
        connection.sendall(start)
        for _ in range(int(60 / seconds)):
            time.sleep(seconds)
            connection.sendall(byte)

    return send


def endless(start, block):
    """Send blocks as fast as they are read."""

    def send(connection, _):
        connection.sendall(start)
        piece = block * max(1, (1 << 18) // len(block))
        for _ in range(GREAT // len(piece)):
            connection.sendall(piece)

    return send


def silent(connection, _):
    connection.recv(1)  # until the other side goes


def reset(start):
    def send(connection, _):
        connection.sendall(start)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return send


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
UNSIZED = HEAD + b"Connection: close\r\n\r\n"
GZIPPED = HEAD + b"Content-Encoding: gzip\r\n\r\n"
BOMB = zlib.compressobj(9, zlib.DEFLATED, 31)
BOMB = b"".join([BOMB.compress(bytes(1 << 20)) for _ in range(GREAT >> 20)] + [BOMB.flush()])
EMPTY_BLOCKS = gzip.compress(b"", mtime=0)[:10] + b"\x00\x00\x00\xff\xff"  # a block of nothing, not the last


@dataclass(frozen=True)
class Fault:
    """What is sent instead of an answer, and what is said of it.

    Attributes:
        said: part of the sentence; `None` where the run goes on.
        times: how often it is sent before the server does as it should.
        timeout: the --server_timeout.
    """

    sent: object
    said: str | None = None
    times: int = 10**9
    timeout: float = LONG


def waiting(sent):
    return Fault(sent, f"gave no answer for {SHORT} seconds (", timeout=SHORT)


def strange(sent, said=""):
    return Fault(sent, f"in a form that is not understood ({said}")


def once(sent):
    return Fault(sent, times=1)


def changed(change):
    """Send what the server should, with the rows changed."""

    def send(connection, good):
        rows = good["data"]
        connection.sendall(ok({"data": change(rows) or rows}))

    return send


def row_with(key, value, index=0):
    """Send what the server should, but for one value."""
    return changed(lambda rows: rows[index].update({key: value}))


def raw_score(text):
    """Send what the server should, with a score as it stands in the text."""

    def send(connection, good):
        good["data"][0]["score"] = "HERE"
        connection.sendall(ok(json.dumps(good).replace('"HERE"', text).encode("utf-8", "surrogatepass")))

    return send


def vector(*values, dtype="<f4"):
    return base64.b64encode(np.array(values, dtype=dtype).tobytes()).decode()


def as_it_is(body=lambda text: text, *headers, **how):
    """Send what the server should, in another way."""
    return lambda connection, good: connection.sendall(ok(body(json.dumps(good).encode()), *headers, **how))


def retry_after(value):
    return once(answer(503, b"busy", f"Retry-After: {value}"))


SCORE = {
    # Time
    "silence": waiting(silent),
    "a status line that drips": waiting(dripping(b"HTTP/1.1 2")),
    "a header that drips": waiting(dripping(HEAD + b"X-Slow: ")),
    "headers that drip": waiting(dripping(HEAD, b"X: 1\r\n")),
    "interim answers that drip": waiting(dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "a body that drips": waiting(dripping(HEAD + b"Content-Length: 100000\r\n\r\n")),
    "a body of no length that drips": waiting(dripping(UNSIZED)),
    "chunks that drip": waiting(dripping(CHUNKED, b"1\r\n1\r\n")),
    "the size of a chunk drips": waiting(dripping(CHUNKED, b"0")),
    "trailers that drip": waiting(dripping(CHUNKED + b"0\r\n", b"X: 1\r\n")),
    "a refusal that drips": waiting(dripping(b"HTTP/1.1 400 No\r\nConnection: close\r\n\r\n")),
    "gzip that drips nothing": waiting(dripping(GZIPPED + EMPTY_BLOCKS, EMPTY_BLOCKS[10:])),
    "cut short again and again": waiting(ok(b"{}", "Content-Length: 99", length=False)),
    "dropped again and again": waiting(lambda connection, _: None),
    "reset again and again": waiting(reset(HEAD)),
    "away for good": waiting(answer(503, b"down")),
    "busy for good": waiting(answer(429, b"busy", "Retry-After: 3600")),
    # Memory
    "an endless body": strange(endless(UNSIZED, b" "), "more than "),
    "a body of 3 GB": strange(endless(HEAD + b"Content-Length: 3000000000\r\n\r\n", b" "), "more than "),
    "endless chunks": strange(endless(CHUNKED, b"4\r\n1111\r\n"), "more than "),
    "a gzip bomb": strange(answer(200, BOMB, "Content-Encoding: gzip"), "more than "),
    "a gzip bomb in gzip": strange(answer(200, gzip.compress(BOMB, mtime=0), "Content-Encoding: gzip, gzip"), "more "),
    "a deflate bomb": strange(answer(200, BOMB[10:-8], "Content-Encoding: deflate"), "more than "),
    "gzip of endlessly nothing": waiting(endless(GZIPPED + EMPTY_BLOCKS, EMPTY_BLOCKS[10:])),
    "an endless status line": waiting(endless(b"HTTP/1.1 200 ", b"1")),
    "an endless header": waiting(endless(HEAD + b"X: ", b"1")),
    "endless headers": waiting(endless(HEAD, b"X: 1\r\n")),
    "an endless size of a chunk": waiting(endless(CHUNKED, b"0")),
    "endless trailers": waiting(endless(CHUNKED + b"0\r\n", b"X: 1\r\n")),
    "endless interim answers": waiting(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "an endless refusal": Fault(
        endless(b"HTTP/1.1 400 No\r\nConnection: close\r\n\r\n", b"no "), "refuses /score (HTTP 400: no no no"
    ),
    "an endless failure": waiting(endless(b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\n", b"no ")),
    "an answer as its own charset's bomb": strange(
        ok(zlib.compress(bytes(1 << 26)), "Content-Type: text/plain; charset=zip"), "x"
    ),
    # What is no JSON
    "HTML": strange(ok(b"<html>hello"), "<html>hello)"),
    "nothing": strange(ok(b""), "it is empty)"),
    "204": strange(answer(204), "it is empty)"),
    "nested 100,000 deep": strange(ok(b"[" * 100_000), "[[[[["),
    "objects nested 10,000 deep": strange(ok(b'{"a":' * 10_000 + b"1" + b"}" * 10_000), '{"a":{"a":'),
    "no UTF-8": strange(ok(b'{"data": "\xff"}'), '{"data": "'),
    "UTF-16": strange(as_it_is(lambda body: body.decode().encode("utf-16"))),
    "cut off with the right length": strange(as_it_is(lambda body: body[:-9])),
    "something behind it": strange(as_it_is(lambda body: body + b" and more")),
    "gzip that is none": Fault(ok({"data": []}, "Content-Encoding: gzip"), "refuses /score ("),
    # Rows
    "a list": strange(ok([1]), "[1])"),
    "a text": strange(ok(b'"data"'), '"data")'),
    "other keys": strange(ok({"error": {"message": "of another form"}}), '{"error": {"message": "of another form"}})'),
    "no rows": strange(ok({"data": []}), "0 rows with 0 indices, where 0 to "),
    "rows that are null": strange(ok({"data": None}), "Input should be a valid list)"),
    "rows that are none": strange(ok({"data": [1]}), "0: Input should be "),
    "an extra row of an index": strange(changed(lambda rows: [*rows, {"index": 0, "score": 9}])),
    "an index twice": strange(row_with("index", 1)),
    "a row is missing": strange(changed(lambda rows: rows[1:])),
    "a negative index": strange(row_with("index", -1)),
    "an index beyond": strange(row_with("index", 10**6)),
    "an index that is a float": strange(row_with("index", 0.0), "0: index: "),
    "an index that is a text": strange(row_with("index", "0"), "0: index: "),
    "an index that is true": strange(row_with("index", True, index=1), "1: index: "),
    "a key twice": strange(raw_score('1, "score": 2')),
    # Numbers
    "a score that is true": strange(row_with("score", True), "0: score: "),
    "a score that is a text": strange(row_with("score", "1.5"), "0: score: "),
    "a score that is NaN as a text": strange(row_with("score", "NaN"), "0: score: "),
    "a score that is Infinity as a text": strange(row_with("score", "Infinity"), "0: score: "),
    "a score that is null": strange(row_with("score", None), "0: score: "),
    "a score that is a list": strange(row_with("score", [1.0]), "0: score: "),
    "a score that is an object": strange(row_with("score", {"value": 1}), "0: score: "),
    "a score that is missing": strange(changed(lambda rows: rows[0].pop("score") and None), "0: score: Field required"),
    "a score that is NaN": Fault(raw_score("NaN"), "scores of the teacher are not finite"),
    "a score that is Infinity": Fault(raw_score("-Infinity"), "scores of the teacher are not finite"),
    "a score of 1e999": Fault(raw_score("1e999"), "scores of the teacher are not finite"),
    "a score beyond float32": Fault(raw_score("1e300"), "scores of the teacher are not finite"),
    "a score of 5,000 digits": strange(raw_score("1" * 5_000)),
    "a score of 400 digits": strange(raw_score("1" * 400)),
    # Refusals
    "a redirect to itself": Fault(answer(302, b"", "Location: /score"), "refuses /score (HTTP 302)"),
    "404": Fault(answer(404, b"none"), "refuses /score (HTTP 404: none)"),
    "501": Fault(answer(501, b"none"), "refuses /score (HTTP 501: none)"),
    "status 700": waiting(answer(700, b"what")),
    "a refusal of an unknown charset": Fault(
        answer(400, b"caf\xe9", "Content-Type: text/plain; charset=idna"), "refuses /score (HTTP 400: caf"
    ),
    "a refusal with escapes": Fault(
        answer(400, f"{ESCAPES}\nError: all is well".encode()),
        "refuses /score (HTTP 400: [2J]0;owned31m Error: all is well)",
    ),
    # What is no HTTP
    "101": waiting(answer(101, b"", "Upgrade: websocket", length=False)),
    "no HTTP": waiting(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP/0.9": waiting(b'{"data": []}'),
    "a header without a colon": waiting(HEAD + b"nonsense\r\n\r\n{}"),
    "a header with a NUL": waiting(HEAD + b"X: \x00\r\n\r\n{}"),
    "two lengths": waiting(HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    "a negative length": waiting(HEAD + b"Content-Length: -1\r\n\r\n{}"),
    "a length of 5,000 digits": waiting(HEAD + b"Content-Length: " + b"1" * 5_000 + b"\r\n\r\n{}"),
    "a chunk of no size": waiting(CHUNKED + b"x\r\n{}\r\n"),
    # What is got over
    "dropped once": once(lambda connection, _: None),
    "reset once": once(reset(HEAD + b"Content-Length: 9\r\n\r\n1")),
    "cut short once": once(ok(b"{}", "Content-Length: 99", length=False)),
    "500 once": once(answer(500, b"<html>")),
    "Retry-After of 0.1 seconds": retry_after("0.1"),
    "Retry-After of -5": retry_after("-5"),
    "Retry-After of NaN": retry_after("nan"),
    "Retry-After of infinity": retry_after("inf"),
    "Retry-After of 1e300": retry_after("1e300"),
    "Retry-After of 5,000 digits": retry_after("9" * 5_000),
    "Retry-After in the year 9999": retry_after("Fri, 31 Dec 9999 23:59:59 GMT"),
    "Retry-After in the year 99999": retry_after("Fri, 31 Dec 99999 23:59:59 GMT"),
    "Retry-After in the year 1": retry_after("Mon, 01 Jan 0001 00:00:00 +2359"),
    "Retry-After of an hour": retry_after("3600"),
    "Retry-After of words": retry_after("\u00e9 soon"),
    "HTTP/1.0": Fault(as_it_is(version="1.0", length=False)),
    "gzip": Fault(as_it_is(gzip.compress, "Content-Encoding: gzip")),
    "an unknown encoding": Fault(as_it_is(lambda body: body, "Content-Encoding: rot13")),
    "a byte order mark": Fault(as_it_is(lambda body: b"\xef\xbb\xbf" + body)),
    "a charset that is none": Fault(as_it_is(lambda body: body, "Content-Type: application/json; charset=zip")),
    "more keys": Fault(row_with("object", {"deep": [[[1]]]})),
    "scores that are whole": Fault(changed(lambda rows: [row | {"score": int(8 * row["score"])} for row in rows])),
    "rows in disorder": Fault(changed(lambda rows: rows[::-1])),
    "3,000 cookies": Fault(as_it_is(lambda body: body, *(f"Set-Cookie: c{i}={i}" for i in range(3_000)))),
}


def model_of(**changes):
    return ok({"data": [{"id": "its-name", "max_model_len": 4096} | changes]})


MODELS = {
    "a list of models that drips": waiting(dripping(UNSIZED)),
    "an endless list of models": strange(endless(UNSIZED, b" "), "more than "),
    "a list of 300,000 lists": strange(ok(b"[" + b"[]," * 300_000 + b"[]]"), "[[],[],"),
    "no models": Fault(ok({"data": []}), "has no model, and not "),
    "models of another form": strange(ok({"data": {}}), "Input should be a valid list)"),
    "a name that is a number": strange(model_of(id=5), "0: id: "),
    "a name that is null": strange(model_of(id=None), "0: id: "),
    "a length that is a text": strange(model_of(max_model_len="4096"), "0: max_model_len: "),
    "a length that is negative": strange(model_of(max_model_len=-1), "0: max_model_len: "),
    "a length that is 0": strange(model_of(max_model_len=0), "0: max_model_len: "),
    "a length that is true": strange(model_of(max_model_len=True), "0: max_model_len: "),
    "a length that is huge": strange(model_of(max_model_len=10**400), "0: max_model_len: "),
    "a length that is a float": strange(model_of(max_model_len=4096.5), "0: max_model_len: "),
    "a length that is null": Fault(model_of(max_model_len=None)),
    "a name with escapes": Fault(model_of(id=f"{ESCAPES}\nError: name")),
    "a name of a megabyte": Fault(model_of(id="n" * 2**20)),
    "a name with half a character": strange(model_of(id="\ud800"), "0: id: "),
    "two names of a megabyte": Fault(ok({"data": [{"id": "n" * 2**20}, {"id": f"{ESCAPES}\n"}]}), "has nnnnnnnn"),
    "an unauthorised request": Fault(
        answer(401, KEY.encode()), "refuses /v1/models (HTTP 401: ***). Put the server's "
    ),
}


def info_of(**changes):
    return ok({"model_id": "its/name", "max_input_length": 256, "max_client_batch_size": 8} | changes)


INFO = {
    "an info that drips": waiting(dripping(UNSIZED)),
    "an endless info": strange(endless(UNSIZED, b" "), "more than "),
    "an info that is HTML": Fault(ok(b"<html>")),
    "an info nested 10,000 deep": Fault(ok(b"[" * 10_000)),
    "an info of another server": Fault(ok({"version": "1"})),
    "an info without a length": strange(ok({"model_id": "its/name"}), "max_input_length: Field required)"),
    "an info whose name is a number": strange(info_of(model_id=5), "model_id: "),
    "an info whose length is a text": strange(info_of(max_input_length="512"), "max_input_length: "),
    "an info whose length is negative": strange(info_of(max_input_length=-512), "max_input_length: "),
    "an info whose batch is 0": strange(info_of(max_client_batch_size=0), "max_client_batch_size: "),
    "an info whose batch is true": strange(info_of(max_client_batch_size=True), "max_client_batch_size: "),
    "an info whose batch is null": strange(info_of(max_client_batch_size=None), "max_client_batch_size: "),
    "an info elsewhere": Fault(answer(301, b"", "Location: /info/"), "refuses /info (HTTP 301)"),
}

EMBEDDINGS = {
    "an endless vector": strange(endless(UNSIZED + b'{"data": [{"index": 0, "embedding": [1', b", 1"), "more than "),
    "a vector of a million dimensions": strange(row_with("embedding", [1] * 10**6), "more than "),
    "a vector of nothing": strange(row_with("embedding", []), "1 vectors of 0 dimensions for 1 texts)"),
    "a vector of texts": strange(row_with("embedding", ["1"] * 10_000), "0: Input should be a valid number)"),
    "a vector with true": strange(row_with("embedding", [1, True]), "1: Input should be a valid number)"),
    "a vector with null": strange(row_with("embedding", [1, None]), "1: Input should be a valid number)"),
    "a vector of vectors": strange(row_with("embedding", [[1]]), "0: Input should be a valid number)"),
    "a vector that is a number": strange(row_with("embedding", 1), "0: embedding: "),
    "a vector that is null": strange(row_with("embedding", None), "0: embedding: "),
    "a vector of zeros": Fault(row_with("embedding", [0, 0, 0]), "vectors of the server are all zeros or not finite"),
    "a vector of NaN": Fault(row_with("embedding", vector(1, 1, np.nan)), "all zeros or not finite"),
    "a vector of infinity": Fault(row_with("embedding", vector(1, 1, np.inf)), "all zeros or not finite"),
    "a vector beyond float32": Fault(row_with("embedding", [1, 1, 1e300]), "all zeros or not finite"),
    "a vector of a length beyond float32": Fault(row_with("embedding", [1e30, 1, 1]), "all zeros or not finite"),
    "no base64": strange(row_with("embedding", "*" * 16)),
    "base64 with a line end": strange(row_with("embedding", vector(1, 1, 1)[:8] + "\n" + vector(1, 1, 1)[8:])),
    "base64 of another precision": strange(row_with("embedding", vector(1, 1, 1, dtype="<f2"))),
    "base64 without its end": strange(row_with("embedding", vector(1, 1, 1, 1)[:-1])),
    "vectors as base64": Fault(changed(lambda rows: [row | {"embedding": vector(*row["embedding"])} for row in rows])),
}

# With the second request, when the number of dimensions is known.
LATER = {
    "a vector of fewer dimensions": strange(row_with("embedding", [1, 1]), "12 vectors of 2 or 3 dimensions for 12 "),
    "vectors of other dimensions": strange(
        changed(lambda rows: [row | {"embedding": [1, 2, 3, 4]} for row in rows]), "12 vectors of 3 or 4 dimensions"
    ),
    "vectors much longer than the first": strange(
        changed(lambda rows: [row | {"embedding": [1] * 30_000} for row in rows]), "more than "
    ),
    "a later vector of zeros": Fault(row_with("embedding", vector(0, 0, 0)), "vectors of the server are all zeros"),
}

CASES = [
    pytest.param(path, skipped, fault, id=name)
    for path, skipped, faults in [
        ("/score", 0, SCORE),
        ("/v1/models", 0, MODELS),
        ("/info", 0, INFO),
        ("/v1/embeddings", 0, EMBEDDINGS),
        ("/v1/embeddings", 1, LATER),
    ]
    for name, fault in faults.items()
]


pytestmark = pytest.mark.slow  # together; each is short


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Names of a cross-encoder and an embedder, of which nothing is read but what they are."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "cross-encoder", "BertForSequenceClassification", num_labels=1)
    write_model(folder / "embedder", "BertModel")
    modules = [("", "base.modules.Transformer"), ("1_Pooling", "sentence_transformer.modules.Pooling")]
    (folder / "embedder" / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.{name}", "path": path} for path, name in modules])
    )
    (folder / "embedder" / "1_Pooling").mkdir()
    (folder / "embedder" / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    return {"/v1/embeddings": folder / "embedder", "/score": folder / "cross-encoder"}


@pytest.fixture(scope="module")
def hostile(models, tmp_path_factory):
    """Start the server, and score once, for what is imported and kept on the way."""
    found = Hostile()
    for path in ("/score", "/v1/embeddings"):
        assert generate_logits.main(command(found, models[path], tmp_path_factory.mktemp("first"), LONG)) == 0
    yield found
    found.listener.close()


def command(hostile, teacher, output, timeout):
    flags = ["--teacher", str(teacher), "--engine", "server", "--server_url", hostile.url, "--concurrency", "2"]
    flags += ["--input_files", f"{TINY}/test.jsonl", "--output_dir", str(output), "--max_length", "256"]
    return [*flags, "--server_timeout", str(timeout)]


@contextlib.contextmanager
def peak_of_memory():
    """Give a function that returns by how many MiB the process grew at most; where that cannot be measured, 0."""

    def read(key):
        return int(status.read_text().partition(f"{key}:")[2].split()[0]) // 1024

    status, ends = Path("/proc/self/status"), []
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = read("VmRSS")
    except OSError:
        before = None
    yield lambda: ends[0]
    ends.append(read("VmHWM") - before if before is not None else 0)


@pytest.mark.parametrize(("path", "skipped", "fault"), CASES)
def test_a_fault_ends_in_a_sentence_or_is_got_over(
    hostile, models, path, skipped, fault, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(server, "_BACKOFF", tenacity.wait_random_exponential(multiplier=0.01, max=0.05))
    monkeypatch.setenv("RAG_SERVER_API_KEY", KEY)
    good_before, good_after = [None] * skipped, [None] * (fault.times == 1)
    hostile.faults = {path: [*good_before, fault.sent, *good_after]}
    start = time.monotonic()
    with peak_of_memory() as grown:
        code = generate_logits.main(command(hostile, models.get(path, models["/score"]), tmp_path, fault.timeout))
    assert time.monotonic() - start < MOST_SECONDS
    assert grown() < MOST_MIB
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert len(error) < 2_000
    assert not {"\x1b", "\x07", "\u202e", "\u200b", "\x9b"} & set(error)
    assert KEY not in error
    last = error.splitlines()[-1]
    assert (code, last.startswith("Error: ")) == ((1, True) if fault.said else (0, False))
    assert (fault.said or "") in last
    assert (tmp_path / "test_logits.jsonl").exists() == (fault.said is None)


def reads(rows, key=None):
    return json.dumps(rows if key is None else {key: rows}).encode()


LOGPROBS = {"token_id:1": -0.5}


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (server_answers.POOLING, reads([{"index": 0, "data": [1.0, 2.0]}], "data")),
        (server_answers.POOLING, reads([{"index": 0, "data": [True]}], "data")),
        (server_answers.POOLING, reads([{"index": 0, "data": [[1.0]]}], "data")),
        (server_answers.POOLING, reads([{"index": 0, "data": "1"}], "data")),
        (server_answers.POOLING, reads([{"index": 0, "data": []}], "data")),
        (server_answers.RERANK, reads([{"index": 0, "score": "1"}])),
        (server_answers.RERANK, reads([{"index": 0, "score": 1.0}, {"index": 1, "score": 1.0}])),
        (server_answers.RERANK, reads([{"index": 0, "score": 1.0}], "data")),
        (server_answers.LOGPROBS, reads([{"index": 0, "logprobs": None}], "choices")),
        (server_answers.LOGPROBS, reads([{"index": 0, "logprobs": {"top_logprobs": []}}], "choices")),
        (server_answers.LOGPROBS, reads([{"index": 0, "logprobs": {"top_logprobs": [None]}}], "choices")),
        (server_answers.LOGPROBS, reads([{"index": 0, "logprobs": {"top_logprobs": [{"1": "-1"}]}}], "choices")),
        (server_answers.LOGPROBS, reads([{"index": 0, "logprobs": {"top_logprobs": [{"1": False}]}}], "choices")),
        (server_answers.LOGPROBS, reads([{"index": "0", "logprobs": {"top_logprobs": [LOGPROBS]}}], "choices")),
        (server_answers.completions(8), reads([{"index": 0, "text": 5}], "choices")),
        (server_answers.completions(8), reads([{"index": 0, "text": None}], "choices")),
        (server_answers.completions(8), reads([{"index": 0, "text": "half \ud800"}], "choices")),
        (server_answers.completions(8), reads([{"index": 0, "text": "a"}, {"index": 0, "text": "b"}], "choices")),
        (server_answers.embeddings(of_tei=True, dimensions=None), reads([["1"]])),
        (server_answers.embeddings(of_tei=True, dimensions=None), reads([[[1]]])),
        (server_answers.embeddings(of_tei=True, dimensions=None), reads([vector(1)])),
        (server_answers.embeddings(of_tei=True, dimensions=None), reads([[1], [1]])),
        (server_answers.embeddings(of_tei=True, dimensions=3), reads([[1, 2]])),
        (server_answers.embeddings(of_tei=True, dimensions=None), reads([[True]])),
    ],
)
def test_further_answers_of_another_form(endpoint, body):
    with pytest.raises(ValueError, match=r"\S"):
        endpoint.read(body, 1)


@pytest.mark.parametrize("path", ["/info", "/v1/models", "/score"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_goes_to_no_other_server(hostile, models, tmp_path, monkeypatch, capsys, path, status):
    monkeypatch.setenv("RAG_SERVER_API_KEY", KEY)
    elsewhere = Hostile()
    hostile.faults = {path: [answer(status, b"", f"Location: {elsewhere.url}{path}")]}
    assert generate_logits.main(command(hostile, models["/score"], tmp_path, LONG)) == 1
    assert f"refuses {path} (HTTP {status})" in capsys.readouterr().err
    assert elsewhere.seen == []
    elsewhere.listener.close()


@pytest.mark.parametrize("key", ["sk-schl\u00fcssel", "sk-\nX: y", "sk-two lines\n", " sk-one", "sk-two\r", "\x7fsk"])
def test_a_key_that_no_header_can_hold(hostile, models, tmp_path, monkeypatch, capsys, key):
    monkeypatch.setenv("RAG_SERVER_API_KEY", key)
    hostile.faults = {}
    hostile.seen.clear()
    assert generate_logits.main(command(hostile, models["/score"], tmp_path, LONG)) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("Error: RAG_SERVER_API_KEY has characters that no key has ")
    assert key.strip() not in error
    assert hostile.seen == []


ECHOES = {
    "error": ok({"error": f"wrong key Bearer {KEY}"}),
    "score": ok({"data": [{"index": 0, "score": KEY}]}),
    "cut at its beginning": ok(f"{'x' * 45}{KEY}{'y' * 50_000}".encode()),
    "cut at its end": ok(f"{'y' * 50_000}{KEY}{'x' * 45}".encode()),
    "split by an escape": ok(f"{KEY[:5]}\x1b{KEY[5:]}".encode()),
    "refusal": answer(400, KEY.encode()),
    "long refusal": answer(400, b"x" * 95 + KEY.encode() + b"y" * 50_000),
    "headers": answer(500, KEY.encode(), f"X-Echo: Bearer {KEY}", f"Retry-After: {KEY}", f"Set-Cookie: key={KEY}"),
    "header line": HEAD + KEY.encode() + b"\r\n\r\n",
    "status line": f"HTTP/1.1 {KEY}\r\n\r\n".encode(),
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_an_echo_of_the_key_is_not_shown(hostile, models, tmp_path, monkeypatch, capsys, echo):
    monkeypatch.setenv("RAG_SERVER_API_KEY", KEY)
    hostile.faults = {"/score": [echo]}
    flags = command(hostile, models["/score"], tmp_path, SHORT)
    assert generate_logits.main([*flags, "--log_level", "debug"]) == 1
    captured = capsys.readouterr()
    assert "sk-" not in captured.err + captured.out
    assert "secret" not in captured.err + captured.out


def test_requests_under_way_end_with_the_run(hostile, models, tmp_path, capsys):
    """One request is refused while others hang: nobody waits for those."""
    hostile.faults = {"/score": [silent, silent, answer(400, b"no")]}
    start = time.monotonic()
    flags = command(hostile, models["/score"], tmp_path, LONG)
    assert generate_logits.main([*flags, "--batch_size", "4", "--concurrency", "3"]) == 1
    assert "refuses /score (HTTP 400: no)" in capsys.readouterr().err
    assert time.monotonic() - start < MOST_SECONDS
