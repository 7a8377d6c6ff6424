"""Records: they hold the spec that their row was written from, parsed when it is asked for, whichever version wrote it."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from checked_yard import YardUnderTest
from modelyard.core.errors import Invalid
from modelyard.drivers.vault.local import LocalVault
from modelyard.spec.fields import from_row, parse
from modelyard.spec.job import CommandJob
from modelyard.spec.online import OnlineDeployment
from modelyard.spec.pipeline import PipelineJob
from modelyard.storage.unit import Unit
from modelyard.testing.waiting import wait_for
from rows import found, queued

ROOT = Path(__file__).parents[2]


def test_what_another_version_wrote_is_read_with_the_defaults_of_this_one() -> None:
    stored = {
        "command": "true", "later": 1, "tags": None, "environment": {"pip": [], "later": {}},
        "inputs": {"x": {"type": "integer", "value": 1, "later": 1}},
    }  # fmt: skip
    with pytest.raises(Invalid, match="not a valid CommandJob"):
        parse(CommandJob, stored)
    job = from_row(CommandJob, stored, name="j")
    assert (job.name, job.tags, job.inputs["x"].value, job.environment_variables) == ("j", {}, 1, {})
    step = {"type": "command", "later": 1, "component": {"type": "command", "command": "true", "environment": {"pip": []}, "later": 1}}
    assert from_row(PipelineJob, {"jobs": {"a": step}}).jobs["a"].component.command == "true"
    deployment = from_row(OnlineDeployment, {"model": "azureml:m:1"}, name="blue", endpoint_name="main")
    assert (deployment.instance_count, deployment.request_settings.request_timeout_ms, deployment.liveness_probe.period) == (1, 5000, 10)
    with pytest.raises(Invalid, match="unknown field 'later'"):
        parse(CommandJob, {"command": "true", "environment": {"pip": []}, "later": 1})  # what a person writes is read as strictly as ever


def test_a_row_that_cannot_be_read_any_more_says_so_and_is_still_shown(db: Any) -> None:
    def written(unit: Unit) -> Any:
        from modelyard.work.jobs import store

        queued(unit)
        store.set_fields(unit, "j", spec={"type": "command", "name": "j", "command": ""})
        return found(unit)

    record = db.write_now(written, workspace="default")
    assert record.document()["command"] == ""
    with pytest.raises(Invalid, match="what is stored of j cannot be read") as refused:
        _ = record.spec
    assert refused.value.code == "unreadable_spec" and {problem.field for problem in refused.value.problems} == {"command", "environment"}


def test_a_list_parses_nothing_and_a_job_is_parsed_once(db: Any, tmp_path: Path) -> None:
    from modelyard.work.jobs import service, store

    def seen(unit: Unit) -> None:
        record = queued(unit)
        listed = [
            record
            for _, record in store.search(
                unit, **dict.fromkeys(("archived", "status", "experiment", "compute", "user", "tag", "parent", "before")), limit=9
            )
        ]  # type: ignore[arg-type]
        assert [item.document()["command"] for item in listed] == ["true"] and "spec" not in listed[0].__dict__
        parsed = record.spec
        claimed, _ = service.begin_attempt(unit, record, "node", "", LocalVault(tmp_path / "key"))
        assert claimed.spec is parsed
        store.set_fields(unit, "j", spec={**record.stored, "tags": {"changed": "meanwhile"}})
        assert found(unit).with_spec_of(record).spec.tags == {"changed": "meanwhile"}

    db.write_now(seen, workspace="default")


def test_a_deployment_that_cannot_be_read_keeps_no_other_from_being_served(db: Any) -> None:
    from modelyard.serving.online import service, store
    from modelyard.spec.states import ProvisioningState

    def made(unit: Unit) -> tuple[list[str], list[str]]:
        for name, count in (("good", 1), ("broken", 1000)):
            body = {"model": "azureml:m:1", "instance_count": count}
            store.insert_deployment(
                unit, "main", name, ProvisioningState.CREATING, spec=body, error=None, warnings=[], resolved={}, live=1, live_instances=1
            )  # fmt: skip
        return [record.name for record in service.live(unit)], [
            record.document()["name"] for record in store.list_deployments(unit, "main")
        ]

    assert db.write_now(made, workspace="default") == (["good"], ["broken", "good"])


def test_a_schedule_that_cannot_be_read_comes_to_rest_with_the_reason(db: Any) -> None:
    from modelyard.ports.executor import Share
    from modelyard.work.schedules import service, store

    def rested(unit: Unit) -> dict[str, Any]:
        for name, next_ms, mark in (("timed", unit.now, ""), ("watching", None, "data 1")):
            record = store.ScheduleRecord(
                unit.workspace, name, {"trigger": {"type": "moon"}}, True, next_ms, None, None, mark, None, unit.now, "admin", "admin"
            )  # fmt: skip
            store.put(unit, record)
            fire = service.fire_due if next_ms else service.fire_changed
            assert next_ms or service.has_changed(unit, name)
            with pytest.raises(Invalid) as refused:
                fire(unit, name, Share(1))
            service.keep_error(unit, name, refused.value.message)
        assert (store.due(unit, unit.now), store.watching(unit)) == ([], [])
        return {shown["name"]: shown["properties"]["last_error"] for shown in service.list_(unit, None)}

    reasons = db.write_now(rested, workspace="default")
    assert reasons == {name: f"what is stored of {name} cannot be read by this version of modelyard" for name in ("timed", "watching")}


@pytest.mark.parametrize("release", ["0003", "0004"])
def test_every_spec_of_an_earlier_release_is_read(release: str, tmp_path: Path) -> None:
    from modelyard.assets.files import store as files
    from modelyard.assets.models import store as models
    from modelyard.assets.versions import store as versions
    from modelyard.serving.batch import store as batch
    from modelyard.serving.online import store as online
    from modelyard.storage.migrate import migrate
    from modelyard.storage.open import open_database
    from modelyard.work.compute import store as computes
    from modelyard.work.jobs import store as jobs
    from modelyard.work.schedules import store as schedules

    with sqlite3.connect(tmp_path / "yard.db") as old:
        old.executescript((Path(__file__).parents[1] / "fixtures" / f"yard-{release}.sql").read_text())
    old.close()
    made: Any = open_database(f"sqlite:///{tmp_path / 'yard.db'}")
    migrate(made, tmp_path / "backups")

    def read(unit: Unit) -> list[str]:
        endpoints, batch_endpoints = online.list_endpoints(unit), batch.list_endpoints(unit)
        records: list[Any] = [
            *(jobs.get(unit, name) for name in jobs.names(unit)), *files.list_datastores(unit), *computes.list_(unit),
            *models.newest_of_each(unit, None), *schedules.list_all(unit), *endpoints, *online.list_deployments(unit), *batch_endpoints,
            *(version for kind in ("data", "environment", "component") for version in versions.list_latest(unit, kind, None)),
            *(deployment for endpoint in batch_endpoints for deployment in batch.list_deployments(unit, endpoint.name)),
        ]  # fmt: skip
        for record in records:
            known = record.spec.document()
            assert {key: value for key, value in record.stored.items() if value is not None}.items() <= known.items()
        return [type(record).__name__ for record in records]

    assert made.read_now(read, workspace="default")
    made.close()


def test_a_queued_job_that_cannot_be_read_fails_with_the_reason_and_holds_up_no_other(own_yard: YardUnderTest) -> None:
    broken = own_yard.submit("true")
    own_yard.wait_job(broken)
    own_yard.run("down")
    with sqlite3.connect(own_yard.home / "control" / "yard.db") as database:
        (text,) = database.execute("SELECT spec FROM jobs WHERE name = ?", (broken,)).fetchone()
        stored = json.dumps({**json.loads(text), "resources": {"instance_count": 0}})
        database.execute("UPDATE jobs SET spec = ?, state = 'Queued', ended_ms = NULL WHERE name = ?", (stored, broken))
    database.close()
    own_yard.up()
    address, headers = f"{own_yard.url}/api/v1/workspaces/default/jobs/{broken}", {"Authorization": f"Bearer {own_yard.token}"}

    def failed() -> bool:  # not by the yard's own client: what cannot be read is not as declared
        job = httpx.get(address, headers=headers, trust_env=False, verify=False).json()
        return bool(job["status"] == "Failed" and job["error"]["code"] == "unreadable_spec")

    wait_for(failed, 60, "the end of a job that cannot be read")
    assert own_yard.wait_job(own_yard.submit("true"))["status"] == "Completed"


def test_no_feature_reads_a_spec_by_name() -> None:
    """`record.spec` is a model; `record.stored`, the document, is for answers and comparisons."""
    wrong = []
    for floor in ("assets", "work", "serving", "oversight", "wire"):
        for path in (ROOT / "src/modelyard" / floor).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if re.search(
                    r"""\.spec(\.get\(|\[["'])|\.(resolved|properties)(\.get\(|\[["'])|model_validate\((\w+\.)*(stored|spec)\)""", line
                ):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert wrong == []
