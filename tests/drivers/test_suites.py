"""Every driver passes its port's suite: those of this machine, and those in memory that tests run on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from grounds import Ground
from modelyard.drivers.builder.venv import VenvBuilder
from modelyard.drivers.objects.local import LocalObjects
from modelyard.drivers.vault.local import LocalVault
from modelyard.ports.builder import Builder
from modelyard.ports.objects import ResumableObjectStore
from modelyard.ports.vault import Vault
from modelyard.testing.memory.builder import MemoryBuilder
from modelyard.testing.memory.objects import MemoryObjects
from modelyard.testing.memory.replicas import MemoryReplicas
from modelyard.testing.memory.vault import MemoryVault
from modelyard.testing.suites.builder import BuilderSuite
from modelyard.testing.suites.objects import ObjectStoreSuite
from modelyard.testing.suites.replicas import ReplicasSuite, Servers
from modelyard.testing.suites.vault import VaultSuite


class TestLocalObjects(ObjectStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ResumableObjectStore:
        return LocalObjects(tmp_path)

    def damage(self, store: ResumableObjectStore, digest: str) -> None:
        assert isinstance(store, LocalObjects)
        (store.root / digest[:2] / digest[2:]).write_bytes(b"other bytes")


class TestMemoryObjects(ObjectStoreSuite):
    @pytest.fixture
    def store(self) -> ResumableObjectStore:
        return MemoryObjects()

    def damage(self, store: ResumableObjectStore, digest: str) -> None:
        assert isinstance(store, MemoryObjects)
        store.blobs[digest] = b"other bytes"


class TestLocalVault(VaultSuite):
    @pytest.fixture
    def vault(self, tmp_path: Path) -> Vault:
        return LocalVault(tmp_path / "key")

    @pytest.fixture
    def other(self, tmp_path: Path) -> Vault:
        return LocalVault(tmp_path / "other")

    def test_the_key_is_for_its_owner_alone_and_opens_after_a_restart(self, tmp_path: Path) -> None:
        sealed = LocalVault(tmp_path / "key").seal(b"secret", "a/b/1")
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        assert LocalVault(tmp_path / "key").open(sealed, "a/b/1") == b"secret"


class TestMemoryVault(VaultSuite):
    @pytest.fixture
    def vault(self) -> Vault:
        return MemoryVault()

    @pytest.fixture
    def other(self) -> Vault:
        return MemoryVault()


class TestVenvBuilder(BuilderSuite):
    @pytest.fixture
    def builder(self, tmp_path: Path) -> Builder:
        return VenvBuilder(tmp_path, lambda command, folders: command)

    @pytest.fixture
    def package(self) -> str:
        return "six"


class TestMemoryBuilder(BuilderSuite):
    @pytest.fixture
    def builder(self) -> Builder:
        return MemoryBuilder()

    @pytest.fixture
    def package(self) -> str:
        return "six"


class TestProcessReplicas(ReplicasSuite):
    @pytest.fixture
    def servers(self, tmp_path: Path) -> Iterator[Servers]:
        ground = Ground(tmp_path / "ground")
        (tmp_path / "servers").mkdir()
        yield Servers(ground.replicas, tmp_path / "servers")
        asyncio.run(ground.client.call("shutdown", all=True))


class TestMemoryReplicas(ReplicasSuite):
    @pytest.fixture
    def servers(self, tmp_path: Path) -> Servers:
        return Servers(MemoryReplicas(), tmp_path)
