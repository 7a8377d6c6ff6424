"""Runs one command and everything it starts: in its own session and sandbox, its output in a file, its end in a record.

    python -I runner.py REQUEST.json        (secrets arrive as one line of JSON on standard input)

REQUEST: {id, argv, cwd, environment, log, log_limit, folder, sandbox or null, own (paths handed to the user), timeout_s, memory_bytes,
keep_log, sample_s, cpus, warm or null}. `warm`: {folder, key, script, arguments} of a warm interpreter (`zygote.py`) that forks the
command's process when it is there; else, and for every other command, it is started here. In `folder`, which user code cannot write, the runner leaves `running.json`, `metrics.jsonl` (what
the tree uses of the machine, every `sample_s`) and at the end `exit.json`: {reason, code, message, started_ms, ended_ms, usage}. On SIGTERM it asks the tree to end and kills it 10 s later.
The whole tree is ended with the command: children that called setsid are adopted (subreaper) and killed too.
"""

import array
import json
import os
import resource
import select
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import meter
import records
import sandbox

GRACE_S = 10.0
ANSWER_S = 30.0
KEEP_OPEN_S = 1.0
OUT_OF_MEMORY_SCORE = "500"
MEMORY_S = 0.25
"""How often the memory of a tree that has a limit is looked at."""


class Log:
    """A bounded file: a job's log stops at the limit and counts the rest; a server's log starts anew, keeping one older."""

    def __init__(self, path, limit, rotate):
        self.path = path
        self.limit = limit
        self.rotate = rotate
        self.dropped = 0
        self._open()

    def _open(self):
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.file).st_size

    def write(self, data):
        if self.size + len(data) > self.limit:
            if self.rotate:
                os.close(self.file)
                os.replace(self.path, self.path + ".1")
                self._open()
            else:
                keep = max(0, self.limit - self.size)
                self.dropped += len(data) - keep
                data = data[:keep]
        while data:
            try:
                written = os.write(self.file, data)
            except OSError:
                self.dropped += len(data)  # a full disk must not end the command
                return
            self.size += written
            data = data[written:]

    def close(self):
        if self.dropped:
            note = "\n[modelyard] the log reached its limit; %d further bytes were dropped\n" % self.dropped
            try:
                os.write(self.file, note.encode())
            except OSError:
                pass
        try:
            os.fsync(self.file)
        except OSError:
            pass
        os.close(self.file)


def main(path):
    request = records.read(path)
    if request is None:
        print("runner: cannot read %s" % path, file=sys.stderr)
        return 2
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return 3  # the supervisor was killed before it had noted this start: nothing has run, it may start us again
    secrets = json.loads(line)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)

    sandbox.become_subreaper()
    sandbox.hide()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    asked = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    signal.signal(signal.SIGCHLD, lambda number, frame: None)

    log = Log(request["log"], request["log_limit"], request.get("keep_log", False))
    started = int(time.time() * 1000)
    out_of_memory_before = _out_of_memory_kills()
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    command = ask_warm(request, secrets, write_end) if request.get("warm") else None
    if command is None:
        command = Started(_start(request, secrets, read_end, write_end))
    os.close(write_end)
    records.write_durably(
        os.path.join(request["folder"], "running.json"),
        {"runner": records.identity(os.getpid()), "child": command.pid, "started_ms": started},
    )
    metrics = os.path.join(request["folder"], "metrics.jsonl")
    gpus = request["environment"].get("CUDA_VISIBLE_DEVICES", "")
    gauge = meter.Meter(metrics, request.get("sample_s") or 0, request.get("cpus") or 1, request["folder"], gpus, command.tree)
    status, reason = _watch(request, command, read_end, wake_read, asked, log, gauge)
    _end_tree()
    _drain(read_end, log)
    record = _describe(status, reason, request, out_of_memory_before)
    record["started_ms"], record["ended_ms"] = started, int(time.time() * 1000)
    record["usage"], record["start"] = command.usage(), command.start
    record["log_dropped_bytes"] = log.dropped
    log.close()
    records.write_durably(os.path.join(request["folder"], "exit.json"), record)
    return 0


class Started:
    """The command's process as a child of this one."""

    start = "new"
    fd = None

    def __init__(self, pid):
        self.pid = pid

    def status(self):
        return _reap(self.pid)

    def tree(self):
        return records.descendants(os.getpid())

    def usage(self):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"cpu_s": round(used.ru_utime + used.ru_stime, 3), "max_rss_bytes": used.ru_maxrss * 1024}


class Warm:
    """The command's process as a fork of a warm interpreter, which tells how it ended; it ends what the process leaves behind."""

    start = "warm"

    def __init__(self, connection):
        self.fd = connection
        self.pid = 0
        self._data = b""
        self._usage = {}

    def line(self):
        """The next line of what the interpreter says; None when it says no more."""
        while b"\n" not in self._data:
            try:
                data = self.fd.recv(1 << 16)
            except InterruptedError:
                continue
            except OSError:
                data = b""
            if not data:
                return None
            self._data += data
        line, self._data = self._data.split(b"\n", 1)
        return json.loads(line)

    def status(self):
        if not select.select([self.fd], [], [], 0)[0]:
            return None
        said = self.line()
        if said is None:
            return signal.SIGKILL  # the interpreter is gone, and the process with it
        self._usage = said["usage"]
        return said["status"]

    def tree(self):
        return [self.pid, *records.descendants(self.pid)] if self.pid else []

    def usage(self):
        return self._usage


def ask_warm(request, secrets, output):
    """A process forked by the warm interpreter; None when it is not there or refuses, and nothing was started."""
    wanted = request["warm"]
    held = records.read(os.path.join(wanted["folder"], "request.json")) or {}
    uid = (held.get("sandbox") or {}).get("uid")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_S)
    try:
        folder = os.open(os.path.join(wanted["folder"], "run"), os.O_RDONLY)
        try:
            connection.connect("/proc/self/fd/%d/sock" % folder)  # the path of a unix socket has 107 bytes at most
        finally:
            os.close(folder)
        for place in request.get("own", ()) if uid is not None else ():
            _give(place, uid)
        environment = dict(request["environment"])
        environment.update(secrets)
        confined = dict(request["sandbox"], uid=None, namespace=False) if request.get("sandbox") else None
        document = {
            "script": wanted["script"], "arguments": wanted["arguments"], "cwd": request["cwd"], "environment": environment,
            "sandbox": confined,
        }  # fmt: skip
        connection.sendall(bytes.fromhex(wanted["key"]))
        line = json.dumps(document).encode() + b"\n"
        sent = connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [output]))])
        connection.sendall(line[sent:])
    except OSError:
        connection.close()
        return None
    found = Warm(connection)
    if found.line() is None:
        connection.close()
        return None
    told = found.line()
    found.pid = told["pid"] if told else 0
    return found


def _start(request, secrets, read_end, write_end):
    """The pid of the command's process."""
    confined = request.get("sandbox")
    if confined and confined.get("uid") is not None:
        for place in request.get("own", ()):
            _give(place, confined["uid"])
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        sandbox.die_with_parent(signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(write_end, 1)
        os.dup2(write_end, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _first_to_go()
        os.umask(0o022)
        if confined:
            sandbox.enter(confined)
        # Entered after confinement, so that a link in its place cannot lead elsewhere.
        os.chdir(request["cwd"])
        environment = dict(request["environment"])
        environment.update(secrets)
        os.execvpe(request["argv"][0], request["argv"], environment)
    except BaseException as error:
        os.write(2, ("[modelyard] the command could not be started: %s\n" % error).encode())
    os._exit(126)


def _first_to_go():
    """When the machine runs out of memory, it ends user code before the yard's own processes."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(OUT_OF_MEMORY_SCORE)
    except OSError:
        pass


def _give(path, uid):
    """Hand a folder and everything in it to the user, never through a link."""
    os.lchown(path, uid, uid)
    for folder, names, files in os.walk(path):
        for name in names + files:
            os.lchown(os.path.join(folder, name), uid, uid)


def _watch(request, command, output, wake, asked, log, gauge):
    """Until the command ends: copy its output, obey signals and the timeout. (wait status, why we ended it or None)"""
    began = time.monotonic()
    timeout = request.get("timeout_s")
    memory, looked = request.get("memory_bytes"), began
    reason = None
    kill_at = None
    open_output = True
    while True:
        status = command.status()
        if status is not None:
            return status, reason
        now = time.monotonic()
        if reason is None and asked:
            reason, kill_at = "canceled", now + GRACE_S
            _signal(command.tree(), signal.SIGTERM)
        if reason is None and timeout and now - began >= timeout:
            reason, kill_at = "timeout", now + GRACE_S
            _signal(command.tree(), signal.SIGTERM)
        if reason is None and memory and now >= looked + MEMORY_S:
            looked = now
            if meter.usage(command.tree())[1] > memory:
                reason, kill_at = "memory_limit", now
        if kill_at is not None and now >= kill_at:
            _signal(command.tree(), signal.SIGKILL)
            kill_at = now + 0.2
        if gauge.due(now):
            gauge.sample()
        end_at = began + timeout if timeout and reason is None else None
        look_at = looked + MEMORY_S if memory else None
        deadlines = [moment for moment in (kill_at, end_at, look_at, gauge.next_at) if moment]
        wait = max(0.0, min(deadlines) - now) if deadlines else None
        listened = [wake, *([output] if open_output else []), *([command.fd] if command.fd is not None else [])]
        ready = select.select(listened, [], [], wait)[0]
        if wake in ready:
            os.read(wake, 4096)
        if output in ready:
            data = _read(output)
            if data == b"":
                open_output = False
            elif data:
                log.write(data)


def _read(output):
    try:
        return os.read(output, 1 << 16)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _reap(child):
    """The wait status of `child` once it ended; other children (adopted orphans) are reaped on the way."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if pid == 0:
            return None
        if pid == child:
            return status


def _signal(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            pass


def _end_tree():
    """Kill what the command left behind, until nothing is."""
    for _ in range(500):
        left = records.descendants(os.getpid())
        if not left:
            return
        _signal(left, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue
        select.select([], [], [], 0.01)


def _drain(output, log):
    until = time.monotonic() + KEEP_OPEN_S
    while time.monotonic() < until:
        data = _read(output)
        if data == b"":
            return
        if data:
            log.write(data)
        else:
            select.select([output], [], [], 0.05)


def _describe(status, reason, request, out_of_memory_before):
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    if reason == "timeout":
        return {"reason": "timeout", "code": code, "message": "the command ran longer than its limit of %s s" % request["timeout_s"]}
    if reason == "memory_limit":
        most = request["memory_bytes"] / 2**20
        return {"reason": "out_of_memory", "code": code, "message": "it used more than the %.0f MiB that it may" % most}
    if reason == "canceled":
        return {"reason": "canceled", "code": code, "message": "the command was canceled"}
    if code == 126 and _never_started(request):
        return {"reason": "failed_to_start", "code": code, "message": "the command could not be started; the log says why"}
    if code is not None:
        return {"reason": "exited", "code": code, "message": "the command exited with code %d" % code}
    number = os.WTERMSIG(status)
    if number == signal.SIGKILL and _out_of_memory_kills() > out_of_memory_before:
        return {"reason": "out_of_memory", "code": None, "message": "the machine ran out of memory and ended the command"}
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    return {"reason": "signal", "code": None, "message": "the command was ended by signal %s" % name}


def _never_started(request):
    try:
        with open(request["log"], "rb") as file:
            return b"[modelyard] the command could not be started" in file.read()[-4096:]
    except OSError:
        return False


def _out_of_memory_kills():
    try:
        with open("/proc/vmstat") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
