"""Jobs on a running yard, as a person meets them: inputs and outputs by their bytes, ends, queues, errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest
from modelyard.testing.waiting import wait_for


def write_job(folder: Path, text: str, script: str = "") -> Path:
    (folder / "src").mkdir(exist_ok=True)
    if script:
        (folder / "src/main.py").write_text(script)
    (folder / "job.yml").write_text(text)
    return folder / "job.yml"


def test_no_property_of_a_job_gives_it_a_program_of_the_runtime(yard: YardUnderTest) -> None:
    for program in ("parallel", "distributed"):
        name = yard.submit('echo "program [$YARD_PROGRAM]"', properties={"modelyard.program": program})
        assert yard.wait_job(name)["status"] == "Completed"
        assert "program []" in yard.job_log(name)


def test_inputs_of_every_kind_arrive_and_outputs_are_kept(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "folder/deep/a.txt").write_text("deep")
    (tmp_path / "one.txt").write_text("one")
    script = (
        "import sys, json, os, pathlib\n"
        "one, folder, copy, rate, flag, out, file = sys.argv[1:8]\n"
        "assert open(one).read() == 'one'\n"
        "assert open(folder + '/deep/a.txt').read() == 'deep'\n"
        "open(copy + '/mine', 'w').write('changed')\n"
        "try: open(folder + '/x', 'w'); print('writable')\n"
        "except OSError: print('read-only')\n"
        "assert (rate, flag) == ('0.5', 'True'), (rate, flag)\n"
        "assert os.environ['AZURE_ML_INPUT_rate'] == '0.5' and os.environ['AZUREML_RUN_ID'] == os.environ['MLFLOW_RUN_ID']\n"
        "assert os.environ['GREETING'] == 'hello'\n"
        "pathlib.Path(out, 'sub').mkdir(); pathlib.Path(out, 'sub/r.json').write_text(json.dumps({'ok': 1}))\n"
        "pathlib.Path(file).write_text('a file')\n"
        "open('outputs/artifact.txt', 'w').write('kept')\n"
        "os.symlink('sub/r.json', out + '/latest.json')\n"
        "os.symlink('sub', out + '/latest')\n"
    )
    path = write_job(
        tmp_path,
        "code: src\n"
        "command: python main.py ${{inputs.one}} ${{inputs.folder}} ${{inputs.copy}} ${{inputs.rate}} ${{inputs.flag}} ${{outputs.out}} ${{outputs.file}} $[[--no ${{inputs.absent}}]]\n"
        "environment: {pip: []}\n"
        "environment_variables: {GREETING: hello}\n"
        "inputs:\n"
        "  one: {type: uri_file, path: one.txt}\n"
        "  folder: {path: folder}\n"
        "  copy: {path: folder, mode: download}\n"
        "  rate: 0.5\n"
        "  flag: true\n"
        "  absent: {type: string, optional: true}\n"
        "outputs:\n"
        "  out: {name: kept-output}\n"
        "  file: {type: uri_file}\n",
        script,
    )
    done = yard.run("job", "create", "-f", str(path), "--name", "io-job", "--stream", ok=False)
    assert done.returncode == 0, done.stdout + done.stderr + yard.log()[-2000:]
    assert done.stdout == "read-only\n"
    yard.run("job", "download", "-n", "io-job", "--all", "-p", str(tmp_path / "got"))
    assert json.loads((tmp_path / "got/named-outputs/out/sub/r.json").read_text()) == {"ok": 1}
    assert [path.read_text() for path in (tmp_path / "got/named-outputs/file").iterdir()] == ["a file"]
    assert (tmp_path / "got/artifacts/outputs/artifact.txt").read_text() == "kept"
    assert (tmp_path / "got/artifacts/user_logs/std_log.txt").read_text() == "read-only\n"
    assert json.loads((tmp_path / "got/named-outputs/out/latest.json").read_text()) == {"ok": 1}, "a link to a file is that file"
    assert json.loads((tmp_path / "got/named-outputs/out/latest/r.json").read_text()) == {"ok": 1}, "a link to a folder is that folder"
    asset = yard.json("data", "show", "-n", "kept-output")
    assert asset["properties"]["job_name"] == "io-job"


def test_an_output_that_is_called_artifacts_is_that_output(yard: YardUnderTest, tmp_path: Path) -> None:
    """Beside the artifacts of the run: downloaded as both, and read by the next step as what the step wrote."""
    write = {
        "command": "echo mine > ${{outputs.artifacts}}/a.txt; echo kept > outputs/b.txt",
        "outputs": {"artifacts": {"type": "uri_folder"}},
    }
    read = {
        "command": "ls ${{inputs.of}}", "outputs": {"seen": {"type": "uri_folder"}},
        "inputs": {"of": {"type": "uri_folder", "path": "${{parent.jobs.write.outputs.artifacts}}"}},
    }  # fmt: skip
    steps = {name: {"type": "command", "environment": {"pip": []}, **body} for name, body in (("write", write), ("read", read))}
    body = {"type": "pipeline", "jobs": steps}
    name = str(yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, expect=201).json()["name"])
    done = yard.wait_job(name)
    assert done["status"] == "Completed", done
    job = done["steps"]["write"]["job_name"]
    yard.run("job", "download", "-n", job, "--all", "-p", str(tmp_path))
    assert (tmp_path / "named-outputs/artifacts/a.txt").read_text() == "mine\n"
    assert (tmp_path / "artifacts/outputs/b.txt").read_text() == "kept\n" and (tmp_path / "artifacts/user_logs/std_log.txt").exists()
    assert yard.job_log(done["steps"]["read"]["job_name"]) == "a.txt\n"


def test_an_output_of_one_job_is_the_input_of_another(yard: YardUnderTest) -> None:
    first = yard.submit("echo 41 > ${{outputs.n}}/n.txt", outputs={"n": {}})
    assert yard.wait_job(first)["status"] == "Completed"
    path = f"azureml://jobs/{first}/outputs/n/paths/n.txt"
    second = yard.submit("cat ${{inputs.n}}", inputs={"n": {"type": "uri_file", "path": path}})
    assert yard.wait_job(second)["status"] == "Completed"
    assert yard.job_log(second) == "41\n"


def test_a_failing_command_says_why_and_the_log_is_replayed(yard: YardUnderTest) -> None:
    name = yard.submit("echo before; echo trouble >&2; exit 3")
    job = yard.wait_job(name)
    assert (job["status"], job["error"]["exit_code"], job["error"]["log_tail"]) == ("Failed", 3, ["before", "trouble"])
    done = yard.run("job", "stream", "-n", name, ok=False)
    assert done.returncode == 1 and done.stdout == "before\ntrouble\n" and "exited with code 3" in done.stderr


def test_a_timeout_fails_the_job_with_the_limit(yard: YardUnderTest) -> None:
    name = yard.submit("sleep 300", limits={"timeout": 1})
    job = yard.wait_job(name)
    assert job["status"] == "Failed" and "limit of 1 s" in job["error"]["message"]


def test_cancel_ends_a_running_job(yard: YardUnderTest) -> None:
    name = yard.submit("echo up; sleep 300")
    wait_for(lambda: "up" in yard.job_log(name), 60, "the job's first line")
    assert yard.json("job", "cancel", "-n", name)["status"] == "Canceled"
    assert yard.mlflow("GET", "runs/get", run_id=name)["run"]["info"]["status"] == "KILLED"


def test_a_missing_file_output_fails_the_job(yard: YardUnderTest) -> None:
    job = yard.wait_job(yard.submit("true", outputs={"f": {"type": "uri_file"}}))
    assert job["status"] == "Failed" and "wrote no output f" in job["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"environment": "azureml:nowhere@latest"}, "no environment nowhere@latest"),
        ({"inputs": {"d": {"type": "uri_file", "path": "azureml:nothing:1"}}}, "input d: there is no data nothing:1"),
        ({"inputs": {"d": {"path": "azureml://datastores/workspaceblobstore/paths/none/"}}}, "there is nothing at"),
        ({"inputs": {"d": {"path": "/etc"}}}, "is local; upload it first"),
        ({"code": "azureml://datastores/workspaceblobstore/paths/none/"}, "code: there is nothing at"),
        ({"outputs": {"o": {"path": "azureml://datastores/nostore/paths/x"}}}, "no datastore nostore"),
        ({"environment": {"pip": ["git+ssh://git@example.org/x"]}}, "comes from a repository"),
        ({"command": "${{inputs.x}}"}, "names no input"),
        ({"name": "bad name!"}, "job name"),
    ],
)
def test_what_cannot_run_is_refused_at_submit_and_leaves_nothing(yard: YardUnderTest, fields: dict[str, object], words: str) -> None:
    before = len(yard.json("job", "list", "--all-results"))
    body = {"type": "command", "command": "true", "environment": {"pip": []}, **fields}
    answer = yard.call("POST", "/api/v1/workspaces/default/jobs", json=body)
    assert answer.status_code == 400 and words in answer.text
    assert len(yard.json("job", "list", "--all-results")) == before


def test_all_wrong_references_are_named_at_once(yard: YardUnderTest) -> None:
    body = {"command": "true", "environment": "azureml:none:1", "inputs": {"a": {"path": "azureml:x:1"}, "b": {"path": "azureml:y:1"}}}
    text = yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, expect=400).text
    assert all(word in text for word in ("none:1", "input a", "input b"))


def test_submitting_twice_with_one_idempotency_key_makes_one_job(yard: YardUnderTest) -> None:
    body = {"command": "true", "environment": {"pip": []}}
    headers = {"Idempotency-Key": "only-once"}
    first = yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, headers=headers, expect=201).json()
    again = yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, headers=headers, expect=200).json()
    assert first["name"] == again["name"]
    yard.call("POST", "/api/v1/workspaces/default/jobs", json={**body, "command": "false"}, headers=headers, expect=409)


def test_a_script_finds_its_run_through_the_environment_alone(yard: YardUnderTest) -> None:
    script = (
        "import json, os, urllib.request\n"
        "def call(path, body):\n"
        "    request = urllib.request.Request(os.environ['MLFLOW_TRACKING_URI'] + '/api/2.0/mlflow/' + path, json.dumps(body).encode(),\n"
        "        {'Authorization': 'Bearer ' + os.environ['MLFLOW_TRACKING_TOKEN'], 'Content-Type': 'application/json'})\n"
        "    try: return urllib.request.urlopen(request).status\n"
        "    except urllib.error.HTTPError as error: return error.code\n"
        "import urllib.error\n"
        "own = os.environ['MLFLOW_RUN_ID']\n"
        "print(call('runs/log-metric', {'run_id': own, 'key': 'm', 'value': 1.5, 'timestamp': 1}))\n"
        "print(call('runs/log-metric', {'run_id': os.environ['OTHER'], 'key': 'm', 'value': 1.5, 'timestamp': 1}))\n"
    )
    other = yard.submit("true")
    yard.wait_job(other)
    name = yard.submit(f"python - <<'E'\n{script}E", environment_variables={"OTHER": other})
    assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
    assert yard.job_log(name).split() == ["200", "403"]
    assert yard.json("job", "metrics", "-n", name) == [{"metric": "m", "value": 1.5, "step": 0}]


def test_a_jobs_token_ends_with_the_job(yard: YardUnderTest) -> None:
    name = yard.submit("echo $MLFLOW_TRACKING_TOKEN")
    yard.wait_job(name)
    token = yard.job_log(name).strip()
    assert token.startswith("yard_")
    wait_for(lambda: yard.call("GET", "/api/v1/workspaces", token=token).status_code == 401, 5, "the end of the token")


def test_jobs_are_listed_with_filters_newest_first(yard: YardUnderTest) -> None:
    names = [yard.submit("true", experiment_name="listing") for _ in range(3)]
    for name in names:
        yard.wait_job(name)
    found = [job["name"] for job in yard.json("job", "list", "--experiment-name", "listing", "--status", "Completed")]
    assert found == names[::-1]
    yard.run("job", "archive", "-n", names[0])
    assert names[0] not in [job["name"] for job in yard.json("job", "list", "--experiment-name", "listing")]
    yard.run("job", "restore", "-n", names[0])


def test_ignored_files_do_not_travel(yard: YardUnderTest, tmp_path: Path) -> None:
    for name in ("keep.py", "secret.env", "big/huge.bin", ".git/config", ".env"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text("x")
    (tmp_path / "src/.amlignore").write_text("*.env\nbig/\n")
    path = write_job(tmp_path, "code: src\ncommand: find . -type f | sort\nenvironment: {pip: []}\n")
    done = yard.run("job", "create", "-f", str(path), "--stream")
    assert done.stdout.split() == ["./keep.py"]


def test_a_data_asset_never_changes_and_equal_content_is_sent_once(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("a,b\n1,2\n")
    made = yard.json("data", "create", "-n", "fixed", "-v", "1", "--type", "uri_file", "--path", str(tmp_path / "d.csv"))
    assert yard.json("data", "create", "-n", "fixed", "-v", "1", "--type", "uri_file", "--path", str(tmp_path / "d.csv")) == made
    (tmp_path / "d.csv").write_text("other")
    done = yard.run("data", "create", "-n", "fixed", "-v", "1", "--type", "uri_file", "--path", str(tmp_path / "d.csv"), ok=False)
    assert done.returncode == 5 and "never changes" in done.stderr
    assert yard.json("data", "create", "-n", "fixed", "--type", "uri_file", "--path", str(tmp_path / "d.csv"))["version"] == "2"


def test_a_large_upload_goes_on_where_it_broke_off(yard: YardUnderTest) -> None:
    import hashlib

    data = bytes(range(256)) * 40_000
    digest = hashlib.sha256(data).hexdigest()
    path = f"/api/v1/workspaces/default/blobs/{digest}"
    sizes = {"Upload-Length": str(len(data))}
    assert yard.call("PUT", path, content=data[:4_000_000], headers={**sizes, "Upload-Offset": "0"}).status_code == 202
    assert yard.call("HEAD", path).headers["upload-offset"] == "4000000"
    assert yard.call("PUT", path, content=data[100:], headers={**sizes, "Upload-Offset": "100"}).status_code == 409
    yard.call("PUT", path, content=data[4_000_000:], headers={**sizes, "Upload-Offset": "4000000"}, expect=201)
    manifest = {"files": [["big.bin", digest, len(data)]], "name": "big.bin"}
    uri = yard.call("POST", "/api/v1/workspaces/default/datastores/workspaceblobstore/uploads", json=manifest, expect=200).json()["uri"]
    stored = uri.split("/paths/")[1]
    assert yard.call("GET", f"/api/v1/workspaces/default/datastores/workspaceblobstore/files/{stored}").content == data
    part = yard.call(
        "GET", f"/api/v1/workspaces/default/datastores/workspaceblobstore/files/{stored}", headers={"Range": "bytes=5-9"}, expect=206
    )
    assert part.content == data[5:10]


def test_a_broken_upload_is_refused_by_its_digest(yard: YardUnderTest) -> None:
    digest = "0" * 64
    headers = {"Upload-Offset": "0", "Upload-Length": "3"}
    answer = yard.call("PUT", f"/api/v1/workspaces/default/blobs/{digest}", content=b"abc", headers=headers)
    assert answer.status_code == 400 and "digest" in answer.text


def test_one_workspace_does_not_learn_what_another_holds(yard: YardUnderTest) -> None:
    yard.call("PUT", "/api/v1/workspaces/quiet", json={}, expect=200)
    manifest = {"files": [["x", "a" * 64, 1]], "name": ""}
    first = yard.call("POST", "/api/v1/workspaces/quiet/datastores/workspaceblobstore/uploads", json=manifest).json()
    assert first["missing"] == ["a" * 64]


def test_jobs_run_on_either_database(any_yard: YardUnderTest) -> None:
    names = [any_yard.submit(f"echo {n} > ${{{{outputs.o}}}}/n", outputs={"o": {"name": f"either-{n}"}}) for n in range(4)]
    assert [any_yard.wait_job(name)["status"] for name in names] == ["Completed"] * 4
    assert any_yard.json("data", "show", "-n", "either-3")["version"] == "1"
    assert [job["name"] for job in any_yard.json("job", "list", "--status", "Completed")][:4] == names[::-1]
    any_yard.run("online-endpoint", "create", "-n", "either")
    keys = any_yard.json("online-endpoint", "get-credentials", "-n", "either")
    any_yard.kill_server()
    any_yard.up()
    assert any_yard.json("online-endpoint", "get-credentials", "-n", "either") == keys


def test_an_output_can_go_to_a_folder_of_this_machine(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "store.yml").write_text(f"name: outside\ntype: local\npath: {tmp_path / 'out'}\n")
    yard.run("datastore", "create", "-f", str(tmp_path / "store.yml"))
    path = "azureml://datastores/outside/paths/results/${{name}}/"
    name = yard.submit("echo here > ${{outputs.o}}/r.txt; ln -s /etc/passwd ${{outputs.o}}/link", outputs={"o": {"path": path}})
    job = yard.wait_job(name)
    assert (job["status"], job["error"]["code"]) == ("Failed", "output_not_kept") and "output o: link" in job["error"]["message"]
    assert (tmp_path / "out/results" / name / "r.txt").read_text() == "here\n"
    assert not (tmp_path / "out/results" / name / "link").exists()
    kept = yard.call("GET", f"/api/v1/workspaces/default/jobs/{name}/outputs", expect=200).json()["o"]["uri"].split("/paths/")[1]
    assert yard.call("GET", f"/api/v1/workspaces/default/datastores/workspaceblobstore/files/{kept}r.txt", expect=200).text == "here\n"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/way").symlink_to(tmp_path / "elsewhere")
    through = yard.submit("echo x > ${{outputs.o}}/x", outputs={"o": {"path": "azureml://datastores/outside/paths/way/x/"}})
    assert yard.wait_job(through)["status"] == "Failed" and not list((tmp_path / "elsewhere").iterdir())
    again = yard.submit("echo x > ${{outputs.o}}", outputs={"o": {"type": "uri_file", "path": "azureml://datastores/outside/paths/f"}})
    assert yard.wait_job(again)["status"] == "Completed" and (tmp_path / "out/f").read_text() == "x\n"


def test_environments_that_need_containers_are_kept_with_a_note_and_refused_by_jobs(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text("FROM python\n")
    (tmp_path / "env.yml").write_text("name: contained\nbuild: {path: context}\n")
    assert "container" in yard.run("environment", "create", "-f", str(tmp_path / "env.yml")).stderr
    body = {"command": "true", "environment": "azureml:contained@latest"}
    assert "container" in yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, expect=400).text


def test_a_data_asset_may_name_a_path_that_is_filled_later(yard: YardUnderTest) -> None:
    path = "azureml://datastores/workspaceblobstore/paths/later/"
    done = yard.run("data", "create", "-n", "later", "--path", path)
    assert "nothing at" in done.stderr
    writer = yard.submit("echo now > ${{outputs.o}}/x", outputs={"o": {"path": path}})
    yard.wait_job(writer)
    reader = yard.submit("cat ${{inputs.d}}/x", inputs={"d": {"path": "azureml:later:1"}})
    assert yard.wait_job(reader)["status"] == "Completed" and yard.job_log(reader) == "now\n"


@pytest.mark.parametrize("path", ["evil/../../../../escape/", "../escape/", "a//b/", "evil/./x/"])
def test_an_output_path_that_leads_out_is_refused(yard: YardUnderTest, path: str) -> None:
    body = {
        "command": "true",
        "environment": {"pip": []},
        "outputs": {"o": {"path": f"azureml://datastores/workspaceblobstore/paths/{path}"}},
    }
    assert "not a plain relative path" in yard.call("POST", "/api/v1/workspaces/default/jobs", json=body, expect=400).text


@pytest.mark.parametrize(
    ("bad", "why"),
    [("back\\\\slash", "it has a backslash"), ("line\\nbreak", "it has a control character"), ("\\xff", "its name is not UTF-8")],
)
def test_output_files_with_impossible_names_fail_the_job_and_the_others_are_kept(yard: YardUnderTest, bad: str, why: str) -> None:
    name = yard.submit(f'cd ${{{{outputs.o}}}} && printf x > "$(printf "{bad}")" && printf y > good', outputs={"o": {}})
    job = yard.wait_job(name)
    assert (job["status"], job["error"]["code"]) == ("Failed", "output_not_kept"), yard.job_log(name)
    assert "output o: " in job["error"]["message"] and f"cannot be kept: {why}" in job["error"]["message"]
    files = yard.call(
        "GET", "/api/v1/workspaces/default/datastores/workspaceblobstore/files", params={"prefix": f"azureml/{name}/"}
    ).json()["value"]
    assert [file["path"].rsplit("/", 1)[1] for file in files] == ["good"]


SHOW = 'python -c "import os; print(*(os.environ[name] for name in {names}), flush=True)"'


def test_distributed_jobs_get_their_processes_and_the_variables_of_their_framework(yard: YardUnderTest) -> None:
    def lines(distribution: dict[str, Any], names: list[str], **more: Any) -> list[str]:
        name = yard.submit(SHOW.format(names=names), distribution=distribution, **more)
        assert yard.wait_job(name)["status"] == "Completed", yard.job_log(name)
        return sorted(line.split("] ")[-1] for line in yard.job_log(name).splitlines())

    torch = ["RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR"]
    found = lines({"type": "pytorch", "process_count_per_instance": 2}, torch, resources={"instance_count": 2})
    assert found == ["0 0 0 4 127.0.0.1", "1 1 0 4 127.0.0.1", "2 0 1 4 127.0.0.1", "3 1 1 4 127.0.0.1"]
    mpi = lines({"type": "mpi", "process_count_per_instance": 3}, ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"])
    assert mpi == ["0 3", "1 3", "2 3"]
    tensorflow = lines({"type": "tensorflow", "worker_count": 2}, ["TF_CONFIG"])
    assert len(tensorflow) == 2 and all(len(json.loads(text)["cluster"]["worker"]) == 2 for text in tensorflow)
    failed = yard.submit("[ $RANK = 0 ] && sleep 60 || exit 7", distribution={"type": "pytorch", "process_count_per_instance": 2})
    job = yard.wait_job(failed, 30)
    assert job["status"] == "Failed" and job["error"]["exit_code"] == 7, "one that fails ends the others"
