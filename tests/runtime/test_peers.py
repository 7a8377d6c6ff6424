"""Whom the sockets of the runtime answer, and what the router takes for a valid token when the clock is set back."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modelyard_runtime import files, protocol
from modelyard_runtime.serving import http1, router
from modelyard_runtime.serving.deployment import Endpoint
from modelyard_runtime.serving.http1 import Request, Response

ASK = """
import os, socket, sys
os.setuid(int(sys.argv[2]))
asked = socket.socket(socket.AF_UNIX)
asked.connect(sys.argv[1])
try:
    asked.sendall(b"GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
    print(asked.recv(12).decode())
except OSError:
    print("")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("user", "answer"), [(52999, ""), (52998, "HTTP/1.1 200"), (0, "HTTP/1.1 200")])
def test_a_unix_socket_answers_the_users_that_it_is_for(user: int, answer: str, loop: str) -> None:
    folder = Path(f"/tmp/yard-peers-{os.getpid()}")
    folder.mkdir(mode=0o755)
    path = str(folder / "sock")

    async def handle(request: Request) -> Response:
        return Response(200, b"ok")

    async def whole() -> str:
        server, _ = await http1.serve(handle, 100, files.bound_socket(path, 0o666), peers=(52998,))
        asking = await asyncio.create_subprocess_exec(sys.executable, "-c", ASK, path, str(user), stdout=subprocess.PIPE)
        said, _ = await asking.communicate()
        server.close()
        return said.decode().strip()

    try:
        if loop == "uvloop":
            import uvloop

            assert uvloop.run(whole()) == answer
        else:
            assert asyncio.run(whole()) == answer
    finally:
        Path(path).unlink()
        folder.rmdir()


def test_the_kernel_says_who_connected() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert files.peer_uid(left) == os.geteuid() and files.is_own_peer(right)


def test_an_expired_token_of_an_endpoint_stays_so_when_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jwt
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    begin = time.time()
    token = jwt.encode({"aud": "here", "exp": int(begin) + 60}, private, algorithm="EdDSA")
    route = protocol.EndpointRoute([], [], {}, tokens=[protocol.TokenSource("here", [public])])

    async def whole() -> list[bool]:
        config = protocol.RouterConfig("127.0.0.1", 0, str(tmp_path / "routes.json"), str(tmp_path / "sock"), str(tmp_path / "log"))
        made: Any = router.Router(config)
        answers = []
        for now in (begin, begin + 120, begin):
            monkeypatch.setattr(router.time, "time", lambda now=now: now)
            answers.append(made._signed(token, b"digest", Endpoint(route, None)))
        made.log.close()
        return answers

    assert asyncio.run(whole()) == [True, False, False]
