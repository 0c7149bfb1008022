"""Model folders with a damaged file: each is refused in one sentence, or works; and every stage says it alike."""

import json
import shutil
import struct

import pytest

from rag_core import rank
from tests.zoo import encoders as zoo_of
from tests.zoo.encoders import PAIRS, change_weights
from tests.zoo.stages import STAGES, run, run_stage, said_once

pytestmark = pytest.mark.slow

WORKS = "works"  # as if the file were not there, or since nobody reads what is wrong in it


def _bytes(content):
    def put(path):
        path.write_bytes(content)

    return put


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _folder(path):
    path.unlink()
    path.mkdir()


def _byte(path):
    """Change the first quotation mark into what is no UTF-8."""
    path.write_bytes(path.read_bytes().replace(b'"', b"\xff", 1))


# What may become of any text file.
ANY = {
    "empty": _bytes(b""),
    "cut": _cut,
    "zeros": _bytes(b"\0" * 200),
    "no_utf8": _byte,
    "utf16": _bytes('{"a": 1}'.encode("utf-16")),
    "deep": _bytes(b"[" * 100_000),
    "a_number": _bytes(b"7"),
    "a_list_of_numbers": _bytes(b"[1, 2]"),
    "a_folder": _folder,
}

NAMED = {name: (put, None) for name, put in ANY.items()}


def _set(*keys, **values):
    """Change values of a JSON file, at the place where the keys lead."""

    def put(path):
        content = json.loads(path.read_text())
        place = content
        for key in keys:
            place = place[key]
        for name, value in values.items():
            if value is ...:
                del place[name]
            else:
                place[name] = value
        path.write_text(json.dumps(content))

    return put


def _json(content):
    return _bytes(json.dumps(content).encode())


def _tensors(change):
    def put(path):
        change_weights(path, change)

    return put


def _header(length, rest=b""):
    return _bytes(struct.pack("<Q", length) + rest)


def _half(tensors):
    return {name: values[: len(values) // 2].clone() for name, values in tensors.items()}


def _whole_numbers(tensors):
    return {name: values.long() for name, values in tensors.items()}


def _text(tensors):
    return {f"x.{name}.y": values for name, values in tensors.items()}


def _byte_in_the_middle(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def export(folder):
    """An export but for its graph, of which the first bytes are there."""
    folder.mkdir()
    zoo_of.tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "kind": "cross-encoder",
        "format": "onnx",
        "precision": "fp32",
        "inputs": ["input_ids", "attention_mask", "token_type_ids"],
        "max_length": 64,
        "prompts": {},
    }
    (folder / "export.json").write_text(json.dumps(about))
    (folder / "model.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")


def export_to_openvino(folder):
    export(folder)
    _set(format="openvino")(folder / "export.json")
    (folder / "model.xml").write_text("<net><layers>")


MODULE = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
# builder -> file -> damage -> what it does, and what is said of it (None: the name of the file).
DAMAGES = {
    zoo_of.plain_embedder: {
        "modules.json": {
            **NAMED,
            "a_dict": (_json({}), None),
            "null": (_json(None), None),
            "none": (_json([]), "neither a causal language model"),
            "no_type": (_set(0, type=...), None),
            "no_path": (_set(1, path=...), None),
            "no_name": (_set(1, name=...), "cannot load the model"),
            "type_number": (_set(1, type=7), None),
            "path_number": (_set(1, path=7), None),
            "path_up": (_set(1, path="../1_Pooling"), "leads out of the folder"),
            "path_up_and_down": (_set(1, path="1_Pooling/../../x"), "leads out of the folder"),
            "path_absolute": (_set(1, path="/"), "leads out of the folder"),
            "path_of_windows": (_set(1, path="..\\x"), "leads out of the folder"),
            "path_nowhere": (_set(1, path="9_Pooling"), "cannot load the model"),
            "unknown_class": (_set(1, type=f"{MODULE}X"), "cannot load the model"),
            "unknown_module": (_set(1, type="sentence_transformers.models.nothing.Pooling"), "cannot load the model"),
            "no_transformer": (_json([{"name": "1", "path": "1_Pooling", "type": MODULE}]), "cannot load the model"),
        },
        "config.json": {
            **NAMED,
            "a_folder": (_folder, "cannot load the model"),
            "hidden_size_text": (_set(hidden_size="32"), "hidden_size"),
            "hidden_size_other": (_set(hidden_size=34), "other shapes than config.json says"),
            "hidden_size_huge": (_set(hidden_size=10**9), "other shapes than config.json says"),
            "hidden_size_zero": (_set(hidden_size=0), "cannot load the model"),
            "layers_huge": (_set(num_hidden_layers=10**9), "num_hidden_layers"),
            "layers_negative": (_set(num_hidden_layers=-1), WORKS),
            "layers_more": (_set(num_hidden_layers=3), "which would be random"),
            "vocabulary_small": (_set(vocab_size=7), "other shapes than config.json says"),
            "heads_zero": (_set(num_attention_heads=0), "cannot load the model"),
            "type_unknown": (_set(model_type="nothing"), "cannot load the model"),
            "type_number": (_set(model_type=7), "cannot load the model"),
            "type_missing": (_set(model_type=...), "cannot load the model"),
            "architectures_text": (_set(architectures="BertModel"), "architectures"),
            "architectures_numbers": (_set(architectures=[7]), "architectures"),
            "quantization_text": (_set(quantization_config="awq"), "cannot load the model"),
            "activation_unknown": (_set(hidden_act="nothing"), "cannot load the model"),
        },
        "1_Pooling/config.json": {
            **NAMED,
            "mode_unknown": (_set(pooling_mode="nothing"), "cannot load the model"),
            "mode_number": (_set(pooling_mode=7), "cannot load the model"),
            "key_missing": (_json({}), "cannot load the model"),
        },
        "config_sentence_transformers.json": {
            **NAMED,
            "prompts_list": (_set(prompts=["query"]), "prompts"),
            "prompt_number": (_set(prompts={"query": 7}), "prompts.query"),
            "default_number": (_set(default_prompt_name=7), "default_prompt_name"),
            "default_unknown": (_set(default_prompt_name="nothing"), "cannot load the model"),
            "kind_number": (_set(model_type=7), "model_type"),
        },
        "sentence_bert_config.json": {
            **NAMED,
            "length_text": (_set(max_seq_length="64"), "max_seq_length"),
            "modality_list": (_set(modality_config=[1]), "modality_config"),
            "modality_empty": (_set(modality_config={}), "cannot load the model"),
            "task_unknown": (_set(transformer_task="nothing"), "cannot load the model"),
            "unknown_keyword": (_set(nothing=7), "cannot load the model"),
        },
        "tokenizer_config.json": {
            **NAMED,
            "a_folder": (_folder, WORKS),
            "class_unknown": (_set(tokenizer_class="Nothing"), WORKS),
            "class_number": (_set(tokenizer_class=7), "cannot load the model"),
            "length_text": (_set(model_max_length="x"), "cannot load the model"),
            "length_negative": (_set(model_max_length=-1), "cannot load the model"),
            "padding_unknown": (_set(pad_token="[NEW]"), "has a token"),
            "side_unknown": (_set(padding_side="up"), "cannot load the model"),
        },
        "tokenizer.json": {
            **NAMED,
            "a_folder": (_folder, "has no tokenizer"),
            "no_model": (_set(model=...), "cannot load the model"),
            "unknown_model": (_set("model", type="Nothing"), "cannot load the model"),
            "huge_number": (_set("model", "vocab", river=100_000), "has a token 100000, and the weights end at 21"),
            "vocabulary_list": (_set("model", vocab=["river"]), "has no tokenizer"),
        },
        "model.safetensors": {
            "empty": (_bytes(b""), None),
            "cut": (_cut, None),
            "zeros": (_bytes(b"\0" * 5000), None),
            "header_huge": (_header(2**60), None),
            "header_beyond": (_header(10**6, b"{}"), None),
            "header_no_json": (_header(8, b"not json"), None),
            "header_of_another": (_header(2, b"{}"), "which would be random"),
            "no_tensors": (_tensors(lambda tensors: {}), "which would be random"),
            "other_shapes": (_tensors(_half), "other shapes than config.json says"),
            "other_names": (_tensors(_text), "which would be random"),
            "whole_numbers": (_tensors(_whole_numbers), "are not finite"),
            "a_folder": (_folder, "cannot load the model"),
        },
    },
    zoo_of.dense: {
        "2_Dense/config.json": {
            "cut": (_cut, None),
            "features_text": (_set(out_features="24"), "cannot load the model"),
            "features_other": (_set(out_features=23), "cannot load the model"),
            "features_missing": (_set(in_features=...), "cannot load the model"),
            "activation_number": (_set(activation_function=7), "activation_function"),
            "activation_unknown": (_set(activation_function="torch.nn.Nothing"), "cannot load the model"),
        },
        "2_Dense/model.safetensors": {
            "cut": (_cut, None),
            "other_shapes": (_tensors(_half), "cannot load the model"),
            "other_names": (_tensors(_text), "cannot load the model"),
        },
    },
    zoo_of.bin_file: {
        "pytorch_model.bin": {
            "empty": (_bytes(b""), None),
            "cut": (_cut, None),
            "zeros": (_bytes(b"\0" * 5000), None),
            "text": (_bytes(b"version https://git-lfs.github.com/spec/v1\n"), None),
            "byte": (_byte_in_the_middle, WORKS),
        },
    },
    zoo_of.sharded: {
        "model.safetensors.index.json": {
            "cut": (_cut, None),
            "a_number": (_bytes(b"7"), None),
            "no_map": (_set(weight_map=...), "weight_map"),
            "shard_nowhere": (
                _set("weight_map", **{"classifier.bias": "nothing.safetensors"}),
                "cannot load the model",
            ),
            "shard_outside": (_set("weight_map", **{"classifier.bias": "../x.safetensors"}), "leads out of the folder"),
            "shard_of_the_system": (_set("weight_map", **{"classifier.bias": "/dev/stdin"}), "leads out of the folder"),
        },
    },
    zoo_of.reranker_adapter: {
        "adapter_config.json": {
            **NAMED,
            "no_base": (_set(base_model_name_or_path=...), "base_model_name_or_path"),
            "base_number": (_set(base_model_name_or_path=7), "base_model_name_or_path"),
            "base_nowhere": (_set(base_model_name_or_path="/no/such/model"), "cannot load the model '/no/such/model'"),
            "rank_text": (_set(r="2"), "cannot load the model"),
            "rank_zero": (_set(r=0), "cannot load the model"),
            "rank_other": (_set(r=4), "cannot load the model"),
            "targets_unknown": (_set(target_modules=["nothing"]), "cannot load the model"),
            "kind_unknown": (_set(peft_type="NOTHING"), "cannot load the model"),
        },
        "adapter_model.safetensors": {
            "cut": (_cut, None),
            "other_shapes": (_tensors(_half), "cannot load the model"),
        },
    },
    export: {
        "export.json": {
            **NAMED,
            "no_kind": (_set(kind=...), "kind"),
            "kind_unknown": (_set(kind="llm-reranker"), "kind"),
            "format_unknown": (_set(format="gguf"), "format"),
            "precision_unknown": (_set(precision="int2"), "precision"),
            "input_unknown": (_set(inputs=["pixels"]), "inputs.0"),
            "length_text": (_set(max_length="64"), "max_length"),
            "prompts_list": (_set(prompts=["a"]), "prompts"),
        },
        "model.onnx": {
            "cut": (_cut, "cannot load the model"),
            "empty": (_bytes(b""), "cannot load the model"),
            "text": (_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "cannot load the model"),
            "a_folder": (_folder, "cannot load the model"),
        },
        "tokenizer.json": {"cut": (_cut, None), "empty": (_bytes(b""), None)},
    },
    export_to_openvino: {
        "model.xml": {"cut": (_cut, "cannot load the model"), "empty": (_bytes(b""), "cannot load the model")}
    },
}
CASES = [
    pytest.param(builder, name, *damage, id=f"{builder.__name__}-{name}-{kind}")
    for builder, files in DAMAGES.items()
    for name, damages in files.items()
    for kind, damage in damages.items()
]


@pytest.fixture
def passages(tmp_path):
    path = tmp_path / "passages.txt"
    path.write_text("".join(f"{passage}\n" for _, passage in PAIRS))
    return path


@pytest.mark.parametrize(("builder", "file_name", "put", "said"), CASES)
def test_a_damaged_file_is_named(builder, file_name, put, said, zoo, tmp_path, passages, capsys):
    folder = shutil.copytree(zoo(builder)[0], tmp_path / "model")
    put(folder / file_name)
    flags = ("--query", PAIRS[0][0], "--passages", passages, "--dtype", "float32")
    code = run(rank.main, "--model", folder, *flags)
    if said == WORKS:
        assert code == 0, capsys.readouterr().err
    else:
        said_once(code, capsys, said or file_name)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "passages.txt"}


CUT = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("file_name", CUT)
def test_every_stage_names_it(file_name, stage, zoo, files, tmp_path, capsys):
    """A file that is read first, one that is read with the weights, and the weights."""
    builder = writer if stage == "write_queries" else zoo_of.plain_embedder
    folder, (whole, _) = shutil.copytree(zoo(builder)[0], tmp_path / "model"), zoo(zoo_of.plain_embedder)
    (folder / "README.md").write_text("# model\n")
    _cut(folder / file_name)
    said_once(run_stage(stage, folder, files, tmp_path / "out", whole), capsys, file_name)
    written = {path.name for path in tmp_path.glob("out/*.json*")}
    assert not written - {"sample.jsonl", "sample.jsonl.manifest.json", "student.jsonl", "student.jsonl.manifest.json"}
    assert not (tmp_path / "out").is_file()


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("push", "write_queries")])
def test_every_stage_says_that_the_tokenizer_is_of_another_model(stage, zoo, files, tmp_path, capsys):
    folder, (whole, _) = shutil.copytree(zoo(zoo_of.plain)[0], tmp_path / "model"), zoo(zoo_of.plain)
    _set("model", "vocab", river=100_000)(folder / "tokenizer.json")
    if stage == "embedding_train":
        folder = shutil.copytree(zoo(zoo_of.plain_embedder)[0], tmp_path / "embedder")
        _set("model", "vocab", river=100_000)(folder / "tokenizer.json")
    said_once(run_stage(stage, folder, files, tmp_path / "out", whole), capsys, "has a token 100000")


def writer(folder):
    """A language model that follows instructions, as far as its files go."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(zoo_of.WORDS) + 5, **sizes)).save_pretrained(folder)
    tokens = zoo_of.tokenizer()
    tokens.chat_template = "{{ messages[0].content }}"
    tokens.save_pretrained(folder)
