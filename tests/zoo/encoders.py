"""Cross-encoders and embedders, whole or odd: each builder fills a folder, and returns what is right for it.

A builder that returns scores wrote a folder that works; one that returns a sentence wrote one that is refused with it.
"""

import json
import shutil

import numpy as np

WORDS = [
    "river",
    "bank",
    "loan",
    "interest",
    "rate",
    "water",
    "flow",
    "model",
    "index",
    "vector",
    "engine",
    "protein",
    "growth",
    "a",
    "the",
    "of",
    "?",
]
PAIRS = [
    ("river bank", "the water flow of a river"),
    ("interest rate", "a bank loan"),
    ("vector index ?", "index of the vector engine"),
    ("protein", "growth of a model"),
]
SIZE = 32

Right = np.ndarray | str


def _torch():
    import torch

    torch.manual_seed(0)
    return torch


def tokenizer():
    from transformers import BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)})


def bert_config(**settings):
    from transformers import BertConfig

    return BertConfig(
        **{
            "vocab_size": len(WORDS) + 5,
            "hidden_size": SIZE,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
        | settings
    )


def _sharp(model):
    """Make the weights larger, so that scores tell pairs apart by more than rounding."""
    torch = _torch()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "norm" not in name.lower() and "bias" not in name:
                values.mul_(8)
            elif "classifier" in name or "score" in name:
                values.fill_(0.3)
    return model.eval()


def _logits(model, tokens):
    torch = _torch()
    inputs = tokens(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits[:, 0].float().numpy()


def _cosines(encode):
    left, right = (encode(list(texts)) for texts in zip(*PAIRS, strict=True))
    left, right = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right))
    return (left * right).sum(axis=1)


def _cross_encoder(folder, labels=1, **saving):
    """Write a BERT with a scoring head; return its scores."""
    from transformers import BertForSequenceClassification

    _torch()
    model = _sharp(BertForSequenceClassification(bert_config(num_labels=labels)))
    tokens = tokenizer()
    model.save_pretrained(folder, **saving)
    tokens.save_pretrained(folder)
    return _logits(model, tokens)


def scores_in(path):
    """Return the scores of PAIRS in a file."""
    from rag_core.base.records import ScoredPair
    from rag_core.files.jsonl import read_records

    scored = {(row.query, row.passage): row.score for row in read_records(path, ScoredPair)}
    return np.array([scored[pair] for pair in PAIRS])


def _change_weights(folder, change):
    change_weights(folder / "model.safetensors", change)


def change_weights(path, change):
    from safetensors.torch import load_file, save_file

    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def _change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


def _lacks(folder, number, first):
    return f"the weights of '{folder}' lack {number} tensors ({first}, ...), which would be random"


def plain(folder):
    return _cross_encoder(folder)


def no_head(folder):
    _cross_encoder(folder)
    _change_weights(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("classifier")})
    return _lacks(folder, 2, "classifier.bias")


def prefixed_keys(folder):
    _cross_encoder(folder)
    _change_weights(folder, lambda tensors: {f"module.{name}": values for name, values in tensors.items()})
    return _lacks(folder, 41, "bert.embeddings.LayerNorm.bias") + "\nIts tensors are named module.*"


def lost_layer(folder):
    _cross_encoder(folder)
    _change_weights(folder, lambda tensors: {k: v for k, v in tensors.items() if "layer.1." not in k})
    return _lacks(folder, 16, "bert.encoder.layer.1.attention.output.LayerNorm.bias")


def extra_tensors(folder):
    scores = _cross_encoder(folder)
    _change_weights(folder, lambda tensors: tensors | {"lm_head.bias": tensors["classifier.bias"].clone()})
    return scores


def no_tokenizer(folder):
    _cross_encoder(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    return f"{folder} has no tokenizer"


def in_bfloat16(folder):
    return _in_half_precision(folder, "bfloat16")


def in_float16(folder):
    return _in_half_precision(folder, "float16")


def _in_half_precision(folder, dtype):
    from transformers import BertForSequenceClassification

    torch = _torch()
    _cross_encoder(folder)
    model = BertForSequenceClassification.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    return _logits(model.float(), tokenizer())


def sharded(folder):
    return _cross_encoder(folder, max_shard_size="20KB")


def bin_file(folder):
    from safetensors.torch import load_file

    scores = _cross_encoder(folder)
    _torch().save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return scores


def truncated_file(folder):
    _cross_encoder(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    return f"cannot load the model '{folder}' ("


def truncated_bin_file(folder):
    bin_file(folder)
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:5000])
    return f"cannot load the model '{folder}' ("


def sigmoid_in_config(folder):
    return _activated(folder, "Sigmoid")


def softmax_in_config(folder):
    return _activated(folder, "Softmax")


def _activated(folder, name):
    scores = _cross_encoder(folder)
    settings = {"activation_fn": f"torch.nn.modules.activation.{name}", "version": "5.0.0"}
    _change_json(folder / "config.json", sentence_transformers=settings)
    return scores


def two_labels(folder):
    _cross_encoder(folder, labels=2)
    return f"{folder} has 2 outputs, a reranker has 1"


def three_labels(folder):
    _cross_encoder(folder, labels=3)
    return f"{folder} has 3 outputs, a reranker has 1"


def own_code(folder):
    """A model that only code of its own folder can read; loaded, that code would leave a file behind."""
    _cross_encoder(folder)
    code = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nraise ImportError\n"
    (folder / "modeling.py").write_text(code)
    auto_map = {"AutoConfig": "modeling.Config", "AutoModelForSequenceClassification": "modeling.Model"}
    _change_json(folder / "config.json", auto_map=auto_map, model_type="of_its_own")
    return f"{folder} needs Python code of its own folder, which is never run here"


def code_not_needed(folder):
    """A model of a known type that brings code of its own, too; transformers' own class reads it."""
    scores = _cross_encoder(folder)
    (folder / "modeling.py").write_text("raise ImportError\n")
    _change_json(folder / "config.json", auto_map={"AutoModelForSequenceClassification": "modeling.Model"})
    return scores


def positions_514(folder):
    """As XLM-RoBERTa: position 0 and 1 belong to the padding, and the tokenizer knows no limit."""
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    _torch()
    tokens = _bare_tokenizer(pad="[PAD]")
    settings = bert_config(num_labels=1, max_position_embeddings=34).to_dict()
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = XLMRobertaConfig(
        **{name: settings[name] for name in kept}, num_labels=1, max_position_embeddings=34, pad_token_id=1
    )
    model = _sharp(XLMRobertaForSequenceClassification(config))
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return _logits(model, tokens)


def _bare_tokenizer(padding_side="right", **special):
    """A tokenizer without limits: words by their numbers, `[PAD]` as 1."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = ["[EOS]", "[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="$A [EOS]", pair="$A [EOS] $B [EOS]", special_tokens=[("[EOS]", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="[EOS]",
        unk_token="[UNK]",
        padding_side=padding_side,
        **{f"{name}_token": token for name, token in special.items()},
    )


def no_pad_token(folder):
    """A decoder with a scoring head, and no token to pad with."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch = _torch()
    config = GPT2Config(
        vocab_size=len(WORDS) + 5, n_embd=SIZE, n_layer=2, n_head=2, n_positions=64, num_labels=1, pad_token_id=None
    )
    model = _sharp(GPT2ForSequenceClassification(config))
    tokens = _bare_tokenizer()
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    with torch.no_grad():
        return np.array([model(**tokens(*pair, return_tensors="pt")).logits.item() for pair in PAIRS], dtype=np.float32)


def no_position_limit(folder):
    """As XLNet, whose config says -1 positions."""
    from transformers import XLNetConfig, XLNetForSequenceClassification

    _torch()
    config = XLNetConfig(
        vocab_size=len(WORDS) + 5, d_model=SIZE, n_layer=2, n_head=2, d_inner=64, num_labels=1, dropout=0.0
    )
    model = _sharp(XLNetForSequenceClassification(config))
    tokens = _bare_tokenizer(padding_side="left", pad="[PAD]")
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return _logits(model, tokens)


def reranker_adapter(folder):
    """A LoRA adapter with a scoring head, beside the model that it was trained on."""
    from peft import LoraConfig, get_peft_model
    from transformers import BertForSequenceClassification

    base = folder.with_name(f"{folder.name}-base")
    _cross_encoder(base)
    model = BertForSequenceClassification.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))
    _fill_adapters(adapted)
    adapted.save_pretrained(folder)
    tokens = tokenizer()
    tokens.save_pretrained(folder)
    return _logits(adapted.merge_and_unload().eval(), tokens)


def _fill_adapters(model):
    """Give the adapters weights that count: one half of them starts as zeros."""
    torch = _torch()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "lora_" in name:
                values.copy_(torch.randn(values.shape) / 2)


CROSS_ENCODERS = [
    plain,
    no_head,
    prefixed_keys,
    lost_layer,
    extra_tensors,
    no_tokenizer,
    in_bfloat16,
    in_float16,
    sharded,
    bin_file,
    truncated_file,
    truncated_bin_file,
    sigmoid_in_config,
    softmax_in_config,
    two_labels,
    three_labels,
    own_code,
    code_not_needed,
    positions_514,
    no_pad_token,
    no_position_limit,
    reranker_adapter,
]


def _backbone(folder, **settings):
    """Write a BERT without a head."""
    from transformers import BertModel

    _torch()
    _sharp(BertModel(bert_config(**settings))).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def _embedder(folder, *further, prompts=None, **settings):
    """Write an embedder of a BERT, mean pooling and further modules; return its cosines."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    raw = folder.with_name(f"{folder.name}-raw")
    _backbone(raw)
    modules = [Transformer(str(raw)), *(further or [Pooling(SIZE)])]
    model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu", **settings).eval()
    model.save(str(folder), create_model_card=False)
    shutil.rmtree(raw)
    return _cosines(model.encode)


def plain_embedder(folder):
    return _embedder(folder)


def embedder_in_bfloat16(folder):
    return _embedder_in_half_precision(folder, "bfloat16")


def embedder_in_float16(folder):
    return _embedder_in_half_precision(folder, "float16")


def _embedder_in_half_precision(folder, dtype):
    from sentence_transformers import SentenceTransformer

    _embedder(folder)
    model = SentenceTransformer(str(folder), model_kwargs={"dtype": dtype}, device="cpu")
    model.save(str(folder), create_model_card=False)
    return _cosines(model.float().encode)


def embedder_of_lost_layer(folder):
    _embedder(folder)
    _change_weights(folder, lambda tensors: {k: v for k, v in tensors.items() if "layer.1." not in k})
    return _lacks(folder, 16, "encoder.layer.1.attention.output.LayerNorm.bias")


def embedder_without_tokenizer(folder):
    _embedder(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    return f"{folder} has no tokenizer"


def embedder_without_pooler(folder):
    """Without the layer over the first token, which mean pooling does not read."""
    cosines = _embedder(folder)
    _change_weights(folder, lambda tensors: {k: v for k, v in tensors.items() if not k.startswith("pooler")})
    return cosines


def old_layout(folder):
    """As before sentence-transformers 2.0: the transformer in a folder of its own."""
    cosines = _embedder(folder)
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(inner / path.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = inner.name
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").unlink()
    return cosines


def static(folder):
    """One vector a token, and no transformer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch = _torch()
    weights = torch.randn(len(WORDS) + 5, SIZE)
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer(), embedding_weights=weights)], device="cpu")
    model.save(str(folder), create_model_card=False)
    return _cosines(model.encode)


def dense(folder):
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    _torch()
    return _embedder(folder, Pooling(SIZE), Dense(SIZE, 24))


def two_dense(folder):
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    _torch()
    return _embedder(folder, Pooling(SIZE), Dense(SIZE, 48), LayerNorm(48), Dense(48, 24))


def dense_without_weights(folder):
    dense(folder)
    (folder / "2_Dense" / "model.safetensors").unlink()
    return f"cannot load the model '{folder}' ("


def weighted_layers(folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer, WeightedLayerPooling

    torch = _torch()
    raw = folder.with_name(f"{folder.name}-raw")
    _backbone(raw)
    layers = WeightedLayerPooling(SIZE, num_hidden_layers=2, layer_start=1)
    with torch.no_grad():
        layers.layer_weights.copy_(torch.tensor([0.2, 1.8]))
    transformer = Transformer(str(raw), config_kwargs={"output_hidden_states": True})
    model = SentenceTransformer(modules=[transformer, layers, Pooling(SIZE)], device="cpu").eval()
    model.save(str(folder), create_model_card=False)
    return _cosines(model.encode)


def prompts_by_other_names(folder):
    """Scores without a prompt; `--query_prompt_name s2p_query` puts one before the queries."""
    return _embedder(folder, prompts={"s2p_query": "a bank of ", "s2s_query": "the growth of "})


def default_prompt(folder):
    """A prompt that stands before every text unless another is asked for."""
    _embedder(folder, prompts={"retrieval": "a bank of "}, default_prompt_name="retrieval")
    return plain_embedder(folder.with_name("without"))


def embedder_adapter(folder):
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    base = folder.with_name(f"{folder.name}-base")
    _embedder(base)
    model = SentenceTransformer(str(base), device="cpu")
    model.add_adapter(LoraConfig(task_type="FEATURE_EXTRACTION", r=2, target_modules=["query", "value"]))
    _fill_adapters(model)
    model.save(str(folder), create_model_card=False)
    return _cosines(model.eval().encode)


def splade(folder):
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SpladePooling, Transformer
    from transformers import BertForMaskedLM

    _torch()
    raw = folder.with_name(f"{folder.name}-raw")
    BertForMaskedLM(bert_config()).save_pretrained(raw)
    tokenizer().save_pretrained(raw)
    transformer = Transformer(str(raw), transformer_task="fill-mask")
    SparseEncoder(modules=[transformer, SpladePooling()], device="cpu").save(str(folder))
    return f"{folder} is a sparse encoder"


def late_interaction(folder):
    """As ColBERT: one vector a token."""
    _embedder(folder)
    _change_json(folder / "config_sentence_transformers.json", model_type="MultiVectorEncoder")
    return f"{folder} is a late-interaction model"


def module_of_its_own(folder):
    """A module whose code stands in the folder."""
    _embedder(folder)
    (folder / "pooling.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "pooling.Pooling"
    (folder / "modules.json").write_text(json.dumps(modules))
    return f"{folder} needs Python code of its own folder, which is never run here"


EMBEDDERS = [
    plain_embedder,
    embedder_in_bfloat16,
    embedder_in_float16,
    embedder_of_lost_layer,
    embedder_without_tokenizer,
    embedder_without_pooler,
    old_layout,
    static,
    dense,
    two_dense,
    dense_without_weights,
    weighted_layers,
    prompts_by_other_names,
    default_prompt,
    embedder_adapter,
    splade,
    late_interaction,
    module_of_its_own,
]
