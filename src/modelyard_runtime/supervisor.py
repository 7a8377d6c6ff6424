"""Owns what must outlive the control plane: runners of jobs and of servers. One per yard.

    python -I supervisor.py STATE_FOLDER

It listens on `STATE_FOLDER/sock`. A request is one line of JSON with the token of `STATE_FOLDER/token`; so is the answer.
Ops: `start` {id, kind: job|server, request, secrets?}, `stop` {id}, `restart` {id}, `status` {id}, `list` {prefix},
`wait` {id} (answers when the process has ended), `ping`, `shutdown` {all}.

A job is started once and never again; a server is started again, with back-off, whenever it ends. What is wanted is kept
in `STATE_FOLDER/entries`; after a kill the next supervisor adopts what still runs by pid, start time and boot id, starts
the servers that are missing, and gives a job whose runner vanished a record that says so.
"""

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

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import records
import runner
import sandbox

RUNNER_ENVIRONMENT = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": os.environ.get("LANG", "C.UTF-8")}

FIRST_USER, USERS = 52000, 8000
BACK_OFF_S, MOST_BACK_OFF_S, STABLE_S = 0.2, 10.0, 30.0
ADOPTED_POLL_S = 0.2
MAX_LINE = 4 << 20


class Forked:
    """A runner: a fork of this process, which has one thread and has loaded the runner's code, instead of a new Python.

    It holds nothing open but its request's log and the pipe by which secrets come.
    """

    def __init__(self, request, log):
        self.returncode = None
        read_end, self._write_end = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(read_end)
            os.close(self._write_end)
            raise
        if self.pid == 0:
            code = 70
            try:
                _become_runner(read_end, log)
                code = runner.main(request)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(read_end)

    def hand_over(self, line):
        data = line.encode()
        try:
            while data:
                data = data[os.write(self._write_end, data) :]
        except OSError:
            pass  # it has ended; whoever reaps it says so
        os.close(self._write_end)

    def poll(self):
        if self.returncode is None:
            self._wait(os.WNOHANG)
        return self.returncode

    def wait(self):
        if self.returncode is None:
            self._wait(0)
        return self.returncode

    def _wait(self, flags):
        try:
            pid, status = os.waitpid(self.pid, flags)
        except ChildProcessError:
            self.returncode = -1
            return
        if pid:
            self.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


def _become_runner(read_end, log):
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
    """One process that is wanted, with what is known about it."""

    def __init__(self, id, kind, request):
        self.id = id
        self.kind = kind
        self.request = request
        self.process = None  # Forked, when it is our child
        self.known = None  # its identity, ours or adopted
        self.restarts = 0
        self.last_exit = ""
        self.started_at = 0.0
        self.start_again_at = None
        self.stopping = False
        self.kill_at = None
        self.waiters = []


class Supervisor:
    def __init__(self, folder):
        self.folder = folder
        self.entries = {}
        self.selector = selectors.DefaultSelector()
        self.buffers = {}
        self.running = True
        self.end_all = False
        self.token = self._token()
        os.makedirs(self._path("entries"), exist_ok=True)

    def _path(self, *names):
        return os.path.join(self.folder, *names)

    def _token(self):
        path = self._path("token")
        if not os.path.exists(path):
            descriptor = os.open(path + ".partial", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(random.token_hex(32))
            os.rename(path + ".partial", path)
        with open(path) as file:
            return file.read()

    # Life

    def run(self):
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
        records.write_durably(self._path("running.json"), records.identity(os.getpid()))
        while self.running or (self.end_all and self.entries):
            for key, _ in self.selector.select(self._pause()):
                if key.data == "listen":
                    self._accept(listener)
                elif key.data == "wake":
                    try:
                        os.read(wake_read, 4096)
                    except BlockingIOError:
                        pass
                else:
                    self._receive(key.fileobj)
            self._reap()
            self._turn()
        os.unlink(self._path("sock"))

    def _listen(self):
        path = self._path("sock")
        if os.path.exists(path):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # Bound by a short relative name: the path of a unix socket has 107 bytes at most.
        os.chdir(self.folder)
        old = os.umask(0o177)
        listener.bind("sock")
        os.umask(old)
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def _pause(self):
        now = time.monotonic()
        moments = [5.0]
        for entry in self.entries.values():
            if entry.start_again_at is not None:
                moments.append(max(0.0, entry.start_again_at - now))
            if entry.kill_at is not None:
                moments.append(max(0.0, entry.kill_at - now))
            if entry.known and entry.process is None:
                moments.append(ADOPTED_POLL_S)
        return min(moments)

    def _turn(self):
        now = time.monotonic()
        for entry in list(self.entries.values()):
            if entry.known and entry.process is None and not records.is_alive(entry.known):
                self._ended(entry, "ended while no supervisor was there")
            if entry.kill_at is not None and now >= entry.kill_at and entry.known:
                for pid in [*records.descendants(entry.known["pid"]), entry.known["pid"]]:
                    _kill(pid, signal.SIGKILL)
                entry.kill_at = now + 1
            if entry.start_again_at is not None and now >= entry.start_again_at and not entry.stopping:
                entry.start_again_at = None
                self._spawn(entry, {})

    # Processes

    def _adopt(self):
        for name in sorted(os.listdir(self._path("entries"))):
            document = records.read(self._path("entries", name)) if name.endswith(".json") else None
            if document is None:
                continue
            entry = Entry(document["id"], document["kind"], document["request"])
            entry.known = document.get("process")
            entry.restarts = document.get("restarts", 0)
            self.entries[entry.id] = entry
            if records.is_alive(entry.known):
                entry.started_at = time.monotonic()
            elif entry.kind == "server":
                entry.known = None
                entry.start_again_at = time.monotonic()
            else:
                self._ended(entry, "vanished")

    def _spawn(self, entry, secrets):
        path = os.path.join(entry.request["folder"], "request.json")
        records.write(path, entry.request)
        log = open(os.path.join(entry.request["folder"], "runner.log"), "ab")
        try:
            process = Forked(path, log.fileno())
        except OSError as error:
            entry.last_exit = "could not be started: %s" % error
            self._ended(entry, entry.last_exit)
            return
        finally:
            log.close()
        entry.process = process
        entry.known = records.identity(process.pid)
        entry.started_at = time.monotonic()
        self._keep(entry)
        process.hand_over(json.dumps(secrets) + "\n")

    def _reap(self):
        for entry in list(self.entries.values()):
            if entry.process is not None and entry.process.poll() is not None:
                self._ended(entry, "its runner ended")
        self._end_strays()

    def _end_strays(self):
        """Orphans of a runner that was killed come to us; they belong to nobody now and are ended."""
        ours = {entry.process.pid for entry in self.entries.values() if entry.process is not None}
        for pid in records.children(os.getpid()):
            if pid in ours:
                continue
            for below in [*records.descendants(pid), pid]:
                _kill(below, signal.SIGKILL)
            try:
                os.waitpid(pid, os.WNOHANG)
            except OSError:
                pass

    def _ended(self, entry, why):
        record_path = os.path.join(entry.request["folder"], "exit.json")
        record = records.read(record_path)
        began = (records.read(os.path.join(entry.request["folder"], "running.json")) or {}).get("started_ms")
        if record is None:
            record = {"reason": "lost", "code": None, "message": "the process %s without a record" % why, "started_ms": began}
            if entry.kind == "job":
                records.write_durably(record_path, record)
        entry.process = None
        entry.known = None
        entry.kill_at = None
        entry.last_exit = record["message"]
        for connection in entry.waiters:
            self._answer(connection, {"ok": True, "exit": record})
        entry.waiters = []
        if entry.kind == "job" or entry.stopping or self.end_all:
            self._forget(entry)
            return
        lived = time.monotonic() - entry.started_at
        entry.restarts = 1 if lived > STABLE_S else entry.restarts + 1
        entry.start_again_at = time.monotonic() + min(MOST_BACK_OFF_S, BACK_OFF_S * 2 ** min(10, entry.restarts - 1))
        try:
            os.unlink(record_path)
        except OSError:
            pass
        self._keep(entry)

    def _keep(self, entry):
        document = {
            "id": entry.id, "kind": entry.kind, "request": entry.request, "process": entry.known, "restarts": entry.restarts,
        }  # fmt: skip
        records.write(self._file(entry.id), document)

    def _forget(self, entry):
        self.entries.pop(entry.id, None)
        try:
            os.unlink(self._file(entry.id))
        except OSError:
            pass

    def _file(self, id):
        return self._path("entries", hashlib.sha256(id.encode()).hexdigest()[:32] + ".json")

    # Requests

    def _accept(self, listener):
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        self.buffers[connection] = b""
        self.selector.register(connection, selectors.EVENT_READ, "client")

    def _receive(self, connection):
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
            answer = {"ok": False, "error": "%s: %s" % (type(error).__name__, error)}
        if answer is not None:
            self._answer(connection, answer)

    def _answer(self, connection, document):
        data = json.dumps(document).encode() + b"\n"
        try:
            connection.setblocking(True)
            connection.settimeout(2)
            connection.sendall(data)
            connection.setblocking(False)
        except (OSError, ValueError):
            self._close(connection)

    def _close(self, connection):
        for entry in self.entries.values():
            if connection in entry.waiters:
                entry.waiters.remove(connection)
        self.buffers.pop(connection, None)
        try:
            self.selector.unregister(connection)
        except (KeyError, ValueError):
            pass
        connection.close()

    def op_ping(self, message, connection):
        return {"ok": True, "pid": os.getpid()}

    def op_start(self, message, connection):
        request = message["request"]
        entry = self.entries.get(message["id"])
        if message["kind"] == "job":
            # A runner waits for its secrets, which are sent after its entry is kept: without entry and record it never ran.
            if entry is not None or os.path.exists(os.path.join(request["folder"], "exit.json")):
                return {"ok": True, "already": True}
        elif entry is not None:
            if _same(entry.request, request) and not entry.stopping:
                return {"ok": True, "already": True}
            old = entry
            self._stop_now(old)
            entry = None
        if request.get("sandbox") and request["sandbox"].get("uid") == "own":
            request["sandbox"]["uid"] = self._free_user()
        entry = Entry(message["id"], message["kind"], request)
        self.entries[entry.id] = entry
        self._spawn(entry, message.get("secrets") or {})
        return {"ok": True}

    def _stop_now(self, entry):
        """End an entry that is replaced, whole tree, before its successor takes the same socket."""
        if entry.known:
            for pid in [*records.descendants(entry.known["pid"]), entry.known["pid"]]:
                _kill(pid, signal.SIGKILL)
            if entry.process is not None:
                entry.process.wait()
        self._forget(entry)

    def _free_user(self):
        used = {
            entry.request["sandbox"]["uid"]
            for entry in self.entries.values()
            if entry.request.get("sandbox") and entry.request["sandbox"].get("uid")
        }
        path = self._path("next_user")
        number = records.read(path) or 0
        for step in range(USERS):
            candidate = FIRST_USER + (number + step) % USERS
            if candidate not in used:
                records.write(path, (number + step + 1) % USERS)
                return candidate
        raise OSError(errno.EAGAIN, "all user ids are in use")

    def op_stop(self, message, connection):
        entry = self.entries.get(message["id"])
        if entry is None:
            return {"ok": True, "already": True}
        entry.stopping = True
        if entry.known:
            _kill(entry.known["pid"], signal.SIGTERM)
            entry.kill_at = time.monotonic() + 15
        else:
            self._forget(entry)
        return {"ok": True}

    def op_status(self, message, connection):
        entry = self.entries.get(message["id"])
        if entry is None:
            return {"ok": True, "found": False}
        pid = entry.known["pid"] if entry.known else None
        cpu, memory = runner.meter.usage(records.descendants(pid)) if pid else (0.0, 0)
        return {
            "ok": True, "found": True, "running": bool(entry.known), "restarts": entry.restarts, "last_exit": entry.last_exit,
            "pid": pid, "since_s": time.monotonic() - entry.started_at, "memory_bytes": int(memory), "cpu_s": cpu,
        }  # fmt: skip

    def op_restart(self, message, connection):
        """End a server's processes now; it is started again with the back-off of one that ended by itself."""
        entry = self.entries.get(message["id"])
        if entry is None or entry.kind != "server":
            return {"ok": True, "found": False}
        for pid in records.descendants(entry.known["pid"]) if entry.known else ():
            _kill(pid, signal.SIGKILL)
        return {"ok": True, "found": True}

    def op_list(self, message, connection):
        return {"ok": True, "ids": sorted(id for id in self.entries if id.startswith(message.get("prefix", "")))}

    def op_wait(self, message, connection):
        entry = self.entries.get(message["id"])
        if entry is None:
            return {"ok": True, "exit": records.read(os.path.join(message["folder"], "exit.json"))}
        entry.waiters.append(connection)
        return None

    def op_shutdown(self, message, connection):
        self.running = False
        if message.get("all"):
            self.end_all = True
            for id in list(self.entries):
                self.op_stop({"id": id}, connection)
        return {"ok": True}


def _same(old, new):
    def plain(request):
        request = dict(request)
        confined = dict(request.get("sandbox") or {})
        confined.pop("uid", None)
        request["sandbox"] = confined
        return request

    return plain(old) == plain(new)


def _kill(pid, number):
    try:
        os.kill(pid, number)
    except OSError:
        pass


def main(folder):
    folder = os.path.abspath(folder)
    lock = open(os.path.join(folder, "lock"), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        print("another supervisor runs already", file=sys.stderr)
        return 0
    os.set_inheritable(lock.fileno(), False)
    Supervisor(folder).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
