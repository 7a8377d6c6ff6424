"""Jobs that are not Python: the recipes of the guide, where their languages are installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from checked_yard import YardUnderTest

EXAMPLES = Path(__file__).parents[2] / "examples" / "other-languages"


def tracked(yard: YardUnderTest, language: str, program: str) -> str:
    """The run of the recipe's job, which has logged its losses and said so."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    done = yard.run("job", "create", "-f", str(EXAMPLES / f"{language}.yml"), "--stream")
    run = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("tracked run"))
    found = yard.json("run", "show", "-n", run)
    assert found["status"] == "FINISHED" and found["metrics"]["loss"] < 0.6 and found["params"]["language"].lower() == language
    return run


def test_a_shell_script_tracks_itself(yard: YardUnderTest) -> None:
    run = tracked(yard, "shell", "curl")
    assert yard.call("GET", "/get-artifact", params={"run_id": run, "path": "notes.txt"}).text == "hello from the shell\n"


def test_a_java_program_tracks_itself(yard: YardUnderTest) -> None:
    tracked(yard, "java", "java")


def test_an_r_script_trains_a_model_and_tracks_itself(yard: YardUnderTest) -> None:
    run = tracked(yard, "r", "Rscript")
    assert round(yard.json("run", "show", "-n", run)["metrics"]["r_squared"], 3) == 0.827
    assert yard.call("GET", "/get-artifact", params={"run_id": run, "path": "outputs/model.rds"}).status_code == 200


def test_a_failed_call_fails_an_r_script_with_the_yards_words(yard: YardUnderTest, tmp_path: Path) -> None:
    if shutil.which("Rscript") is None:
        pytest.skip("Rscript is not installed")
    shutil.copytree(EXAMPLES, tmp_path / "languages")
    with (tmp_path / "languages/src/track.R").open("a") as script:
        script.write('log_param("language", "S")\n')
    done = yard.run("job", "create", "-f", str(tmp_path / "languages/r.yml"), "--stream", ok=False)
    assert done.returncode == 1 and "Changing param values is not allowed" in done.stdout
