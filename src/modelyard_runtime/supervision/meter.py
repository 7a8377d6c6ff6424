"""What a tree of processes uses of this machine, read from /proc: the system metrics of a job, under MLflow's names."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable

_TICK = float(os.sysconf("SC_CLK_TCK"))
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MB = 1024.0 * 1024.0
FIRST_S = 1.0
"""A job that is shorter than this is not measured: there is nothing to see, and it stays as cheap as it was."""


def usage(pids: Iterable[int]) -> tuple[float, float]:
    """(CPU seconds, resident bytes) of these processes together; one that is gone counts nothing."""
    cpu = memory = 0.0
    for pid in pids:
        try:
            with open("/proc/%d/stat" % pid) as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        cpu += (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / _TICK
        memory += int(fields[21]) * _PAGE
    return cpu, memory


class Meter:
    """Appends one line of JSON per sample to a file: {"time_ms", "values": {name: number}}."""

    def __init__(self, path: str, every_s: float, cpus: int, disk: str, gpus: str, tree: Callable[[], list[int]]) -> None:
        self.path = path
        self.tree = tree
        self.every_s = every_s
        self.cpus = max(1, cpus)
        self.disk = disk
        self.gpus = [gpu for gpu in gpus.split(",") if gpu]
        self.next_at = time.monotonic() + FIRST_S if every_s > 0 else None
        self._cpu = 0.0
        self._at = time.monotonic()
        self._network = _network_mb()

    def due(self, now: float) -> bool:
        return self.next_at is not None and now >= self.next_at

    def sample(self) -> None:
        """Never lets a job fail: what cannot be read is left out."""
        now = time.monotonic()
        self.next_at = now + self.every_s
        try:
            values = self._values(now)
            with open(self.path, "a") as file:
                file.write(json.dumps({"time_ms": int(time.time() * 1000), "values": values}) + "\n")
        except (OSError, ValueError, ZeroDivisionError):
            pass

    def _values(self, now: float) -> dict[str, float]:
        cpu, memory = usage(self.tree())
        span = max(1e-3, now - self._at)
        used = max(0.0, cpu - self._cpu)
        self._cpu, self._at = cpu, now
        disk = os.statvfs(self.disk)
        total_mb = os.sysconf("SC_PHYS_PAGES") * _PAGE / _MB
        received, sent = _network_mb()
        values: dict[str, float] = {
            "system/cpu_utilization_percentage": round(100.0 * used / span / self.cpus, 2),
            "system/system_memory_usage_megabytes": round(memory / _MB, 2),
            "system/system_memory_usage_percentage": round(100.0 * memory / _MB / total_mb, 2),
            "system/disk_usage_megabytes": round((disk.f_blocks - disk.f_bfree) * disk.f_frsize / _MB, 1),
            "system/disk_available_megabytes": round(disk.f_bavail * disk.f_frsize / _MB, 1),
            "system/disk_usage_percentage": round(100.0 * (1 - disk.f_bfree / max(1, disk.f_blocks)), 2),
            "system/network_receive_megabytes": round(received - self._network[0], 3),
            "system/network_transmit_megabytes": round(sent - self._network[1], 3),
        }
        if self.gpus:
            values.update(_gpu_values(self.gpus))
        return values


def _network_mb() -> tuple[float, float]:
    received = sent = 0
    try:
        with open("/proc/net/dev") as file:
            for line in file.readlines()[2:]:
                name, _, rest = line.partition(":")
                if name.strip() != "lo":
                    fields = rest.split()
                    received, sent = received + int(fields[0]), sent + int(fields[8])
    except (OSError, IndexError, ValueError):
        pass
    return received / _MB, sent / _MB


def _gpu_values(gpus: list[str]) -> dict[str, float]:
    asked = "utilization.gpu,memory.used,memory.total,power.draw"
    try:
        output = subprocess.run(
            ["nvidia-smi", "--id=" + ",".join(gpus), "--query-gpu=" + asked, "--format=csv,noheader,nounits"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5,
        ).stdout.decode()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return {}
    values: dict[str, float] = {}
    for index, line in enumerate(output.strip().splitlines()):
        try:
            busy, memory, total, power = (float(part) for part in line.split(","))
        except ValueError:
            continue
        values["system/gpu_%d_utilization_percentage" % index] = busy
        values["system/gpu_%d_memory_usage_megabytes" % index] = memory
        values["system/gpu_%d_memory_usage_percentage" % index] = round(100.0 * memory / total, 2) if total else 0.0
        values["system/gpu_%d_power_usage_watts" % index] = power
    return values
