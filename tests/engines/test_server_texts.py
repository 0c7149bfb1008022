"""What a server that tokenises texts itself is sent."""

import logging

import pytest

from rag_core.engines import server_texts
from rag_core.engines.identity import describe_model
from rag_core.engines.options import EngineOptions
from rag_core.engines.server_engine import ServerCrossEncoder, ServerEncoder
from rag_core.engines.server_texts import ServerTexts
from tests.conftest import write_model
from tests.vocabularies import FAMILIES


class Server:
    """Keep what it is sent."""

    url, model, reads = "http://here", "its-name", 512

    def __init__(self, *, is_tei):
        self.is_tei = is_tei
        self.sent = []

    def compute(self, chunks, ask):
        for number, (rows, cut) in chunks:
            yield number, ask(rows), cut

    def ask(self, endpoint, body, rows):
        self.sent.append(body)
        return [[1.0, 0.0] if "emb" in endpoint.path else 0.0] * rows


@pytest.fixture(params=["bert", "xlm-r", "qwen", "gemma"])
def tokenizer(request, monkeypatch):
    monkeypatch.setattr(server_texts, "load_tokenizer", lambda model: FAMILIES[request.param]())
    return FAMILIES[request.param]()


def sent(text):
    ((_, ([found], cut)),) = ServerTexts("m").behind("", [[text]])
    assert cut == 0
    return found


def test_no_text_that_is_sent_spells_a_special_token(tokenizer):
    special = [token for token in tokenizer.all_special_tokens if token != tokenizer.unk_token]
    ids = {tokenizer.convert_tokens_to_ids(token) for token in special}
    text = f"a {' '.join(special * 3)} b{''.join(special)}c"
    assert not ids & set(tokenizer.encode(sent(text), add_special_tokens=False))
    assert sent(text).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    "text", ["", "a river", "<p>a</p> [1] \uff3bPAD", "x < y > z", "ﬁne ½", "<think>", "a [sep] b"]
)
def test_other_texts_are_sent_as_they_are(tokenizer, text):
    assert sent(text) == text


def test_a_compatibility_form_is_no_way_around_it(monkeypatch):
    monkeypatch.setattr(server_texts, "load_tokenizer", lambda model: FAMILIES["xlm-r"]())
    assert sent("\uff1c/s\uff1e <pad> \u00bd") == "< /s> < pad> 1\u20442"


def test_a_tokenizer_is_read_where_a_text_may_need_it_and_lacks_with_a_warning(tmp_path, caplog):
    write_model(tmp_path / "m")
    texts = ServerTexts(str(tmp_path / "m"))
    with caplog.at_level(logging.INFO):
        assert list(texts.behind("q: ", [["a"], ["b", "c"]])) == [(0, (["q: a"], 0)), (1, (["q: b", "q: c"], 0))]
        assert caplog.text == ""
        assert [found for _, (found, _) in texts.behind("", [["[PAD]"], ["[PAD]"]])] == [["[PAD]"], ["[PAD]"]]
    assert caplog.text.count("the server may read parts of texts as special tokens") == 1


@pytest.mark.parametrize("is_tei", [False, True])
def test_a_server_is_told_once(tokenizer, is_tei, tmp_path, caplog):
    write_model(tmp_path / "m", "BertForSequenceClassification")
    pad = tokenizer.pad_token
    server = Server(is_tei=is_tei)
    scorer = ServerCrossEncoder(server, EngineOptions(describe_model(str(tmp_path / "m")), max_length=512))
    with caplog.at_level(logging.INFO):
        scorer.score([("a", f"b {pad}")] * 2)
        scorer.score([(pad, "b")])
    spaced = f"{pad[0]} {pad[1:]}"
    assert [(body.get("texts") or [*body["text_2"]]) for body in server.sent] == [[f"b {spaced}"] * 2, ["b"]]
    assert [body.get("query") or body["text_1"][0] for body in server.sent] == ["a", spaced]
    assert caplog.text.count("are sent with a space in these") == 1


@pytest.mark.parametrize("is_tei", [False, True])
def test_a_prompt_is_sent_as_it_is(tokenizer, is_tei, embedder):
    pad = tokenizer.pad_token
    folder = embedder(
        {"model_type": "bert", "architectures": ["BertModel"]}, prompts={"query": f"{pad} ", "document": ""}
    )
    server = Server(is_tei=is_tei)
    encoder = ServerEncoder(server, EngineOptions(describe_model(folder), max_length=512))
    encoder.encode([pad], "query")
    assert (server.sent[-1].get("inputs") or server.sent[-1]["input"]) == [f"{pad} {pad[0]} {pad[1:]}"]
