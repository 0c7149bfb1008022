"""A student on disk, in the layout that most of what serves such models reads.

Since 5.4 sentence-transformers writes other names into its small JSON files. Its own older releases, and servers such
as text-embeddings-inference, know the former names only: they refuse the folder, or pool it in a way that it was not
trained for. All releases read the former ones, so those are written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_core.engines.special_tokens import as_saved

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

_POOLING = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_LONG_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")
_TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_SENTENCE_EMBEDDING = "sentence_embedding"


def save_model(model: CrossEncoder | SentenceTransformer, folder: Path) -> None:
    """Write a model into a folder; its card is the pipeline's own."""
    model.preprocess(["a text"])  # the tokenizer's file says how it pads and cuts, which its first use settles
    with as_saved(model):
        model.save_pretrained(str(folder), create_model_card=False)
    modules = _read(folder / "modules.json")
    for module in modules:
        kind, path = module["type"].rpartition(".")[2], folder / module["path"]
        if kind in _LONG_KNOWN and module["type"].startswith("sentence_transformers."):
            module["type"] = f"sentence_transformers.models.{kind}"
        if kind == "Transformer":
            _rewrite(path / "sentence_bert_config.json", lambda config: _transformer(config, model.max_seq_length))
        elif kind == "Pooling":
            _rewrite(path / "config.json", _pooling)
        elif kind == "Dense":
            _rewrite(path / "config.json", _dense)
    _write(folder / "modules.json", modules)


def _transformer(config: dict[str, Any], max_seq_length: int | None) -> dict[str, Any]:
    length = {"max_seq_length": max_seq_length} if max_seq_length else {}
    is_plain = (
        config.get("transformer_task") == "feature-extraction"
        and config.get("modality_config") == _TEXT_ONLY
        and not config.keys() - {"transformer_task", "modality_config", "module_output_name", *length}
    )
    return length | ({"do_lower_case": False} if is_plain else config)


def _pooling(config: dict[str, Any]) -> dict[str, Any]:
    chosen = config.get("pooling_mode")
    if not isinstance(chosen, str):
        return config  # several, whose order the former names do not tell
    return {
        "word_embedding_dimension": config["embedding_dimension"],
        **{key: mode == chosen for mode, key in _POOLING.items()},
        "include_prompt": config["include_prompt"],
    }


def _dense(config: dict[str, Any]) -> dict[str, Any]:
    if {config.get("module_input_name"), config.get("module_output_name")} != {_SENTENCE_EMBEDDING}:
        return config  # a head that gives scores; the older releases have no such thing
    return {key: value for key, value in config.items() if key not in ("module_input_name", "module_output_name")}


def _rewrite(path: Path, change: Any) -> None:
    _write(path, change(_read(path)))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
