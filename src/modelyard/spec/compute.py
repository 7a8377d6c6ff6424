"""Compute: where jobs run. On the embedded yard every kind is a share of this machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .fields import Entity, ShownAs, Spec, read_only
from .states import ProvisioningState
from .unused import CLOUD, IDENTITY, NETWORK
from .workspace import Identity


class NetworkSettings(Spec):
    vnet_name: str | None = None
    subnet: str | None = None


class AmlComputeSshSettings(Spec):
    admin_username: str | None = None
    admin_password: str | None = None
    ssh_key_value: str | None = None


class Compute(Entity):
    name: str
    location: Annotated[str | None, CLOUD] = None
    resource_id: Annotated[str | None, CLOUD] = None
    provisioning_state: Annotated[str | None, ShownAs(ProvisioningState)] = read_only()
    created_on: str | None = read_only()


class LocalCompute(Compute):
    """This machine. `max_instances` bounds how many jobs run at once; absent, the CPUs do."""

    type: Literal["local"] = "local"
    max_instances: int | None = Field(default=None, ge=1)


class AmlCompute(Compute):
    type: Literal["amlcompute"] = "amlcompute"
    size: str = "STANDARD_DS3_V2"
    tier: Annotated[Literal["low_priority", "dedicated"] | None, CLOUD] = None
    min_instances: Annotated[int, CLOUD] = Field(default=0, ge=0)
    max_instances: int = Field(default=4, ge=0)
    idle_time_before_scale_down: Annotated[int, CLOUD] = Field(default=120, ge=0)
    ssh_public_access_enabled: Annotated[bool | None, CLOUD] = None
    ssh_settings: Annotated[AmlComputeSshSettings | None, CLOUD] = None
    network_settings: Annotated[NetworkSettings | None, NETWORK] = None
    identity: Annotated[Identity | None, IDENTITY] = None
    enable_node_public_ip: Annotated[bool, CLOUD] = True
