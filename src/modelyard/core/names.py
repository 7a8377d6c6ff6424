"""The rules for names and versions, stated once."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable

from .errors import Invalid

RESERVED = frozenset(("system", "anonymous"))
"""Under these names the yard itself acts, or whoever did not sign in."""
MAX_COMPARED, MAX_KNOWN = 64, 200
"""Characters of a word, and how many known ones, that `nearest` compares."""
_ASSET = re.compile(r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,254}$")
_JOB = re.compile(r"^[a-zA-Z0-9][\w-]{0,254}$", re.ASCII)
_WORKSPACE = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_-]{1,32}$")
_COMPUTE = re.compile(r"^[a-zA-Z][a-zA-Z0-9-]{1,31}$")
_ENDPOINT = re.compile(r"^[a-zA-Z]([-a-zA-Z0-9]{1,30}[a-zA-Z0-9])$")
_BATCH = re.compile(r"^[a-zA-Z]([-a-zA-Z0-9]{0,62}[a-zA-Z0-9])?$")
_DATASTORE = re.compile(r"^[a-zA-Z0-9_-]{1,255}$")
_RULES = {
    "asset": (_ASSET, "letters, digits, `_`, `-` and `.`, 255 at most, not starting with `-` or `.`"),
    "version": (_ASSET, "letters, digits, `_`, `-` and `.`, 255 at most, not starting with `-` or `.`"),
    "job": (_JOB, "letters, digits, `_` and `-`, 255 at most, starting with a letter or digit"),
    "workspace": (_WORKSPACE, "2 to 33 letters, digits, `_` and `-`, starting with a letter or digit"),
    "compute": (_COMPUTE, "2 to 32 letters, digits and `-`, starting with a letter"),
    "endpoint": (_ENDPOINT, "3 to 32 letters, digits and `-`, starting with a letter, not ending with `-`"),
    "deployment": (_ENDPOINT, "3 to 32 letters, digits and `-`, starting with a letter, not ending with `-`"),
    "batch endpoint": (_BATCH, "letters, digits and `-`, 64 at most, starting with a letter, not ending with `-`"),
    "batch deployment": (_BATCH, "letters, digits and `-`, 64 at most, starting with a letter, not ending with `-`"),
    "datastore": (_DATASTORE, "letters, digits, `_` and `-`, 255 at most"),
    "port": (re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]{0,254}$"), "letters, digits and `_`, not starting with a digit"),
}


def check_name(rule: str, name: str, what: str = "") -> str:
    """Return `name` when it satisfies `rule` (asset, version, job, …); raise Invalid naming the rule otherwise."""
    pattern, words = _RULES[rule]
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise Invalid(f"{what or rule} name {name[:80]!r} is not allowed: use {words}", code="invalid_name")
    return name


def plain_name(name: str) -> str:
    """A name as a reader takes it: without case, and with look-alikes by NFKC as the characters that they look like."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    return "".join(char for char in folded if unicodedata.category(char) not in ("Cf", "Mn", "Zs")).strip()


def reserved(name: str) -> bool:
    """Whether a name could pass for the yard's own, in an audit row for example."""
    return plain_name(name) in RESERVED


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known word, else an empty string.

    Comparing takes a time that grows with the product of the lengths, and callers choose both: nothing long is compared, and not with many.
    """
    if len(word) > MAX_COMPARED:
        return ""
    import difflib

    candidates = [name for name in itertools.islice(known, MAX_KNOWN) if len(name) <= MAX_COMPARED]
    match = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else ""


MAX_PATH, MAX_NAME = 4096, 255
"""Bytes of a path, and of one name in it, as file systems take them."""
_SHELL_ACTS = re.compile(r"[^\w@%+=:,./-]")


def one_word(text: str) -> bool:
    """Whether a shell reads `text` as one plain word, in quotes and without them, however often it is read."""
    return text != "" and not _SHELL_ACTS.search(text) and text[0] != "-"


def as_one_word(text: str) -> str:
    """A file's name in which `_` stands for every character that a shell would act on."""
    return _SHELL_ACTS.sub("_", text)


def safe_path(path: str, what: str = "path") -> str:
    """A relative POSIX path without `..`, empty parts, backslashes or characters that are no text; raise Invalid otherwise.

    It was decoded where it came in, once: a percent sign that is left is a character of a name like any other.
    """
    if problem := path_problem(path):
        raise Invalid(f"{what} {path[:120]!r} is not a plain relative path: {problem}", code="invalid_path")
    return path.rstrip("/")


def path_problem(path: str) -> str:
    """What keeps a path from being a plain one; empty when nothing does."""
    if not path.rstrip("/") or path.startswith("/"):
        return "it is absolute" if path.startswith("/") else "it is empty"
    if any(0xD800 <= ord(char) <= 0xDFFF for char in path):
        return "its name is not UTF-8"
    if any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "it has a control character"
    if "\\" in path:
        return "it has a backslash"
    if (size := len(path.encode())) > MAX_PATH:
        return f"it has {size:,} bytes; {MAX_PATH:,} are allowed"
    for part in path.rstrip("/").split("/"):
        # A client that decodes once too often would go up with `%2e%2e`; nobody means such a name.
        if part.lower().replace("%2e", ".") in ("", ".", ".."):
            return f"it has a part {part!r}"
        if (size := len(part.encode())) > MAX_NAME:
            return f"a name in it has {size:,} bytes; {MAX_NAME} are allowed"
    return ""
