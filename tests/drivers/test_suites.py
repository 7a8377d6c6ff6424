"""Every driver passes its port's suite: those of this machine, and those in memory that tests run on."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from grounds import NONE, Ground
from modelyard.core.errors import Unavailable
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
from modelyard.testing.suites.objects import LARGE, ObjectStoreSuite
from modelyard.testing.suites.replicas import ReplicasSuite, Servers
from modelyard.testing.suites.vault import VaultSuite


class TestLocalObjects(ObjectStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ResumableObjectStore:
        return LocalObjects(tmp_path)

    def damage(self, store: ResumableObjectStore, digest: str, at: int = 0) -> None:
        assert isinstance(store, LocalObjects)
        path = store.root / digest[:2] / digest[2:]
        status = path.stat()
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def test_digests_of_chunks_that_are_missing_or_torn_are_made_again(self, tmp_path: Path) -> None:
        """Blobs of a home from before they were kept, or after a power cut."""
        store = LocalObjects(tmp_path)
        data = os.urandom(LARGE)
        blob = store.put_bytes(data)
        beside = tmp_path / "chunks" / blob.digest[:2] / blob.digest[2:]
        kept = beside.read_bytes()
        for torn in (b"", kept[:-1], kept[:40] + bytes([kept[40] ^ 1]) + kept[41:], kept + b"x"):
            beside.write_bytes(torn)
            assert b"".join(store.open(blob.digest, 2**20 - 5, 10)) == data[2**20 - 5 : 2**20 + 5] and beside.read_bytes() == kept
        beside.unlink()
        self.damage(store, blob.digest, LARGE - 1)
        with pytest.raises(Unavailable):
            b"".join(store.open(blob.digest, 0, 10))
        assert not beside.exists()

    @pytest.mark.parametrize("size", [0, 5, 2**20, 2 * 2**20])
    def test_content_that_was_cut_short_is_damaged(self, tmp_path: Path, size: int) -> None:
        store = LocalObjects(tmp_path)
        blob = store.put_bytes(os.urandom(LARGE))
        os.truncate(tmp_path / blob.digest[:2] / blob.digest[2:], size)
        for start in (0, LARGE - 5):
            with pytest.raises(Unavailable):
                b"".join(store.open(blob.digest, start))

    def test_a_device_that_does_not_read_is_damage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = LocalObjects(tmp_path)
        blob = store.put_bytes(os.urandom(LARGE))
        read = os.pread

        def fails(descriptor: int, count: int, offset: int) -> bytes:
            if offset >= 2**20:
                raise OSError(errno.EIO, "Input/output error")
            return read(descriptor, count, offset)

        monkeypatch.setattr("modelyard.drivers.objects.local.os.pread", fails)
        chunks = store.open(blob.digest)
        assert len(next(chunks)) == 2**20
        with pytest.raises(Unavailable):
            next(chunks)
        assert store.damaged() == {blob.digest}


class TestMemoryObjects(ObjectStoreSuite):
    @pytest.fixture
    def store(self) -> ResumableObjectStore:
        return MemoryObjects()

    def damage(self, store: ResumableObjectStore, digest: str, at: int = 0) -> None:
        assert isinstance(store, MemoryObjects)
        data = store.blobs[digest]
        store.blobs[digest] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


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
        return VenvBuilder(tmp_path, NONE)

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
