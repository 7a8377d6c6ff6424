"""Owns what must outlive the control plane: runners of jobs and of servers. One per yard.

    python -I …/modelyard_runtime supervisor STATE_FOLDER

It listens on `STATE_FOLDER/sock`. A request is one line of JSON with the token of `STATE_FOLDER/token`; so is the answer.
Ops: `start` {id, kind: job|server, request, secrets?}, `stop` {id}, `restart` {id}, `status` {id}, `list` {prefix},
`wait` {id} (answers when the process has ended), `ping`, `shutdown` {all}.

A job is started once and never again; a server is started again, with back-off, whenever it ends. The desired state is
stored in `STATE_FOLDER/entries`; after a kill, or when a newer version replaces it, the next supervisor adopts what still runs by pid,
start time and boot id, and starts the servers that are missing. Where a runner vanished it ends what is left of the command, by its
control group and by its mark, and gives a job a record that says so.

A full or failing disk never ends it: what cannot be stored now is stored as soon as there is room, and what was asked for is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import hmac
import json
import os
import secrets as random
import selectors
import signal
import socket
import sys
import time
import traceback
from typing import Any

from modelyard_runtime import files, protocol
from modelyard_runtime.protocol import ExitRecord, JobRequest, Reason
from modelyard_runtime.supervision import cgroups, meter, processes, runner, sandbox

RUNNER_ENVIRONMENT = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": os.environ.get("LANG", "C.UTF-8")}

BACK_OFF_S, MOST_BACK_OFF_S, STABLE_S = 0.2, 10.0, 30.0
ADOPTED_POLL_S = 0.2
REMAINS_POLL_S, REMAINS_S = 0.02, 10.0
"""What a runner left is ended and awaited; a process that the kernel cannot end is not awaited for longer."""
STATUSES = 1000
"""Wait statuses that are kept for runners that are not known to have vanished yet."""
DISK_POLL_S = 0.5
"""Between two attempts to store what a full disk refused."""
MAX_LINE = 4 << 20
CODE = files.code_digest("supervision")
"""Of the code that runs here, which may be older than what lies on disk by now."""


class Forked:
    """A runner: a fork of this process, which has one thread and has loaded the runner's code, instead of a new Python.

    It holds nothing open but its request's log and the pipe by which secrets come.
    """

    def __init__(self, request: str, log: int) -> None:
        self.returncode: int | None = None
        read_end, self._write_end = os.pipe()
        # A stop that comes at once waits until the runner can take it: it has the supervisor's handlers before its own.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, runner.STOPS)
        try:
            self.pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(read_end)
            os.close(self._write_end)
            raise
        if self.pid == 0:
            code = 70
            try:
                _become_runner(read_end, log)
                code = runner.run(request)
            except BaseException:
                files.report(traceback.format_exc())
            finally:
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read_end)

    def abandon(self) -> None:
        """It has not been told its secrets: it ends without starting anything."""
        os.close(self._write_end)
        self.wait()

    def hand_over(self, line: str) -> None:
        data = line.encode()
        try:
            while data:
                data = data[os.write(self._write_end, data) :]
        except OSError:
            pass  # it has ended; whoever reaps it says so
        os.close(self._write_end)

    def poll(self) -> int | None:
        if self.returncode is None:
            self._wait(os.WNOHANG)
        return self.returncode

    def wait(self) -> int | None:
        if self.returncode is None:
            self._wait(0)
        return self.returncode

    def _wait(self, flags: int) -> None:
        try:
            pid, status = os.waitpid(self.pid, flags)
        except ChildProcessError:
            self.returncode = -1
            return
        if pid:
            self.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def _become_runner(read_end: int, log: int) -> None:
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(read_end, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                pass
    sys.stdin = open(0, closefd=False)
    os.environ.clear()
    os.environ.update(RUNNER_ENVIRONMENT)


class Entry:
    """One supervised process: the request that defines it, and its state."""

    def __init__(self, id: str, kind: str, request: JobRequest) -> None:
        self.id = id
        self.kind = kind
        self.request = request
        self.process: Forked | None = None  # when it is our child
        self.known: dict[str, Any] | None = None  # its identity, ours or adopted
        self.restarts = 0
        self.last_exit = ""
        self.started_at = 0.0
        self.start_again_at: float | None = None
        self.stopping = False
        self.kill_at: float | None = None
        self.end_now = False  # requested while its runner has not started the command yet
        self.gone: str | None = None  # why there is no runner any more, while its end is not settled
        self.gone_at = 0.0
        self.command_killed = False  # by us, after its runner
        self.unsaved = False  # the disk refused its newest state
        self.waiters: list[socket.socket] = []

    def path(self, name: str) -> str:
        return os.path.join(self.request.folder, name)

    @property
    def uid(self) -> int | None:
        """The user id of the process, when it runs as a user of its own."""
        uid = self.request.sandbox.uid if self.request.sandbox is not None else None
        return uid if isinstance(uid, int) else None


class Supervisor:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self.selector = selectors.DefaultSelector()
        self.buffers: dict[socket.socket, bytes] = {}
        self.running = True
        self.end_all = False
        self.statuses: dict[int, int] = {}
        """pid → wait status of commands whose runner vanished."""
        self.token = self._token()
        self.name = hashlib.sha256(os.path.realpath(folder).encode()).hexdigest()[:16]
        self.groups = cgroups.Groups(self.name)
        self.announced = False
        self.reserve = files.Reserve(self._path("entry"))
        """Given up for an entry that the disk has no room for."""
        self.next_user = 0
        os.makedirs(self._path("entries"), exist_ok=True)

    def _path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def _token(self) -> str:
        path = self._path("token")
        if not os.path.exists(path):
            files.write_whole(path, random.token_hex(32).encode())
        with open(path) as file:
            return file.read()

    # Life

    def run(self) -> None:
        sandbox.become_subreaper()
        sandbox.hide()
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: setattr(self, "running", False))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._adopt()
        listener = self._listen()
        self.selector.register(listener, selectors.EVENT_READ, "listen")
        self.selector.register(wake_read, selectors.EVENT_READ, "wake")
        self._announce()
        while self.running or (self.end_all and self.entries):
            for key, _ in self.selector.select(self._pause()):
                if key.data == "listen":
                    self._accept(listener)
                elif key.data == "wake":
                    try:
                        os.read(wake_read, 4096)
                    except BlockingIOError:
                        pass
                elif isinstance(key.fileobj, socket.socket):
                    self._receive(key.fileobj)
            try:
                self._reap()
                self._turn()
            except OSError:  # such as too many open files: the next turn does what this one left
                files.report(traceback.format_exc())
        if self.end_all:
            self._end_everything()
        os.unlink(self._path("sock"))

    def _announce(self) -> None:
        """Say who supervises; as soon as the disk lets us."""
        try:
            files.write_json(self._path("running.json"), processes.identity(os.getpid()), durable=True)
            self.announced = True
        except OSError as error:
            self.announced = False
            files.report("supervisor: running.json is not stored yet: %s" % error)

    def _end_everything(self) -> None:
        """Whatever carries the mark of this yard: nothing stays after `down --all`."""
        until = time.monotonic() + REMAINS_S
        while time.monotonic() < until:
            left = [pid for pid in processes.marked(self.name + "/") if pid != os.getpid()]
            if not left:
                break
            for pid in left:
                _kill(pid)
            self._end_strays()
            time.sleep(REMAINS_POLL_S)
        self.groups.remove()

    def _listen(self) -> socket.socket:
        listener = files.bound_socket(self._path("sock"), 0o600)
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def _pause(self) -> float:
        now = time.monotonic()
        moments = [5.0]
        for entry in self.entries.values():
            if entry.start_again_at is not None:
                moments.append(max(0.0, entry.start_again_at - now))
            if entry.kill_at is not None:
                moments.append(max(0.0, entry.kill_at - now))
            if entry.known and (entry.process is None or entry.end_now):
                moments.append(ADOPTED_POLL_S)
            if entry.gone is not None:
                moments.append(REMAINS_POLL_S)
            if entry.unsaved:
                moments.append(DISK_POLL_S)
        return min(moments)

    def _turn(self) -> None:
        now = time.monotonic()
        for entry in list(self.entries.values()):
            if entry.known and entry.process is None and not processes.is_alive(entry.known):
                self._lose(entry, "its runner ended while no supervisor was there")
            if entry.gone is not None:
                self._settle(entry)
            if entry.end_now:
                self._end_processes(entry)
            if entry.kill_at is not None and now >= entry.kill_at and entry.known:
                _kill(entry.known["pid"])
                entry.kill_at = now + 1
            if entry.start_again_at is not None and now >= entry.start_again_at and not entry.stopping:
                self._start_again(entry)
            if entry.unsaved:
                self._keep(entry)
        if not self.announced:
            self._announce()
        if not any(entry.unsaved for entry in self.entries.values()):
            self.reserve.take()

    # Processes

    def _adopt(self) -> None:
        for name in sorted(os.listdir(self._path("entries"))):
            stored = files.read_json(self._path("entries", name)) if name.endswith(".json") else None
            if stored is None:
                continue
            try:
                request = protocol.read(JobRequest, stored["request"])
            except protocol.Malformed as problem:
                files.report("entry %s of %s is left alone: %s" % (name, stored.get("id"), problem))
                continue
            entry = Entry(stored["id"], stored["kind"], request)
            if entry.kind == "server":
                request.argv = present_argv(request.argv)
            entry.known = stored.get("process")
            entry.restarts = stored.get("restarts", 0)
            self.entries[entry.id] = entry
            entry.started_at = time.monotonic()
            if not processes.is_alive(entry.known):
                self._lose(entry, "its runner vanished while no supervisor was there")

    def _spawn(self, entry: Entry, secrets: dict[str, str]) -> None:
        """Raises OSError, with nothing started."""
        path = entry.path("request.json")
        entry.request.mark = "%s/%s" % (self.name, _digest(entry.id))
        entry.request.cgroup = self.groups.make(_digest(entry.id))
        files.write_json(path, protocol.document(entry.request))
        log = os.open(entry.path("runner.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            process = Forked(path, log)
        finally:
            os.close(log)
        entry.known = processes.identity(process.pid)
        entry.started_at = time.monotonic()
        try:
            self._store(entry)
        except OSError:
            process.abandon()
            entry.known = None
            cgroups.remove(entry.request.cgroup)
            raise
        entry.process = process
        process.hand_over(json.dumps(secrets) + "\n")

    def _start_again(self, entry: Entry) -> None:
        entry.start_again_at = None
        try:
            self._spawn(entry, {})
        except OSError as error:
            entry.last_exit = "it could not be started again: %s" % error
            entry.start_again_at = time.monotonic() + MOST_BACK_OFF_S / 10

    def _reap(self) -> None:
        for entry in list(self.entries.values()):
            if entry.process is not None and entry.process.poll() is not None:
                self._lose(entry, "its runner ended with code %s" % entry.process.returncode)
        self._end_strays()

    def _lose(self, entry: Entry, why: str) -> None:
        """There is no runner any more; `_settle` finds out how the command ended."""
        entry.process = entry.known = entry.kill_at = None
        entry.end_now = False
        entry.gone, entry.gone_at = why, time.monotonic()

    def _end_strays(self) -> None:
        """Orphans of a runner that was killed come to us; they belong to nobody now and are ended."""
        ours = {entry.process.pid for entry in self.entries.values() if entry.process is not None}
        for pid in processes.children(os.getpid()):
            if pid in ours:
                continue
            _kill(pid)
            try:
                reaped, status = os.waitpid(pid, os.WNOHANG)
            except OSError:
                continue
            if reaped:
                if len(self.statuses) >= STATUSES:
                    self.statuses.clear()
                self.statuses[reaped] = status

    def _settle(self, entry: Entry) -> None:
        """End what is left of a command without a runner; then record how it ended, and forget it or start it again."""
        record = _exit_record(entry)
        late = time.monotonic() > entry.gone_at + REMAINS_S
        if self._end_remains(entry, record) and not late:
            return
        if record is None:
            record = self._record_of(entry)
            if entry.kind == "job" and not _recorded(entry, record):
                return  # the disk is full: again at the next turn
        self._settled(entry, record)

    def _end_remains(self, entry: Entry, record: ExitRecord | None) -> bool:
        """Whether something of the command was still there. After a record of its runner nothing is but in a control group."""
        group = entry.request.cgroup
        left = set(cgroups.pids(group))
        if record is None:
            left.update(processes.marked(entry.request.mark, entry.uid))
        if not left:
            return False
        entry.command_killed = entry.command_killed or record is None
        cgroups.kill(group)
        for pid in left:
            _kill(pid)
        return True

    def _record_of(self, entry: Entry) -> ExitRecord:
        """How a command ended whose runner left no record."""
        running = files.read_json(entry.path("running.json"))
        running = running if isinstance(running, dict) else {}
        began = running.get("started_ms")
        status = self.statuses.pop(running.get("child", 0), None)
        killed = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if status is not None and not killed:  # it had ended before its runner did
            reason, code, message = runner.described(status)
            return ExitRecord(reason, code, message, began, int(time.time() * 1000))
        if killed or entry.command_killed:
            return ExitRecord(Reason.RUNNER_KILLED, None, "%s; the command, which went on, was ended" % entry.gone, began)
        return ExitRecord(Reason.LOST, None, "%s, and left no record of how the command ended" % entry.gone, began)

    def _settled(self, entry: Entry, record: ExitRecord) -> None:
        entry.gone = None
        entry.command_killed = False
        entry.last_exit = record.message
        cgroups.remove(entry.request.cgroup)
        for connection in entry.waiters:
            self._answer(connection, {"ok": True, "exit": protocol.document(record)})
        entry.waiters = []
        if entry.kind == "job" or entry.stopping or self.end_all:
            self._forget(entry)
            return
        lived = time.monotonic() - entry.started_at
        entry.restarts = 1 if lived > STABLE_S else entry.restarts + 1
        entry.start_again_at = time.monotonic() + min(MOST_BACK_OFF_S, BACK_OFF_S * 2 ** min(10, entry.restarts - 1))
        try:
            os.unlink(entry.path("exit.json"))
        except OSError:
            pass
        self._keep(entry)

    def _store(self, entry: Entry) -> None:
        """Raises OSError."""
        stored = {
            "id": entry.id, "kind": entry.kind, "request": protocol.document(entry.request), "process": entry.known, "restarts": entry.restarts,
        }  # fmt: skip
        try:
            files.write_json(self._file(entry.id), stored)
        except OSError:
            self.reserve.drop()
            files.write_json(self._file(entry.id), stored)
        entry.unsaved = False

    def _keep(self, entry: Entry) -> None:
        """Store an entry, now or as soon as the disk lets us."""
        try:
            self._store(entry)
        except OSError as error:
            if not entry.unsaved:
                files.report("supervisor: the state of %s is not stored yet: %s" % (entry.id, error))
            entry.unsaved = True

    def _forget(self, entry: Entry) -> None:
        self.entries.pop(entry.id, None)
        try:
            os.unlink(self._file(entry.id))
        except OSError:
            pass

    def _file(self, id: str) -> str:
        return self._path("entries", _digest(id) + ".json")

    # Requests

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        if not files.is_own_peer(connection):
            connection.close()
            return
        connection.setblocking(False)
        self.buffers[connection] = b""
        self.selector.register(connection, selectors.EVENT_READ, "client")

    def _receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self.buffers[connection]) > MAX_LINE:
            self._close(connection)
            return
        self.buffers[connection] += data
        if b"\n" not in self.buffers[connection]:
            return
        line, self.buffers[connection] = self.buffers[connection].split(b"\n", 1)
        try:
            message = json.loads(line)
            if not hmac.compare_digest(str(message.get("token", "")), self.token):
                raise ValueError("wrong token")
            answer = getattr(self, "op_" + message["op"])(message, connection)
        except Exception as error:
            answer = {"ok": False, "error": "%s: %s" % (type(error).__name__, error), "errno": getattr(error, "errno", None)}
        if answer is not None:
            self._answer(connection, answer)

    def _answer(self, connection: socket.socket, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode() + b"\n"
        try:
            connection.setblocking(True)
            connection.settimeout(2)
            connection.sendall(data)
            connection.setblocking(False)
        except (OSError, ValueError):
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        for entry in self.entries.values():
            if connection in entry.waiters:
                entry.waiters.remove(connection)
        self.buffers.pop(connection, None)
        try:
            self.selector.unregister(connection)
        except (KeyError, ValueError):
            pass
        connection.close()

    def op_ping(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        return {"ok": True, "pid": os.getpid(), "code": CODE}

    def op_start(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        request = protocol.read(JobRequest, message["request"])
        entry = self.entries.get(message["id"])
        if message["kind"] == "job":
            # A runner waits for its secrets, which are sent after its entry is stored: without entry and exit record it never ran.
            if entry is not None or os.path.exists(os.path.join(request.folder, "exit.json")):
                return {"ok": True, "already": True}
        elif entry is not None and _same(entry.request, request) and not entry.stopping:
            return {"ok": True, "already": True}
        if request.sandbox is not None and request.sandbox.uid == "own":
            request.sandbox.uid = self._free_user()
        entry = Entry(message["id"], message["kind"], request)
        if entry.kind == "job":
            self._spawn(entry, message.get("secrets") or {})
            self.entries[entry.id] = entry
        else:
            self._store(entry)  # a disk that refuses this refuses the request, and the earlier server goes on
            self._stop_now(message["id"])
            self.entries[entry.id] = entry
            self._start_again(entry)
        return {"ok": True}

    def _stop_now(self, id: str) -> None:
        """End an entry that is replaced, whole tree, before its successor takes the same socket."""
        entry = self.entries.pop(id, None)
        if entry is None:
            return
        if entry.known:
            _kill(entry.known["pid"])
            if entry.process is not None:
                entry.process.wait()
        until = time.monotonic() + REMAINS_S
        while self._end_remains(entry, None) and time.monotonic() < until:
            self._end_strays()
            time.sleep(REMAINS_POLL_S)

    def _free_user(self) -> int:
        used = {entry.uid for entry in self.entries.values()}
        path = self._path("next_user")
        number = max(self.next_user, files.read_json(path) or 0)
        users = len(processes.OWN_USERS)
        for step in range(users):
            candidate = processes.OWN_USERS[(number + step) % users]
            if candidate not in used:
                self.next_user = (number + step + 1) % users
                with contextlib.suppress(OSError):  # the next supervisor begins with an earlier one
                    files.write_json(path, self.next_user)
                return candidate
        raise OSError(errno.EAGAIN, "all user ids are in use")

    def op_stop(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        entry = self.entries.get(message["id"])
        if entry is None:
            return {"ok": True, "already": True}
        entry.stopping = True
        if entry.known:
            processes.send(entry.known["pid"], signal.SIGTERM)
            entry.kill_at = time.monotonic() + 15
        elif entry.gone is None:
            self._forget(entry)
        return {"ok": True}

    def op_status(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        entry = self.entries.get(message["id"])
        if entry is None:
            return {"ok": True, "found": False}
        pid = entry.known["pid"] if entry.known else None
        cpu, memory = meter.usage(processes.descendants(pid)) if pid else (0.0, 0)
        return {
            "ok": True, "found": True, "running": bool(entry.known), "restarts": entry.restarts, "last_exit": entry.last_exit,
            "pid": pid, "since_s": time.monotonic() - entry.started_at, "memory_bytes": int(memory), "cpu_s": cpu,
        }  # fmt: skip

    def op_restart(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        """End a server's processes now; it is started again with the back-off of one that ended by itself."""
        entry = self.entries.get(message["id"])
        if entry is None or entry.kind != "server":
            return {"ok": True, "found": False}
        entry.end_now = entry.known is not None
        self._end_processes(entry)
        return {"ok": True, "found": True}

    def _end_processes(self, entry: Entry) -> None:
        """End what a runner started; when that is nothing yet, the next turn tries again."""
        for pid in processes.descendants(entry.known["pid"]) if entry.known else ():
            processes.send(pid, signal.SIGKILL)
            entry.end_now = False

    def op_list(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        return {"ok": True, "ids": sorted(id for id in self.entries if id.startswith(message.get("prefix", "")))}

    def op_wait(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any] | None:
        entry = self.entries.get(message["id"])
        if entry is None:
            return {"ok": True, "exit": files.read_json(os.path.join(message["folder"], "exit.json"))}
        entry.waiters.append(connection)
        return None

    def op_shutdown(self, message: dict[str, Any], connection: socket.socket) -> dict[str, Any]:
        self.running = False
        if message.get("all"):
            self.end_all = True
            for id in list(self.entries):
                self.op_stop({"id": id}, connection)
        return {"ok": True}


def present_argv(argv: list[str]) -> list[str]:
    """The command of a server whose entry was stored by a version that started its programs as single files, which are gone."""
    for index, word in enumerate(argv):
        folder, name = os.path.split(word)
        if os.path.basename(folder) == "modelyard_runtime" and name in ("router.py", "model_server.py"):
            return [*argv[:index], folder, name[: -len(".py")], *argv[index + 1 :]]
    return argv


def _digest(id: str) -> str:
    return hashlib.sha256(id.encode()).hexdigest()[:32]


def _recorded(entry: Entry, record: ExitRecord) -> bool:
    """Whether the end of a command is on record; where there is no folder for it any more, nobody asks."""
    try:
        runner.write_record(entry.path("exit.json"), record)
    except OSError as error:
        return not files.may_pass(error)
    return True


def _exit_record(entry: Entry) -> ExitRecord | None:
    try:
        return protocol.read(ExitRecord, files.read_json(entry.path("exit.json")))
    except protocol.Malformed:
        return None


def _same(old: JobRequest, new: JobRequest) -> bool:
    """Whether two definitions differ in nothing but what the supervisor has chosen."""

    def plain(request: JobRequest) -> JobRequest:
        confined = request.sandbox
        sandbox = dataclasses.replace(confined, uid=None) if confined is not None else None
        return dataclasses.replace(request, sandbox=sandbox, mark="", cgroup=None)

    return plain(old) == plain(new)


def _kill(pid: int) -> None:
    """End a process and everything below it."""
    for below in processes.tree(pid):
        processes.send(below, signal.SIGKILL)


def main(arguments: list[str]) -> int:
    folder = os.path.abspath(arguments[0])
    lock = open(os.path.join(folder, "lock"), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        files.report("another supervisor runs already")
        return 0
    os.set_inheritable(lock.fileno(), False)
    Supervisor(folder).run()
    return 0
