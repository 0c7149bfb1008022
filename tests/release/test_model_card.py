import shlex

from rag_core.files.manifest import Recipe, write_manifest
from rag_core.release.model_card import declared_license, shown_command, write_figures, write_section
from reranker_distillation import train


def test_figures_are_replaced_and_the_users_text_stays(tmp_path):
    folder, parent = tmp_path / "model", tmp_path / "parent"
    folder.mkdir()
    parent.mkdir()
    (parent / "README.md").write_text("---\nlicense: apache-2.0\n---\n# parent\n")
    write_manifest(folder, Recipe("s", {}, {}, {"name": str(parent)}), teacher={"name": "no/such-model"})
    (folder / "README.md").write_text("# model\n\nmy own words\n")
    write_section(folder, "calibrate", "a calibration")
    write_figures(folder, "| MAP | 0.5 |", "python -m stage --after model")
    write_figures(folder, "| MAP | 0.6 |", "python -m stage --after model")
    card = (folder / "README.md").read_text()
    assert card.count("## Measured") == 1
    assert "0.6" in card
    assert "0.5" not in card
    for text in (
        "my own words",
        "a calibration",
        "- student parent: apache-2.0",
        "- teacher no/such-model: none declared",
    ):
        assert text in card


def test_the_licences_of_a_merged_teacher(tmp_path):
    teacher = tmp_path / "embedder"
    teacher.mkdir()
    (teacher / "README.md").write_text("---\nlicense: mit\n---\n")
    members = [{"name": str(teacher)}, {"name": "/moved/away"}, {"name": "BM25"}]
    name = " + ".join(member["name"] for member in members)
    write_manifest(tmp_path / "m", Recipe("s", {}, {}, {"name": "s"}), teacher={"name": name, "members": members})
    (tmp_path / "m").mkdir()
    write_figures(tmp_path / "m", "| MAP | 0.5 |", "python -m stage --after model")
    card = (tmp_path / "m" / "README.md").read_text()
    assert "- teacher embedder: mit\n- teacher away: none declared, or out of reach\n- teacher BM25: none" in card


def test_a_card_without_licence(tmp_path):
    assert declared_license(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("# nothing")
    assert declared_license(str(tmp_path)) is None


def test_a_command_has_what_differs_from_the_defaults_and_no_folders(tmp_path):
    args = train.Args(train_file=tmp_path / "a b.jsonl", output_dir=tmp_path / "m", student=str(tmp_path), seed=7)
    args.dev_files, args.log_level = [tmp_path / "x", tmp_path / "y"], "debug"
    args.further_flags = ["--learning_rate", "1e-5"]
    assert shlex.split(shown_command("reranker_distillation.train", args))[3:] == [
        *["--seed", "7", "--train_file", "a b.jsonl", "--output_dir", "m", "--student", tmp_path.name],
        *["--dev_files", "x", "y", "--learning_rate", "1e-5"],
    ]


def test_a_section_is_replaced_and_what_is_around_it_stays(tmp_path):
    (tmp_path / "README.md").write_text("# mine\n\nmy own words\n")
    write_section(tmp_path, "figures", "first")
    with (tmp_path / "README.md").open("a") as file:
        file.write("\nmore of mine\n")
    write_section(tmp_path, "figures", r"second \1")
    write_section(tmp_path, "others", "third")
    assert (tmp_path / "README.md").read_text() == (
        "# mine\n\nmy own words\n\n<!-- figures: begin -->\nsecond \\1\n<!-- figures: end -->\n\nmore of mine\n"
        "\n<!-- others: begin -->\nthird\n<!-- others: end -->\n"
    )
