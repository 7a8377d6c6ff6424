"""The gallery of projects as people bring them: the commands in each README, by a shell, in a copy of its folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from checked_yard import YardUnderTest

GALLERY = Path(__file__).parents[2] / "examples" / "gallery"
NEEDS = {"r-script": "Rscript"}


def run(yard: YardUnderTest, project: str, folder: Path) -> None:
    """Run the sh blocks of a project's README; AssertionError with what they said when one of the commands fails."""
    shutil.copytree(GALLERY / project, folder)
    script = "\n".join(["set -ex", *re.findall(r"```sh\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)])
    path = f"{Path(sys.executable).parent}:{yard.environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env={**yard.environment, "PATH": path}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def metrics(yard: YardUnderTest, job: str) -> dict[str, float]:
    run = yard.mlflow("GET", "runs/get", run_id=job)["run"]
    return {item["key"]: item["value"] for item in run["data"]["metrics"] if not item["key"].startswith("system/")}


def upstream(yard: YardUnderTest, kind: str, name: str) -> set[str]:
    found = yard.call("GET", f"/api/v1/workspaces/default/lineage/{kind}/{name}", expect=200).json()
    return {item["name"] for item in found["upstream"]}


def components(yard: YardUnderTest, folder: Path) -> None:
    assert "- height: 158.25 and 180.75" in (folder / "fetched/named-outputs/report/report.md").read_text()


def schedule(yard: YardUnderTest, folder: Path) -> None:
    shown = yard.json("schedule", "show", "-n", "nightly-report")
    assert shown["is_enabled"] is False
    yard.wait_job(shown["last_job"])
    yard.run("job", "download", "-n", shown["last_job"], "--output-name", "report", "-p", str(folder / "fetched"))
    (report,) = (folder / "fetched").rglob("20*.txt")
    assert report.read_text() == f"Everything that happened on {report.stem}\n"


def conda(yard: YardUnderTest, folder: Path) -> None:
    assert metrics(yard, "churn-2021")["accuracy"] > 0.5
    assert yard.json("model", "show", "-n", "churn-2021", "-v", "1")["job_name"] == "churn-2021"


def notebook(yard: YardUnderTest, folder: Path) -> None:
    assert metrics(yard, "notebook")["accuracy"] > 0.9
    assert '"image/png"' in next((folder / "fetched").rglob("iris.ipynb")).read_text()


def r_script(yard: YardUnderTest, folder: Path) -> None:
    assert metrics(yard, "r-script")["r_squared"] > 0.5


def checkpoints(yard: YardUnderTest, folder: Path) -> None:
    files = {file.name: file for file in (folder / "fetched").rglob("*.ckpt")}
    assert len(files) == 5 and not files["last.ckpt"].is_symlink()
    (fourth,) = (file for name, file in files.items() if name.startswith("epoch=3-"))
    assert files["last.ckpt"].read_bytes() == fourth.read_bytes()
    assert "going on with epoch 4" in yard.job_log("more-epochs") and "first-epochs" in upstream(yard, "job", "more-epochs")


def sweep(yard: YardUnderTest, folder: Path) -> None:
    best = yard.json("job", "show", "-n", "sweep-autolog")["best"]
    assert best["metric"] > 0.9 and best["params"]["max_depth"] in (2, 4)
    assert best["job_name"] in upstream(yard, "model", "irises")


def table(yard: YardUnderTest, folder: Path) -> None:
    assert metrics(yard, "read-sales") == {"total_DE": 60, "total_FR": 20, "total_PL": 8}
    assert "sales:1" in upstream(yard, "job", "read-sales")


def parallel(yard: YardUnderTest, folder: Path) -> None:
    (scores,) = (file for file in (folder / "fetched").rglob("*") if file.is_file())
    rows = sorted(scores.read_text().splitlines())
    assert len(rows) == 5 and rows[0] == '"letter 1 – März.txt" 6 2 0'


def plain(yard: YardUnderTest, folder: Path) -> None:
    assert yard.json("model", "show", "-n", "plain-mlflow", "-v", "1")["type"] == "mlflow_model"
    assert len(yard.json("run", "list", "-e", "plain-mlflow")) == 3


Check = Callable[[YardUnderTest, Path], None]
LIGHT: dict[str, Check] = {"registered-components": components, "dated-schedule": schedule}
"""Those that need no packages."""
OTHERS: dict[str, Check] = {
    "conda-2021": conda, "notebook": notebook, "r-script": r_script, "checkpoints": checkpoints, "sweep-autolog": sweep,
    "partitioned-table": table, "parallel-scoring": parallel, "plain-mlflow": plain,
}  # fmt: skip


def test_the_gallery_lists_its_projects() -> None:
    listed = re.findall(r"^\| \[(\S+)\]\(\1/README.md\)", (GALLERY / "README.md").read_text(), re.MULTILINE)
    there = {folder.name for folder in GALLERY.iterdir() if folder.is_dir()}
    assert len(listed) == 10 and {*listed} == there == {*LIGHT, *OTHERS}


@pytest.mark.parametrize("project", LIGHT)
def test_a_project_of_the_gallery_runs_as_its_readme_says(project: str, yard: YardUnderTest, tmp_path: Path) -> None:
    run(yard, project, tmp_path / project)
    LIGHT[project](yard, tmp_path / project)


@pytest.mark.torture
@pytest.mark.environment
@pytest.mark.parametrize("project", OTHERS)
def test_a_project_of_the_gallery_runs_with_its_own_packages(project: str, yard: Any, tmp_path: Path) -> None:
    if project in NEEDS and shutil.which(NEEDS[project]) is None:
        pytest.skip(f"{NEEDS[project]} is not here")
    run(yard, project, tmp_path / project)
    OTHERS[project](yard, tmp_path / project)
