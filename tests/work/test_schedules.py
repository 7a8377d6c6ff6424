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
from modelyard.testing.yard import InProcessYard
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


SCHEDULES = "/api/v1/workspaces/default/schedules"
YEARLY = {"type": "cron", "expression": "0 0 1 1 *"}


def put(yard: InProcessYard, name: str, trigger: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"name": name, "trigger": trigger, "create_job": {"job": JOB}, **more}
    return dict(yard.call("PUT", f"{SCHEDULES}/{name}", json=body, expect=200).json())


def shown(yard: InProcessYard, name: str) -> dict[str, Any]:
    return dict(yard.call("GET", f"{SCHEDULES}/{name}", expect=200).json())


def made_by(yard: InProcessYard, name: str) -> list[dict[str, Any]]:
    jobs = yard.call("GET", "/api/v1/workspaces/default/jobs", expect=200).json()["value"]
    return [job for job in jobs if job["properties"].get("schedule") == name]


def test_a_due_time_fires_once_and_the_next_is_planned(turned: InProcessYard) -> None:
    assert put(turned, "nightly", YEARLY)["next_run"] == "2027-01-01T00:00:00.000Z"
    turned.clock.turn_to("2026-12-31T23:59:59.999")
    turned.settle()
    assert made_by(turned, "nightly") == []
    turned.clock.turn(milliseconds=1)
    turned.settle()
    turned.settle()
    (job,) = made_by(turned, "nightly")
    assert job["status"] == "Completed" and job["creation_context"]["created_at"] == "2027-01-01T00:00:00.000Z"
    found = shown(turned, "nightly")
    assert found["last_job"] == job["name"] and found["next_run"] == "2028-01-01T00:00:00.000Z"


@pytest.mark.parametrize(("policy", "made"), [("skip", 0), ("once", 1), ("all", 4)])
def test_missed_due_times_are_made_up_for_as_the_schedule_says(turned: InProcessYard, policy: str, made: int) -> None:
    put(turned, "missed", {"type": "cron", "expression": "*/10 * * * *", "missed_runs": policy})
    turned.clock.turn(minutes=45)  # nobody looked meanwhile
    turned.settle()
    assert len(made_by(turned, "missed")) == made and shown(turned, "missed")["next_run"] == "2026-01-05T12:50:00.000Z"
    turned.clock.turn(minutes=5)
    turned.settle()
    assert len(made_by(turned, "missed")) == made + 1, "and it goes on as planned"


def test_a_disabled_schedule_fires_nothing_and_makes_up_for_nothing(turned: InProcessYard) -> None:
    put(turned, "s", YEARLY)
    turned.call("POST", f"{SCHEDULES}/s/disable", expect=200)
    turned.clock.turn(days=3 * 366)
    turned.settle()
    assert made_by(turned, "s") == []
    turned.call("POST", f"{SCHEDULES}/s/enable", expect=200)
    turned.settle()
    assert made_by(turned, "s") == [] and shown(turned, "s")["next_run"] == "2030-01-01T00:00:00.000Z"


def test_a_schedule_that_was_changed_is_due_by_its_new_trigger(turned: InProcessYard) -> None:
    put(turned, "s", {"type": "recurrence", "frequency": "hour", "interval": 1})
    turned.clock.turn(minutes=59)
    assert put(turned, "s", {"type": "recurrence", "frequency": "day", "interval": 2})["next_run"] > "2026-01-06"
    turned.clock.turn(minutes=5)
    turned.settle()
    assert made_by(turned, "s") == []


HOURLY = {"type": "cron", "expression": "0 * * * *"}


@pytest.mark.parametrize("trigger", [HOURLY, {"type": "recurrence", "frequency": "hour", "interval": 1}])
def test_a_clock_that_was_ahead_for_a_while_leaves_no_schedule_there(turned: InProcessYard, trigger: dict[str, Any]) -> None:
    put(turned, "hourly", trigger)
    turned.clock.set("2038-01-19T03:14:08")
    turned.settle()
    put(turned, "made-ahead", trigger)
    turned.call("POST", f"{SCHEDULES}/made-ahead/disable", expect=200)
    turned.call("POST", f"{SCHEDULES}/made-ahead/enable", expect=200)
    assert len(made_by(turned, "hourly")) == 1 and shown(turned, "hourly")["next_run"].startswith("2038")
    turned.clock.set("2026-01-05T12:30:00")
    turned.settle()
    for name in ("hourly", "made-ahead"):
        assert "2026-01-05T12:30" < shown(turned, name)["next_run"] <= "2026-01-05T13:30:00.000Z", name
    turned.clock.turn(hours=1)
    turned.settle()
    assert len(made_by(turned, "hourly")) == 2 and len(made_by(turned, "made-ahead")) == 1


def test_a_schedule_that_seemed_over_while_the_clock_was_ahead_goes_on(turned: InProcessYard) -> None:
    put(turned, "s", {**HOURLY, "end_time": "2030-01-01T00:00:00"})
    turned.clock.set("2038-01-19T03:14:08")
    turned.settle()
    assert "next_run" not in shown(turned, "s")
    turned.clock.set("2026-01-05T12:30:00")
    turned.settle()
    assert shown(turned, "s")["next_run"] == "2026-01-05T13:00:00.000Z"


def test_a_due_time_that_comes_again_because_the_clock_was_set_back_fires_once(turned: InProcessYard) -> None:
    put(turned, "s", HOURLY)
    turned.clock.turn(hours=1)
    turned.settle()
    assert len(made_by(turned, "s")) == 1
    turned.clock.set("2026-01-05T12:59:00")
    turned.settle()
    turned.clock.turn(minutes=1)
    turned.settle()
    assert len(made_by(turned, "s")) == 1, "13:00 has fired"
    turned.clock.turn(hours=1)
    turned.settle()
    assert len(made_by(turned, "s")) == 2


def test_due_times_that_a_clock_skipped_because_it_was_set_are_not_missed_ones(turned: InProcessYard) -> None:
    put(turned, "s", {**HOURLY, "missed_runs": "all"})
    turned.settle()
    turned.clock.set("2026-03-05T12:30:00")
    turned.settle()
    assert len(made_by(turned, "s")) == 1 and shown(turned, "s")["next_run"] == "2026-03-05T13:00:00.000Z"


def create(yard: YardUnderTest, folder: Path, name: str, trigger: dict[str, Any], job: Any = None, **more: Any) -> dict[str, Any]:
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({"name": name, "trigger": trigger, "create_job": job or JOB, **more}, sort_keys=False))
    return dict(yard.json("schedule", "create", "-f", str(path)))


def fired(yard: YardUnderTest, name: str) -> list[dict[str, Any]]:
    return [job for job in yard.json("job", "list", "--all-results") if job["properties"].get("schedule") == name]


def test_a_firing_outlives_the_server_and_is_not_repeated(own_yard: YardUnderTest, tmp_path: Path) -> None:
    create(own_yard, tmp_path, "nightly", YEARLY)
    with sqlite3.connect(own_yard.home / "control/yard.db", timeout=30) as db:  # as if it had been due just now
        db.execute("UPDATE schedules SET next_ms = 1 WHERE name = 'nightly'")
    db.close()
    wait_for(lambda: fired(own_yard, "nightly"), 30, "the firing")
    own_yard.kill_server()
    own_yard.up()
    (job,) = fired(own_yard, "nightly")
    assert own_yard.wait_job(job["name"])["status"] == "Completed"
    found = own_yard.json("schedule", "show", "-n", "nightly")
    assert found["last_job"] == job["name"] and found["next_run"].endswith("-01-01T00:00:00.000Z")


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


def test_schedules_are_disabled_enabled_triggered_and_deleted(yard: YardUnderTest, tmp_path: Path) -> None:
    create(yard, tmp_path, "s", YEARLY, display_name="Yearly")
    yard.run("schedule", "disable", "-n", "s")
    assert "s" not in [item["name"] for item in yard.json("schedule", "list")]
    assert next(item for item in yard.json("schedule", "list", "--include-disabled") if item["name"] == "s")["is_enabled"] is False
    yard.run("schedule", "enable", "-n", "s")
    job = yard.json("schedule", "trigger", "-n", "s")["job_name"]
    assert yard.wait_job(job)["status"] == "Completed" and [item["name"] for item in fired(yard, "s")] == [job]
    yard.run("schedule", "delete", "-n", "s", "-y")
    assert yard.run("schedule", "show", "-n", "s", ok=False).returncode == 3
    assert yard.json("job", "show", "-n", job)["status"] == "Completed"


def test_changes_fire_a_schedule_new_data_new_files_and_a_job_that_completes(yard: YardUnderTest, tmp_path: Path) -> None:
    folder = tmp_path / "arrivals"
    folder.mkdir()
    (tmp_path / "store.yml").write_text(yaml.safe_dump({"type": "local", "name": "arrivals", "path": str(folder)}))
    yard.run("datastore", "create", "-f", str(tmp_path / "store.yml"))
    create(yard, tmp_path, "on-files", {"type": "change", "path": "azureml://datastores/arrivals/paths/"})
    create(yard, tmp_path, "on-data", {"type": "change", "data": "azureml:rows"})
    create(yard, tmp_path, "on-job", {"type": "change", "experiment": "upstream"})
    assert all(fired(yard, name) == [] for name in ("on-files", "on-data", "on-job"))
    (folder / "new.csv").write_text("1")
    wait_for(lambda: len(fired(yard, "on-files")) == 1, 30, "files")
    (tmp_path / "rows.txt").write_text("1")
    yard.run("data", "create", "-n", "rows", "--path", str(tmp_path / "rows.txt"), "--type", "uri_file")
    wait_for(lambda: len(fired(yard, "on-data")) == 1, 30, "data")
    yard.submit("true", experiment_name="upstream")
    wait_for(lambda: len(fired(yard, "on-job")) == 1, 30, "the job")
    assert len(fired(yard, "on-files")) == 1 and len(fired(yard, "on-data")) == 1


def test_a_schedule_makes_a_pipeline_from_a_file_with_what_differs(yard: YardUnderTest, tmp_path: Path) -> None:
    step = {
        "type": "command",
        "command": "echo ${{inputs.word}}",
        "environment": {"pip": []},
        "inputs": {"word": "${{parent.inputs.word}}"},
    }
    (tmp_path / "pipeline.yml").write_text(yaml.safe_dump({"type": "pipeline", "inputs": {"word": "file"}, "jobs": {"say": step}}))
    job = {"type": "pipeline", "job": "./pipeline.yml", "experiment_name": "scheduled", "inputs": {"word": "schedule"}}
    create(yard, tmp_path, "flow", YEARLY, job)
    name = yard.json("schedule", "trigger", "-n", "flow")["job_name"]
    made = yard.wait_job(name)
    assert made["status"] == "Completed" and made["experiment_name"] == "scheduled"
    assert yard.job_log(made["steps"]["say"]["job_name"]).strip() == "schedule"
    again = create(yard, tmp_path, "by-name", YEARLY, f"azureml:{name}")
    assert again["create_job"]["job"] == f"azureml:{name}"
    assert yard.wait_job(yard.json("schedule", "trigger", "-n", "by-name")["job_name"])["status"] == "Completed"


def test_a_wrong_schedule_is_refused_and_leaves_nothing(yard: YardUnderTest, tmp_path: Path) -> None:
    def refused(trigger: dict[str, Any], job: Any = None) -> str:
        path = tmp_path / "wrong.yml"
        path.write_text(yaml.safe_dump({"name": "wrong", "trigger": trigger, "create_job": job or JOB}))
        done = yard.run("schedule", "create", "-f", str(path), ok=False)
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
    assert yard.run("schedule", "show", "-n", "wrong", ok=False).returncode == 3 and fired(yard, "wrong") == []


def test_a_scheduled_pipelines_component_files_are_found_from_where_they_stand(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "parts/src").mkdir(parents=True)
    (tmp_path / "parts/src/say.py").write_text("print('from the component')")
    component = {"name": "say", "type": "command", "code": "./src", "command": "python say.py", "environment": {"pip": []}}
    (tmp_path / "parts/say.yml").write_text(yaml.safe_dump(component))
    (tmp_path / "pipeline.yml").write_text(yaml.safe_dump({"type": "pipeline", "jobs": {"say": {"component": "./parts/say.yml"}}}))
    create(yard, tmp_path, "deep", YEARLY, "./pipeline.yml")
    made = yard.wait_job(yard.json("schedule", "trigger", "-n", "deep")["job_name"])
    assert yard.job_log(made["steps"]["say"]["job_name"]).strip() == "from the component"


def test_the_nightly_example_registers_a_model_only_when_it_is_better(yard: YardUnderTest, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/nightly"
    arrivals = tmp_path / "arrivals"
    arrivals.mkdir()
    (arrivals / "first.csv").write_text("value,label\n" + "".join(f"{n / 10},{int(n > 6)}\n" for n in range(10)))
    yard.run("datastore", "create", "-f", str(example / "datastore.yml"), "--set", f"path={arrivals}")
    done = yard.run("job", "create", "-f", str(example / "pipeline.yml"), "--set", "inputs.steps=2", "--stream")
    assert "step register: Completed" in done.stdout
    assert [item["version"] for item in yard.json("model", "list", "-n", "nightly")] == ["1"]
    given = ("create_job.inputs.registered.path=azureml:nightly@latest", "create_job.inputs.registered.type=custom_model")
    yard.run("schedule", "create", "-f", str(example / "schedule.yml"), "--set", *given)
    (arrivals / "second.csv").write_text("value,label\n0.61,0\n0.69,0\n0.72,1\n")

    def ended(count: int) -> list[dict[str, Any]]:
        jobs = fired(yard, "nightly")
        return jobs if len(jobs) == count and all(job["status"] == "Completed" for job in jobs) else []

    wait_for(lambda: ended(1), 60, "the schedule's pipeline")
    assert [item["version"] for item in yard.json("model", "list", "-n", "nightly")] == ["2", "1"]
    (arrivals / "third.csv").write_text("value,label\n0.1,0\n")
    found = wait_for(lambda: ended(2), 60, "the second")
    steps = yard.json("job", "show", "-n", found[0]["name"])["steps"]
    assert steps["register"]["status"] == "Skipped" and len(yard.json("model", "list", "-n", "nightly")) == 2
