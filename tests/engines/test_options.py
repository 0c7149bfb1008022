"""Options of engines: what of them decides a score, and flags about a server that do not fit together."""

import pytest

from rag_core.base.errors import UsageError
from rag_core.base.flags import decisive
from rag_core.engines.identity import ModelInfo
from rag_core.engines.options import EngineOptions, RayOptions, ServerOptions, check_server_flags

MODEL = ModelInfo("m", "llm-reranker", "test")


def test_how_fast_scores_come_decides_none():
    plain = decisive(EngineOptions(MODEL))
    assert list(plain) == ["instruction", "max_length", "dtype", "vllm_runner", "quantization"]
    elsewhere = EngineOptions(
        MODEL, batch_size=1, reference="none", server=ServerOptions("http://localhost:1"), ray=RayOptions(2)
    )
    assert decisive(elsewhere) == plain


@pytest.mark.parametrize("url", ["http://localhost:8000", "https://example.org/v1", "http://[::1]:8000"])
def test_addresses_of_servers(url):
    check_server_flags("server", url, "auto")
    with pytest.raises(UsageError, match=r"--dtype float32 has no effect on a server\. Start the server with it\."):
        check_server_flags("server", url, "float32")


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "http://", "http://localhost:80OO", "http://localhost:0", "http://user:key@localhost:8000"],
)
def test_what_is_no_address(url):
    with pytest.raises(UsageError, match="--server_url is not of the form http://host:port") as caught:
        check_server_flags("server", url, "auto")
    assert "key@" not in str(caught.value)


@pytest.mark.parametrize(("engine", "url"), [("server", None), ("auto", "http://localhost:8000")])
def test_a_server_needs_its_address_and_an_address_its_server(engine, url):
    with pytest.raises(UsageError, match="--engine server and --server_url belong together"):
        check_server_flags(engine, url, "auto")


def test_without_a_server_there_is_nothing_to_check():
    check_server_flags("auto", None, "float32")
