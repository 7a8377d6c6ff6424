"""Schedules: when they are due, that each due time fires once, and what makes them fire besides the clock."""

from __future__ import annotations

import datetime
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from checked_yard import YardUnderTest
from modelyard.spec.schedule import CronTrigger, RecurrenceTrigger
from modelyard.testing.waiting import wait_for
from modelyard.work.schedules.times import next_due

JOB: dict[str, Any] = {"type": "command", "command": "echo fired", "environment": {"pip": []}}


def due(trigger: Any, after: str, count: int = 1, created: str = "2026-01-01T00:00:00+00:00") -> list[str]:
    """The next due times in UTC."""
    now, found = _ms(after), []
    for _ in range(count):
        following = next_due(trigger, now, _ms(created))
        if following is None:
            break
        now = following
        found.append(datetime.datetime.fromtimestamp(now / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M"))
    return found


def _ms(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def test_a_daily_time_stays_where_it_is_on_the_clock_when_the_clocks_change() -> None:
    daily = RecurrenceTrigger.model_validate(
        {"type": "recurrence", "frequency": "day", "interval": 1, "time_zone": "Europe/Berlin", "schedule": {"hours": 9, "minutes": 0}}
    )
    assert due(daily, "2026-03-27T12:00:00+00:00", 3) == ["2026-03-28 08:00", "2026-03-29 07:00", "2026-03-30 07:00"]
    assert due(daily, "2026-10-23T12:00:00+00:00", 3) == ["2026-10-24 07:00", "2026-10-25 08:00", "2026-10-26 08:00"]
    cron = CronTrigger.model_validate({"type": "cron", "expression": "0 9 * * *", "time_zone": "W. Europe Standard Time"})
    assert due(cron, "2026-03-27T12:00:00+00:00", 3) == ["2026-03-28 08:00", "2026-03-29 07:00", "2026-03-30 07:00"]


def test_a_time_the_clock_skips_fires_when_it_jumps_and_one_it_repeats_fires_once() -> None:
    daily = RecurrenceTrigger.model_validate(
        {"type": "recurrence", "frequency": "day", "interval": 1, "time_zone": "Europe/Berlin", "schedule": {"hours": 2, "minutes": 30}}
    )
    assert due(daily, "2026-03-28T12:00:00+00:00", 2) == ["2026-03-29 01:00", "2026-03-30 00:30"]
    assert due(daily, "2026-10-24T12:00:00+00:00", 2) == ["2026-10-25 00:30", "2026-10-26 01:30"]


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ({"frequency": "week", "interval": 2, "schedule": {"hours": [8], "minutes": [0, 30], "week_days": ["monday", "friday"]}},
         ["2026-01-02 08:00", "2026-01-02 08:30", "2026-01-12 08:00", "2026-01-12 08:30", "2026-01-16 08:00"]),
        ({"frequency": "month", "interval": 1, "schedule": {"hours": 0, "minutes": 0, "month_days": [31, -1]}},
         ["2026-01-31 00:00", "2026-02-28 00:00", "2026-03-31 00:00", "2026-04-30 00:00", "2026-05-31 00:00"]),
        ({"frequency": "hour", "interval": 6}, ["2026-01-01 06:00", "2026-01-01 12:00", "2026-01-01 18:00", "2026-01-02 00:00", "2026-01-02 06:00"]),
        ({"frequency": "minute", "interval": 45}, ["2026-01-01 00:45", "2026-01-01 01:30", "2026-01-01 02:15", "2026-01-01 03:00", "2026-01-01 03:45"]),
        ({"frequency": "day", "interval": 3, "start_time": "2026-02-01T10:00:00"},
         ["2026-02-01 10:00", "2026-02-04 10:00", "2026-02-07 10:00", "2026-02-10 10:00", "2026-02-13 10:00"]),
    ],
)  # fmt: skip
def test_recurrences_as_azure_writes_them(trigger: dict[str, Any], expected: list[str]) -> None:
    made = RecurrenceTrigger.model_validate({"type": "recurrence", **trigger})
    assert due(made, "2026-01-01T00:00:30+00:00", 5) == expected


def test_nothing_is_due_after_the_end() -> None:
    made = CronTrigger.model_validate({"type": "cron", "expression": "0 0 * * *", "end_time": "2026-01-03T12:00:00"})
    assert due(made, "2026-01-01T12:00:00+00:00", 9) == ["2026-01-02 00:00", "2026-01-03 00:00"]


def create(yard: YardUnderTest, folder: Path, name: str, trigger: dict[str, Any], job: Any = None, **more: Any) -> dict[str, Any]:
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({"name": name, "trigger": trigger, "create_job": job or JOB, **more}, sort_keys=False))
    return dict(yard.json("schedule", "create", "-f", str(path)))


def set_next(yard: YardUnderTest, name: str, minutes_ago: float) -> None:
    """As if the due time had been then: the clock itself is not waited for."""
    moment = int((datetime.datetime.now(datetime.UTC).timestamp() - minutes_ago * 60) * 1000)
    with sqlite3.connect(yard.home / "control/yard.db", timeout=30) as db:
        db.execute("UPDATE schedules SET next_ms = ? WHERE name = ?", (moment, name))
    db.close()


def fired(yard: YardUnderTest, name: str) -> list[dict[str, Any]]:
    return [job for job in yard.json("job", "list", "--all-results") if job["properties"].get("schedule") == name]


YEARLY = {"type": "cron", "expression": "0 0 1 1 *"}


def test_a_due_time_fires_once_and_the_next_is_planned(own_yard: YardUnderTest, tmp_path: Path) -> None:
    made = create(own_yard, tmp_path, "nightly", YEARLY)
    assert made["is_enabled"] and made["next_run"].endswith("-01-01T00:00:00.000Z") and fired(own_yard, "nightly") == []
    set_next(own_yard, "nightly", 0)
    wait_for(lambda: fired(own_yard, "nightly"), 30, "the firing")
    own_yard.kill_server()
    own_yard.up()
    (job,) = fired(own_yard, "nightly")
    assert own_yard.wait_job(job["name"])["status"] == "Completed"
    shown = own_yard.json("schedule", "show", "-n", "nightly")
    assert shown["last_job"] == job["name"] and shown["next_run"].endswith("-01-01T00:00:00.000Z")


@pytest.mark.parametrize(("policy", "least", "most"), [("skip", 0, 0), ("once", 1, 1), ("all", 4, 5)])
def test_missed_due_times_are_made_up_for_as_the_schedule_says(
    own_yard: YardUnderTest, tmp_path: Path, policy: str, least: int, most: int
) -> None:
    create(own_yard, tmp_path, "missed", {"type": "cron", "expression": "*/10 * * * *", "missed_runs": policy})
    create(own_yard, tmp_path, "witness", YEARLY)
    own_yard.kill_server()
    set_next(own_yard, "missed", 35)
    set_next(own_yard, "witness", 0)
    own_yard.up()
    wait_for(lambda: fired(own_yard, "witness"), 30, "the witness")
    wait_for(lambda: len(fired(own_yard, "missed")) >= least, 30, "what was missed")
    assert own_yard.json("schedule", "show", "-n", "missed")["next_run"] > datetime.datetime.now(datetime.UTC).isoformat()
    assert least <= len(fired(own_yard, "missed")) <= most


def test_two_servers_of_one_database_fire_a_due_time_once(postgres: Any, tmp_path: Path) -> None:
    """Both see that it is due, both try in the same moment: one of them makes the job."""
    from modelyard.core.actor import SYSTEM
    from modelyard.ports.executor import Share
    from modelyard.spec.schedule import Schedule
    from modelyard.spec.workspace import Workspace
    from modelyard.storage.migrate import migrate
    from modelyard.storage.open import open_database
    from modelyard.tenancy.workspaces import service as workspaces
    from modelyard.work.jobs import service as jobs
    from modelyard.work.schedules import service

    url, machine = postgres(), Share(2)
    servers: list[Any] = [open_database(url), open_database(url)]
    migrate(servers[0], tmp_path)
    names = [f"s{number}" for number in range(30)]

    def prepare(unit: Any) -> None:
        workspaces.create_or_update(unit, Workspace(name="default"))
        for name in names:
            spec = {"name": name, "trigger": YEARLY, "create_job": {"job": {**JOB, "experiment_name": "e"}}}
            service.put(unit, Schedule.model_validate(spec), machine)
        unit.connection.exec_driver_sql("UPDATE schedules SET next_ms = 1")

    servers[0].write_now(prepare, SYSTEM, "default")
    made = []
    for name in names:
        both = [server.submit(lambda unit, name=name: service.fire_due(unit, name, machine), SYSTEM, "default") for server in servers]
        made.append([future.result() for future in both if future.result() is not None])
    assert [len(found) for found in made] == [1] * len(names)
    listed = servers[1].read_now(lambda unit: jobs.search(unit, limit=1000, token=None, archived=False).items, SYSTEM, "default")
    assert sorted(job.name for job in listed) == sorted(name for (name,) in made)
    for server in servers:
        server.close()


def test_schedules_are_disabled_enabled_triggered_and_deleted(own_yard: YardUnderTest, tmp_path: Path) -> None:
    create(own_yard, tmp_path, "s", YEARLY, display_name="Yearly")
    own_yard.run("schedule", "disable", "-n", "s")
    assert own_yard.json("schedule", "list") == [] and own_yard.json("schedule", "list", "--include-disabled")[0]["is_enabled"] is False
    set_next(own_yard, "s", 1)
    create(own_yard, tmp_path, "witness", YEARLY)
    set_next(own_yard, "witness", 0)
    wait_for(lambda: fired(own_yard, "witness"), 30, "the witness")
    assert fired(own_yard, "s") == []
    own_yard.run("schedule", "enable", "-n", "s")
    assert own_yard.json("schedule", "show", "-n", "s")["next_run"] > datetime.datetime.now(datetime.UTC).isoformat()
    job = own_yard.json("schedule", "trigger", "-n", "s")["job_name"]
    assert own_yard.wait_job(job)["status"] == "Completed" and [item["name"] for item in fired(own_yard, "s")] == [job]
    own_yard.run("schedule", "delete", "-n", "s", "-y")
    assert own_yard.run("schedule", "show", "-n", "s", ok=False).returncode == 3
    assert own_yard.json("job", "show", "-n", job)["status"] == "Completed"


def test_changes_fire_a_schedule_new_data_new_files_and_a_job_that_completes(own_yard: YardUnderTest, tmp_path: Path) -> None:
    folder = tmp_path / "arrivals"
    folder.mkdir()
    (tmp_path / "store.yml").write_text(yaml.safe_dump({"type": "local", "name": "arrivals", "path": str(folder)}))
    own_yard.run("datastore", "create", "-f", str(tmp_path / "store.yml"))
    create(own_yard, tmp_path, "on-files", {"type": "change", "path": "azureml://datastores/arrivals/paths/"})
    create(own_yard, tmp_path, "on-data", {"type": "change", "data": "azureml:rows"})
    create(own_yard, tmp_path, "on-job", {"type": "change", "experiment": "upstream"})
    assert all(fired(own_yard, name) == [] for name in ("on-files", "on-data", "on-job"))
    (folder / "new.csv").write_text("1")
    wait_for(lambda: len(fired(own_yard, "on-files")) == 1, 30, "files")
    (tmp_path / "rows.txt").write_text("1")
    own_yard.run("data", "create", "-n", "rows", "--path", str(tmp_path / "rows.txt"), "--type", "uri_file")
    wait_for(lambda: len(fired(own_yard, "on-data")) == 1, 30, "data")
    own_yard.submit("true", experiment_name="upstream")
    wait_for(lambda: len(fired(own_yard, "on-job")) == 1, 30, "the job")
    assert len(fired(own_yard, "on-files")) == 1 and len(fired(own_yard, "on-data")) == 1


def test_a_schedule_makes_a_pipeline_from_a_file_with_what_differs(own_yard: YardUnderTest, tmp_path: Path) -> None:
    step = {
        "type": "command",
        "command": "echo ${{inputs.word}}",
        "environment": {"pip": []},
        "inputs": {"word": "${{parent.inputs.word}}"},
    }
    (tmp_path / "pipeline.yml").write_text(yaml.safe_dump({"type": "pipeline", "inputs": {"word": "file"}, "jobs": {"say": step}}))
    job = {"type": "pipeline", "job": "./pipeline.yml", "experiment_name": "scheduled", "inputs": {"word": "schedule"}}
    create(own_yard, tmp_path, "flow", YEARLY, job)
    name = own_yard.json("schedule", "trigger", "-n", "flow")["job_name"]
    made = own_yard.wait_job(name)
    assert made["status"] == "Completed" and made["experiment_name"] == "scheduled"
    assert own_yard.job_log(made["steps"]["say"]["job_name"]).strip() == "schedule"
    again = create(own_yard, tmp_path, "by-name", YEARLY, f"azureml:{name}")
    assert again["create_job"]["job"] == f"azureml:{name}"
    assert own_yard.wait_job(own_yard.json("schedule", "trigger", "-n", "by-name")["job_name"])["status"] == "Completed"


def test_a_wrong_schedule_is_refused_and_leaves_nothing(own_yard: YardUnderTest, tmp_path: Path) -> None:
    def refused(trigger: dict[str, Any], job: Any = None) -> str:
        path = tmp_path / "wrong.yml"
        path.write_text(yaml.safe_dump({"name": "wrong", "trigger": trigger, "create_job": job or JOB}))
        done = own_yard.run("schedule", "create", "-f", str(path), ok=False)
        assert done.returncode in (2, 3) and "Traceback" not in done.stderr, done.stderr
        return done.stderr

    assert "not a cron expression" in refused({"type": "cron", "expression": "99 * * * *"})
    assert "minute, hour, day" in refused({"type": "cron", "expression": "@daily"})
    assert "not a time zone" in refused({**YEARLY, "time_zone": "Mars/Olympus"})
    assert "interval" in refused({"type": "recurrence", "frequency": "day", "interval": 0})
    assert "did you mean 'week'" in refused({"type": "recurrence", "frequency": "weak", "interval": 1})
    assert "one of data" in refused({"type": "change"})
    assert "no-such" in refused(YEARLY, {**JOB, "environment": "azureml:no-such:1"})
    assert "there is no job" in refused(YEARLY, "azureml:no-such-job")
    assert own_yard.json("schedule", "list") == [] and own_yard.json("job", "list") == []


def test_a_scheduled_pipelines_component_files_are_found_from_where_they_stand(own_yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "parts/src").mkdir(parents=True)
    (tmp_path / "parts/src/say.py").write_text("print('from the component')")
    component = {"name": "say", "type": "command", "code": "./src", "command": "python say.py", "environment": {"pip": []}}
    (tmp_path / "parts/say.yml").write_text(yaml.safe_dump(component))
    (tmp_path / "pipeline.yml").write_text(yaml.safe_dump({"type": "pipeline", "jobs": {"say": {"component": "./parts/say.yml"}}}))
    create(own_yard, tmp_path, "deep", YEARLY, "./pipeline.yml")
    made = own_yard.wait_job(own_yard.json("schedule", "trigger", "-n", "deep")["job_name"])
    assert own_yard.job_log(made["steps"]["say"]["job_name"]).strip() == "from the component"


def test_the_nightly_example_registers_a_model_only_when_it_is_better(own_yard: YardUnderTest, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/nightly"
    arrivals = tmp_path / "arrivals"
    arrivals.mkdir()
    (arrivals / "first.csv").write_text("value,label\n" + "".join(f"{n / 10},{int(n > 6)}\n" for n in range(10)))
    own_yard.run("datastore", "create", "-f", str(example / "datastore.yml"), "--set", f"path={arrivals}")
    done = own_yard.run("job", "create", "-f", str(example / "pipeline.yml"), "--set", "inputs.steps=2", "--stream")
    assert "step register: Completed" in done.stdout
    assert [item["version"] for item in own_yard.json("model", "list", "-n", "nightly")] == ["1"]
    given = ("create_job.inputs.registered.path=azureml:nightly@latest", "create_job.inputs.registered.type=custom_model")
    own_yard.run("schedule", "create", "-f", str(example / "schedule.yml"), "--set", *given)
    (arrivals / "second.csv").write_text("value,label\n0.61,0\n0.69,0\n0.72,1\n")

    def ended(count: int) -> list[dict[str, Any]]:
        jobs = fired(own_yard, "nightly")
        return jobs if len(jobs) == count and all(job["status"] == "Completed" for job in jobs) else []

    wait_for(lambda: ended(1), 60, "the schedule's pipeline")
    assert [item["version"] for item in own_yard.json("model", "list", "-n", "nightly")] == ["2", "1"]
    (arrivals / "third.csv").write_text("value,label\n0.1,0\n")
    found = wait_for(lambda: ended(2), 60, "the second")
    steps = own_yard.json("job", "show", "-n", found[0]["name"])["steps"]
    assert steps["register"]["status"] == "Skipped" and len(own_yard.json("model", "list", "-n", "nightly")) == 2
