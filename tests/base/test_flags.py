"""What decides an output is declared where the flag is."""

import dataclasses

from rag_core.base.flags import decisive, default_of, flag, flags_of, setting


@dataclasses.dataclass(frozen=True)
class Inner:
    runner: str = setting("exact")
    memory: float = setting(0.9, decides=False)


@dataclasses.dataclass(kw_only=True)
class Args:
    further: list[str] = dataclasses.field(default_factory=list, init=False)
    path: str = flag("a file", decides=False)
    top_k: int = flag("how many", 8)
    inner: Inner = setting(Inner())
    where: Inner = setting(Inner("fast"), decides=False)
    names: list[str] = flag("some", ["a"])


def test_what_decides_is_found_in_the_order_of_declaration_within_settings_too():
    found = decisive(Args(path="x", top_k=4, inner=Inner("fast", 0.1)))
    assert list(found.items()) == [("top_k", 4), ("runner", "fast"), ("names", ["a"])]


def test_flags_are_the_fields_that_a_command_line_sets():
    fields = {field.name: field for field in flags_of(Args)}
    assert list(fields) == ["path", "top_k", "inner", "where", "names"]
    assert default_of(fields["path"]) is dataclasses.MISSING
    assert default_of(fields["top_k"]) == 8
    assert default_of(fields["names"]) == ["a"]


def test_a_list_of_one_is_not_that_of_another():
    Args(path="x").names.append("b")
    assert Args(path="x").names == ["a"]
