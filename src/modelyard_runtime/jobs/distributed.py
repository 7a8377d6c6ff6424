"""Starts the processes of a distributed job on this machine, each with the environment variables its framework reads.

python …/modelyard_runtime distributed TYPE INSTANCES PROCESSES PARAMETER_SERVERS -- COMMAND…

pytorch: MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK, LOCAL_RANK, NODE_RANK, LOCAL_WORLD_SIZE. mpi: Open MPI's OMPI_COMM_WORLD_*.
tensorflow: TF_CONFIG with workers and parameter servers. ray: a cluster of INSTANCES nodes on this machine, made with the
environment's own `ray`, then the command once with RAY_ADDRESS; RAY_SETTINGS holds Azure's fields as JSON. Instances beyond the first
are processes of this machine, too.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from typing import IO


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def environments(kind: str, instances: int, processes: int, servers: int) -> list[dict[str, str]]:
    """The variables of every process, rank after rank."""
    if kind == "tensorflow":
        return tensorflow(max(1, processes), servers)
    total = instances * processes
    (port,) = free_ports(1)
    variables = []
    for rank in range(total):
        local, node = rank % processes, rank // processes
        shared = {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "AZ_BATCHAI_JOB_MASTER_NODE_IP": "127.0.0.1",
            "AZUREML_NODE_COUNT": str(instances),
        }  # fmt: skip
        if kind == "mpi":
            own = {
                "OMPI_COMM_WORLD_SIZE": str(total), "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
                "OMPI_COMM_WORLD_LOCAL_SIZE": str(processes), "OMPI_COMM_WORLD_NODE_RANK": str(node), "OMPI_UNIVERSE_SIZE": str(total),
                "AZ_BATCH_MASTER_NODE": f"127.0.0.1:{port}",
            }  # fmt: skip
        else:
            own = {
                "WORLD_SIZE": str(total), "RANK": str(rank), "LOCAL_RANK": str(local), "NODE_RANK": str(node), "LOCAL_WORLD_SIZE": str(processes),
            }  # fmt: skip
        variables.append({**shared, **own})
    return variables


def tensorflow(workers: int, servers: int) -> list[dict[str, str]]:
    ports = free_ports(workers + servers)
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports[:workers]]}
    if servers:
        cluster["ps"] = [f"127.0.0.1:{port}" for port in ports[workers:]]
    tasks = [("worker", index) for index in range(workers)] + [("ps", index) for index in range(servers)]
    return [{"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})} for kind, index in tasks]


def ray(instances: int, command: list[str]) -> int:
    """The exit code of the command, run on a Ray cluster of so many nodes. What the cluster leaves is ended with the job."""
    settings = json.loads(os.environ.pop("RAY_SETTINGS", "{}"))
    if settings.get("address"):
        return subprocess.call(command, env={**os.environ, "RAY_ADDRESS": settings["address"]})
    program = shutil.which("ray")
    if program is None:
        print("distribution ray needs the package `ray` in the job's environment", flush=True)
        return 127
    port = settings.get("port") or free_ports(1)[0]
    # The path of a unix socket has 107 bytes at most: Ray's own folders are deep, so their root is short.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    shared = [f"--num-cpus={os.environ.get('OMP_NUM_THREADS', '1')}", f"--temp-dir={folder}", "--disable-usage-stats"]
    head = [f"--port={port}", f"--include-dashboard={str(bool(settings.get('include_dashboard'))).lower()}", "--node-ip-address=127.0.0.1"]
    if settings.get("dashboard_port"):
        head.append(f"--dashboard-port={settings['dashboard_port']}")
    starts = [[program, "start", "--head", *shared, *head, *shlex.split(settings.get("head_node_additional_args") or "")]]
    worker = shlex.split(settings.get("worker_node_additional_args") or "")
    starts += [[program, "start", f"--address=127.0.0.1:{port}", *shared, *worker] for _ in range(instances - 1)]
    try:
        for start in starts:
            started = subprocess.run(start, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if started.returncode != 0:
                sys.stdout.buffer.write(started.stdout)
                print("the Ray cluster could not be started", flush=True)
                return started.returncode
        return subprocess.call(command, env={**os.environ, "RAY_ADDRESS": f"127.0.0.1:{port}"})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def forward(stream: IO[bytes] | None, rank: int) -> None:
    """The first process writes as it is, the others behind their rank."""
    assert stream is not None
    for line in stream:
        sys.stdout.buffer.write(line if rank == 0 else b"[rank %d] " % rank + line)
        sys.stdout.buffer.flush()


def main(arguments: list[str]) -> int:
    kind = arguments[0]
    instances, processes, servers = (int(text) for text in arguments[1:4])
    command = arguments[arguments.index("--") + 1 :]
    if kind == "ray":
        return ray(instances, command)
    variables = environments(kind, instances, processes, servers)
    needed = len(variables) - (servers if kind == "tensorflow" else 0)
    started = [
        subprocess.Popen(command, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for own in variables
    ]  # fmt: skip
    signal.signal(signal.SIGTERM, lambda number, frame: end(started))
    readers = [threading.Thread(target=forward, args=(process.stdout, rank), daemon=True) for rank, process in enumerate(started)]
    for reader in readers:
        reader.start()
    code = watch(started[:needed])
    end(started)
    for reader in readers:
        reader.join(5)
    return code


def watch(processes: list[subprocess.Popen[bytes]]) -> int:
    """Until all have ended well, or one has not: its exit code."""
    waiting = {process.pid: (rank, process) for rank, process in enumerate(processes)}
    while waiting:
        pid, status = os.wait()
        if pid not in waiting:
            continue
        rank, process = waiting.pop(pid)
        process.returncode = code = (
            os.waitstatus_to_exitcode(status) if hasattr(os, "waitstatus_to_exitcode") else (status >> 8 or -(status & 127))
        )
        if code != 0:
            print(f"process {rank} ended with {code}; the others are ended", flush=True)
            return code if code > 0 else 128 - code
    return 0


def end(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.returncode is None and process.poll() is None:
            process.kill()
