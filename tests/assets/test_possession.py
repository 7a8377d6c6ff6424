"""Whose content is whose: bytes are shown, not claimed; workspaces share by grant; quotas hold while bytes arrive."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.assets.files import service as files
from modelyard.core.actor import SYSTEM
from modelyard.core.errors import LimitExceeded
from modelyard.spec.references import BLOBSTORE
from modelyard.storage.database import Database
from modelyard.storage.migrate import migrate
from modelyard.storage.open import open_database
from modelyard.tenancy.workspaces import service as workspaces
from modelyard.testing.memory.executor import Process
from modelyard.testing.yard import InProcessYard

SECRET = b"the weights of another team"
DIGEST = hashlib.sha256(SECRET).hexdigest()
STORE = "datastores/workspaceblobstore"


def at(workspace: str, path: str) -> str:
    return f"/api/v1/workspaces/{workspace}/{path}"


def user(yard: InProcessYard, name: str, role: str, workspace: str) -> str:
    yard.call("POST", "/api/v1/principals", json={"name": name}, expect=201)
    yard.call("PUT", f"/api/v1/principals/{name}/roles/{role}?workspace_name={workspace}", expect=200)
    return str(yard.call("POST", "/api/v1/tokens", json={"principal": name, "hours": 1}, expect=201).json()["token"])


def put_blob(
    yard: InProcessYard, workspace: str, data: bytes, *, digest: str = "", offset: int = 0, total: int | None = None, **more: Any
) -> Any:
    headers = {"Upload-Offset": str(offset), "Upload-Length": str(len(data) if total is None else total)}
    return yard.call("PUT", at(workspace, f"blobs/{digest or hashlib.sha256(data).hexdigest()}"), content=data, headers=headers, **more)


def announce(yard: InProcessYard, workspace: str, digest: str, size: int, name: str = "x", **more: Any) -> Any:
    return yard.call("POST", at(workspace, f"{STORE}/uploads"), json={"files": [[name, digest, size]], "name": name}, **more)


@pytest.fixture
def two(turned: InProcessYard) -> Iterator[InProcessYard]:
    """The workspaces `ours` and `theirs`; theirs has SECRET."""
    for name in ("ours", "theirs"):
        turned.call("PUT", f"/api/v1/workspaces/{name}", json={"name": name}, expect=200)
    put_blob(turned, "theirs", SECRET, expect=201)
    assert announce(turned, "theirs", DIGEST, len(SECRET), expect=200).json()["missing"] == []
    yield turned


@pytest.mark.parametrize(("body", "offset", "total"), [(b"", 0, 27), (b"", 0, 0), (b"", 27, 27), (b"x" * 27, 0, 27), (SECRET[:-1], 0, 26)])
def test_a_digest_alone_gives_nobody_the_content(two: InProcessYard, body: bytes, offset: int, total: int) -> None:
    sent = put_blob(two, "ours", body, digest=DIGEST, offset=offset, total=total)
    assert sent.status_code in (202, 400, 409), sent.text
    assert two.call("HEAD", at("ours", f"blobs/{DIGEST}")).headers["upload-offset"] != str(len(SECRET))
    assert announce(two, "ours", DIGEST, len(SECRET), expect=200).json()["missing"] == [DIGEST]
    assert two.call("GET", at("ours", f"{STORE}/files"), expect=200).json()["value"] == []


def test_neither_artifacts_nor_frames_nor_imports_take_content_by_its_digest(two: InProcessYard) -> None:
    token = two.call("POST", "/api/v1/tokens", json={"workspace": "ours", "hours": 1}, expect=201).json()["token"]
    experiment = two.mlflow("POST", "experiments/create", {"name": "e"}, token=token)["experiment_id"]
    run = two.mlflow("POST", "runs/create", {"experiment_id": experiment}, token=token)["run"]["info"]["run_id"]
    manifest = {"files": [["x", DIGEST, len(SECRET)]]}
    assert two.call("POST", at("ours", f"runs/{run}/artifacts"), json=manifest, expect=200).json() == {"missing": [DIGEST]}
    import json

    line = json.dumps(manifest).encode() + b"\n"
    for frame in (b"", f"{DIGEST} 0\n".encode()):
        sent = two.call("POST", at("ours", f"{STORE}/uploads/content"), content=line + frame)
        assert sent.status_code == 400 or sent.json()["missing"] == [DIGEST]


def test_who_sends_the_bytes_has_the_content_and_it_is_stored_once(two: InProcessYard) -> None:
    put_blob(two, "ours", SECRET, expect=201)
    assert announce(two, "ours", DIGEST, len(SECRET), expect=200).json()["missing"] == []
    assert list(two.yard.objects.blobs) == [DIGEST]  # type: ignore[attr-defined]
    assert two.call("HEAD", at("ours", f"blobs/{DIGEST}")).headers["upload-offset"] == str(len(SECRET)), "a repeated upload sends nothing"
    put_blob(two, "ours", b"", digest=DIGEST, offset=len(SECRET), total=len(SECRET), expect=201)


def test_the_size_of_a_file_is_what_came_and_not_what_is_said(two: InProcessYard) -> None:
    for size in (0, 1, 10**12):
        assert announce(two, "theirs", DIGEST, size, "lie", expect=200).json()["missing"] == [DIGEST], size
    assert announce(two, "theirs", DIGEST, len(SECRET), "truth", expect=200).json()["missing"] == []


def test_parts_of_an_upload_are_their_uploaders(two: InProcessYard) -> None:
    data = b"first half, second half"
    digest = hashlib.sha256(data).hexdigest()
    ada, eve = user(two, "ada", "Contributor", "ours"), user(two, "eve", "Contributor", "ours")
    put_blob(two, "ours", data[:11], digest=digest, total=len(data), token=ada, expect=202)
    assert two.call("HEAD", at("ours", f"blobs/{digest}"), token=eve).headers["upload-offset"] == "0"
    put_blob(two, "ours", b"spoilt", digest=digest, total=len(data), token=eve, expect=202)
    put_blob(two, "ours", data[11:], digest=digest, offset=11, total=len(data), token=ada, expect=201)


def test_a_readers_refusal_comes_before_a_byte_is_stored(two: InProcessYard) -> None:
    reader = user(two, "rita", "Reader", "ours")
    experiment = two.mlflow("POST", "experiments/create", {"name": "e"}, expect=200)["experiment_id"]
    run = two.mlflow("POST", "runs/create", {"experiment_id": experiment})["run"]["info"]["run_id"]
    two.call("PUT", "/api/v1/principals/rita/roles/Reader?workspace_name=default", expect=200)
    before = dict(two.yard.objects.blobs), two.yard.objects.partial_bytes("ours")  # type: ignore[attr-defined]
    data = b"not welcome"
    digest = hashlib.sha256(data).hexdigest()
    frames = b'{"files": [["x", "' + digest.encode() + b'", 11]]}\n' + digest.encode() + b" 11\n" + data
    headers = {"Upload-Offset": "0", "Upload-Length": "20"}
    ways = [
        ("PUT", at("ours", f"blobs/{digest}"), data, headers),
        ("PUT", at("ours", f"blobs/{DIGEST}"), SECRET, {"Upload-Offset": "0", "Upload-Length": str(len(SECRET))}),
        ("POST", at("ours", f"{STORE}/uploads"), frames.partition(b"\n")[0], {}),
        ("POST", at("ours", f"{STORE}/uploads/content"), frames, {}),
        ("POST", at("default", f"runs/{run}/artifacts/content"), frames, {}),
        ("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/x", data, {}),
        ("PUT", f"/ws/ours/api/2.0/mlflow-artifacts/mpu/parts/{'a' * 32}/1", data, {}),
    ]
    for method, path, content, more in ways:
        refused = two.call(method, path, content=content, headers=more, token=reader)
        assert refused.status_code == 403, f"{method} {path}: {refused.status_code} {refused.text}"
    assert two.call("HEAD", at("ours", f"blobs/{digest}"), token=reader).status_code == 403
    assert (dict(two.yard.objects.blobs), two.yard.objects.partial_bytes("ours")) == before  # type: ignore[attr-defined]


def test_sharing_to_a_registry_grants_the_content_without_sending_it(two: InProcessYard) -> None:
    uri = announce(two, "theirs", DIGEST, len(SECRET), expect=200).json()["uri"]
    two.call("PUT", "/api/v1/workspaces/shared", json={"name": "shared", "kind": "registry"}, expect=200)
    two.call("POST", at("theirs", "data"), json={"name": "rows", "type": "uri_file", "path": uri}, expect=201)
    assert announce(two, "shared", DIGEST, len(SECRET), expect=200).json()["missing"] == [DIGEST]
    two.call("POST", at("theirs", "data/rows/versions/1/share"), json={"registry": "shared"}, expect=201)
    assert announce(two, "shared", DIGEST, len(SECRET), expect=200).json()["missing"] == []
    assert two.call("GET", "/api/v1/workspaces/shared", expect=200).json()["storage_used_bytes"] == len(SECRET)
    two.call("PUT", "/api/v1/workspaces/full", json={"name": "full", "kind": "registry", "storage_quota_bytes": 5}, expect=200)
    assert (
        two.call("POST", at("theirs", "data/rows/versions/1/share"), json={"registry": "full"}, expect=507).json()["error"]["code"]
        == "quota_exceeded"
    )


def test_a_later_workspace_of_the_same_name_inherits_nothing(two: InProcessYard) -> None:
    two.call("DELETE", "/api/v1/workspaces/theirs", expect=204)
    two.call("PUT", "/api/v1/workspaces/theirs", json={"name": "theirs"}, expect=200)
    assert announce(two, "theirs", DIGEST, len(SECRET), expect=200).json()["missing"] == [DIGEST]
    assert two.call("GET", at("theirs", f"{STORE}/files"), expect=200).json()["value"] == []


# Quotas


def quota(yard: InProcessYard, bytes: int) -> None:
    yard.call("PUT", "/api/v1/workspaces/ours", json={"name": "ours", "storage_quota_bytes": bytes}, expect=200)


def used(yard: InProcessYard) -> int:
    return int(yard.call("GET", "/api/v1/workspaces/ours", expect=200).json()["storage_used_bytes"])


def refused(answer: Any) -> bool:
    return bool(answer.status_code == 507 and "storage_quota_bytes" in answer.text and "retry-after" not in answer.headers)


def test_a_quota_is_kept_whichever_way_bytes_come(two: InProcessYard) -> None:
    quota(two, 130)
    token = two.call("POST", "/api/v1/tokens", json={"workspace": "ours", "hours": 1}, expect=201).json()["token"]
    experiment = two.mlflow("POST", "experiments/create", {"name": "e"}, token=token)["experiment_id"]
    run = two.mlflow("POST", "runs/create", {"experiment_id": experiment}, token=token)["run"]["info"]["run_id"]
    artifact = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/x"
    two.call("PUT", artifact, content=b"a" * 60, token=token, expect=200)
    assert used(two) == 60
    large = b"b" * 80
    digest = hashlib.sha256(large).hexdigest()
    frames = f'{{"files": [["x", "{digest}", 80]]}}\n{digest} 80\n'.encode() + large
    assert refused(two.call("PUT", artifact + "2", content=large, token=token))
    assert refused(put_blob(two, "ours", large))
    assert refused(two.call("POST", at("ours", f"{STORE}/uploads/content"), content=frames))
    assert refused(two.call("PUT", f"/ws/ours/api/2.0/mlflow-artifacts/mpu/parts/{'a' * 32}/1", content=large, token=token))
    assert put_blob(two, "ours", large).json()["error"]["code"] == "quota_exceeded"
    assert not two.yard.objects.has(digest) and used(two) == 60
    two.call("PUT", artifact + "3", content=b"a" * 60, token=token, expect=200)
    assert used(two) == 60, "equal content counts once"


def test_unfinished_uploads_count(two: InProcessYard) -> None:
    quota(two, 100)
    put_blob(two, "ours", b"a" * 60, digest="a" * 64, total=90, expect=202)
    assert refused(put_blob(two, "ours", b"b" * 50))
    put_blob(two, "ours", b"b" * 40, expect=201)


def test_deleted_content_makes_room_when_it_is_needed(two: InProcessYard) -> None:
    quota(two, 100)
    token = two.call("POST", "/api/v1/tokens", json={"workspace": "ours", "hours": 1}, expect=201).json()["token"]
    run = two.mlflow(
        "POST",
        "runs/create",
        {"experiment_id": two.mlflow("POST", "experiments/create", {"name": "e"}, token=token)["experiment_id"]},
        token=token,
    )["run"]["info"]
    path = f"/api/2.0/mlflow-artifacts/artifacts/{run['experiment_id']}/{run['run_id']}/artifacts/x"
    two.call("PUT", path, content=b"a" * 90, token=token, expect=200)
    assert refused(two.call("PUT", path, content=b"b" * 90, token=token))
    two.call("DELETE", path, token=token, expect=200)
    two.call("PUT", path, content=b"c" * 100, token=token, expect=200)
    assert used(two) == 100


def test_the_quota_of_the_setting_is_for_workspaces_without_one(tmp_path: Path) -> None:
    yard = InProcessYard(tmp_path / "home")
    try:
        yard.write(lambda unit: workspaces.set_default_quota(unit, 10))
        shown = yard.call("GET", "/api/v1/workspaces/default", expect=200).json()
        assert (shown["storage_quota_bytes"], shown["storage_used_bytes"]) == (10, 0)
        assert refused(put_blob(yard, "default", b"x" * 11))
        yard.call("PUT", "/api/v1/workspaces/default", json={"name": "default", "storage_quota_bytes": 11}, expect=200)
        put_blob(yard, "default", b"x" * 11, expect=201)
    finally:
        yard.close()


def test_only_an_owner_of_the_yard_sets_a_quota(two: InProcessYard) -> None:
    quota(two, 100)
    owner = user(two, "olga", "Owner", "ours")
    for body in ({"storage_quota_bytes": 10**9}, {"storage_quota_bytes": 0}):
        assert two.call("PUT", "/api/v1/workspaces/ours", json={"name": "ours", **body}, token=owner).status_code == 403
    for body in ({}, {"storage_quota_bytes": 100}, {"storage_used_bytes": 0}):
        two.call("PUT", "/api/v1/workspaces/ours", json={"name": "ours", "description": "d", **body}, token=owner, expect=200)
    assert two.call("GET", "/api/v1/workspaces/ours").json()["storage_quota_bytes"] == 100


def test_a_job_that_writes_more_than_fits_fails_by_name_and_keeps_its_log(tmp_path: Path) -> None:
    def answer(process: Process) -> int:
        process.say("a log longer than the quota")
        if process.command == "write":
            process.files["/outputs/o/made.txt"] = b"too much"
        return 0

    yard = InProcessYard(tmp_path / "home", answer=answer)
    try:
        yard.call("PUT", "/api/v1/workspaces/default", json={"name": "default", "storage_quota_bytes": 5}, expect=200)
        ends = {}
        for command in ("write", "rest"):
            body = {"command": command, "environment": {"pip": []}, "outputs": {"o": {"type": "uri_folder"}}}
            name = yard.call("POST", at("default", "jobs"), json=body, expect=201).json()["name"]
            yard.settle()
            job = yard.call("GET", at("default", f"jobs/{name}"), expect=200).json()
            ends[command] = job["status"], job.get("error", {}).get("code")
            listed = yard.mlflow("GET", "artifacts/list", None, run_id=name, path="user_logs")["files"]
            assert [file["path"] for file in listed] == ["user_logs/std_log.txt"]
        assert ends == {"write": ("Failed", "quota_exceeded"), "rest": ("Completed", None)}
    finally:
        yard.close()


def test_what_a_workspace_stores_is_counted_on_both_databases(db: Database) -> None:
    def put(name: str, size: int, *, bounded: bool = False) -> None:
        db.write_now(lambda unit: files.put_file(unit, BLOBSTORE, name, name * 64, size, bounded=bounded), SYSTEM, "w")

    def used() -> int:
        return db.read_now(workspaces.storage_use, SYSTEM, "w").used

    db.write_now(lambda unit: workspaces.set_default_quota(unit, 25))
    put("a", 10)
    put("b", 10)
    put("a", 10)
    assert used() == 20
    with pytest.raises(LimitExceeded, match="25"):
        put("c", 10, bounded=True)
    db.write_now(lambda unit: files.delete_files(unit, BLOBSTORE, "a"), SYSTEM, "w")
    assert used() == 20
    put("c", 10, bounded=True)
    assert used() == 20, "counted again, as there was no room"
    db.write_now(lambda unit: files.delete_files(unit, BLOBSTORE, "b"), SYSTEM, "w")
    assert db.write_now(lambda unit: files.used_digests(unit, 0)) == {"c" * 64}
    assert used() == 10 and db.read_now(lambda unit: files.held_size(unit, "b" * 64), SYSTEM, "w") is None


def test_a_home_of_before_knows_what_each_of_its_workspaces_has(tmp_path: Path) -> None:
    path = tmp_path / "yard.db"
    old = sqlite3.connect(path)
    old.executescript((Path(__file__).parents[1] / "fixtures" / "yard-0004.sql").read_text())
    held = old.execute("SELECT DISTINCT workspace, digest FROM files ORDER BY 1, 2").fetchall()
    old.close()
    db = open_database(f"sqlite:///{path}")
    migrate(db, tmp_path)
    db.close()
    new = sqlite3.connect(path)
    assert held and new.execute("SELECT workspace, digest FROM contents ORDER BY 1, 2").fetchall() == held
    total = new.execute("SELECT workspace, sum(size) FROM contents GROUP BY 1 ORDER BY 1").fetchall()
    assert new.execute("SELECT workspace, used_bytes FROM storage_use ORDER BY 1").fetchall() == total
    new.close()
