"""What a requirements file says, as values: packages, constraints and where packages come from.

The grammar is pip's (one logical line per requirement, `\\` continues a line, `#` begins a comment); a requirement is
what `packaging` parses. Nothing that was not parsed gets past this module: whoever hands requirements to a tool writes
a new file from `Package`s and its options from `Sources`.

Files named by `-r` and `-c` are replaced by their lines in `inline`, by the side that has the folder: the client for a local
file, the server for a model that brings its own.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from ..core.errors import Invalid

MAX_INCLUDES = 5
"""Files that name files."""
MAX_FILES = 50
"""Files that are read for one list."""
MAX_REQUIREMENTS = 5_000
MAX_LINE = 10_000
"""Characters of a logical line; some hundred hashes fit."""

_SOURCE_HINT = "Name a released package, or put the code into the job's own code folder."
_SHORT = {"-i": "--index-url", "-f": "--find-links", "-r": "--requirement", "-c": "--constraint", "-e": "--editable"}
_ALIAS = {"--pypi-url": "--index-url"}
_VALUED = ("--index-url", "--extra-index-url", "--find-links", "--trusted-host", "--requirement", "--constraint", "--hash")
_FLAGS = ("--pre", "--prefer-binary", "--no-index")
_WITHOUT_EFFECT = ("--no-cache-dir", "--upgrade", "-U", "--quiet", "-q", "--require-hashes", "--use-feature", "--no-warn-script-location")
"""Options of `pip install` that people write into such lists; a lock is made anew and keeps its hashes anyway."""
_INCLUDING = ("--requirement", "--constraint")
_FROM_SOURCE = ("--no-binary", "--no-use-wheel", "--config-settings", "--global-option", "--install-option", "--build-option")
_ALREADY = ("--only-binary", "--use-wheel")

_ADDRESS = re.compile(r"https?://[\w.~:/?#\[\]@!&'()*+,;=%-]+", re.ASCII | re.IGNORECASE)
_HOST = re.compile(r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_HASH = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_SOURCE = re.compile(r"\.(zip|tgz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
"""What a source distribution at an address may be."""
_BOUND = re.compile(r"(?<=[<>])(=?)[ ]*([0-9][0-9.]*)\.\*")
"""`>=1.16.*`, which pip took until 2023 and `packaging` does not."""
_ARCHIVE = re.compile(r"\.(whl|egg|zip|tgz|tbz2?|tlz|txz|tar(\.\w+)?)$", re.IGNORECASE)
_VCS = re.compile(r"(git|hg|svn|bzr)\+", re.IGNORECASE)
_PATH = re.compile(r"[./~]|file:|[\w.-]*[/\\]", re.IGNORECASE)
_BARE_ADDRESS = re.compile(r"(?P<url>(git\+)?https?://\S+)(?P<rest>(\s+;.*)?)", re.IGNORECASE)
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9][\w.-]*)(\[[\w, .-]*\])?", re.ASCII)


@dataclass(frozen=True)
class Package:
    """One parsed requirement, and the digests that its file may have (any, when there are none)."""

    requirement: Requirement
    hashes: tuple[str, ...] = ()
    unnamed: bool = False
    """Whether only an address of its source is known: its name is a guess until it is resolved."""

    @property
    def name(self) -> str:
        """As PEP 503 spells it."""
        return canonicalize_name(self.requirement.name)

    @property
    def is_source(self) -> bool:
        """Whether it is a repository or a source distribution at an address, which is built."""
        return self.requirement.url is not None and not _is_wheel(self.requirement.url)

    def renamed(self, name: str, *, extras: bool = True) -> Package:
        """The same versions under the same conditions of another package; digests are of the old one's files."""
        requirement = copy.copy(self.requirement)
        requirement.name = name
        if not extras:
            requirement.extras = set()
        return Package(requirement)

    def __str__(self) -> str:
        """A line of a requirements file."""
        line = str(self.requirement)
        return " ".join((line.partition(" @ ")[2] if self.unnamed else line, *(f"--hash={value}" for value in self.hashes)))


@dataclass(frozen=True)
class Sources:
    """Where packages come from, beside what the machine's own configuration says."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    no_index: bool = False
    pre: bool = False
    """Whether pre-releases are taken."""
    prefer_binary: bool = False
    """Kept as it was asked for; wheels are taken anyway, where there are any."""

    def lines(self) -> tuple[str, ...]:
        """One option a line, as a requirements file spells them: for people, and for the key of a lock."""
        return (
            *((f"--index-url {self.index_url}",) if self.index_url else ()),
            *(f"--extra-index-url {url}" for url in self.extra_index_urls),
            *(f"--find-links {url}" for url in self.find_links),
            *(f"--trusted-host {host}" for host in self.trusted_hosts),
            *(("--no-index",) if self.no_index else ()),
            *(("--pre",) if self.pre else ()),
            *(("--prefer-binary",) if self.prefer_binary else ()),
        )


@dataclass(frozen=True)
class Requirements:
    packages: tuple[Package, ...] = ()
    constraints: tuple[Package, ...] = ()
    """Limit versions; none is installed for their sake."""
    sources: Sources = Sources()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inlined:
    """Lines of a requirements file without `-r` and `-c`, and those that only constrain."""

    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Those that were read."""


Read = Callable[[str, str], tuple[str, str]]
"""(path as it is written, the file it stands in) → (that file's own name, its text). Raises when it may not be read."""


def parse_requirements(lines: Iterable[str], constraints: Iterable[str] = (), *, field: str = "pip") -> Requirements:
    """Read the items of `field`, each a line of a requirements file; `constraints` are items of the field of that name.

    Raises Invalid with the item for what is no requirement, no known option, or cannot be installed here.
    """
    reading = _Reading()
    for where, line in _items(lines, field):
        reading.take(line, where, reading.packages)
    for where, line in _items(constraints, "constraints"):
        reading.take(line, where, reading.constraints)
    return reading.result()


def parse_package(line: str, where: str = "requirement") -> Package:
    """One requirement with its hashes and no option, as `str(Package)` writes it. Raises Invalid."""
    taken: list[Package] = []
    _Reading().take(_plain(line, where), where, taken)
    if len(taken) != 1:
        raise Invalid(f"{where}: {line!r} is not a requirement", code="invalid_environment")
    return taken[0]


def inline(items: Iterable[str], read: Read, *, source: str, field: str = "") -> Inlined:
    """The lines with the files that `-r` and `-c` name inserted, at any depth up to `MAX_INCLUDES`; all other lines as they are.

    `source` is the file that the items stand in, `field` the field in it when they are a list's.
    """
    inlined = Inlined()
    _inline(_items(items, field or source), source, read, inlined.lines, inlined, 0)
    return inlined


def file_lines(text: str) -> list[str]:
    """The physical lines of a requirements file, split where pip splits them."""
    return text.splitlines()


def _inline(lines: Iterable[tuple[str, str]], source: str, read: Read, target: list[str], inlined: Inlined, depth: int) -> None:
    if depth > MAX_INCLUDES:
        raise Invalid(f"{source}: requirement files include each other too deeply", code="invalid_environment")
    for where, line in lines:
        options = _options(line, where) if line.startswith("-") else []
        if not any(name in _INCLUDING for name, _ in options):
            target.append(line)
            continue
        for name, value in options:
            if name not in _INCLUDING:
                raise Invalid(f"{where}: {name} and -r or -c stand in one line; give each a line", code="invalid_environment")
            if len(inlined.files) >= MAX_FILES:
                raise Invalid(f"{where}: more than {MAX_FILES} files are named", code="invalid_environment")
            included, text = read(value, source)
            inlined.files.append(included)
            into = inlined.constraints if name == "--constraint" else target
            _inline(_items(file_lines(text), included), included, read, into, inlined, depth + 1)


def _items(items: Iterable[str], source: str) -> Iterator[tuple[str, str]]:
    """(where it stands, logical line): continued lines joined, comments and empty lines left out."""
    joined, start = "", ""
    for where, line in _physical(items, source):
        start = start if joined else where
        comment = re.match(r"\s*#", line)  # one ends a continued line, and is not continued itself
        if line.endswith("\\") and not comment:
            joined = _bounded(joined + line[:-1] + " ", start)
            continue
        text = _plain(re.sub(r"(^|\s)#.*$", "", joined if comment else joined + line), start)
        joined = ""
        if text:
            yield start, text
    if text := _plain(joined, start):
        yield start, text


def _physical(items: Iterable[str], source: str) -> Iterator[tuple[str, str]]:
    """(where it stands, line). An item is one line; only one that is continued may hold a line break."""
    for number, item in enumerate(items, 1):
        where = f"{source}, line {number}"
        if not isinstance(item, str):
            raise Invalid(f"{where}: {item!r} is not text", code="invalid_environment")
        lines = item.strip("\r\n").splitlines()
        if any(not line.endswith("\\") for line in lines[:-1]):
            raise Invalid(
                f"{where}: {item[:80]!r} holds a line break; one item is one requirement",
                code="invalid_environment",
                hint="Make an item of each line.",
            )
        for line in lines:
            yield where, _bounded(line, where)


def _bounded(line: str, where: str) -> str:
    if len(line) > MAX_LINE:
        raise Invalid(f"{where}: a line has {MAX_LINE:,} characters at most", code="invalid_environment")
    return line


def _plain(line: str, where: str) -> str:
    text = _bounded(line, where).replace("\t", " ").strip(" ")
    if not text.isprintable():
        raise Invalid(f"{where}: {text[:80]!r} holds a control character", code="invalid_environment")
    if "${" in text:
        raise Invalid(
            f"{where}: {text[:80]!r} names an environment variable, which is not put in its place",
            code="invalid_environment",
            hint="Write the value, or let whoever runs the yard set it in pip's or uv's configuration.",
        )
    return text


class _Reading:
    """Collects packages, constraints and options from logical lines."""

    def __init__(self) -> None:
        self.packages: list[Package] = []
        self.constraints: list[Package] = []
        self.notes: list[str] = []
        self.index_url = ""
        self.addresses: dict[str, list[str]] = {"--extra-index-url": [], "--find-links": [], "--trusted-host": []}
        self.flags: set[str] = set()

    def take(self, line: str, where: str, into: list[Package]) -> None:
        if len(into) >= MAX_REQUIREMENTS:
            raise Invalid(f"{where}: there are more than {MAX_REQUIREMENTS:,} requirements", code="invalid_environment")
        if line.startswith("-"):
            for name, value in _options(line, where):
                if name == "--editable":
                    self.notes.append(f"{value}: it is installed, and not as an editable copy")
                    into.append(_package(value, (), where))
                else:
                    self._option(name, value, where)
            return
        # As pip does it: options of a requirement begin at the first word with a dash.
        head, _, tail = line.partition(" -")
        options = _options("-" + tail, where) if tail or head != line else []
        for name, _ in options:
            if name != "--hash":
                raise Invalid(f"{where}: {name} beside a requirement is not supported", code="unsupported_option")
        hashes = tuple(_checked(_HASH, "--hash", value, "sha256:, sha384: or sha512: and the digest", where) for _, value in options)
        into.append(_package(head.strip(" "), hashes, where))

    def _option(self, name: str, value: str, where: str) -> None:
        if name in _INCLUDING:
            raise Invalid(
                f"{where}: {name} {value} names a file, and the yard has none beside this list",
                code="unsupported_option",
                hint="`yard` and the SDK read such files, relative to the file that names them, before they send the environment; "
                "over REST, write their lines here (those of -c into `constraints`).",
            )
        if name == "--hash":
            raise Invalid(f"{where}: --hash stands behind the requirement it belongs to", code="invalid_environment")
        if name == "--index-url":
            self.index_url = _address(name, value, where)
        elif name == "--trusted-host":
            self.addresses[name].append(_checked(_HOST, name, value, "a host, or host:port", where))
        elif name in self.addresses:
            self.addresses[name].append(_address(name, value, where))
        elif name in _ALREADY:
            self.notes.append(f"{name} {value}: wheels are taken anyway, where there are any")
        elif name in _WITHOUT_EFFECT:
            self.notes.append(f"{name} has no effect here")
        else:
            self.flags.add(name)

    def result(self) -> Requirements:
        extra, links, hosts = (tuple(dict.fromkeys(values)) for values in self.addresses.values())
        sources = Sources(
            self.index_url, extra, links, hosts, "--no-index" in self.flags, "--pre" in self.flags, "--prefer-binary" in self.flags
        )
        return Requirements(tuple(self.packages), tuple(self.constraints), sources, tuple(self.notes))


def _options(text: str, where: str) -> list[tuple[str, str]]:
    """(long name, value) of each option in a line. Raises Invalid for one that is not known, with the reason."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise Invalid(f"{where}: a quotation mark in {text[:80]!r} is not closed", code="invalid_environment") from None
    options: list[tuple[str, str]] = []
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word[:2] in _SHORT and not word.startswith("--"):
            name, equals, value = _SHORT[word[:2]], word[2:], word[2:]
        name = _ALIAS.get(name, name)
        if name in _FROM_SOURCE:
            raise Invalid(
                f"{where}: {name} would run a package's own code where a wheel would do; only what has no wheel is built from source",
                code="no_wheel",
                hint=_SOURCE_HINT,
            )
        if name in _FLAGS and not equals:
            options.append((name, ""))
            continue
        if name in _WITHOUT_EFFECT:
            options.append((name, value))
            continue
        if name not in (*_VALUED, *_ALREADY, "--editable"):
            known = ", ".join((*_VALUED, *_FLAGS))
            raise Invalid(f"{where}: {word[:80]!r} is not an option that is supported here; those are {known}", code="unsupported_option")
        if name == "--use-wheel":
            options.append((name, ""))
            continue
        if not equals:
            value = words.pop(0) if words else ""
        if not value:
            raise Invalid(f"{where}: {name} has no value", code="invalid_environment")
        if name == "--editable" and not _VCS.match(value):
            raise _elsewhere(value, where)
        options.append((name, value))
    return options


def _package(text: str, hashes: tuple[str, ...], where: str) -> Package:
    bare = _BARE_ADDRESS.fullmatch(text)
    if bare is None:
        return Package(_requirement(text, where), hashes)
    name, known = _name_in(bare["url"], where)
    return Package(_requirement(f"{name} @ {bare['url']}{bare['rest']}", where), hashes, unnamed=not known)


def _requirement(text: str, where: str) -> Requirement:
    if _VCS.match(text) or _PATH.match(text):
        raise _elsewhere(text, where)
    try:
        requirement = Requirement(_BOUND.sub(r"\1\2", text))
        str(requirement)
    except (InvalidRequirement, RecursionError) as error:
        detail = str(error).splitlines()[0] if isinstance(error, InvalidRequirement) else "nested too deeply"
        single = re.fullmatch(r"([\w.-]+)[ ]*=[ ]*([\w.*]+)", text, re.ASCII)
        raise Invalid(
            f"{where}: {text[:200]!r} is not a requirement that can be read: {detail}",
            code="invalid_environment",
            hint=f"pip writes {single[1]}=={single[2]}." if single else "",
        ) from None
    if requirement.url is not None:
        if not requirement.url.lower().startswith(("http://", "https://", "git+http://", "git+https://")):
            raise _elsewhere(text, where)
        requirement.url = _EGG.sub("", requirement.url).replace("&subdirectory=", "#subdirectory=")
        _name_in(requirement.url, where)
    elif requirement.name.lower().endswith(".txt"):
        raise Invalid(
            f"{where}: {text[:200]!r} is the name of a file, not of a package", code="invalid_environment", hint="A file is named by -r."
        )
    elif _ARCHIVE.search(requirement.name):
        raise _elsewhere(text, where)  # a tool would look for a file of that name
    return requirement


def _elsewhere(text: str, where: str) -> Invalid:
    if "+" in text.split("/")[0]:
        return Invalid(
            f"{where}: requirement {text[:200]!r} comes from a repository that is not read here; those at git+https:// addresses are",
            code="no_wheel",
            hint="Write git+https://HOST/PATH@REVISION; repositories that ask who it is are not read. " + _SOURCE_HINT,
        )
    return Invalid(
        f"{where}: requirement {text[:200]!r} is a path on some machine; packages come from an index or from an address",
        code="no_wheel",
        hint=_SOURCE_HINT,
    )


def _is_wheel(url: str) -> bool:
    return urlsplit(url).path.lower().endswith(".whl")


def _name_in(url: str, where: str) -> tuple[str, bool]:
    """The package that an address is of, and whether that is certain: a wheel's name and `#egg=` are, other names are guessed.

    Raises Invalid for an address of neither a wheel, a source distribution nor a repository.
    """
    repository = url[:4].lower() == "git+"
    path = urlsplit(_address("the address", url.removeprefix(url[:4]) if repository else url, where)).path.rstrip("/")
    file = path.rsplit("/", 1)[-1].replace("%2B", "+").replace("%2b", "+")
    if "@-" in path:
        raise Invalid(f"{where}: the revision in {url} begins with a dash, as no revision does", code="invalid_environment")
    if _is_wheel(url) and not repository:
        try:
            return parse_wheel_filename(file)[0], True
        except InvalidWheelFilename as error:
            raise Invalid(f"{where}: {url} does not name a wheel: {error}", code="invalid_environment") from None
    if not repository and not _SOURCE.search(file):
        raise Invalid(
            f"{where}: {url} is no package; wheels (.whl), source distributions (.tar.gz, .zip) and git+https:// are installed from an address",
            code="no_wheel",
            hint=_SOURCE_HINT,
        )
    if egg := _EGG.search(url):
        return egg[1] + (egg[2] or ""), True
    stem = re.match(r"[A-Za-z0-9]+([._-][A-Za-z0-9]+)*", _SOURCE.sub("", path.split("@")[0].rsplit("/", 1)[-1].removesuffix(".git")))
    return (stem[0] if stem else "package"), False


def _address(option: str, text: str, where: str) -> str:
    """An http(s) address without credentials: what a user may name, unlike a folder of the machine that builds."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not _ADDRESS.fullmatch(text):
        raise Invalid(
            f"{where}: {option} takes an http or https address, not {text[:200]!r}",
            code="invalid_environment",
            hint="Folders of the machine that builds are for whoever runs it to name, in pip's or uv's configuration.",
        )
    if parts.username is not None or parts.password is not None:
        raise Invalid(
            f"{where}: {option} holds a user name or a password, which everybody who sees the environment would read",
            code="invalid_environment",
            hint="Let whoever runs the yard put the address, or the credentials of its host (netrc), into the machine's configuration.",
        )
    return text


def _checked(pattern: re.Pattern[str], option: str, value: str, expected: str, where: str) -> str:
    if not pattern.fullmatch(value):
        raise Invalid(f"{where}: {option} takes {expected}, not {value[:200]!r}", code="invalid_environment")
    return value
