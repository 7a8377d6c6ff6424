"""What this machine has, and what of it results may depend on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from ....ports.executor import Share


def share_of_machine(cpu_slots: int) -> Share:
    """All of this machine that jobs may use; `cpu_slots` bounds its CPUs when not 0."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return Share(cpu_slots or cpus, memory, gpus)


def hardware() -> dict[str, str | int]:
    """The processor's model, how many of it, the GPUs, the system."""
    share = share_of_machine(0)
    return {
        "cpu": _processor() or platform.machine(),
        "cpus": share.cpus,
        "gpus": share.gpus,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
