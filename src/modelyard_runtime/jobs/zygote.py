"""A warm interpreter: Python with the usual packages loaded, which forks for `python SCRIPT.py` instead of starting anew.

    python …/modelyard_runtime zygote FOLDER [PACKAGES THAT ARE NOT LOADED…]

In `FOLDER/run`: `key` (read once and deleted: 32 bytes that a caller must send), the socket `sock`, and `ready`, which names what is
loaded. That is what is installed of PRELOADED, without what starts threads: only a process with one thread may fork. A caller (a
job's runner) sends the key, then a `protocol.ForkRequest` as a line of JSON together with the pipe for the output and a pipe on which the
child waits until its runner has put it into its control group. It is answered `accepted`, then the `pid`, and in the end a `protocol.ForkEnd`. The child differs from a fresh interpreter in nothing that a script can
rely on: its own session, environment, working directory, sandbox, random state, modules, `__main__`, and exit. Ends when nobody asked for
IDLE_S.
"""

from __future__ import annotations

import array
import builtins
import gc
import hmac
import importlib
import importlib.machinery
import importlib.util
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
import types
from typing import Any

from modelyard_runtime import files, protocol
from modelyard_runtime.protocol import ForkEnd, ForkRequest, Usage
from modelyard_runtime.supervision import processes, sandbox

PRELOADED = (
    "numpy", "scipy.stats", "scipy.optimize", "scipy.sparse.linalg", "pandas", "joblib", "sklearn.base", "sklearn.linear_model",
    "sklearn.ensemble", "sklearn.model_selection", "sklearn.preprocessing", "sklearn.pipeline", "sklearn.compose", "sklearn.impute",
    "sklearn.metrics", "sklearn.tree", "sklearn.svm", "sklearn.neighbors", "sklearn.cluster", "sklearn.decomposition", "sklearn.datasets",
    "sklearn.feature_extraction.text", "pyarrow", "pyarrow.parquet", "yaml", "requests", "mlflow", "mlflow.sklearn",
)  # fmt: skip
IDLE_S = 600.0
KEY_BYTES = 32
MAX_LINE = 4 << 20
MOST_SAID = 2000
PACKAGE = "modelyard_runtime"


class Ended(Exception):
    """Raised in a forked child to leave the serving loop; carries what it has to run, and what it waits for before that."""

    def __init__(self, request: ForkRequest, failure: int, gate: int, parent: int) -> None:
        Exception.__init__(self)
        self.request, self.failure, self.gate, self.parent = request, failure, gate, parent


class Zygote:
    def __init__(self, folder: str, key: bytearray) -> None:
        self.folder, self.key = folder, key
        self.callers: dict[socket.socket, Caller] = {}
        self.opened: tuple[socket.socket, ...] = ()
        self.selector = selectors.DefaultSelector()
        self.used_at = time.monotonic()

    def serve(self) -> None:
        sandbox.become_subreaper()
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        woken.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        listener = files.bound_socket(os.path.join(self.folder, "run", "sock"), 0o600)
        listener.listen(64)
        listener.setblocking(False)
        self.opened = (listener, wake, woken)
        self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(woken, selectors.EVENT_READ)
        loaded = sorted({name.partition(".")[0] for name in sys.modules} - {PACKAGE})
        files.write_json(os.path.join(self.folder, "run", "ready"), {"modules": loaded})
        while self.callers or time.monotonic() - self.used_at < IDLE_S:
            for event, _ in self.selector.select(30):
                if event.fileobj is listener:
                    self._accept(listener)
                elif event.fileobj is woken:
                    try:
                        woken.recv(4096)
                    except BlockingIOError:
                        pass
                else:
                    assert isinstance(event.fileobj, socket.socket)
                    self._receive(self.callers[event.fileobj])
            self._reap()

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.settimeout(5)
        self.callers[connection] = Caller(connection)
        self.selector.register(connection, selectors.EVENT_READ)

    def _receive(self, caller: Caller) -> None:
        """A request, once; later anything is the end of a caller that does not wait any more."""
        try:
            asked = caller.receive(self.key) if caller.child is None else None
        except (OSError, ValueError):
            asked = None
        if asked is None:
            self._forget(caller)
            return
        self.used_at = time.monotonic()
        caller.say({"accepted": True})  # from here on the caller never starts the command another way
        failed, failure = os.pipe()  # by which the child says that it could not begin; closed before the script runs
        zygote, pid = os.getpid(), os.fork()
        if pid == 0:
            os.close(failed)
            self._leave(caller)
            raise Ended(asked, failure, caller.gate, zygote)
        os.close(failure)
        os.close(caller.output)
        if caller.gate >= 0:
            os.close(caller.gate)
        caller.child, caller.failed = pid, failed
        caller.say({"pid": pid})

    def _leave(self, requester: Caller) -> None:
        """In a child: close the zygote's descriptors and wipe its key; only the output of `requester` is used on."""
        signal.set_wakeup_fd(-1)
        for index in range(len(self.key)):
            self.key[index] = 0
        output = requester.output
        # Through their objects: one that closed its number again later would close a file of the script's.
        self.selector.close()
        for held in (*self.opened, *self.callers):
            held.close()
        for caller in self.callers.values():
            if caller.failed >= 0:
                os.close(caller.failed)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)

    def _forget(self, caller: Caller) -> None:
        if caller.child is not None:
            _kill(caller.child)
            return  # forgotten when it has been reaped
        self.selector.unregister(caller.connection)
        del self.callers[caller.connection]
        caller.connection.close()

    def _reap(self) -> None:
        by_child = {caller.child: caller for caller in self.callers.values() if caller.child is not None}
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            caller = by_child.pop(pid, None)
            if caller is None:
                continue
            self.used_at = time.monotonic()
            usage = Usage(round(used.ru_utime + used.ru_stime, 3), used.ru_maxrss * 1024)
            caller.say(protocol.document(ForkEnd(status, usage, caller.reason())))
            caller.child = None
            self._forget(caller)
        # While a child runs its orphans are its own (it is a subreaper): what else is ours was left by one that has ended.
        for pid in processes.children(os.getpid()):
            if pid not in by_child:
                _kill(pid)


class Caller:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.child: int | None = None
        self.output = -1
        self.gate = -1
        self.failed = -1

    def receive(self, key: bytearray) -> ForkRequest | None:
        """The request, or None when it is not one. The key is compared and wiped before anything is forked."""
        received = bytearray(KEY_BYTES)
        count = self.connection.recv_into(received, KEY_BYTES)
        same = count == KEY_BYTES and hmac.compare_digest(received, key)
        for index in range(len(received)):
            received[index] = 0
        if not same:
            return None
        size = struct.calcsize("2i")
        data, ancillary, _, _ = self.connection.recvmsg(1 << 16, socket.CMSG_SPACE(size))
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(value[:size])
                self.output = descriptors[0]
                self.gate = descriptors[1] if len(descriptors) > 1 else -1
        while not data.endswith(b"\n") and len(data) < MAX_LINE:
            chunk = self.connection.recv(1 << 16)
            if not chunk:
                return None
            data += chunk
        return protocol.read(ForkRequest, json.loads(data)) if self.output >= 0 else None

    def reason(self) -> str:
        """Why the script was not begun; empty when it was. Asked once the child has ended."""
        reason = os.read(self.failed, MOST_SAID).decode("utf-8", "replace")
        os.close(self.failed)
        self.failed = -1
        return reason

    def say(self, document: dict[str, Any]) -> None:
        try:
            self.connection.sendall(json.dumps(document).encode() + b"\n")
        except OSError:
            pass


def _kill(pid: int) -> None:
    """End a process and everything below it."""
    for below in processes.tree(pid):
        processes.send(below, signal.SIGKILL)


# The child


def run(start: Ended) -> None:
    """Be the process that `python SCRIPT ARGUMENTS…` would have been. Never returns."""
    code = 1
    request, failure = start.request, start.failure
    try:
        _become(request, start.parent)
        if start.gate >= 0:
            if not os.read(start.gate, 1):
                os._exit(126)  # its runner has ended
            os.close(start.gate)
    except BaseException as error:
        os.write(2, ("[modelyard] the command could not be started: %s\n" % error).encode())
        os.write(failure, str(error).encode()[:MOST_SAID] or b"?")
        os._exit(126)
    os.close(failure)
    before = set(sys.modules)
    for name in [name for name in before if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]  # as in a fresh interpreter
    try:
        code = _call(request.script, request.arguments)
    finally:
        _finish(before, code)


def _become(request: ForkRequest, parent: int) -> None:
    os.setsid()
    sandbox.become_subreaper()
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)
    if request.sandbox is not None:
        sandbox.enter(request.sandbox)
    sandbox.die_with(parent)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    for name in ("random", "numpy.random"):
        if name in sys.modules:
            sys.modules[name].seed()
    if "tempfile" in sys.modules:
        vars(sys.modules["tempfile"])["tempdir"] = None  # it follows TMPDIR


def _call(script: str, arguments: list[str]) -> int:
    """The exit code of the script, run as `__main__`."""
    path = os.path.abspath(script)
    sys.argv = [script, *arguments]
    if hasattr(sys, "orig_argv"):
        sys.orig_argv = [sys.executable, script, *arguments]
    sys.path.insert(0, os.path.dirname(path))
    importlib.invalidate_caches()
    main = types.ModuleType("__main__")
    loader = importlib.machinery.SourceFileLoader("__main__", path)
    vars(main).update(__file__=path, __builtins__=builtins, __cached__=None, __loader__=loader, __annotations__={}, __package__=None)
    sys.modules["__main__"] = main
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        print("%s: can't open file %r: [Errno %d] %s" % (sys.executable, path, error.errno or 0, error.strerror), file=sys.stderr)
        return 2
    try:
        exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)
    except SystemExit as end:
        return _exit_code(end.code)
    except KeyboardInterrupt as error:
        _report(error)
        return -signal.SIGINT
    except BaseException as error:
        _report(error)
        return 1
    return 0


def _exit_code(code: Any) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _report(error: BaseException) -> None:
    """What the interpreter prints of an exception that nobody caught, without our own frame."""
    own = error.__traceback__
    error.__traceback__ = own.tb_next if own is not None else None
    sys.excepthook(type(error), error, error.__traceback__)


def _finish(before: set[str], code: int) -> None:
    """Everything the interpreter does at its end but taking down what was loaded before: that would only copy memory."""
    try:
        import atexit
        import threading

        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        # Files that the script left open are written when its names go.
        modules = [module for name, module in list(sys.modules.items()) if name == "__main__" or name not in before]
        for module in modules:
            if isinstance(module, types.ModuleType) and (getattr(module, "__name__", "") == "__main__" or _is_scripts_own(module)):
                for name in list(vars(module)):
                    if not name.startswith("__"):
                        vars(module)[name] = None
        gc.collect()
    except BaseException as error:
        _report(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def _is_scripts_own(module: types.ModuleType) -> bool:
    """A module of the job's own code, not one of an installed package."""
    path = getattr(module, "__file__", None) or ""
    return path.startswith(sys.path[0] + os.sep)


# Starting


def preload(without: list[str]) -> str | None:
    """Load what is installed. The name of the module that started a thread, or None."""
    for name in PRELOADED:
        if name in without or name.partition(".")[0] in without:
            continue
        try:
            if importlib.util.find_spec(name.partition(".")[0]) is None:
                continue
            importlib.import_module(name)
        except BaseException:
            continue
        if len(os.listdir("/proc/self/task")) > 1:
            return name
    return None


def main(arguments: list[str]) -> int:
    folder, without = arguments[0], arguments[1:]
    path = os.path.join(folder, "run", "key")
    started = preload(without)
    if started is not None and len(without) < len(PRELOADED):
        os.execv(sys.executable, [sys.executable, files.RUNTIME, "zygote", folder, *without, started])
    with open(path, "rb") as file:
        key = bytearray(file.read())
    os.unlink(path)
    if len(key) != KEY_BYTES:
        return 2
    gc.collect()
    if hasattr(gc, "freeze"):
        gc.freeze()
    child = None
    try:
        Zygote(folder, key).serve()
    except Ended as end:
        child = end
    if child is not None:  # not inside the handler: an error of the script would be printed as raised during the handling of `Ended`
        run(child)
    return 0
