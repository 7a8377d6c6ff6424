"""The reference page of the command line, written from its commands."""

from __future__ import annotations

from collections.abc import Iterator

import click
from rest_page import cell

from modelyard.cli.main import sections, yard
from modelyard.core.errors import EXIT_CODES

HEAD = """# Command line

`yard NOUN VERB`, with the nouns, verbs and flags of `az ml`; `yard ml NOUN VERB` is the same. `--help` everywhere. This page is written from the commands by
`python tools/reference.py`.

Every command takes these, besides its own:

| option | |
|---|---|
| `-o json, jsonc, yaml, yamlc, table, tsv, none` | default: a table on a terminal, JSON elsewhere |
| `--query` | JMESPath |
| `-w, -g, --subscription` | workspace; the other two are accepted and not used |
| `--registry-name` | a registry, instead of a workspace |

`--set a.b=c d=e` changes fields of the YAML, or of what is updated. A long option may be shortened to any beginning that only one has.

| exit code | |
|---|---|
| 0 | done |
| 1 | it failed (a failed job under `--stream` too) |
| 2 | wrong usage or invalid input |
| 3 | not found |
| 4 | not allowed |
| 5 | conflict with the state of something |
| 6 | the yard cannot be reached |
| 130 | interrupted |

Data goes to stdout, everything else to stderr.
"""
GLOBAL = {"--output", "--query", "--workspace-name", "--registry-name", "--help"}
assert set(EXIT_CODES.values()) <= set(range(7))


def page() -> str:
    parts = [HEAD]
    context = click.Context(yard, info_name="yard")
    for title, commands in sections().items():
        parts.append(f"## {title}\n")
        for name in commands:
            command = yard.get_command(context, name)
            assert command is not None
            about = [f"{_sentence(command.help)}\n"] if isinstance(command, click.Group) else []
            parts += [f"### {name}\n", *about, "| command | what it does | options |", "|---|---|---|"]
            parts += [*_rows(command, name, context), ""]
    return "\n".join(parts)


def _rows(command: click.Command, name: str, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            inner = command.get_command(context, verb)
            assert inner is not None
            yield from _rows(inner, f"{name} {verb}", context)
        return
    arguments = "".join(f" {parameter.make_metavar(context)}" for parameter in command.params if isinstance(parameter, click.Argument))
    options = [_option(parameter) for parameter in command.params if _shown(parameter)]
    yield f"| `{name}{arguments}` | {cell(_sentence(command.help))} | {'<br>'.join(options)} |"


def _shown(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and not parameter.hidden and not GLOBAL & set(parameter.opts)


def _option(option: click.Parameter) -> str:
    assert isinstance(option, click.Option)
    names = f"`{', '.join(option.opts)}`"
    choices = ", ".join(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else ""
    default = f"default {option.default}" if option.show_default else ""
    notes = "; ".join(note for note in ("required" if option.required else "", choices, default) if note)
    return cell(f"{names}{f' ({notes})' if notes else ''}{f' {option.help}' if option.help else ''}")


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())
