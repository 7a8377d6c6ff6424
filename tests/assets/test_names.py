"""Files under every name that a person may bring: sent, kept, run on and fetched by the command line, REST and the client."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from checked_yard import YardUnderTest
from modelyard import MLClient

NAMES = [
    "a%2Fb.txt", "%2e%2e.txt", "x%5cy.txt", "c#.txt", "d?x=1&y.txt", "%41.txt", "A.txt", "with space.txt", "日本語-😀.txt", "e\u0301.txt",
    "\u00e9.txt", "a+b&c=d.txt", "100%.txt", "[x]*.txt", "'q'\"w\".txt", "$HOME`x`.txt", "-rf", "~", "..hidden", "trail.", "n" * 255,
    "é" * 127 + "x", ";ls", "a:b", "x.partial", "x", "%", "%zz", "name|pipe<>.txt",
]  # fmt: skip
STORE = "azureml://datastores/workspaceblobstore/paths"


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its path."""
    return {os.path.relpath(path, folder): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_every_name_is_kept_in_data_outputs_artifacts_and_models(yard: YardUnderTest, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in NAMES:
        (data / "deep" / f"{name[:90]}_d").mkdir(parents=True)
        (data / name).write_text(f"file {name}")
        (data / "deep" / f"{name[:90]}_d" / "f").write_text(name)
    sent = tree(data)
    assert len(sent) == 2 * len(NAMES)
    yard.run("data", "create", "-n", "odd-names", "-v", "1", "--path", str(data))
    yard.run("model", "create", "-n", "odd-names", "-v", "1", "--path", str(data), "--type", "custom_model")
    copy = "cp -r ${{inputs.d}}/. ${{outputs.o}}/ && cp -r ${{inputs.d}}/. outputs/"
    job = yard.submit(copy, inputs={"d": {"path": "azureml:odd-names:1"}}, outputs={"o": {}})
    assert yard.wait_job(job)["status"] == "Completed", yard.job_log(job)
    yard.run("job", "download", "-n", job, "--all", "-p", str(tmp_path / "job"))
    yard.run("data", "download", "-n", "odd-names", "-p", str(tmp_path / "got"))
    MLClient(url=yard.url, token=yard.token).models.download("odd-names", "1", tmp_path / "models")
    for folder in ("job/named-outputs/o", "job/artifacts/outputs", "got/odd-names", "models/odd-names"):
        assert tree(tmp_path / folder) == sent, folder
    base = "/api/v1/workspaces/default/datastores/workspaceblobstore/files"
    for name in NAMES:
        assert yard.call("GET", f"{base}/{quote(f'azureml/{job}/o/{name}')}", expect=200).text == f"file {name}"


def test_a_version_is_fetched_as_it_was_whatever_was_written_to_its_path_since(yard: YardUnderTest, tmp_path: Path) -> None:
    def write(text: str) -> None:
        job = yard.submit(f"echo {text} > ${{{{outputs.o}}}}/w", outputs={"o": {"path": f"{STORE}/fetched/m/"}})
        assert yard.wait_job(job)["status"] == "Completed"

    write("one")
    for kind in ("data", "model"):
        yard.run(kind, "create", "-n", "fetched", "-v", "1", "--path", f"{STORE}/fetched/m/")
    write("two")
    yard.run("model", "download", "-n", "fetched", "-v", "1", "-p", str(tmp_path / "model"))
    yard.run("data", "download", "-n", "fetched", "-l", "latest", "-p", str(tmp_path / "data"))
    assert tree(tmp_path / "model/fetched") == tree(tmp_path / "data/fetched") == {"w": "one\n"}


def test_a_folder_whose_only_file_has_its_name_is_a_folder(yard: YardUnderTest, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "x").write_text("inner")
    yard.run("data", "create", "-n", "nested-name", "-v", "1", "--path", str(tmp_path / "x"))
    yard.run("data", "create", "-n", "nested-name", "-v", "2", "--path", str(tmp_path / "x" / "x"), "--type", "uri_file")
    for version, command in (("1", "cat ${{inputs.d}}/x"), ("2", "cat ${{inputs.d}}")):
        job = yard.submit(command, inputs={"d": {"path": f"azureml:nested-name:{version}"}})
        assert yard.wait_job(job)["status"] == "Completed" and yard.job_log(job) == "inner"
