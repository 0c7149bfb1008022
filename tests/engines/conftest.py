"""A model that writes, and one of which nothing but its kind is asked, for the tests of this folder."""

import json
import shutil

import pytest

LAST = {"pooling_mode": "lasttoken"}
OLD_LAST = {"pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True, "include_prompt": True}
ASKS = {"query": "Instruct: Find it\nQuery:", "document": ""}
QWEN = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
BERT = {"model_type": "bert", "architectures": ["BertModel"]}
TEMPLATE = "{% for turn in messages %}[{{ turn.content }}]{% endfor %}{% if add_generation_prompt %} answer:{% endif %}"


@pytest.fixture(scope="session")
def qwen_chat(tiny_qwen, tmp_path_factory):
    """Folder of the tiny Qwen3 with a chat template."""
    folder = shutil.copytree(tiny_qwen, tmp_path_factory.mktemp("chat") / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return str(folder)


@pytest.fixture
def embedder(tmp_path):
    """Write the files that say what an embedder is; return its folder."""

    def write(config=QWEN, layers=("Transformer", "Pooling", "Normalize"), pooling=LAST, prompts=ASKS):
        modules = [
            {"type": f"sentence_transformers.models.{layer}", "path": f"{i}_{layer}" if i else ""}
            for i, layer in enumerate(layers)
        ]
        files = {
            "config.json": config,
            "modules.json": modules,
            "config_sentence_transformers.json": {"prompts": prompts},
            "1_Pooling/config.json": pooling,
        }
        (tmp_path / "1_Pooling").mkdir()
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content))
        return str(tmp_path)

    return write
