"""What the operator's own configuration says about packages: pip's files and variables, uv's files and variables, proxies.

It is read once, when the yard starts, and nothing else of the server's environment reaches a build. It may name folders of the machine
and loopback addresses, which what users write may not.
"""

from __future__ import annotations

import configparser
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard_runtime.addresses import Allowed

_PYTHONS = ("UV_PYTHON_INSTALL_MIRROR", "UV_PYTHON_DOWNLOADS_JSON_URL")
VARIABLES = (
    "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_INDEX_STRATEGY",
    "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT", "UV_OFFLINE", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT",
    *_PYTHONS,
)  # fmt: skip
"""Where packages come from and whom to believe: all that is taken over of the server's variables, beside `CREDENTIALS` and `PROXIES`."""
CREDENTIALS = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_ADDRESSES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_PATHS = (*_ADDRESSES, *_PYTHONS, "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT")
_OF_PIP = {
    "index-url": ("UV_DEFAULT_INDEX", " "), "extra-index-url": ("UV_INDEX", " "), "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "), "cert": ("SSL_CERT_FILE", " "), "client-cert": ("SSL_CLIENT_CERT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "), "default-timeout": ("UV_HTTP_TIMEOUT", " "), "no-index": ("UV_NO_INDEX", " "),
}  # fmt: skip
_NOT_FOR_JOBS = ("client-cert", "default-timeout")
_UNDER_OTHER_NAMES = {"index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"), "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL")}
"""Options whose value uv takes from the first of several variables, or from all of them."""
_OF_UV = {
    "index-url": ("UV_DEFAULT_INDEX", " "), "extra-index-url": ("UV_INDEX", " "), "find-links": ("UV_FIND_LINKS", ","),
    "allow-insecure-host": ("UV_INSECURE_HOST", " "), "index-strategy": ("UV_INDEX_STRATEGY", " "), "no-index": ("UV_NO_INDEX", " "),
    "native-tls": ("UV_NATIVE_TLS", " "), "offline": ("UV_OFFLINE", " "), "cache-dir": ("UV_CACHE_DIR", " "),
}  # fmt: skip


@dataclass(frozen=True)
class PackageConfiguration:
    settings: dict[str, str] = field(default_factory=dict)
    """Variables of uv, credentials included."""
    proxies: dict[str, str] = field(default_factory=dict)
    cache: Path = Path("/nonexistent")
    """The user's folder for what can be fetched again."""
    netrc: Path | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str], home: Path) -> PackageConfiguration:
        """From the files of a user's home and of the machine, and from variables, which come first; uv's before pip's."""
        settings = {name: value for name, value in environment.items() if (name in VARIABLES or CREDENTIALS.fullmatch(name)) and value}
        user = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
        from_files = {**_taken(_OF_PIP, _of_pip(environment, home, user)), **_taken(_OF_UV, _of_uv(environment, user))}
        cache = environment.get("UV_CACHE_DIR") or from_files.pop("UV_CACHE_DIR", "")
        settings = {**from_files, **settings}
        if "UV_INDEX" in settings or "UV_EXTRA_INDEX_URL" in settings:
            settings.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")  # what pip does with several indexes
        proxies = {name: value for name in PROXIES if (value := environment.get(name) or environment.get(name.upper()))}
        netrc = Path(environment.get("NETRC") or home / ".netrc")
        return cls(
            settings, proxies, Path(cache) if cache else Path(environment.get("XDG_CACHE_HOME") or home / ".cache"),
            netrc if netrc.is_file() else None,
        )  # fmt: skip

    def variables(self, *, credentials: bool) -> dict[str, str]:
        """For uv. Without `credentials`, for steps that run code of packages, addresses have no user and password."""
        if credentials:
            return dict(self.settings)
        return {
            name: re.sub(r"(?<=://)[^/@\s,]*@", "", value) if name in _ADDRESSES else value
            for name, value in self.settings.items()
            if not CREDENTIALS.fullmatch(name) and name != "SSL_CLIENT_CERT"
        }

    def pip_options(self) -> dict[str, str]:
        """For the pip of a job, by their names in its files: code of users reads them, so there are no credentials among them."""
        variables = self.variables(credentials=False)
        taken = {**{option: (target,) for option, (target, _) in _OF_PIP.items() if option not in _NOT_FOR_JOBS}, **_UNDER_OTHER_NAMES}
        options = {
            option: " ".join(word for name in names for word in _words(variables.get(name, "")) if word) for option, names in taken.items()
        }
        options["proxy"] = re.sub(r"(?<=://)[^/@\s]*@", "", self.proxies.get("https_proxy") or self.proxies.get("http_proxy", ""))
        return {option: value for option, value in options.items() if value}

    def paths(self, *, credentials: bool) -> list[Path]:
        """Folders with packages, and files with certificates, on this machine."""
        words = (word for name in _PATHS for word in _words(self.variables(credentials=credentials).get(name, "")))
        return [Path(unquote(word.removeprefix("file://"))) for word in words if word.startswith(("/", "file:///"))]

    def addresses(self) -> list[Allowed]:
        """Where its indexes are, so that a guarded build reaches them even when they are private."""
        allowed = []
        for name in _ADDRESSES:
            for word in _words(self.settings.get(name, "")):
                entry = endpoint(word)
                if entry is not None:
                    allowed.append(entry)
        return allowed


def endpoint(url: str) -> Allowed | None:
    """The host and port of an http(s) address, for packages; None for any other text."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return Allowed(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80), "environments")
    except ValueError:
        pass
    return None


def _words(text: str) -> Iterator[str]:
    for word in re.split(r"[\s,]+", text):
        named = re.match(r"[A-Za-z0-9._-]+=(?=\w+://|/)", word)  # uv's `name=https://…`
        yield word[named.end() :] if named else word


def _taken(table: dict[str, tuple[str, str]], options: Mapping[str, str]) -> dict[str, str]:
    return {target: separator.join(value.split()) for name, (target, separator) in table.items() if (value := options.get(name))}


def _of_pip(environment: Mapping[str, str], home: Path, user: Path) -> dict[str, str]:
    """pip's own settings, in its order: files from the machine's to the environment's, then PIP_ variables."""
    files = [
        Path("/etc/pip.conf"),
        Path("/etc/xdg/pip/pip.conf"),
        home / ".pip/pip.conf",
        user / "pip/pip.conf",
        Path(sys.prefix) / "pip.conf",
    ]
    if environment.get("PIP_CONFIG_FILE"):
        files.append(Path(environment["PIP_CONFIG_FILE"]))
    merged: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (configparser.Error, OSError, UnicodeError):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                merged.update(parser.items(section))
    for name, value in environment.items():
        if name.startswith("PIP_") and value:
            merged[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return merged


def _of_uv(environment: Mapping[str, str], user: Path) -> dict[str, str]:
    """uv's settings, the user's file before the machine's, as the words of its options."""
    file = environment.get("UV_CONFIG_FILE")
    merged: dict[str, str] = {}
    for path in [Path(file)] if file else [Path("/etc/uv/uv.toml"), user / "uv/uv.toml"]:
        try:
            document = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError, UnicodeError):
            continue
        pip = document.get("pip")
        for name, value in {**document, **(pip if isinstance(pip, dict) else {})}.items():
            if name == "index" and isinstance(value, list):
                merged.update(_indexes(value))
            elif isinstance(value, bool):
                merged[name] = str(value).lower()
            elif isinstance(value, (str, list)):
                merged[name] = value if isinstance(value, str) else " ".join(map(str, value))
    return merged


def _indexes(tables: list[object]) -> dict[str, str]:
    """uv's `[[index]]` tables, as its two options."""
    indexes: dict[str, list[str]] = {"index-url": [], "extra-index-url": []}
    for table in tables:
        if isinstance(table, dict) and isinstance(table.get("url"), str):
            name = f"{table['name']}=" if isinstance(table.get("name"), str) else ""
            indexes["index-url" if table.get("default") else "extra-index-url"].append(name + table["url"])
    return {option: " ".join(urls) for option, urls in indexes.items() if urls}
