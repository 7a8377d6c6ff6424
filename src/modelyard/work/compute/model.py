"""The record of a compute; what this machine has, and what a job asks of it."""

from __future__ import annotations

import functools
import os
import platform
import tomllib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from ...core.clock import iso
from ...ports.executor import Share
from ...spec.compute import AmlCompute, LocalCompute
from ...spec.kinds import stored_spec
from ...spec.states import ProvisioningState


@dataclass(frozen=True)
class ComputeRecord:
    name: str
    stored: dict[str, Any]
    created_ms: int

    @cached_property
    def spec(self) -> AmlCompute | LocalCompute:
        found: AmlCompute | LocalCompute = stored_spec("compute", self.stored, name=self.name)
        return found

    def document(self) -> dict[str, Any]:
        return {
            **self.stored, "id": f"azureml:{self.name}", "provisioning_state": ProvisioningState.SUCCEEDED, "created_on": iso(self.created_ms),
        }  # fmt: skip


def machine(cpu_slots: int) -> Share:
    """This machine; `cpu_slots` bounds its CPUs when not 0."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return Share(cpu_slots or cpus, memory, gpus)


@functools.cache
def hardware() -> dict[str, str | int]:
    """What results may depend on: the processor's model, how many of it, the GPUs, the system."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        pass
    share = machine(0)
    return {
        "cpu": model or platform.machine(),
        "cpus": share.cpus,
        "gpus": share.gpus,
        "system": f"{platform.system()} {platform.machine()}",
    }


@functools.cache
def _sizes() -> dict[str, list[float]]:
    text = resources.files(__package__).joinpath("vm_sizes.toml").read_text()
    sizes: dict[str, list[float]] = tomllib.loads(text)["sizes"]
    return sizes


def asked_by(instance_type: str | None, available: Share) -> tuple[Share, list[str]]:
    """What a job with this VM size gets here, with lines about what differs. Without a size: one CPU."""
    if not instance_type:
        return Share(1), []
    size = _sizes().get(instance_type.lower())
    if size is None:
        return Share(1), [f"instance_type {instance_type} is not known here; the job gets one CPU"]
    wanted = Share(int(size[0]), int(size[1] * 2**30), int(size[2]))
    given = Share(
        min(wanted.cpus, available.cpus),
        min(wanted.memory, available.memory * min(wanted.cpus, available.cpus) // max(1, available.cpus)),
        min(wanted.gpus, available.gpus),
    )
    notes = []
    if given.gpus < wanted.gpus:
        notes.append(f"instance_type {instance_type} has {wanted.gpus} GPU(s); this machine gives {given.gpus}")
    return given, notes
