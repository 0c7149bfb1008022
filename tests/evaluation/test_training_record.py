"""What training left beside a model: read where it is there, refused by name where it is damaged."""

import json
from pathlib import Path

import pytest

from rag_core.base.errors import DataError
from rag_core.evaluation.training_record import read_training

ALPHAS = [0.0, 0.5, 1.0]
CURVE = {"name": "dev", "domain": "in-domain", "measure": "MAP", "queries": 5, "values": [0.1, 0.2, 0.3]}
MERGE = {"alpha": 0.5, "reason": "as asked", "alphas": ALPHAS, "files": [CURVE]}
LOG = [
    {"step": 1, "loss": 2.0, "grad_norm": float("nan")},
    {"step": 2, "eval_loss": 1.0},
    {"step": 3, "eval_loss": float("nan")},
    {"step": 3, "epoch": 1.0},
]


@pytest.fixture
def make_model(tmp_path):
    def make(name, **files):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for stem, content in files.items():
            (folder / f"{stem}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return folder

    return make


def test_a_model_from_elsewhere_has_left_nothing(make_model, tmp_path):
    nothing = {"training": None, "training_log": None, "merges": []}
    assert read_training(make_model("bare"), []).as_json() == nothing
    assert read_training(tmp_path / "of-a-hub", []).as_json() == nothing


def test_all_that_training_leaves_is_read(make_model):
    after = make_model("student", merge=MERGE, training_log=LOG)
    manifest = {"recipe": {"flags": {"loss": "kl", "optim": "x"}}, "teacher": {"name": "t"}, "steps": 2, "python": "3"}
    (after.parent / "student.manifest.json").write_text(json.dumps(manifest))
    assert read_training(after, [make_model("other", merge=MERGE), after]).as_json() == {
        "training": {"teacher": "t", "loss": "kl", "steps": 2},
        "training_log": [{"step": 1, "loss": 2.0}, {"step": 2, "eval_loss": 1.0}],
        "merges": [{"name": "student", **MERGE}, {"name": "other", **MERGE}],
    }


def test_models_with_the_same_name_are_told_apart_by_their_folders(make_model):
    one, two = make_model("one/student", merge=MERGE), make_model("two/student", merge=MERGE)
    assert list(read_training(one, [two]).merges) == [str(one), str(two)]


def test_a_model_may_be_the_current_folder(make_model, monkeypatch):
    monkeypatch.chdir(make_model("student", merge=MERGE))
    assert list(read_training(Path(), []).merges) == ["student"]


@pytest.mark.parametrize(
    "merge", [None, {**MERGE, "alphas": [], "files": []}, {**MERGE, "files": [{**CURVE, "domain": "out-of-domain"}]}]
)
def test_without_an_in_domain_curve_there_is_nothing_to_draw(make_model, merge):
    folder = make_model("student", **({} if merge is None else {"merge": merge}))
    assert read_training(folder, []).merges == {}
    with pytest.raises(DataError) as error:
        read_training(make_model("after"), [folder])
    assert str(error.value) == (
        f"{folder}: has no merge curve. Leave it out of --trade_off, or train it with --merge auto and --dev_files."
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("merge", "{", "Invalid JSON"),
        ("merge", "\xff", "Invalid JSON"),
        ("merge", [], "Input should be an object"),
        ("merge", {"layers": 3}, "Field required"),
        ("merge", {**MERGE, "files": [{**CURVE, "domain": "elsewhere"}]}, "Input should be 'in-domain' or"),
        ("merge", {**MERGE, "alphas": [0, 0.5]}, "a curve has not one value for each alpha"),
        ("merge", {**MERGE, "alpha": 0.7}, "its alphas are not those from 0 on, with the chosen one among them"),
        ("merge", {**MERGE, "alphas": [0.1, 0.5, 1]}, "its alphas are not those from 0 on"),
        ("training_log", "[{]", "Invalid JSON"),
        ("training_log", {"a": 1}, "Input should be a valid array"),
        ("training_log", [{"loss": 1.0}], "Field required"),
        ("training_log", [{"step": 1, "loss": "low"}], "Input should be a valid number"),
    ],
)
def test_a_damaged_file_of_a_model_is_named(make_model, name, content, reason):
    folder = make_model("student")
    path = folder / f"{name}.json"
    path.write_bytes(content.encode("latin-1") if isinstance(content, str) else json.dumps(content).encode())
    with pytest.raises(DataError) as error:
        read_training(folder, [])
    assert str(error.value).startswith(f"{path}: is not what train writes ({reason}")
    assert str(error.value).endswith("). Delete it to leave it out of the report, or train again.")
