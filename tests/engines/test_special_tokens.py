"""Texts that spell special tokens are text, in the vocabularies of BERT, XLM-RoBERTa, Qwen and Gemma."""

import functools
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_core.engines.identity import describe_model
from rag_core.engines.pretrained import load_sentence_transformers
from rag_core.engines.special_tokens import behind, read_literally, spaced, special_tokens
from rag_core.engines.tokenizer import without_special_tokens
from rag_core.release.saving import save_model
from tests.conftest import write_model
from tests.vocabularies import FAMILIES, OWN, encoder

SPELLED = {
    "bert": ("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"),
    "xlm-r": ("<s>", "</s>", "<pad>", "<mask>", "<unk>"),
    "qwen": ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    "gemma": ("<bos>", "<eos>", "<pad>", "<mask>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
}
WIDE = {ord(letter): ord(letter) + 0xFEE0 for letter in "<>/[]|_abcdefghijklmnopqrstuvwxyz"}
FRAMES = ("{}", "a river {} bank", "a{}b", "<{}>", "{0}{0}", "{0} {0}", "▁{}", "{} ", "\n{}\n")


@functools.cache
def usual(family):
    return FAMILIES[family]()


@functools.cache
def literal(family):
    tokens = FAMILIES[family]()
    assert read_literally(tokens).pattern == "(?!)"
    return tokens


def special_ids(tokens):
    """Ids that no text may have; what is unknown in it has the unknown token's."""
    return {tokens.convert_tokens_to_ids(token) for token in special_tokens(tokens)} - {tokens.unk_token_id}


def spelled(family):
    texts = [frame.format(token) for token in SPELLED[family] for frame in FRAMES]
    return [*texts, *(text.translate(WIDE) for text in texts), " ".join(SPELLED[family] * 6)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_that_spells_special_tokens_has_none(family):
    tokens = literal(family)
    texts = spelled(family)
    singles, pairs = tokens(texts)["input_ids"], tokens(texts, texts[::-1])["input_ids"]
    counts = [[sum(id in special_ids(tokens) for id in ids) for ids in rows] for rows in (singles, pairs)]
    assert [set(rows) for rows in counts] == [{OWN[family][0]}, {OWN[family][1]}]


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_nothing_of_it_is_lost(family):
    tokens = literal(family)
    for text in spelled(family):
        kept = tokens.decode(tokens.encode(text, add_special_tokens=False))
        assert kept == (text.replace("▁", " ") if family == "gemma" else text)


def test_a_tokenizer_that_pads_is_not_cut():
    tokens = FAMILIES["qwen"]()
    tokens(["a", "a river"], padding=True)  # which the tokenizer keeps, and a tokenizer.json too
    before = tokens.backend_tokenizer.to_str()
    read_literally(tokens)
    assert tokens.backend_tokenizer.to_str() == before


def test_an_unknown_token_that_is_spelled_is_known():
    assert literal("xlm-r").tokenize("<unk>") == ["▁<", "▁", "u", "n", "k", ">"]


def spells_none(text):
    forms = (text.lower(), unicodedata.normalize("NFKC", text).lower())
    return not any(token.lower() in form for form in forms for row in SPELLED.values() for token in row)


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(["river", " bank ", "<", ">", "</", "/s>", "[", "PAD]", "|", "im_end", "<think>", "▁", "\n\n"]),
    ),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=150)
@given(texts=st.lists(TEXTS.filter(spells_none), min_size=1, max_size=4))
def test_other_texts_have_the_ids_that_they_had(family, texts):
    rows = [(texts, texts[::-1]), (texts,)]
    for columns in rows:
        before, after = (
            tokens(*columns, padding=True, truncation="longest_first", max_length=24, return_token_type_ids=True)
            for tokens in (usual(family), literal(family))
        )
        assert dict(before) == dict(after)


def test_a_vocabulary_of_pieces_in_our_own_prompts():
    """As an LLM reranker's or embedder's prompt reads texts."""
    tokens = FAMILIES["xlm-r"]()
    plain = without_special_tokens(tokens)
    texts = spelled("xlm-r")
    assert not any(special_ids(tokens) & set(row.ids) for row in plain.encode_batch_fast(texts))


def test_a_tokenizer_without_a_fast_version(tmp_path):
    from transformers import BertJapaneseTokenizer

    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"[]ads", "P", "##A", "##D"])
    )
    tokens = BertJapaneseTokenizer(
        str(tmp_path / "vocab.txt"),
        word_tokenizer_type="basic",
        do_lower_case=False,
        subword_tokenizer_type="wordpiece",
    )
    assert tokens("a [PAD]")["input_ids"] == [2, 7, 0, 3]
    text = spaced(read_literally(tokens), "a [PAD]")
    assert tokens(text)["input_ids"] == [2, 7, 5, 10, 11, 12, 6, 3]


@pytest.mark.slow
class TestModels:
    """Models of sentence-transformers, saved and loaded."""

    @pytest.mark.parametrize("family", ["bert", "xlm-r"])
    def test_their_files_are_saved_as_they_were(self, family, tmp_path):
        from sentence_transformers import CrossEncoder

        folder = str(encoder(tmp_path / "model", family, labels=1))
        usual = CrossEncoder(folder, device="cpu")
        usual.predict([("a", "b")])
        save_model(usual, tmp_path / "before")
        model = load_sentence_transformers(describe_model(folder), CrossEncoder, dtype="float32", device="cpu")
        model.predict([("a", "b")])
        save_model(model, tmp_path / "after")
        files = {path.relative_to(tmp_path / "before") for path in (tmp_path / "before").rglob("*") if path.is_file()}
        assert {
            name
            for name in files
            if (tmp_path / "after" / name).read_bytes() != (tmp_path / "before" / name).read_bytes()
        } == set()
        assert ("Split" in repr(model.tokenizer.backend_tokenizer.pre_tokenizer)) == (family == "xlm-r")

    @pytest.mark.parametrize("family", ["bert", "xlm-r"])
    def test_a_static_embedder(self, family, tmp_path):
        import numpy as np
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding

        tokens = FAMILIES[family]()
        module = StaticEmbedding(tokens.backend_tokenizer, embedding_weights=np.eye(len(tokens), dtype=np.float32))
        SentenceTransformer(modules=[module], device="cpu").save(str(tmp_path / "a"), create_model_card=False)
        described = describe_model(str(tmp_path / "a"))
        model = load_sentence_transformers(described, SentenceTransformer, dtype="float32", device="cpu")
        read = model.encode([f"river {' '.join(SPELLED[family])}"])[0].nonzero()[0]
        assert not special_ids(tokens) & set(read.tolist())
        save_model(model, tmp_path / "b")
        assert (tmp_path / "b" / "tokenizer.json").read_bytes() == (tmp_path / "a" / "tokenizer.json").read_bytes()

    @pytest.mark.parametrize("family", ["bert", "xlm-r"])
    def test_a_prompt_keeps_its_own_special_tokens(self, family, tmp_path):
        from sentence_transformers import SentenceTransformer

        mask = SPELLED[family][3]
        folder = encoder(tmp_path / "model", family, prompts={"query": f"{mask} river: ", "document": ""})
        model = load_sentence_transformers(
            describe_model(str(folder)), SentenceTransformer, dtype="float32", device="cpu"
        )
        usual = SentenceTransformer(str(folder), device="cpu")
        for text, same in (("a bank", True), (f"a {mask} bank {SPELLED[family][1]}", False)):
            before, after = (
                it.preprocess([text], prompt=model.prompts["query"])["input_ids"][0].tolist() for it in (usual, model)
            )
            assert (before == after) == same
            own = [id for id in after if id in special_ids(model.tokenizer)]
            assert model.tokenizer.convert_ids_to_tokens(own)[1:-1] == [mask]
            (by_hand,) = model.preprocess([behind(model, model.prompts["query"], text)])["input_ids"].tolist()
            assert by_hand == after

    def test_a_chat_template_keeps_its_own(self, tmp_path):
        """As of an embedder that sentence-transformers gives messages to read; the template decides what it reads."""
        from sentence_transformers import SentenceTransformer

        folder = encoder(tmp_path / "model", "qwen")
        before = describe_model(str(folder)).identity
        forward = {"method": "forward", "method_output_name": "last_hidden_state"}
        settings = {"text": forward, "message": forward | {"format": "flat"}}
        (folder / "sentence_bert_config.json").write_text(
            json.dumps({"modality_config": settings, "module_output_name": "token_embeddings"})
        )
        template = "{% for turn in messages %}<|im_start|>{{ turn.content }}<|im_end|>{% endfor %}"
        identities = [before]
        for text in (template, f"{template}."):
            (folder / "chat_template.jinja").write_text(text)
            identities.append(describe_model(str(folder)).identity)
        assert len({identity.get("chat_template") for identity in identities}) == 3
        model = load_sentence_transformers(
            describe_model(str(folder)), SentenceTransformer, dtype="float32", device="cpu"
        )
        ids = model.preprocess(["a river <|im_end|><|im_start|> <think>"])["input_ids"][0].tolist()
        own = [model.tokenizer.convert_ids_to_tokens(id) for id in ids if id in special_ids(model.tokenizer)]
        assert own == ["<|im_start|>", "<|im_end|>"]
        assert model.tokenizer.decode(ids) == "<|im_start|>a river < |im_end|>< |im_start|> <think><|im_end|>."


def test_a_chat_template_that_is_not_read_decides_nothing(tmp_path):
    write_model(tmp_path / "m", "BertForSequenceClassification")
    write_model(tmp_path / "q")
    for name in ("m", "q"):
        (tmp_path / name / "sentence_bert_config.json").write_text("{}")
        before = describe_model(str(tmp_path / name)).identity
        (tmp_path / name / "chat_template.jinja").write_text("{{ messages[0].content }}")
        assert describe_model(str(tmp_path / name)).identity == before
