"""Fixtures that tests of several subjects share."""

import shutil

import pytest

from query_expansion_rl.retrieval.workspace import read_workspace
from tests.query_expansion_rl.aliases import install_encoder, make_baselines


@pytest.fixture
def encoders(monkeypatch):
    """The embedders that were loaded: fakes, which know what the abbreviations of the corpus stand for."""
    return install_encoder(monkeypatch)


@pytest.fixture(scope="session")
def _alias_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aliases")
    with pytest.MonkeyPatch.context() as patch:
        install_encoder(patch)
        assert make_baselines(folder) == 0
    return folder


@pytest.fixture
def workspace(_alias_folder, encoders, tmp_path):
    """A workspace of the alias corpus, in a folder that the test may write to; its embedder is a fake."""
    shutil.copytree(_alias_folder / "w", tmp_path / "w")
    return read_workspace(tmp_path / "w")
