"""Data on the web is fetched from addresses that the guard lets through, wherever they lead."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from modelyard.assets.files.fetch import fetch, version_at
from modelyard.core.addresses import AddressGuard
from modelyard.core.errors import Invalid, NotFound, Unavailable
from modelyard.engine.yard import Yard
from modelyard.settings import Settings
from modelyard.testing.memory.objects import MemoryObjects


def yard_of(allow: str) -> Yard:
    """The parts of a yard that fetching uses."""
    return cast(Yard, SimpleNamespace(addresses=AddressGuard.of_setting(allow), objects=MemoryObjects(), settings=Settings()))


@contextmanager
def web(location: str = "") -> Iterator[tuple[int, list[str]]]:
    """A server that redirects to `location`, or answers `hello`; and what it was asked for, with the Host that was named."""
    heard: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(f"{self.headers['Host']}{self.path}")
            self.send_response(302 if location else 200)
            if location:
                self.send_header("Location", location)
            body = b"" if location or self.command == "HEAD" else b"hello"
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, heard
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0"])
def test_private_data_is_not_fetched_however_it_is_spelt(host: str) -> None:
    with web() as (port, heard):
        for work in (fetch, version_at):
            with pytest.raises(Invalid) as refused:
                asyncio.run(work(yard_of(f"127.0.0.1:{port}=environments"), f"http://{host}:{port}/x"))
            assert refused.value.code == "private_address" and f":{port}=data" in str(refused.value.hint)
        assert heard == []


def test_a_redirect_is_judged_again() -> None:
    with web() as (inside, heard), web(f"http://127.0.0.1:{inside}/secret") as (outside, asked):
        with pytest.raises(Invalid) as refused:
            asyncio.run(fetch(yard_of(f"127.0.0.1:{outside}=data"), f"http://127.0.0.1:{outside}/rows.csv"))
        assert refused.value.code == "private_address" and asked and not heard
        fetched = asyncio.run(fetch(yard_of(f"127.0.0.1:{outside},127.0.0.1:{inside}"), f"http://127.0.0.1:{outside}/rows.csv"))
        assert (fetched.path, fetched.size) == ("secret", 5)
    for scheme in ("file:///etc/passwd", "ftp://127.0.0.1/x", "http://[::1/x"):
        with web(scheme) as (outside, _), pytest.raises((Invalid, Unavailable)):
            asyncio.run(fetch(yard_of(f"127.0.0.1:{outside}"), f"http://127.0.0.1:{outside}/"))


def test_the_host_is_named_as_it_was_written_and_a_strange_address_is_refused_by_name() -> None:
    with web() as (port, heard):
        asyncio.run(fetch(yard_of(f"localhost:{port}"), f"http://localhost:{port}/a?b=c"))
        assert heard == [f"localhost:{port}/a?b=c"]
    for url in ("http://", "http://\x00/", "http://a:b:c/", "http://host:99999/"):
        with pytest.raises((Invalid, NotFound)):
            asyncio.run(fetch(yard_of(""), url))
