"""Tiny tokenizers of four families, each with what makes a text's special tokens hard to tell from its own."""

from tests.zoo.encoders import WORDS

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKS = "<>/[]|_?."
OWN = {  # ids of special tokens around one text, and around a pair
    "bert": (2, 3),
    "xlm-r": (2, 4),
    "qwen": (1, 2),
    "gemma": (1, 2),
}


def _fast(backend, **named):
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in named.values()])
    names = {f"{name}_token": token for name, token in named.items() if not name.startswith("extra")}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        extra_special_tokens=[token for name, token in named.items() if name.startswith("extra")],
        model_max_length=512,
        **names,
    )


def bert():
    """WordPiece, which cuts at punctuation."""
    from transformers import BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *WORDS, *MARKS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(dict.fromkeys(vocabulary))}, model_max_length=512)


def xlm_r():
    """Unigram, whose special tokens are pieces like any other, of a text in its compatibility form."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [(f"▁{word}", -4.0) for word in WORDS]
    letters = [(letter, -9.0 - place / 100) for place, letter in enumerate(f"▁{LETTERS}{MARKS}")]
    pieces = dict([*((token, 0.0) for token in special), *words, ("▁<", -6.0), *letters, ("<mask>", 0.0)])
    backend = Tokenizer(models.Unigram([*pieces.items()], unk_id=3))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return _fast(backend, bos="<s>", pad="<pad>", eos="</s>", unk="<unk>", mask="<mask>")


def qwen():
    """BPE of bytes, whose special tokens stand beside the vocabulary; `<think>` is a word of it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    merges = [("<", "|"), ("|", ">"), ("i", "m"), ("Ġ", "a"), ("e", "n"), ("en", "d")]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokens = _fast(backend, pad="<|endoftext|>", extra_start="<|im_start|>", eos="<|im_end|>")
    end = tokens.backend_tokenizer.token_to_id("<|endoftext|>")
    tokens.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A <|endoftext|> $B <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    tokens.add_tokens([AddedToken("<think>", normalized=False)])
    return tokens


def gemma():
    """BPE of characters and bytes; its special tokens stand in the vocabulary, and one of them can be merged."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    merges = [("▁", "a"), ("o", "s"), ("e", "os"), ("<", "eos"), ("<eos", ">")]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *f"▁{LETTERS}{MARKS}"]
    pieces += ["".join(pair) for pair in merges]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    named = dict(zip(("pad", "eos", "bos", "unk", "mask", "extra_start", "extra_end"), special, strict=True))
    return _fast(backend, **named)


FAMILIES = {"bert": bert, "xlm-r": xlm_r, "qwen": qwen, "gemma": gemma}


def encoder(folder, family, *, labels=None, prompts=None):
    """Write a one-layer BERT with a family's tokenizer: an embedder, or with `labels` a cross-encoder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertForSequenceClassification, BertModel

    from rag_core.release.saving import save_model
    from tests.zoo.encoders import bert_config

    tokens = FAMILIES[family]()
    config = bert_config(
        vocab_size=len(tokens), num_hidden_layers=1, max_position_embeddings=512, pad_token_id=tokens.pad_token_id
    )
    torch.manual_seed(0)
    raw = folder if labels else folder.with_name(f"{folder.name}-raw")
    if labels:
        config.num_labels = labels
    model = (BertForSequenceClassification if labels else BertModel)(config)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "LayerNorm" not in name and "bias" not in name:
                values.mul_(8)  # so that scores differ by more than rounding
    model.save_pretrained(raw)
    tokens.save_pretrained(raw)
    if not labels:
        modules = [Transformer(str(raw)), Pooling(config.hidden_size)]
        save_model(SentenceTransformer(modules=modules, prompts=prompts, device="cpu"), folder)
    return folder
