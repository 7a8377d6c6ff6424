"""The reference page of the SDK, written from its classes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from rest_page import cell

import modelyard
from modelyard import MLClient, entities
from modelyard.sdk.poller import Poller
from modelyard.sdk.resources import DeploymentOperations, NamedOperations, Operations, VersionedOperations
from modelyard.spec.nouns import written

HEAD = """# Python SDK

`from modelyard import MLClient, command, Input, Output, load_job` gives the names of `azure.ai.ml`; entities are in `modelyard.entities`. Entities are the documents of
[YAML](yaml.md). This page is written from the program by `python tools/reference.py`.

```python
client = MLClient()                                  # the yard of this machine, or what `yard env` set
client = MLClient(workspace_name="team", url="http://127.0.0.1:7780", token="yard_…")
job = client.jobs.create_or_update(load_job("job.yml"))
client.jobs.stream(job.name)
```

Methods take further keyword arguments that scripts written for `azure.ai.ml` pass, and leave them out. What the yard refuses is raised as a class of `modelyard.core.errors`, with `code` and `hint`.
"""
SHARED: dict[type[Operations], str] = {
    NamedOperations: "Nouns with names",
    DeploymentOperations: "Deployments",
    VersionedOperations: "Assets: nouns with versions",
}


def page() -> str:
    parts = [HEAD, "## MLClient\n", *_table(MLClient, ()), "\n## Poller\n", *_table(Poller, ())]
    for kind, title in SHARED.items():
        names = [f"`{name}`" for name in _names() if isinstance(_operations(name), kind)]
        parts += [f"\n## {title}\n", f"{inspect.getdoc(kind)} What {', '.join(names)} have in common.\n", *_table(kind, (Operations,))]
    for name in _names():
        operations = _operations(name)
        own = list(_table(type(operations), (Operations, *SHARED)))
        if len(own) > 1:
            parts += [f"\n## client.{name}\n", *([f"{text}\n"] if (text := _own_doc(type(operations))) else []), *own]
    parts += ["\n## Functions\n", "| | |\n|---|---|", *_functions(), "\n## Entities\n", f"In `modelyard.entities`: {_entities()}.\n"]
    return "\n".join(parts)


@functools.cache
def _client() -> MLClient:
    """Of no yard: it is only looked at."""
    return MLClient(url="http://127.0.0.1:1", token="none")


def _names() -> list[str]:
    """The nouns of the client, those with operations of their own first."""
    return list(dict.fromkeys((*MLClient.__annotations__, *(noun.attribute for noun in written()))))


def _operations(name: str) -> Any:
    return getattr(_client(), name)


def _own_doc(kind: type) -> str:
    return inspect.cleandoc(kind.__dict__.get("__doc__") or "")


def _table(kind: type, without: tuple[type, ...]) -> Iterator[str]:
    """A row for each public method of a class that those in `without` do not have, or that differs there."""
    yield "| method | what it does |\n|---|---|"
    for name, method in inspect.getmembers(kind, inspect.isfunction) + inspect.getmembers(kind, inspect.ismethod):
        if not name.startswith("_") and all(getattr(above, name, None) is not method for above in without):
            yield f"| `{name}{_signature(method)}` | {cell(_first(method))} |"


def _signature(function: Callable[..., Any]) -> str:
    parameters, keywords = [], False
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self" or parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            parameters.append("*")
            keywords = True
        parameters.append(parameter.name + ("" if parameter.default is parameter.empty else f"={parameter.default!r}"))
    returned = inspect.signature(function).return_annotation
    return f"({', '.join(parameters)})" + (
        f" → {returned}".replace("|", "or") if returned not in ("None", None, inspect.Signature.empty) else ""
    )


def _first(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")


def _functions() -> Iterator[str]:
    yield f"| `command{_signature(modelyard.command)}` | {cell(_first(modelyard.command))} |"
    for noun in written():
        yield f"| `load_{noun.name}(source, params_override=None)` | Read a {noun.title} from a YAML file. |"


def _entities() -> str:
    return ", ".join(f"`{name}`" for name in sorted(entities.__all__))
