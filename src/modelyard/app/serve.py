"""The server's life: sockets, signals, loops, from the lock on the home to the mark of a clean shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import time
from functools import partial
from typing import Any

import uvicorn

from modelyard_runtime.files import write_whole
from modelyard_runtime.serving.callers import Admission, raise_file_limit
from modelyard_runtime.supervision import sandbox

from .. import __version__
from ..core.errors import Forbidden, Unavailable, YardError
from ..core.home import Home
from ..engine.feature import Composition
from ..engine.loops import Loops
from ..engine.yard import Yard
from ..settings import LOOPBACK, Settings
from .asgi import make_asgi
from .compose import compose, loops_of, make_yard
from .door import Door
from .features import DIALECTS, FEATURES
from .home import Owner, first_start, open_home_database
from .soundness import CHANGED, DatabaseCheck, say_changed, write_mark

log = logging.getLogger(__name__)


async def serve(home: Home, settings: Settings) -> None:
    """Run the yard of a home until a signal ends it."""
    home.prepare()
    sandbox.hide()
    raise_file_limit()
    owner = Owner(home)
    try:
        composition = compose(FEATURES)
        changes: list[str] = []
        db = open_home_database(home, settings, create=True, changed=lambda: changes.append(CHANGED))
        yard = await asyncio.to_thread(make_yard, home, settings, db)
        check_exposure(settings, yard.isolation)
        listener = await _listen(home, settings, yard)
        await first_start(yard)
        if changes:
            await say_changed(yard)
        loops = Loops(yard)
        server = _server(composition, yard)
        await _start_features(composition, yard)
        loops.start([*loops_of(composition, yard), DatabaseCheck(yard)])
        _settle_collector()
        listener.listen(2048)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.005)
        write_whole(home.server_record, json.dumps(_record(yard)), 0o644, durable=True)
        await serving
        await loops.stop()
        db.close()
        write_mark(home)
    finally:
        home.server_record.unlink(missing_ok=True)
        owner.release()


def check_exposure(settings: Settings, isolation: str) -> None:
    """Raise Forbidden for listening beyond this machine without TLS, or where jobs are not kept apart from the yard."""
    if settings.host in LOOPBACK:
        return
    if not settings.insecure:
        raise Forbidden(
            f"listening on {settings.host} without TLS would send tokens in the clear", code="insecure_listen",
            hint="Put a TLS proxy in front and listen on 127.0.0.1, or say --insecure.",
        )  # fmt: skip
    if settings.local_endpoints:
        raise Forbidden(
            f"with the setting local_endpoints anybody who reaches {settings.host} could call every endpoint", code="insecure_listen",
            hint="Listen on 127.0.0.1, or take local_endpoints away.",
        )  # fmt: skip
    if isolation == "none":
        raise Forbidden("this machine cannot keep jobs apart from the yard; a single-user yard listens on loopback only")


async def _listen(home: Home, settings: Settings, yard: Yard) -> socket.socket:
    """The server's socket, bound; the router's port chosen; both stored for the next start."""
    ports: dict[str, int] = json.loads(home.ports.read_text()) if home.ports.exists() else {}
    listener = bind(settings.host, settings.port, "server", ports)
    router_runs = await yard.replicas.status("router")
    if settings.router_port or not router_runs:
        ports["router"] = settings.router_port or _free_port(settings.host, ports.get("router", 0))
        if not router_runs:
            bind(settings.host, ports["router"], "router", {}).close()  # raises now when another process has it
    write_whole(home.ports, json.dumps(ports), 0o644, durable=True)
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    yard.url = f"http://{shown}:{ports['server']}"
    yard.router_url = f"http://{shown}:{ports['router']}"
    return listener


def bind(host: str, requested: int, program: str, ports: dict[str, int]) -> socket.socket:
    """A socket on the requested port; 0 takes the port of the last start again when it is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidates = [requested] if requested else [port for port in (ports.get(program),) if port] + [0]
    for port in candidates:
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, port))
        except OSError as error:
            bound.close()
            if port == candidates[-1]:
                raise Unavailable(
                    f"port {port} on {host} cannot be used for the {program}: {error.strerror}", code="port_in_use",
                    hint="Choose another, or 0 for a free one: yard up --port 0 --router-port 0",
                ) from None  # fmt: skip
            continue
        ports[program] = bound.getsockname()[1]
        return bound
    raise AssertionError


def _free_port(host: str, last_port: int) -> int:
    for port in (last_port, 0):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("no port is free", code="port_in_use")


def _server(composition: Composition, yard: Yard) -> uvicorn.Server:
    config = uvicorn.Config(
        make_asgi(composition, yard, DIALECTS),
        log_level="warning",
        access_log=False,
        lifespan="off",
        http=partial(Door, Admission()),  # type: ignore[arg-type]  # uvicorn calls it with keywords, as it does a class
        timeout_graceful_shutdown=3,
        server_header=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    # uvicorn would raise the signal again after its shutdown, before ours; the yard's own handlers only ask it to end.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: setattr(server, "should_exit", True))
    return server


async def _start_features(composition: Composition, yard: Yard) -> None:
    """Start what features need before the first request. One that fails is logged; the yard serves without it."""
    for feature in composition.features:
        if feature.start is not None:
            try:
                await feature.start(yard)
            except YardError as error:
                log.error("%s: %s", feature.name, error)


def _settle_collector() -> None:
    """Freeze the objects created so far: garbage collections then walk only what requests leave behind, which is little."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _record(yard: Yard) -> dict[str, Any]:
    return {
        "pid": os.getpid(), "url": yard.url, "router_url": yard.router_url, "version": __version__, "started": time.time(),
        "isolation": yard.isolation, "notices": yard.notices,
        "environments": str(yard.settings.environments_of(yard.home)),
    }  # fmt: skip
