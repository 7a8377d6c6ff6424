"""Datastores: named places for bytes. `local` is a folder of this machine; the others carry credentials."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Discriminator, Field, Tag
from typing_extensions import TypedDict

from .fields import Entity, Spec


class AccountKey(Spec):
    account_key: str


class SasToken(Spec):
    sas_token: str


class ServicePrincipal(Spec):
    tenant_id: str
    client_id: str
    client_secret: str
    authority_url: str | None = None
    resource_url: str | None = None


class Certificate(Spec):
    tenant_id: str
    client_id: str
    thumbprint: str
    certificate: str | None = None
    authority_url: str | None = None
    resource_url: str | None = None


class Kerberos(Spec):
    kerberos_realm: str
    kerberos_kdc_address: str
    kerberos_principal: str
    kerberos_password: str | None = None
    kerberos_keytab: str | None = None


class NoneCredentials(Spec):
    pass


def _credential_kind(value: Any) -> str:
    """Credentials carry no `type`; the field that only one kind has tells."""
    keys = set(value) if isinstance(value, dict) else set(getattr(type(value), "model_fields", {}))
    for kind, mark in (
        ("account_key", "account_key"),
        ("sas_token", "sas_token"),
        ("service_principal", "client_secret"),
        ("certificate", "thumbprint"),
        ("kerberos", "kerberos_realm"),
    ):
        if mark in keys:
            return kind
    return "none"


Credentials = Annotated[
    Annotated[AccountKey, Tag("account_key")]
    | Annotated[SasToken, Tag("sas_token")]
    | Annotated[ServicePrincipal, Tag("service_principal")]
    | Annotated[Certificate, Tag("certificate")]
    | Annotated[Kerberos, Tag("kerberos")]
    | Annotated[NoneCredentials, Tag("none")],
    Discriminator(_credential_kind),
]


class Datastore(Entity):
    name: str
    credentials: Credentials | None = None
    is_default: bool | None = None


class LocalDatastore(Datastore):
    """A folder on the yard's own machine, absolute. Only an owner may create one, since jobs can read it."""

    type: Literal["local"] = "local"
    path: str


class AzureBlobDatastore(Datastore):
    type: Literal["azure_blob"] = "azure_blob"
    account_name: str
    container_name: str
    endpoint: str | None = None
    protocol: str = "https"


class AzureFileDatastore(Datastore):
    type: Literal["azure_file"] = "azure_file"
    account_name: str
    file_share_name: str
    endpoint: str = "core.windows.net"
    protocol: str = "https"


class AzureDataLakeGen1Datastore(Datastore):
    type: Literal["azure_data_lake_gen1"] = "azure_data_lake_gen1"
    store_name: str


class AzureDataLakeGen2Datastore(Datastore):
    type: Literal["azure_data_lake_gen2"] = "azure_data_lake_gen2"
    account_name: str
    filesystem: str
    endpoint: str = "core.windows.net"
    protocol: str = "https"


class OneLakeArtifact(Spec):
    type: Literal["lake_house"]
    name: str


class OneLakeDatastore(Datastore):
    type: Literal["one_lake"] = "one_lake"
    one_lake_workspace_name: str
    endpoint: str
    artifact: OneLakeArtifact | None = None


class HdfsDatastore(Datastore):
    type: Literal["hdfs"] = "hdfs"
    name_node_address: str
    hdfs_server_certificate: str | None = None
    protocol: str | None = None


AnyDatastore = Annotated[
    LocalDatastore
    | AzureBlobDatastore
    | AzureFileDatastore
    | AzureDataLakeGen1Datastore
    | AzureDataLakeGen2Datastore
    | OneLakeDatastore
    | HdfsDatastore,
    Field(discriminator="type"),
]


class StoredFile(TypedDict):
    """`digest` is the SHA-256 of the content, `size` in bytes."""

    path: str
    digest: str
    size: int


class Manifest(TypedDict):
    """The files of an upload as `[path, sha256, size]`, and the name of the folder or file that they are: of a folder for certain when it ends with `/`."""

    files: list[tuple[str, str, int]]
    name: NotRequired[str | None]


class Missing(TypedDict):
    """The digests of content that has to be sent before the files are there."""

    missing: list[str]


class Upload(Missing):
    """`digest` is over all files. Nothing is missing of a complete upload: it has a `uri` and its size in bytes."""

    digest: str
    uri: NotRequired[str]
    size: NotRequired[int]


class Blob(TypedDict):
    digest: str
    size: int


class UploadOffset(TypedDict):
    """How many bytes have come of a file that is not whole yet."""

    offset: int
