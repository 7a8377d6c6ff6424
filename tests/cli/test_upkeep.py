"""What a person needs around the commands themselves: the server's log, a look at the machine, an editor that knows the files."""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from checked_yard import YardUnderTest
from modelyard.spec.nouns import written
from modelyard.testing.process import YARD

# The server's log


def test_the_servers_log_is_printed_from_its_last_lines_on(yard: YardUnderTest) -> None:
    yard.run("job", "show", "-n", "no-such-job-for-the-log", ok=False)
    whole = yard.run("logs", "--lines", "0").stdout
    assert whole == yard.log()[: len(whole)] and len(whole.splitlines()) > 3
    few = yard.run("logs", "-l", "2").stdout.splitlines()
    assert len(few) == 2 and few[0] in whole
    assert yard.run("logs", "--lines", "100000").stdout.startswith(whole.splitlines()[0])
    assert yard.run("logs", "--supervisor").returncode == 0


def test_a_log_is_followed_until_it_is_interrupted(yard: YardUnderTest) -> None:
    environment = {**yard.environment, "PYTHONUNBUFFERED": "1"}
    interruptible = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    arguments = [YARD, "logs", "--follow", "-l", "0"]
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, text=True, preexec_fn=interruptible) as process:
        assert process.stdout is not None and process.stdout.readline()
        with (yard.home / "control/server.log").open("a") as log:
            log.write("a line of this test\n")
        assert any(line == "a line of this test\n" for line in process.stdout)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_without_a_log_it_is_said_where_logs_are(tmp_path: Path) -> None:
    done = YardUnderTest(tmp_path / "home").run("logs", ok=False)
    assert done.returncode == 3 and "YARD_HOME" in done.stderr


# The machine


def doctor(environment: dict[str, str], *flags: str) -> tuple[int, dict[str, dict[str, str]], str]:
    done = subprocess.run([YARD, "doctor", *flags], env=environment, capture_output=True, text=True)
    return done.returncode, {check["check"]: check for check in json.loads(done.stdout)}, done.stderr


def test_a_machine_on_which_all_is_well_is_told_so(yard: YardUnderTest) -> None:
    path = f"{Path(YARD).parent}:{os.environ['PATH']}"
    code, checks, said = doctor({**yard.environment, "PATH": path})
    assert {name for name, check in checks.items() if not check["ok"]} <= {"isolation", "disk"}, checks
    assert code == (0 if all(check["ok"] for check in checks.values()) else 1)
    assert all(bool(check["mend"]) != bool(check["ok"]) for check in checks.values())


def test_what_is_wrong_is_named_with_what_mends_it_and_exits_1(own_yard: YardUnderTest, tmp_path: Path) -> None:
    control = own_yard.home / "control"
    control.chmod(0o755)
    environment = {**own_yard.environment, "PATH": "/nowhere", "YARD_URL": own_yard.url, "YARD_TOKEN": "yard_wrong_token"}
    code, checks, said = doctor(environment)
    assert code == 1 and "control folder" in said
    assert {"yard on PATH", "connection", "control folder", "git"} <= {name for name, check in checks.items() if not check["ok"]}
    assert checks["control folder"]["mend"].startswith(f"chmod 700 {control}")
    assert "yard login" in checks["connection"]["mend"] and str(Path(YARD).parent) in checks["yard on PATH"]["mend"]
    control.chmod(0o700)
    code, checks, _ = doctor({**os.environ, "YARD_HOME": str(tmp_path / "other"), "YARD_URL": "http://127.0.0.1:9", "YARD_TOKEN": "t"})
    assert "unset it" in checks["connection"]["mend"] and "yard up" in checks["server"]["found"]


def test_on_a_narrow_terminal_the_cure_stands_whole_below_the_fault() -> None:
    code = (
        "from modelyard.cli.doctor import drawn\n"
        "print(*drawn([{'check': 'a', 'ok': True, 'found': 'x', 'mend': ''}, {'check': 'bb', 'ok': False, 'found': 'y', 'mend': 'do this ' * 20}]), sep='\\n')"
    )
    reader, terminal = os.openpty()
    subprocess.run([sys.executable, "-c", code], stdout=terminal, env={**os.environ, "COLUMNS": "50"}, check=True)
    os.close(terminal)
    lines = os.read(reader, 65536).decode().split("\r\n")
    os.close(reader)
    assert lines[0] == "ok     a   x" and lines[1] == "WRONG  bb  y"
    assert " ".join(lines[2:]).split() == ["do", "this"] * 20 and all(len(line) <= 50 for line in lines)


# An editor


def test_an_editor_is_told_which_file_has_which_schema(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run([YARD, "schema", "--vscode"], env=environment, capture_output=True, text=True, check=True)
    bound: dict[str, list[str]] = json.loads(done.stdout)["yaml.schemas"]
    assert len(bound) == len(written())
    for address in bound:
        Draft202012Validator.check_schema(json.loads(Path(address.removeprefix("file://")).read_text()))

    def nouns(name: str) -> list[str]:
        return [Path(address).stem for address, globs in bound.items() if any(fnmatch.fnmatch(f"/x/{name}", glob) for glob in globs)]

    named = {"job.yml": "job", "pipeline-nightly.yaml": "job", "train.job.yml": "job", "endpoint.yml": "online-endpoint", "deployment.yml": "online-deployment",
             "batch-endpoint.yml": "batch-endpoint", "batch-deployment.yml": "batch-deployment", "data.yml": "data"}  # fmt: skip
    assert {name: nouns(name) for name in named} == {name: [noun] for name, noun in named.items()}
    assert nouns("environment.yml") == [] and nouns("docker-compose.yml") == [], "conda's file is another"


@pytest.mark.parametrize("noun", [noun.command for noun in written()])
def test_every_noun_has_a_schema_to_print(noun: str) -> None:
    from click.testing import CliRunner

    from modelyard.cli.schema import schema

    printed = json.loads(CliRunner().invoke(schema, [noun]).stdout)
    Draft202012Validator.check_schema(printed)


def test_a_schema_takes_what_the_loader_takes_for_text() -> None:
    done = subprocess.run([YARD, "schema", "data"], capture_output=True, text=True, check=True)
    schema = Draft202012Validator(json.loads(done.stdout))
    assert schema.is_valid({"name": "d", "version": 1, "path": "./x", "tags": {"year": 2026, "big": True}})
    assert not schema.is_valid({"name": "d", "path": ["./x"]})


def test_schema_wants_a_noun_or_an_editor() -> None:
    done = subprocess.run([YARD, "schema"], capture_output=True, text=True)
    assert done.returncode == 2 and "--vscode" in done.stderr


# Workspaces that are not there


@pytest.mark.parametrize(
    "arguments",
    [*(f"{noun} list" for noun in ("job", "data", "model", "environment", "component", "compute", "datastore", "schedule", "online-endpoint", "batch-endpoint",
                                   "run", "experiment", "audit", "user", "token")),
     "online-deployment list -e e", "batch-deployment list -e e", "run count", "lineage show -n x"],
)  # fmt: skip
def test_lists_in_a_workspace_that_is_not_there_are_not_found(yard: YardUnderTest, arguments: str) -> None:
    done = yard.run(*arguments.split(), "-w", "nowhere", ok=False)
    assert (done.returncode, done.stdout) == (3, "") and "nowhere" in done.stderr


def test_lists_in_a_registry_that_is_not_there_are_not_found(yard: YardUnderTest) -> None:
    assert yard.run("model", "list", "--registry-name", "nowhere", ok=False).returncode == 3
