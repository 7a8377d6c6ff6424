"""The command line: exit codes, output forms, errors, az's habits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from checked_yard import YardUnderTest


def test_status_tells_where_the_yard_is(yard: YardUnderTest) -> None:
    found = yard.json("status")
    assert {"url", "pid", "version", "home", "router_url", "counts"} <= set(found)
    assert yard.run("up", "--port", "0").returncode == 0, "a second up finds the first"


def test_env_prints_exports_that_work(yard: YardUnderTest) -> None:
    lines = yard.run("env", "-o", "none").stdout.splitlines()
    names = [line.split()[1].split("=")[0] for line in lines]
    assert names == ["YARD_URL", "YARD_TOKEN", "YARD_WORKSPACE", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"]


def test_every_output_form_is_there(yard: YardUnderTest) -> None:
    listed = ("compute", "list")
    assert json.loads(yard.run(*listed, "-o", "json").stdout)[0]["name"] == "local"
    assert yaml.safe_load(yard.run(*listed, "-o", "yaml").stdout)[0]["name"] == "local"
    assert yard.run(*listed, "--query", "[0].name", "-o", "tsv").stdout == "local\n"
    assert "local" in yard.run(*listed, "-o", "table").stdout
    assert yard.run(*listed, "-o", "none").stdout == ""
    assert json.loads(yard.run(*listed).stdout)[0]["name"] == "local", "without a terminal: JSON"
    assert yard.run("model", "list", "--query", "[?name=='none-such']").stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("job", "show", "-n", "nothing"), 3, "there is no job nothing"),
        (("job", "create", "-f", "missing.yml"), 3, "no such file"),
        (("job", "create"), 2, "--file"),
        (("jbo", "list"), 2, "did you mean 'job'"),
        (("job", "list", "--colour"), 2, "--colour"),
        (("compute", "delete", "-n", "local"), 2, "pass --yes"),
        (("compute", "delete", "-n", "local", "-y"), 5, "belongs to the yard"),
        (("model", "list", "--query", "[["), 2, "--query"),
        (("data", "show", "-n", "none", "-v", "1"), 3, "no data none:1"),
        (("online-endpoint", "invoke", "-n", "x", "-r", "none.json"), 3, "no such file"),
    ],
)
def test_failures_have_their_exit_code_and_say_what_to_do(yard: YardUnderTest, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = yard.run(*arguments, ok=False)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert words in done.stderr and "Traceback" not in done.stderr


def test_an_unreachable_yard_is_exit_code_6(tmp_path: Path) -> None:
    nowhere = YardUnderTest(tmp_path / "home")
    done = nowhere.run("job", "list", ok=False)
    assert done.returncode == 6 and "yard up" in done.stderr


def test_a_refused_token_is_exit_code_4(yard: YardUnderTest) -> None:
    import os
    import subprocess

    from modelyard.testing.process import YARD

    environment = {**os.environ, "YARD_URL": yard.url, "YARD_TOKEN": "yard_wrong_token"}
    done = subprocess.run([YARD, "job", "list"], capture_output=True, text=True, env=environment)
    assert done.returncode == 4 and "token" in done.stderr


def test_az_spellings_are_accepted(yard: YardUnderTest) -> None:
    assert (
        yard.run(
            "ml", "compute", "list", "-g", "group", "-w", "default", "--subscription", "s", "--only-show-errors", "-o", "json"
        ).returncode
        == 0
    )
    assert yard.run("job", "list", "--max", "1", "--all-res").returncode == 0, "unique beginnings of options, as az takes them"
    assert yard.run("group", "create", "-n", "g", "-l", "westeurope").stderr.count("\n") == 1
    assert yard.run("extension", "add", "-n", "ml", "-y").stdout == ""
    assert yard.run("account", "set", "-s", "x").returncode == 0
    assert yard.run("configure", "-d", "group=g", "workspace=default", "location=l").returncode == 0


def test_nouns_are_created_shown_changed_archived_and_deleted(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "compute.yml").write_text(
        "$schema: https://azuremlschemas.azureedge.net/latest/amlCompute.schema.json\nname: cpu-small\nsize: STANDARD_DS2_V2\n"
    )
    assert yard.json("compute", "create", "-f", str(tmp_path / "compute.yml"), "--set", "max_instances=2")["max_instances"] == 2
    assert yard.json("compute", "update", "-n", "cpu-small", "--max-instances", "3")["max_instances"] == 3
    yard.run("compute", "delete", "-n", "cpu-small", "-y")
    yard.run("workspace", "create", "-n", "crud")
    assert yard.json("workspace", "update", "-n", "crud", "--description", "new")["description"] == "new"
    yard.run("workspace", "delete", "-n", "crud", "-y")
    folder = tmp_path / "shared folder"
    folder.mkdir()
    (tmp_path / "store.yml").write_text(f"name: here\ntype: local\npath: {folder}\n")
    assert yard.json("datastore", "create", "-f", str(tmp_path / "store.yml"))["path"] == str(folder)
    yard.run("datastore", "delete", "-n", "here", "-y")
    (tmp_path / "x.txt").write_text("x")
    yard.run("data", "create", "-n", "crud", "--type", "uri_file", "--path", str(tmp_path / "x.txt"))
    assert yard.json("data", "update", "-n", "crud", "-v", "1", "--set", "tags.team=blue")["tags"] == {"team": "blue"}
    yard.run("data", "archive", "-n", "crud")
    assert "crud" not in [item["name"] for item in yard.json("data", "list")]
    assert [item["name"] for item in yard.json("data", "list", "--archived-only")] == ["crud"]
    yard.run("data", "restore", "-n", "crud")


def test_credentials_of_a_datastore_are_taken_and_never_shown(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "store.yml").write_text(
        "$schema: https://azuremlschemas.azureedge.net/latest/azureBlob.schema.json\nname: cloud\ntype: azure_blob\naccount_name: a\ncontainer_name: c\n"
        "credentials: {account_key: canary-5518}\n"
    )
    assert "canary" not in yard.run("datastore", "create", "-f", str(tmp_path / "store.yml")).stdout
    assert "canary" not in yard.run("datastore", "show", "-n", "cloud").stdout
    for path in (yard.home / "control").rglob("*"):
        if path.is_file():
            assert b"canary-5518" not in path.read_bytes(), path


def test_a_definition_is_locked_without_being_built_or_kept(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "base.txt").write_text("--prefer-binary\n")
    conda = tmp_path / "conda.yml"
    conda.write_text("name: x\ncolour: red\ndependencies: [six=1.14.0=pyh_0, git, {pip: [-r base.txt]}]\n")
    printed = yard.run("environment", "lock", "-f", str(conda)).stdout
    assert printed.splitlines()[-1] == "six==1.14.0" and printed.startswith("# Python 3.")
    for words in ("a conda file has no colour", "the build pyh_0 is conda's own", "they come with the machine or with other packages: git"):
        assert words in printed
    (tmp_path / "env.yml").write_text("name: e\nconda_file: conda.yml\n")
    (tmp_path / "list.txt").write_text("six==1.14.0\n")
    for file in ("env.yml", "list.txt"):
        lock = yard.json("environment", "lock", "-f", str(tmp_path / file))
        assert (lock["packages"], lock["relaxed"], lock["from_source"]) == (["six==1.14.0"], [], [])
    assert not list((yard.home / "envs").glob(f"{lock['key']}*")) and not [
        one for one in yard.json("environment", "list") if one["name"] == "e"
    ]
    silent = yard.run("environment", "lock", "-f", str(conda), "-o", "none")
    assert (silent.stdout, silent.stderr) == ("", "")
    assert yard.run("environment", "lock", "-f", str(conda), "--query", "packages[0]").stdout.strip() == '"six==1.14.0"'
    (tmp_path / "list.txt").write_text("six==1.14.0\npython-dateutil==2.8.2\nsix<1.5\n")
    refused = yard.run("environment", "lock", "-f", str(tmp_path / "list.txt"), ok=False)
    assert refused.returncode != 0 and "six==1.14.0 and six<1.5 do not go together" in refused.stderr and "dateutil" not in refused.stderr


def test_validate_checks_without_submitting(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "job.yml").write_text("command: true x\nenvironment: {pip: []}\ncode: ./nowhere\n")
    done = yard.run("job", "validate", "-f", str(tmp_path / "job.yml"), ok=False)
    assert done.returncode == 3 and "nowhere" in done.stderr


def test_a_local_datastore_feeds_jobs_in_place(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.txt").write_text("in place")
    for folder in (tmp_path, tmp_path / "d"):
        folder.chmod(0o755)
    (tmp_path / "store.yml").write_text(f"name: place\ntype: local\npath: {tmp_path / 'd'}\n")
    yard.run("datastore", "create", "-f", str(tmp_path / "store.yml"))
    name = yard.submit("cat ${{inputs.f}}", inputs={"f": {"type": "uri_file", "path": "azureml://datastores/place/paths/a.txt"}})
    assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
    assert yard.job_log(name) == "in place"
    escape = yard.submit("cat ${{inputs.f}}", inputs={"f": {"type": "uri_file", "path": "azureml://datastores/place/paths/../store.yml"}})
    assert "leads out" in yard.wait_job(escape)["error"]["message"]


def test_the_sdk_has_azures_names(yard: YardUnderTest, tmp_path: Path) -> None:
    from modelyard import Input, MLClient, Output, command
    from modelyard.constants import AssetTypes
    from modelyard.entities import Environment, Model

    client = MLClient(None, "sub", "group", "default", url=yard.url, token=yard.token)
    (tmp_path / "m.txt").write_text("weights")
    model = client.models.create_or_update(Model(name="by-sdk", path=str(tmp_path / "m.txt"), type="custom_model"))
    job = command(
        command="cat ${{inputs.m}} > ${{outputs.o}}/copy; echo ${{inputs.n}}",
        environment=Environment(pip=[]),
        inputs={"m": Input(type=AssetTypes.CUSTOM_MODEL, path=f"azureml:by-sdk:{model.version}"), "n": 5},
        outputs={"o": Output(type="uri_folder")},
        experiment_name="sdk",
    )
    submitted = client.jobs.create_or_update(job)
    yard.wait_job(str(submitted.name))
    said: list[str] = []
    again = client.create_or_update(job)
    client.jobs.stream(str(again.name), said.append)
    assert "".join(said) == "5\n"
    client.jobs.download(str(again.name), output_name="o", download_path=tmp_path / "got")
    assert (tmp_path / "got/named-outputs/o/copy").read_text() == "weights"


def test_a_dropped_client_leaves_no_connection_open(yard: YardUnderTest) -> None:
    import gc
    import warnings

    from modelyard import MLClient

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(MLClient(url=yard.url, token=yard.token).compute.list())
        gc.collect()
    assert not [warning for warning in caught if issubclass(warning.category, ResourceWarning)]
