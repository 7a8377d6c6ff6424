"""Runs one command and everything it starts: in its own session and sandbox, its output in a file, its end in a record.

    python -I …/modelyard_runtime runner REQUEST.json        (secrets arrive as one line of JSON on standard input)

REQUEST is a `protocol.JobRequest`. In its `folder`, which user code cannot write, the runner leaves `running.json`, `metrics.jsonl` (what
the tree uses of the machine, every `sample_s`) and at the end `exit.json`, a `protocol.ExitRecord`. On SIGTERM it asks the tree to end
and kills it 10 s later. The whole tree is ended with the command: children that called setsid are adopted (subreaper) and killed too.
A request with `warm` is forked by that warm interpreter (`jobs.zygote`) when it is there; everything else is started here.
"""

from __future__ import annotations

import array
import json
import os
import resource
import select
import signal
import socket
import stat
import sys
import time
from typing import Any

from modelyard_runtime import files, protocol
from modelyard_runtime.protocol import ExitRecord, ForkEnd, ForkRequest, JobRequest, Reason
from modelyard_runtime.supervision import cgroups, meter, processes, sandbox

STOPS = (signal.SIGTERM, signal.SIGINT)
"""Signals that request the end of the command; the parent starts the runner with them blocked, until it can handle them."""
GRACE_S = 10.0
ANSWER_S = 30.0
KEEP_OPEN_S = 1.0
OUT_OF_MEMORY_SCORE = "500"
MEMORY_S = 0.25
"""Seconds between two measurements of a tree whose memory is limited."""
DISK_POLL_S = 0.5
"""Seconds between two attempts to write a record that the disk refused."""
MOST_LINE = 1 << 20
MOST_SAID = 2000
"""Bytes of a child's message about its failed start."""


class Log:
    """A bounded file: a job's log stops at the limit and counts the dropped bytes; a server's log is rotated, with one older part.

    What a full or failing disk does not take is dropped and counted too: it ends no command.
    """

    def __init__(self, path: str, limit: int, rotate: bool) -> None:
        self.path = path
        self.limit = limit
        self.rotate = rotate
        self.dropped = 0
        self.refused = 0
        self.file: int | None = None
        self.size = 0
        self._open()

    def _open(self) -> None:
        try:
            self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            self.size = os.fstat(self.file).st_size
        except OSError:
            self.file = None  # tried again with the next output

    def write(self, data: bytes) -> None:
        if self.size + len(data) > self.limit:
            if self.rotate:
                self._rotate()
            else:
                keep = max(0, self.limit - self.size)
                self.dropped += len(data) - keep
                data = data[:keep]
        if self.file is None:
            self._open()
        while data:
            try:
                written = os.write(self.file, data) if self.file is not None else 0
            except OSError:
                written = 0
            if not written:
                self.refused += len(data)
                return
            self.size += written
            data = data[written:]

    def _rotate(self) -> None:
        try:
            os.replace(self.path, self.path + ".1")
        except OSError:
            return  # it grows beyond its limit until the disk is well
        if self.file is not None:
            os.close(self.file)
        self._open()

    def close(self) -> None:
        notes = ""
        if self.dropped:
            notes += "\n[modelyard] the log reached its limit; %d further bytes were dropped\n" % self.dropped
        if self.refused:
            notes += "\n[modelyard] the disk was full or failed; %d bytes of this log are missing\n" % self.refused
        if self.file is None:
            return
        try:
            if notes:
                os.write(self.file, notes.encode())
            os.fsync(self.file)
        except OSError:
            pass
        os.close(self.file)


class Running:
    """The record that a command runs: `running.json`. One that the disk refuses is written later."""

    def __init__(self, folder: str, child: int, started_ms: int) -> None:
        self._path = os.path.join(folder, "running.json")
        self._document = {"runner": processes.identity(os.getpid()), "child": child, "started_ms": started_ms}
        self.due: float | None = 0.0
        self.write()

    def write(self) -> None:
        try:
            files.write_json(self._path, self._document, durable=True)
            self.due = None
        except OSError:
            self.due = time.monotonic() + DISK_POLL_S


def write_record(path: str, record: ExitRecord) -> None:
    """Make an exit record durable, in the room that was reserved for it when the disk has no other. Raises OSError."""
    document = protocol.document(record)
    reserve = files.Reserve(path)
    try:
        files.write_json(path, document, durable=True)
    except OSError as error:
        try:
            reserve.write(json.dumps(document).encode())
        except OSError:
            raise error from None
    else:
        reserve.drop()


def main(arguments: list[str]) -> int:
    return run(arguments[0])


def run(path: str) -> int:
    """The exit code of the runner itself: 0 once the command's end is on record."""
    try:
        request = protocol.read(JobRequest, files.read_json(path))
    except protocol.Malformed as problem:
        files.report("runner: cannot read %s: %s" % (path, problem))
        return 2
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return 3  # the supervisor was killed before it stored this start: no command has run, and its successor may start the runner again
    secrets = json.loads(line)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)

    sandbox.become_subreaper()
    sandbox.hide()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    signals: list[int] = []
    for number in STOPS:
        signal.signal(number, lambda number, frame: signals.append(number))
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)

    log = Log(request.log, request.log_limit, request.keep_log)
    started = int(time.time() * 1000)
    out_of_memory_before = _out_of_memory_kills()
    exit_path = os.path.join(request.folder, "exit.json")
    files.Reserve(exit_path).take()
    if request.cgroup is not None:
        cgroups.limit(request.cgroup, request.memory_bytes)
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    command: Started | Warm = ask_warm(request, secrets, write_end) or start(request, secrets, write_end)
    os.close(write_end)
    running = Running(request.folder, command.pid, started)
    metrics = os.path.join(request.folder, "metrics.jsonl")
    gpus = request.environment.get("CUDA_VISIBLE_DEVICES", "")
    gauge = meter.Meter(metrics, request.sample_s, request.cpus, request.folder, gpus, command.tree)
    status, ended_by_us = _watch(request, command, read_end, wake_read, signals, log, gauge, running)
    _end_tree(request.cgroup)
    _drain(read_end, log)
    reason, code, message = _describe(status, ended_by_us, command.not_started(), request, out_of_memory_before)
    log.close()
    ended = int(time.time() * 1000)
    used = {**command.usage(), **(_memory(request) if reason is Reason.OUT_OF_MEMORY else {})}
    record = ExitRecord(reason, code, message, started, ended, used, command.start, log.dropped + log.refused)
    return _leave(exit_path, record)


def _leave(path: str, record: ExitRecord) -> int:
    """Write the exit record, as soon as the disk lets us. The runner's exit code."""
    while True:
        try:
            write_record(path, record)
            return 0
        except OSError as error:
            if not files.may_pass(error):
                return 4  # the folder is gone: nobody asks any more
            files.report("runner: the exit record is not stored yet: %s" % error)
        time.sleep(DISK_POLL_S)


def _memory(request: JobRequest) -> dict[str, float]:
    """What a command that was ended for its memory might use, and the most it did; as far as known."""
    values = {"memory_limit_bytes": request.memory_bytes, "memory_peak_bytes": cgroups.memory_peak(request.cgroup)}
    return {name: value for name, value in values.items() if value is not None}


class Started:
    """The command's process as a child of this one.

    `failure` is a pipe that the child writes to when exec fails. It is closed on exec, so the command never has it.
    """

    start = "new"
    fd: socket.socket | None = None

    def __init__(self, pid: int, failure: int) -> None:
        self.pid = pid
        self._failure = failure

    def status(self) -> int | None:
        return _reap(self.pid)

    def tree(self) -> list[int]:
        return processes.descendants(os.getpid())

    def usage(self) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {"cpu_s": round(used.ru_utime + used.ru_stime, 3), "max_rss_bytes": used.ru_maxrss * 1024}

    def not_started(self) -> bool:
        """Whether the command was never executed; asked once the child has ended."""
        return bool(_read(self._failure))


class Warm:
    """The command's process as a fork of a warm interpreter, which reports its end and kills the processes that it leaves behind."""

    start = "warm"

    def __init__(self, connection: socket.socket) -> None:
        self.fd = connection
        self.pid = 0
        self._data = b""
        self._end: ForkEnd | None = None

    def line(self) -> Any:
        """The next message of the interpreter, a line of JSON; None at the end of the connection."""
        while b"\n" not in self._data:
            try:
                data = self.fd.recv(1 << 16)
            except InterruptedError:
                continue
            except OSError:
                data = b""
            if not data or len(self._data) > MOST_LINE:
                return None
            self._data += data
        line, self._data = self._data.split(b"\n", 1)
        try:
            return json.loads(line)
        except ValueError:
            return None

    def status(self) -> int | None:
        if not select.select([self.fd], [], [], 0)[0]:
            return None
        try:
            self._end = protocol.read(ForkEnd, self.line())
        except protocol.Malformed:
            return signal.SIGKILL  # the interpreter is gone, and the process with it
        return self._end.status

    def tree(self) -> list[int]:
        return [self.pid, *processes.descendants(self.pid)] if self.pid else []

    def usage(self) -> dict[str, Any]:
        return protocol.document(self._end.usage) if self._end is not None else {}

    def not_started(self) -> bool:
        return self._end is not None and bool(self._end.not_started)


def ask_warm(request: JobRequest, secrets: dict[str, str], output: int) -> Warm | None:
    """A process forked by the warm interpreter; None, with nothing started, when there is no interpreter or it refuses."""
    if request.warm is None:
        return None
    interpreter_request = files.read_json(os.path.join(request.warm.folder, "request.json")) or {}
    uid = (interpreter_request.get("sandbox") or {}).get("uid")
    environment = {**request.environment, **secrets, processes.MARK: request.mark}
    fork_request = ForkRequest(request.warm.script, request.warm.arguments, request.cwd, environment)
    if request.sandbox is not None:
        fork_request.sandbox = protocol.Confinement(request.sandbox.writable, request.sandbox.readable, landlock=request.sandbox.landlock)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(ANSWER_S)
    gate, opener = os.pipe()
    try:
        # User code could have replaced the socket by a link.
        with files.existing_socket(os.path.join(request.warm.folder, "run", "sock")) as address:
            connection.connect(address)
        if isinstance(uid, int):
            for path in request.own:
                _chown_tree(path, uid)
        connection.sendall(bytes.fromhex(request.warm.key))
        line = json.dumps(protocol.document(fork_request)).encode() + b"\n"
        sent = connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [output, gate]))])
        if sent < len(line):  # else it may have answered and gone by now, and the command would be started twice
            connection.sendall(line[sent:])
    except OSError:
        connection.close()
        os.close(opener)
        return None
    finally:
        os.close(gate)
    forked = Warm(connection)
    if forked.line() is None:
        connection.close()
        os.close(opener)
        return None
    answer = forked.line()
    pid = answer.get("pid") if isinstance(answer, dict) else None
    interpreter = (files.read_json(os.path.join(request.warm.folder, "running.json")) or {}).get("child")
    # The interpreter runs code of the environment and could name any process: only a child of its own is signalled later.
    forked.pid = pid if isinstance(pid, int) and interpreter and pid in processes.children(interpreter) else 0
    _let_go(request.cgroup, forked.pid, opener)
    return forked


def _let_go(group: protocol.ControlGroup | None, pid: int, opener: int) -> None:
    """Put a forked process into its control group, and have it go on to the command.

    The kernel lets a process into a group only after every processor has taken notice, which takes 8 ms and more, asleep. Meanwhile the
    process confines itself.
    """
    try:
        if pid:
            cgroups.join(group, pid)
    except OSError as problem:
        files.report("runner: process %d is in no control group: %s" % (pid, problem))
    try:
        os.write(opener, b"1")
    except OSError:
        pass  # it has ended
    os.close(opener)


def start(request: JobRequest, secrets: dict[str, str], output: int) -> Started:
    """The command as a child, which writes to the descriptor `output`."""
    if request.sandbox is not None and isinstance(request.sandbox.uid, int):
        for path in request.own:
            _chown_tree(path, request.sandbox.uid)
    failed, failure = os.pipe()  # not inherited by what is executed
    gate, opener = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(failure)
        os.close(gate)
        os.set_blocking(failed, False)
        _let_go(request.cgroup, child, opener)
        return Started(child, failed)
    try:
        os.setsid()
        os.close(opener)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _prefer_for_oom_kill()
        os.umask(0o022)
        if request.sandbox is not None:
            sandbox.enter(request.sandbox)
        sandbox.die_with(parent)
        os.read(gate, 1)
        # Entered after confinement, so that a link at this path cannot lead elsewhere.
        os.chdir(request.cwd)
        os.execvpe(request.argv[0], request.argv, {**request.environment, **secrets, processes.MARK: request.mark})
    except BaseException as error:
        os.write(2, ("[modelyard] the command could not be started: %s\n" % error).encode())
        os.write(failure, str(error).encode()[:MOST_SAID] or b"?")
    os._exit(126)


def _prefer_for_oom_kill() -> None:
    """Raise this process's score, so that the kernel kills user code before the yard's own processes when memory runs out."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(OUT_OF_MEMORY_SCORE)
    except OSError:
        pass


def _chown_tree(path: str, uid: int) -> None:
    """Hand a folder and everything in it to the user: never through a link, and no file that has another name elsewhere."""
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(top, uid, uid)
        for _, folders, plain, folder in os.fwalk(".", dir_fd=top):
            for name in folders + plain:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
                    os.chown(name, uid, uid, dir_fd=folder, follow_symlinks=False)
    finally:
        os.close(top)


def _watch(
    request: JobRequest, command: Started | Warm, output: int, wake: int, asked: list[int], log: Log, gauge: meter.Meter,
    running: Running,
) -> tuple[int, Reason | None]:  # fmt: skip
    """Until the command ends: copy its output, obey signals and the timeout. (wait status, why we ended it or None)"""
    began = time.monotonic()
    timeout = request.timeout_s
    memory, looked = request.memory_bytes, began
    reason: Reason | None = None
    kill_at: float | None = None
    open_output = True
    while True:
        status = command.status()
        if status is not None:
            return status, reason
        now = time.monotonic()
        if reason is None and asked:
            reason, kill_at = Reason.CANCELED, now + GRACE_S
            _signal(command.tree(), signal.SIGTERM)
        if reason is None and timeout and now - began >= timeout:
            reason, kill_at = Reason.TIMEOUT, now + GRACE_S
            _signal(command.tree(), signal.SIGTERM)
        if reason is None and memory and now >= looked + MEMORY_S:
            looked = now
            if _uses_too_much(request, command):
                reason, kill_at = Reason.OUT_OF_MEMORY, now
        if kill_at is not None and now >= kill_at:
            _signal(command.tree(), signal.SIGKILL)
            kill_at = now + 0.2
        if gauge.due(now):
            gauge.sample()
        if running.due is not None and now >= running.due:
            running.write()
        end_at = began + timeout if timeout and reason is None else None
        look_at = looked + MEMORY_S if memory else None
        deadlines = [moment for moment in (kill_at, end_at, look_at, gauge.next_at, running.due) if moment]
        wait = max(0.0, min(deadlines) - now) if deadlines else None
        listened: list[Any] = [wake, *([output] if open_output else []), *([command.fd] if command.fd is not None else [])]
        ready = select.select(listened, [], [], wait)[0]
        if wake in ready:
            os.read(wake, 4096)
        if output in ready:
            data = _read(output)
            if data == b"":
                open_output = False
            elif data:
                log.write(data)


def _uses_too_much(request: JobRequest, command: Started | Warm) -> bool:
    """Where a control group holds the limit, the kernel has ended a process for it, and the others are of no use without that one."""
    if cgroups.limits_memory(request.cgroup):
        return cgroups.memory_kills(request.cgroup) > 0
    return not request.memory_by_group_only and meter.usage(command.tree())[1] > (request.memory_bytes or 0)


def _read(output: int) -> bytes | None:
    try:
        return os.read(output, 1 << 16)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _reap(child: int) -> int | None:
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


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        processes.send(pid, number)


def _end_tree(group: protocol.ControlGroup | None) -> None:
    """Kill what the command left behind, until nothing is."""
    cgroups.kill(group)
    processes.end_descendants(500)


def _drain(output: int, log: Log) -> None:
    until = time.monotonic() + KEEP_OPEN_S
    while time.monotonic() < until:
        data = _read(output)
        if data == b"":
            return
        if data:
            log.write(data)
        else:
            select.select([output], [], [], 0.05)


def _describe(
    status: int, ended_by_us: Reason | None, not_started: bool, request: JobRequest, out_of_memory_before: int
) -> tuple[Reason, int | None, str]:
    """(reason, exit code, message) of a wait status."""
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    killed_for_memory = cgroups.memory_kills(request.cgroup) > 0 and code != 0
    if ended_by_us is Reason.TIMEOUT:
        return ended_by_us, code, "the command ran longer than its limit of %s s" % request.timeout_s
    if ended_by_us is Reason.CANCELED:
        return ended_by_us, code, "the command was canceled"
    if ended_by_us is Reason.OUT_OF_MEMORY or killed_for_memory:
        return Reason.OUT_OF_MEMORY, code, _too_much(request)
    if not_started:
        return Reason.FAILED_TO_START, code, "the command could not be started; the log says why"
    machine_full = request.cgroup is None or request.cgroup.memory is None
    if machine_full and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and _out_of_memory_kills() > out_of_memory_before:
        return Reason.OUT_OF_MEMORY, None, "the machine ran out of memory and ended the command"
    return described(status)


def _too_much(request: JobRequest) -> str:
    peak = cgroups.memory_peak(request.cgroup)
    most = " (peak: %.0f MiB)" % (peak / 2**20) if peak is not None else ""
    if request.memory_bytes is None:
        return "the machine ran out of memory and ended the command%s" % most
    return "it used more than the %.0f MiB that it may%s" % (request.memory_bytes / 2**20, most)


def described(status: int) -> tuple[Reason, int | None, str]:
    """(reason, exit code, message) of a wait status by itself."""
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        return Reason.EXITED, code, "the command exited with code %d" % code
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    return Reason.SIGNAL, None, "the command was ended by signal %s" % name


def _out_of_memory_kills() -> int:
    try:
        with open("/proc/vmstat") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0
