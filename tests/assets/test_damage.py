"""Content that a disk has changed: never given as if it were whole, announced, and mended."""

from __future__ import annotations

import os
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from checked_yard import YardUnderTest
from modelyard.app.maintenance.fsck import fsck
from modelyard.assets.files import service as files
from modelyard.drivers.objects.local import LocalObjects
from modelyard.settings import Settings
from modelyard.spec.references import BLOBSTORE
from modelyard.testing.waiting import wait_for
from modelyard.testing.yard import InProcessYard

SIZE = 3 * 2**20 + 17


def blob(yard: YardUnderTest, digest: str) -> Path:
    return yard.home / "blobs" / digest[:2] / digest[2:]


def flip(path: Path, at: int) -> None:
    """One bit, and the file's times stay as they were."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def alarms(yard: YardUnderTest) -> dict[str, int]:
    return dict(yard.call("GET", "/readyz", expect=200).json().get("alarms", {}))


def upload(yard: YardUnderTest, tmp_path: Path, name: str, data: bytes) -> tuple[str, str]:
    """(digest, address of the file below the API)"""
    (tmp_path / name).write_bytes(data)
    made = yard.json("data", "create", "--name", name, "--type", "uri_file", "--path", str(tmp_path / name))
    path = made["path"].split("/paths/")[1]
    files = yard.call("GET", "/api/v1/workspaces/default/datastores/workspaceblobstore/files", params={"prefix": path}, expect=200).json()
    return files["value"][0]["digest"], f"/api/v1/workspaces/default/datastores/workspaceblobstore/files/{path}"


def test_damaged_content_is_cut_off_announced_and_mended(own_yard: YardUnderTest, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    digest, address = upload(own_yard, tmp_path, "large", data)
    small, small_address = upload(own_yard, tmp_path, "small", b"a few bytes")
    own_yard.run("backup", str(tmp_path / "backup.tar"))
    assert alarms(own_yard) == {}
    flip(blob(own_yard, digest), 2 * 2**20 + 5)
    flip(blob(own_yard, small), 3)

    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        own_yard.call("GET", address)
    for range_, expected in (("bytes=0-99", data[:100]), (f"bytes={SIZE - 10}-", data[-10:])):
        answer = own_yard.call("GET", address, headers={"Range": range_}, expect=206)
        assert answer.content == expected
    for path, headers in ((address, {"Range": f"bytes={2**21}-{2**21 + 9}"}), (small_address, {}), (small_address, {"Range": "bytes=0-1"})):
        refused = own_yard.call("GET", path, headers=headers, expect=503).json()["error"]
        assert refused["code"] == "damaged_blob" and "fsck --repair" in refused["hint"]

    wait_for(lambda: alarms(own_yard) == {"damaged_content": 2}, 30, "the alarm")
    events = own_yard.call("GET", "/api/v1/workspaces/default/audit", params={"subject": digest}, expect=200).json()["value"]
    assert [event["event"] for event in events] == ["content.damaged"] and events[0]["detail"]["paths"]
    assert 'modelyard_alarms{code="damaged_content"} 2.0' in own_yard.call("GET", "/metrics", expect=200).text
    assert own_yard.run("backup", str(tmp_path / "second.tar"), ok=False).returncode != 0, "no backup of damaged content"
    assert not (tmp_path / "second.tar").exists()

    (tmp_path / "again").write_bytes(data)
    own_yard.run("data", "create", "--name", "again", "--type", "uri_file", "--path", str(tmp_path / "again"))
    assert own_yard.call("GET", address, expect=200).content == data, "whoever has the bytes sends them again"
    wait_for(lambda: alarms(own_yard) == {"damaged_content": 1}, 30, "the alarm to end")

    own_yard.run("down")
    blob(own_yard, digest).unlink()
    found = own_yard.run("fsck", "--read-data", ok=False)
    assert found.returncode == 10 and f"missing: {digest}" in found.stderr and f"damaged: {small}" in found.stderr
    bad = tmp_path / "bad.tar"
    with tarfile.open(bad, "w") as tar:
        tar.add(blob(own_yard, small), f"blobs/{small[:2]}/{small[2:]}")
    found = own_yard.run("fsck", "--repair", "--from", str(bad), ok=False)
    assert found.returncode == 10 and "put aside" in found.stderr, "a copy that is damaged itself is no copy"
    assert (own_yard.home / f"blobs/damaged/{small}.bytes").exists()
    own_yard.up()
    assert own_yard.call("GET", small_address, expect=503).json()["error"]["code"] == "damaged_blob"
    own_yard.run("down")
    own_yard.run("fsck", "--repair", "--from", str(tmp_path / "backup.tar"))
    assert own_yard.run("fsck", "--read-data").returncode == 0
    own_yard.up()
    assert (
        own_yard.call("GET", address, expect=200).content == data
        and own_yard.call("GET", small_address, expect=200).content == b"a few bytes"
    )
    wait_for(lambda: alarms(own_yard) == {}, 30, "the alarm to end")


def test_sizes_that_the_database_has_wrong_are_corrected(tmp_path: Path) -> None:
    """A home from before sizes were counted: they were what clients said."""
    yard = InProcessYard(tmp_path / "home")
    blob = LocalObjects(yard.home.blobs).put_bytes(b"12345")
    yard.write(lambda unit: files.put_file(unit, BLOBSTORE, "a", blob.digest, 99))
    yard.close()
    assert fsck(yard.home, Settings(), read_data=False) == 10
    assert fsck(yard.home, Settings(), read_data=False, repair=True) == 0 == fsck(yard.home, Settings(), read_data=True)
    with sqlite3.connect(yard.home.database) as connection:
        assert connection.execute("SELECT size FROM files UNION SELECT size FROM contents").fetchall() == [(5,)]
    connection.close()


@pytest.mark.parametrize("kind", ["home", "folder"])
def test_a_copy_is_found_in_another_home_and_in_a_folder_of_backups(kind: str, tmp_path: Path) -> None:
    import hashlib

    from modelyard.app.maintenance.replicas import Replicas
    from modelyard.core.errors import Invalid

    digest = hashlib.sha256(b"bytes").hexdigest()
    source: Any = tmp_path / "blobs" / digest[:2] / digest[2:]
    source.parent.mkdir(parents=True)
    source.write_bytes(b"bytes")
    place = tmp_path
    if kind == "folder":
        place = tmp_path / "backups"
        place.mkdir()
        with tarfile.open(place / "one.tar", "w") as tar:
            tar.add(source, f"blobs/{digest[:2]}/{digest[2:]}")
        (place / "notes.txt").write_text("no backup")
    with Replicas([place]).open(digest) as copy:
        assert copy is not None and copy.read() == b"bytes"
    with Replicas([place]).open("0" * 64) as copy:
        assert copy is None
    with pytest.raises(Invalid):
        Replicas([source.parent])
