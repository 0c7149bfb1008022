"""A folder with inputs, where each stage can run."""

import logging

import pytest

from tests.conftest import write_model
from tests.damage import cases


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder of the outputs, beside inputs and models, in a working folder."""
    cases.write_inputs(tmp_path)
    for name in ("t", "s"):
        write_model(tmp_path / name, name=name)
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    cases.fake(monkeypatch)
    return tmp_path / "out"


@pytest.fixture
def case(request, place, tiny_encoder, tiny_cross_encoder):
    """A case by its name."""
    found = cases.commands(tiny_encoder, tiny_cross_encoder)[request.param]
    found.start(place)
    return found


@pytest.fixture(autouse=True)
def same_log_level():
    """The stages that are run in this process log errors alone; what comes after them logs as it did."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)
