"""The client: its nouns, and what follows from the table of them. Nothing here needs a yard."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

import modelyard
from modelyard import MLClient
from modelyard.core.errors import Invalid
from modelyard.sdk.client import OWN
from modelyard.sdk.resources import DeploymentOperations, NamedOperations, VersionedOperations
from modelyard.spec.batch import BatchEndpoint
from modelyard.spec.compute import AmlCompute
from modelyard.spec.data import Data
from modelyard.spec.job import CommandJob
from modelyard.spec.nouns import NOUNS, Noun, written
from modelyard.spec.workspace import Workspace


@pytest.fixture
def client() -> MLClient:
    return MLClient(url="http://127.0.0.1:9", token="yard_a_b")


def test_every_noun_is_an_attribute_and_is_made_once(client: MLClient) -> None:
    names = {*OWN, *(noun.attribute for noun in written())}
    assert set(OWN) <= set(MLClient.__annotations__) <= names, "what is made by name is declared for editors and type checkers"
    assert names <= set(dir(client))
    for name in names:
        assert getattr(client, name) is getattr(client, name)
    assert all(noun.attribute in names for noun in NOUNS.values())


def test_a_name_that_is_no_noun_is_no_attribute(client: MLClient) -> None:
    for name in ("monitrs", "_hidden"):
        with pytest.raises(AttributeError, match=name):
            getattr(client, name)
    with pytest.raises(AttributeError):
        getattr(copy.copy(MLClient.__new__(MLClient)), "_transport")  # noqa: B009


@pytest.mark.parametrize("noun", written(), ids=lambda noun: noun.name)
def test_operations_have_the_verbs_of_their_kind(client: MLClient, noun: Noun) -> None:
    operations = getattr(client, noun.attribute)
    assert operations.noun is noun
    if noun.name not in ("job", "workspace", "registry"):
        shared = VersionedOperations if noun.versioned else DeploymentOperations if noun.within else NamedOperations
        assert isinstance(operations, shared)
    verbs = ("create_or_update", "archive", "restore", "get", "list") if noun.versioned or noun.name == "job" else ("begin_create_or_update", "begin_delete")  # fmt: skip
    assert all(callable(getattr(operations, verb)) for verb in verbs)


def test_what_is_created_goes_to_the_operations_of_its_noun(client: MLClient, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[str, Any]] = []

    def taker(name: str) -> Any:
        return lambda entity, **kwargs: taken.append((name, entity))

    for name in ("jobs", "data"):
        monkeypatch.setattr(getattr(client, name), "create_or_update", taker(name))
    for name in ("compute", "workspaces", "batch_endpoints"):
        monkeypatch.setattr(getattr(client, name), "begin_create_or_update", taker(name))
    client.create_or_update(CommandJob(command="true", environment="e:1"))
    client.create_or_update(Data(name="d", path="./d"))
    client.begin_create_or_update(AmlCompute(name="cpu"))
    client.begin_create_or_update(Workspace(name="team"))
    client.begin_create_or_update(BatchEndpoint(name="scores"))
    assert [name for name, _ in taken] == ["jobs", "data", "compute", "workspaces", "batch_endpoints"]


def test_what_a_method_does_not_take_is_refused(client: MLClient) -> None:
    with pytest.raises(Invalid, match="create_or_update does not take Workspace"):
        client.create_or_update(Workspace(name="team"))
    with pytest.raises(Invalid, match="begin_create_or_update does not take str"):
        client.begin_create_or_update("team")


def test_the_command_line_goes_by_the_clients_nouns_alone() -> None:
    """Nothing in `cli` reaches into the client, or sends requests of its own; whether a server is ready is asked without one."""
    files = sorted((Path(modelyard.__file__).parent / "cli").rglob("*.py"))
    assert files and not [path.name for path in files if re.search(r"_transport|sdk\.transport|import httpx", path.read_text())]
