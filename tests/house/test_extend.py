"""What `docs/extend` tells builders to write works as it stands there."""

from __future__ import annotations

import asyncio
import importlib
import runpy
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

import modelyard.wire
import modelyard.work
from modelyard.app.asgi import make_asgi
from modelyard.app.compose import compose, make_yard
from modelyard.app.features import DIALECTS
from modelyard.app.home import first_start, open_home_database
from modelyard.core.home import Home
from modelyard.engine.dialect import Dialect
from modelyard.engine.feature import Feature
from modelyard.settings import Settings
from modelyard.storage.tables import metadata
from modelyard.tenancy.access.feature import FEATURE as access
from modelyard.tenancy.audit.feature import FEATURE as audit
from modelyard.tenancy.workspaces.feature import FEATURE as workspaces
from modelyard.testing.yard import InProcessYard
from pages import grafted, write_blocks

NOTES = "/api/v1/workspaces/team/notes"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_blocks("feature.md", tmp_path / "page")


@pytest.fixture
def notes(written: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feature]:
    """The page's feature, imported as `modelyard.work.notes`."""
    with grafted(monkeypatch, modelyard.work, written / "work", "notes"):
        yield importlib.import_module("modelyard.work.notes.feature").FEATURE


def upgrade(connection: sa.Connection, written: Path) -> MigrationContext:
    """Run the page's migration."""
    (migration,) = (written / "storage/migrations/versions").iterdir()
    context = MigrationContext.configure(connection)
    with Operations.context(context):
        runpy.run_path(str(migration))["upgrade"]()
    return context


@asynccontextmanager
async def small_yard(root: Path, written: Path, *features: Feature) -> AsyncIterator[httpx.AsyncClient]:
    """A yard of these features and of what every yard needs, in this process, on SQLite; its client has the first owner's token."""
    home = Home(root)
    home.prepare()
    settings = Settings(isolation="off")
    db = open_home_database(home, settings, create=True)
    try:
        with db.write_engine.begin() as connection:
            upgrade(connection, written)
        yard = make_yard(home, settings, db)
        composition = compose((workspaces, access, audit, *features))
        await first_start(yard)
        headers = {"Authorization": f"Bearer {home.admin_token.read_text().strip()}"}
        transport = httpx.ASGITransport(make_asgi(composition, yard, ()))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client:
            (await client.put("/api/v1/workspaces/team", json={})).raise_for_status()
            yield client
    finally:
        db.close()


Story = Callable[[httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def with_notes(tmp_path: Path, written: Path, notes: Feature) -> Callable[[Story], None]:
    """Runs a story against a small yard with the page's feature."""

    async def run(story: Story) -> None:
        async with small_yard(tmp_path / "home", written, notes) as client:
            await story(client)

    return lambda story: asyncio.run(run(story))


def test_the_feature_of_the_page_keeps_notes(with_notes: Callable[[Story], None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        written = await client.put(f"{NOTES}/retrain", json={"text": "every Monday"})
        assert written.status_code == 200 and written.json()["creation_context"]["created_by"] == "admin"
        await client.put(f"{NOTES}/retrain", json={"text": "every Tuesday"})
        assert (await client.get(f"{NOTES}/retrain")).json()["text"] == "every Tuesday"
        assert [note["name"] for note in (await client.get(NOTES)).json()["value"]] == ["retrain"]
        assert (await client.get("/api/v1/workspaces/default/notes")).json()["value"] == []
        events = (await client.get("/api/v1/workspaces/team/audit", params={"subject": "retrain"})).json()["value"]
        assert sorted(event["event"] for event in events) == ["note.created", "note.updated"]
        assert (await client.delete(f"{NOTES}/retrain")).status_code == 204

    with_notes(story)


def test_the_feature_of_the_page_refuses_with_reasons(with_notes: Callable[[Story], None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        for response, status, code in [
            (await client.get(f"{NOTES}/none"), 404, "not_found"),
            (await client.put(f"{NOTES}/long", json={"text": "x" * 10_001}), 400, "note_too_long"),
            (await client.put(f"{NOTES}/-x", json={"text": ""}), 400, "invalid_name"),
            (await client.put(f"{NOTES}/a", json={"text": 1}), 400, "invalid_body"),
            (await client.get(NOTES, headers={"Authorization": ""}), 401, "missing_token"),
            (await client.get(NOTES, headers={"Authorization": "Bearer yard_a_b"}), 401, "invalid_token"),
        ]:
            assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text
        assert (await client.get(NOTES)).json()["value"] == []

    with_notes(story)


def test_a_reader_reads_notes_and_writes_none(with_notes: Callable[[Story], None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        await client.put(f"{NOTES}/a", json={"text": "x"})
        await client.post("/api/v1/principals", json={"name": "reader"})
        await client.put("/api/v1/principals/reader/roles/Reader", params={"workspace_name": "team"})
        token = (await client.post("/api/v1/tokens", json={"principal": "reader"})).json()["token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert (await client.get(f"{NOTES}/a", headers=headers)).status_code == 200
        for method in ("PUT", "DELETE"):
            refused = await client.request(method, f"{NOTES}/a", json={"text": "y"}, headers=headers)
            assert refused.status_code == 403, refused.text
        assert (await client.get(f"{NOTES}/a")).json()["text"] == "x"

    with_notes(story)


def test_a_workspace_with_notes_is_not_deleted(with_notes: Callable[[Story], None]) -> None:
    async def story(client: httpx.AsyncClient) -> None:
        await client.put(f"{NOTES}/a", json={"text": "x"})
        refused = await client.delete("/api/v1/workspaces/team")
        assert refused.json()["error"]["code"] == "workspace_not_empty" and "notes" in refused.text
        await client.delete(f"{NOTES}/a")
        assert (await client.delete("/api/v1/workspaces/team")).status_code == 204

    with_notes(story)


def test_the_migration_of_the_page_creates_the_table_of_the_page(written: Path, notes: Feature) -> None:
    described = sa.MetaData(naming_convention=metadata.naming_convention)
    for table in notes.tables:
        table.to_metadata(described)
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        assert compare_metadata(upgrade(connection, written), described) == []
    engine.dispose()


LINES = "loss 0.5 1\nloss NaN 2\nacc 1e-1 -3\n"


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dialect]:
    """The page's dialect, imported as `modelyard.wire.lines`."""
    written = write_blocks("dialect.md", tmp_path / "page")
    with grafted(monkeypatch, modelyard.wire, written / "wire", "lines"):
        yield importlib.import_module("modelyard.wire.lines.dialect").DIALECT


def test_the_dialect_of_the_page_logs_lines_and_refuses_in_its_own_words(tmp_path: Path, lines: Dialect) -> None:
    yard = InProcessYard(tmp_path / "home", dialects=(lines, *DIALECTS))
    run = yard.mlflow("POST", "runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]

    def send(text: str, run: str = run, **more: Any) -> tuple[int, str]:
        answer = yard.call("POST", f"/lines/{run}", content=text, **more)
        return answer.status_code, answer.text

    assert send(LINES) == (200, "3 points\n")
    data = yard.mlflow("GET", "runs/get", run_id=run)["run"]["data"]
    assert {metric["key"]: (metric["value"], metric["step"]) for metric in data["metrics"]} == {"loss": ("NaN", 2), "acc": (0.1, -3)}
    for text, words in [
        ("loss 0.5", "line 1 is not KEY VALUE STEP"),
        (LINES + "loss x 1", "loss"),
        ("loss 1 ²", "line 1"),
        ("\0 1 1", "invalid"),
    ]:
        status, said = send(text)
        assert status == 400 and words in said and said.count("\n") == 1, said
    assert len(yard.mlflow("GET", "metrics/get-history", run_id=run, metric_key="loss")["metrics"]) == 2, "all of a request, or nothing"
    assert send(LINES, run="none")[0] == 404
    assert send("", token="yard_a_b") == (401, send("", token="yard_a_b")[1])
    assert send("x" * ((1 << 20) + 1))[0] == 413
    assert yard.call("GET", f"/lines/{run}").status_code == 404
    yard.close()
