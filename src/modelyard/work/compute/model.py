"""The record of a compute, and what a job asks of it."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Any

from ...core.clock import iso
from ...ports.executor import Share
from ...spec.compute import AmlCompute, LocalCompute
from ...spec.loading import stored_spec
from ...spec.states import ProvisioningState


@dataclass(frozen=True)
class ComputeRecord:
    name: str
    stored: dict[str, Any]
    created_ms: int

    @cached_property
    def spec(self) -> AmlCompute | LocalCompute:
        spec: AmlCompute | LocalCompute = stored_spec("compute", self.stored, name=self.name)
        return spec

    def document(self) -> dict[str, Any]:
        return {
            **self.stored, "id": f"azureml:{self.name}", "provisioning_state": ProvisioningState.SUCCEEDED, "created_on": iso(self.created_ms),
        }  # fmt: skip


@functools.cache
def _sizes() -> dict[str, list[float]]:
    text = resources.files(__package__).joinpath("vm_sizes.toml").read_text()
    sizes: dict[str, list[float]] = tomllib.loads(text)["sizes"]
    return sizes


def share_of_size(instance_type: str | None, available: Share) -> tuple[Share, list[str]]:
    """The share of this machine for a job with this VM size, and notes about what differs. Without a size: one CPU."""
    if not instance_type:
        return Share(1), []
    size = _sizes().get(instance_type.lower())
    if size is None:
        return Share(1), [f"instance_type {instance_type} is not known here; the job gets one CPU"]
    requested = Share(int(size[0]), int(size[1] * 2**30), int(size[2]))
    share = Share(
        min(requested.cpus, available.cpus),
        min(requested.memory, available.memory * min(requested.cpus, available.cpus) // max(1, available.cpus)),
        min(requested.gpus, available.gpus),
    )
    notes = []
    if share.gpus < requested.gpus:
        notes.append(f"instance_type {instance_type} has {requested.gpus} GPU(s); this machine gives {share.gpus}")
    return share, notes
