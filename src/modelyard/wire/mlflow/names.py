"""File names as MLflow's Python client sends and shows them.

It puts a name into an address unquoted, and the libraries below it make of that what they can: `?` begins a query, what follows `#` is not
sent, escapes that no library writes are sent as they stand. Of a name that is listed it decodes escapes until none is left, and one with
`#` makes it refuse the whole list. A name with such characters is listed with their full-width forms (`＃`, `％`), under which the file is
found, and what was sent is read as the name that it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from starlette.requests import Request

from ...core.errors import Invalid

_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_OWN = re.compile(r"/mlflow-artifacts/(?:artifacts|mpu/\w+)/(.*)")
_BROKEN = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ACTS_IN_LISTS = re.compile(r"#|%(?=[0-9A-Fa-f]{2})")
_WIDE = {"#": "＃", "%": "％"}
_PLAIN = str.maketrans({wide: char for char, wide in _WIDE.items()})
_NEVER_ESCAPED = frozenset("!#$%&'()*+,/:;=?@\\") | {chr(code) for code in (*range(32), 127)}
"""What the client's libraries leave as it is, and what no name can have: an escape of one of these was written in the name."""
_TEXTS = frozenset(
    "txt log err cfg conf cnf cf ini properties prop hocon toml yaml yml xml json js py py3 csv tsv md rst ipynb MLmodel MLproject".split()
)
_NEVER_BYTES = frozenset("txt json csv html xml png jpg pdf".split())
_BYTES = "application/octet-stream"


def is_python_client(request: Request) -> bool:
    return request.headers.get("user-agent", "").startswith("mlflow-python-client/")


def shown(name: str) -> str:
    """A name in a list for the client."""
    return _ACTS_IN_LISTS.sub(lambda match: _WIDE[match[0]], name)


def sent_name(request: Request, path: str) -> str:
    """The artifact path that is written to: `path`, the end of the address, as any client means it; of MLflow's own, what its user wrote."""
    return _written(request, path) if is_python_client(request) else path


def check_whole(request: Request, name: str) -> None:
    """Raise Invalid for a file's name that was cut at `#` on its way, where that shows by the type that the client guessed."""
    content_type = request.headers.get("content-type", "").partition(";")[0]
    last = name.rsplit("/", 1)[-1]
    if is_python_client(request) and _is_cut(last, content_type):
        raise Invalid(
            f"MLflow's client sends no more of a name than stands before `#`; {last!r} is what came", code="cut_name",
            hint="Give the file another name; outputs of jobs, data and models of the yard keep such names.",
        )  # fmt: skip


def asked_names(request: Request, path: str) -> Iterator[str]:
    """What a path at the end of an address may mean, the likeliest first."""
    yield from dict.fromkeys((path, *((_written(request, path), path.translate(_PLAIN)) if is_python_client(request) else ())))


def asked_folders(request: Request, path: str) -> Iterator[str]:
    """What the path of a folder in a query may mean, the likeliest first."""
    yield from dict.fromkeys((path, path.translate(_PLAIN)) if is_python_client(request) else (path,))


def _written(request: Request, path: str) -> str:
    """`path` as it stands in the address, before it was decoded."""
    match = _OWN.search(request.scope.get("raw_path", b"").decode("ascii", "replace"))
    if match is None:
        return path
    query = request.scope.get("query_string", b"").decode("ascii", "replace")
    return _unescaped(f"{match[1]}?{query}" if query else match[1])


def _unescaped(raw: str) -> str:
    if _BROKEN.search(decoded := unquote(raw)):
        return decoded  # a percent sign that begins no escape makes the client escape all of them
    return _ESCAPES.sub(_characters, raw)


def _characters(match: re.Match[str]) -> str:
    try:
        text = bytes.fromhex(match[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        return match[0]
    return "".join(f"%{ord(char):02X}" if char in _NEVER_ESCAPED else char for char in text)


def _is_cut(name: str, content_type: str) -> bool:
    """Whether the type that the client guessed is of another name than came."""
    ending = name.rpartition(".")[2]
    if "." not in name:
        return content_type not in ("", _BYTES) and name not in _TEXTS
    return content_type == _BYTES and ending in _NEVER_BYTES
