"""Runs the steps of a build, in which code of packages may run: confined, in a network of its own, and ended whole.

    python -I …/modelyard_runtime build        (a `protocol.BuildRequest` comes as one line of JSON on standard input, which stays open)

Three processes: this one watches; one is confined and runs the steps; one serves the steps' only way out (`egress`). The way out is a
socket that listens inside the private network and is accepted from outside: it was handed over before the confinement. When standard
input ends, because the server did, everything is ended. The exit status is that of the step that failed, else 0.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from typing import NoReturn

from modelyard_runtime import protocol
from modelyard_runtime.protocol import BuildRequest, Confinement
from modelyard_runtime.supervision import egress, processes, sandbox

TIMED_OUT = 124
CONFINEMENT_FAILED = 125
BACKLOG = 128


def main(arguments: list[str]) -> int:
    if arguments:
        print("usage: build < REQUEST", file=sys.stderr)
        return 2
    request = protocol.read(BuildRequest, json.loads(_line(0)))
    sandbox.become_subreaper()
    try:
        return run(request)
    finally:
        processes.end_descendants(1000)
        _end_user(request)


def run(request: BuildRequest) -> int:
    _end_user(request)
    here, there = socket.socketpair()
    done, running = os.pipe()
    steps = os.fork()
    if steps == 0:
        here.close()
        os.close(done)
        _run_steps(request, there)
    there.close()
    os.close(running)
    listener = _received(here)
    if listener is None:
        return _status(steps)
    proxy = os.fork()
    if proxy == 0:
        os.close(done)
        _serve(request, listener)
    listener.close()
    here.sendall(b"1")  # the way out is served
    ended = _wait(done, request.seconds)
    if ended is None:
        return _status(steps)
    print("[modelyard] %s" % ended, file=sys.stderr, flush=True)
    return TIMED_OUT


def _wait(done: int, seconds: float) -> str | None:
    """Until the steps have ended; else why they are ended."""
    deadline = time.monotonic() + seconds
    watched = [done, 0]
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return "the build took longer than its limit of %d s" % seconds
        ready = select.select(watched, [], [], remaining)[0]
        if done in ready:
            return None
        if 0 in ready and not os.read(0, 4096):
            return "the server that began the build is gone"


def _line(descriptor: int) -> bytes:
    """Up to the end of a line, and not a byte further."""
    data = b""
    while not data.endswith(b"\n"):
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            break
        data += chunk
    return data


def _status(pid: int) -> int:
    status = os.waitpid(pid, 0)[1]
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


# The confined process


def _run_steps(request: BuildRequest, parent: socket.socket) -> NoReturn:
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        listener, private = _way_out()
        port = listener.getsockname()[1]
        parent.sendmsg([b"1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener.fileno()]))])
        if parent.recv(1) != b"1":
            os._exit(CONFINEMENT_FAILED)
        listener.close()
        parent.close()
        os.umask(0o022)
        if request.sandbox is not None:
            # A private network has nothing else to connect to; elsewhere Landlock leaves the port of the way out.
            request.sandbox.tcp = None if private else [port]
            sandbox.enter(request.sandbox)
        sandbox.die_with_parent(signal.SIGKILL)  # behind the change of user, which would clear it
        os.chdir(request.folder)
        way = "http://127.0.0.1:%d" % port
        proxies = {name: way for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
        os._exit(_steps(request, {**request.environment, **proxies}))
    except BaseException as error:
        os.write(2, ("[modelyard] the build could not be confined: %s\n" % error).encode())
    os._exit(CONFINEMENT_FAILED)


def _steps(request: BuildRequest, environment: dict[str, str]) -> int:
    for step in request.steps:
        status = subprocess.call(step.argv, env=environment)
        if status != 0 and not step.optional:
            return status if status > 0 else 128 - status
    return 0


def _way_out() -> tuple[socket.socket, bool]:
    """A listening socket on the loopback of a private network (True), else on the machine's."""
    try:
        sandbox.private_network()
        private = True
    except (OSError, AttributeError):
        private = False
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    return listener, private


# The proxy


def _received(connection: socket.socket) -> socket.socket | None:
    """The socket that the steps' process made; None when it ended before."""
    data, ancillary, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(4))
    if not data:
        return None
    descriptors = array.array("i")
    descriptors.frombytes(ancillary[0][2][:4])
    return socket.socket(fileno=descriptors[0])


def _serve(request: BuildRequest, listener: socket.socket) -> NoReturn:
    try:
        os.setsid()
        sandbox.die_with_parent(signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        proxy = egress.Proxy(request.egress)
        if request.sandbox is not None:
            # It reads nothing but the system's files, and has no rights that the steps do not have.
            sandbox.enter(Confinement([], [], request.egress.uid, landlock=request.sandbox.landlock))
        proxy.serve(listener)
    except BaseException as error:
        os.write(2, ("[modelyard] the proxy of the build ended: %s\n" % error).encode())
    os._exit(1)


def _end_user(request: BuildRequest) -> None:
    """Kill every process of the build's user, when it is the build's alone: in one call, which nothing that forks outruns."""
    uid = request.sandbox.uid if request.sandbox is not None else None
    if not request.alone or not isinstance(uid, int):
        return
    pid = os.fork()
    if pid == 0:
        try:
            os.setgid(uid)
            os.setuid(uid)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
