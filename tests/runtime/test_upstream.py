"""The two ends of the way between router and model server, with each other: order, batches, lost connections, deadlines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modelyard_runtime import files, protocol
from modelyard_runtime.serving import http1, upstream

Handle = Callable[[http1.Request], Awaitable[http1.Response]]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


@asynccontextmanager
async def served(folder: Path, handle: Handle, together: int = 256) -> AsyncIterator[Path]:
    """A server at folder/sock that says that it takes requests together."""
    (folder / protocol.BATCHING_FILE).touch()
    server, listener = await http1.serve(handle, 1 << 20, files.bound_socket(str(folder / "sock"), 0o600), concurrency=together)
    yield folder / "sock"
    server.close()
    for connection in list(listener.admission.connections):
        connection.drop()
    os.unlink(folder / "sock")


def get(path: str, body: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nhost: model\r\ncontent-length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


async def later(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def ask_all(replica: upstream.Replica, paths: list[str], seconds: float = 10) -> list[Any]:
    replica.busy += len(paths)
    deadline = await later(seconds)
    found = await asyncio.gather(*(replica.ask(get(path), deadline) for path in paths), return_exceptions=True)
    replica.busy -= len(paths)
    return list(found)


@pytest.mark.parametrize("together", [1, 256])
def test_requests_behind_each_other_are_answered_in_their_order(tmp_path: Path, together: int) -> None:
    async def test() -> None:
        last = asyncio.Event()
        under_way: list[str] = []

        async def handle(request: http1.Request) -> http1.Response:
            under_way.append(request.path)
            if together > 1 and request.path != "/9":
                await last.wait()  # which comes only when all are worked on at the same time
            last.set()
            assert together > 1 or len(under_way) == 1
            under_way.remove(request.path)
            return http1.Response(200, request.path.encode())

        async with served(tmp_path, handle, together) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"".join(get(f"/{number}") for number in range(10)))
            for number in range(10):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200") and await reader.readexactly(2) == b"/%d" % number
            writer.close()

    run(test())


def test_each_of_many_gets_its_own_answer_and_few_connections_are_made(tmp_path: Path) -> None:
    async def test() -> None:
        most = 0
        under_way = 0

        async def handle(request: http1.Request) -> http1.Response:
            nonlocal most, under_way
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return http1.Response(200 if request.path != "/bad" else 400, request.path.encode())

        async with served(tmp_path, handle) as path:
            replica = upstream.Replica(str(path))
            assert [answer[2] for answer in await ask_all(replica, ["/first"])] == [b"/first"]
            paths = ["/bad" if number % 7 == 3 else f"/{number}" for number in range(64)]
            for _ in range(5):
                found = await ask_all(replica, paths)
                assert [body.decode() for _, _, body in found] == paths
                assert [status for status, _, _ in found] == [400 if path == "/bad" else 200 for path in paths]
            assert most > 8 and len(replica.idle) == len(set(replica.idle)) < 64

    run(test())


def test_what_was_sent_on_a_connection_that_is_gone_is_asked_again(tmp_path: Path) -> None:
    async def test() -> None:
        lives = 0

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """One that breaks off after half of a batch, and answers alone afterwards."""
            nonlocal lives
            lives += 1
            answered = 0
            while lives > 2 or answered < 4:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    break
                name = head.split(b" ", 2)[1]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(name), name))
                answered += 1
            writer.close()

        (tmp_path / protocol.BATCHING_FILE).touch()
        listening = await asyncio.start_unix_server(server, tmp_path / "sock")
        replica = upstream.Replica(str(tmp_path / "sock"))
        assert (await ask_all(replica, ["/first"]))[0][2] == b"/first"
        paths = [f"/{number}" for number in range(20)]
        found = await ask_all(replica, paths)
        assert [answer[2].decode() for answer in found] == paths and lives > 2
        replica.leave()
        listening.close()
        os.unlink(tmp_path / "sock")
        assert all(isinstance(answer, upstream.NotConnected) for answer in await ask_all(replica, paths))

    run(test())


def test_a_server_that_hangs_is_too_late_for_all_that_travelled_together(tmp_path: Path) -> None:
    async def test() -> None:
        async def handle(request: http1.Request) -> http1.Response:
            if request.path != "/first":
                await asyncio.Event().wait()
            return http1.Response(200, b"")

        async with served(tmp_path, handle) as path:
            replica = upstream.Replica(str(path))
            await ask_all(replica, ["/first"])
            found = await ask_all(replica, ["/hang"] * 20, seconds=0.3)
            assert all(isinstance(answer, upstream.TooLate) for answer in found), found
            assert (await ask_all(replica, ["/first"]))[0][0] == 200

    run(test())


def test_what_nobody_waits_for_any_more_is_cancelled_through_the_whole_way(tmp_path: Path) -> None:
    """A caller that goes away takes its request with it, out of the router and out of the model server."""

    async def test() -> None:
        asked, cancelled = asyncio.Event(), asyncio.Event()

        async def model(request: http1.Request) -> http1.Response:
            asked.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            raise AssertionError

        (tmp_path / "model").mkdir()
        (tmp_path / "router").mkdir()
        async with served(tmp_path / "model", model) as socket:
            replica = upstream.Replica(str(socket))

            async def router(request: http1.Request) -> http1.Response:
                return http1.Response(*(await replica.ask(get("/"), asyncio.get_running_loop().time() + 60))[:1])

            async with served(tmp_path / "router", router) as path:
                _, writer = await asyncio.open_unix_connection(path)
                writer.write(get("/"))
                await asked.wait()
                writer.transport.abort()
                await cancelled.wait()

    run(test())


def test_a_model_server_that_takes_requests_together_from_now_on_is_noticed(tmp_path: Path) -> None:
    async def test() -> None:
        listeners: list[http1.Listener] = []

        async def handle(request: http1.Request) -> http1.Response:
            if request.path == "/proof":
                (tmp_path / protocol.BATCHING_FILE).touch()
                listeners[0].renew(256)
            return http1.Response(200, request.path.encode())

        server, listener = await http1.serve(handle, 1 << 20, files.bound_socket(str(tmp_path / "sock"), 0o600))
        listeners.append(listener)
        replica = upstream.Replica(str(tmp_path / "sock"))
        await ask_all(replica, ["/1", "/2"])  # two connections are open, one of them idle when the proof comes
        assert not replica.batching
        assert [answer[2] for answer in await ask_all(replica, ["/proof"])] == [b"/proof"]
        assert [answer[2] for answer in await ask_all(replica, ["/3", "/4"])] == [b"/3", b"/4"]
        assert replica.batching and listener.concurrency == 256
        replica.leave()
        server.close()
        while listener.admission.connections:
            await asyncio.sleep(0)

    run(test())


def test_a_stream_whose_caller_leaves_midway_leaves_nobody_waiting(tmp_path: Path) -> None:
    async def test() -> None:
        stream = http1.Stream(asyncio.get_running_loop())

        async def handle(request: http1.Request) -> http1.Response:
            return http1.Response(200, stream)

        async with served(tmp_path, handle) as path:
            before = len(asyncio.all_tasks())
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(get("/"))
            assert await asyncio.to_thread(stream.put, b"first")
            await reader.readuntil(b"first")
            writer.transport.abort()
            while not stream.closed or len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0)
            assert not await asyncio.to_thread(stream.put, b"second")

    run(test())


def test_a_link_in_place_of_a_socket_is_not_followed(tmp_path: Path) -> None:
    """A model server's own folder is its to write: a link there must not make the router speak to another's socket."""

    async def answer(request: http1.Request) -> http1.Response:
        return http1.Response(200, b"another's")

    async def test() -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "own").mkdir()
        async with served(tmp_path / "other", answer) as socket:
            (tmp_path / "own" / "sock").symlink_to(socket)
            with pytest.raises((upstream.NotConnected, OSError)):
                await upstream.Replica(str(tmp_path / "own" / "sock")).ask(get("/"), await later(5))
            assert (await upstream.Replica(str(socket)).ask(get("/"), await later(5)))[0] == 200

    run(test())
