"""Workspaces: the border around a team's things. Cloud-only fields are kept and answered; they have no effect here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from .fields import Entity, Spec
from .unused import CLOUD, IDENTITY, NETWORK


class ServerlessComputeSettings(Spec):
    custom_subnet: str | None = None
    no_public_ip: bool = False


class CustomerManagedKey(Spec):
    key_vault: str | None = None
    key_uri: str | None = None
    cosmosdb_id: str | None = None
    storage_id: str | None = None
    search_id: str | None = None


class IPRule(Spec):
    value: str


class NetworkAcls(Spec):
    default_action: str = "Allow"
    ip_rules: list[IPRule] | None = None


class Identity(Spec):
    type: Literal["system_assigned", "user_assigned", "none"] | None = None
    principal_id: str | None = None
    tenant_id: str | None = None
    user_assigned_identities: dict[str, Any] | list[dict[str, Any]] | None = None


class ManagedNetwork(Spec):
    isolation_mode: Literal["disabled", "allow_internet_outbound", "allow_only_approved_outbound"] = "disabled"
    outbound_rules: list[dict[str, Any]] | None = None
    firewall_sku: Literal["standard", "basic"] | None = None
    network_id: SkipJsonSchema[str | None] = Field(default=None, exclude=True)


class Workspace(Entity):
    name: str
    kind: Literal["default", "hub", "project", "feature_store", "registry"] | None = None
    """A registry holds assets that workspaces share; nothing runs in it."""
    display_name: str | None = None
    location: Annotated[str | None, CLOUD] = None
    resource_group: Annotated[str | None, CLOUD] = None
    discovery_url: Annotated[str | None, CLOUD] = None
    hbi_workspace: Annotated[bool, CLOUD] = False
    storage_account: Annotated[str | None, CLOUD] = None
    container_registry: Annotated[str | None, CLOUD] = None
    key_vault: Annotated[str | None, CLOUD] = None
    application_insights: Annotated[str | None, CLOUD] = None
    customer_managed_key: Annotated[CustomerManagedKey | None, CLOUD] = None
    image_build_compute: Annotated[str | None, CLOUD] = None
    public_network_access: Annotated[Literal["Disabled", "Enabled"] | None, NETWORK] = None
    private_link: Annotated[Any, NETWORK] = None
    network_acls: Annotated[NetworkAcls | None, NETWORK] = None
    system_datastores_auth_mode: Annotated[str | None, CLOUD] = None
    identity: Annotated[Identity | None, IDENTITY] = None
    primary_user_assigned_identity: Annotated[str | None, IDENTITY] = None
    workspace_hub: Annotated[str | None, CLOUD] = None
    managed_network: Annotated[ManagedNetwork | None, NETWORK] = None
    provision_network_now: Annotated[bool | None, CLOUD] = None
    enable_data_isolation: Annotated[bool, CLOUD] = False
    allow_roleassignment_on_rg: Annotated[bool | None, CLOUD] = None
    serverless_compute: Annotated[ServerlessComputeSettings | None, CLOUD] = None
    mlflow_tracking_uri: str | None = None
    storage_quota_bytes: int | None = Field(default=None, ge=0, le=2**62)
    """What the workspace may store, equal content counted once; left out, the setting `workspace_quota_bytes` counts. An owner of the yard sets it."""
    storage_used_bytes: int | None = None
    """Answered only: what it stores, at most; deleted content counts until the yard counts again."""


class Registry(Entity):
    """Azure's `registry.yml`. One machine has no regions and no storage accounts to spread over: those fields are kept out."""

    name: str
    location: str | None = None
    public_network_access: Literal["Disabled", "Enabled"] | None = None
    replication_locations: list[dict[str, Any]] | None = None
    intellectual_property: dict[str, Any] | None = None
    container_registry: str | dict[str, Any] | None = None
    managed_resource_group: str | None = None
    identity: Identity | None = None

    def workspace(self) -> Workspace:
        fields = self.model_dump(include={"name", "description", "tags", "location"}, exclude_none=True)
        return Workspace.model_validate({**fields, "kind": "registry"})
