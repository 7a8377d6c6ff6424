"""The commands that follow from a noun's row. Nothing here needs a yard."""

from __future__ import annotations

import click
import pytest

from modelyard.cli.main import command_of, group_of, sections
from modelyard.cli.options import overrides
from modelyard.cli.standard import read
from modelyard.spec.nouns import NOUNS, Noun, written

PLAIN = Noun("gadget", "gadgets", "Gadgets.", "Gadgets: of no use.", {"": "data:Data"}, columns=("name",))


def options_of(group: click.Group, verb: str) -> set[str]:
    return {name for option in group.commands[verb].params for name in option.opts}


def test_a_noun_without_a_file_has_the_verbs_of_its_kind() -> None:
    group = group_of(PLAIN)
    assert set(group.commands) == {"create", "show", "list", "update", "delete"}
    assert {"--file", "--name", "--set"} <= options_of(group, "create") and "--yes" in options_of(group, "delete")
    assert group.commands["create"].help == "Create a gadget." and group.help == "Gadgets: of no use."
    assets = group_of(Noun("gizmo", "gizmos", "Gizmos.", "Gizmos.", {"": "data:Data"}, versioned=True))
    assert set(assets.commands) == {"create", "show", "list", "update", "share", "archive", "restore"}
    assert "--label" in options_of(assets, "show")
    inner = group_of(Noun("widget", "widgets", "Widgets.", "Widgets.", {"": "data:Data"}, within="online_endpoint", word="widget"))
    assert all("--endpoint-name" in options_of(inner, verb) for verb in ("show", "list", "update", "delete"))


def test_every_noun_is_a_command_with_the_name_of_its_file() -> None:
    listed = {name for commands in sections().values() for name in commands}
    for noun in NOUNS.values():
        command = command_of(noun.command)
        assert isinstance(command, click.Group) and noun.command in listed
        assert command.name == noun.command and command.help == noun.about
    assert command_of("online_endpoint") is None and command_of("nothing") is None
    assert all("show" in group_of(noun).commands for noun in written())


def test_flags_alone_make_a_document_with_fields_inside_one_another() -> None:
    spec = read(NOUNS["environment"], None, {"name": "e", "build.path": "./context", "build.dockerfile_path": "D"})
    assert (spec.name, spec.build.path, spec.build.dockerfile_path) == ("e", "./context", "D")
    spec = read(NOUNS["compute"], None, overrides(("tags.team=blue",), name="cpu", type="amlcompute"))
    assert spec.tags == {"team": "blue"}


@pytest.mark.parametrize(("noun", "words"), [("compute", "give --file or --name"), ("data", "what it is made of")])
def test_without_a_file_and_without_flags_nothing_is_made(noun: str, words: str) -> None:
    with pytest.raises(click.UsageError, match=words):
        read(NOUNS[noun], None, {})
