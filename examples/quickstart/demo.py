"""The five-minute tour as a program: each step is a `yard` command that you can type yourself.

make demo            # or: python examples/quickstart/demo.py
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
YARD = str(Path(sys.executable).parent / "yard")
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "", "")


def step(text: str) -> None:
    print(f"\n{BOLD}== {text}{PLAIN}", flush=True)


def yard(*arguments: str, quiet: bool = False) -> None:
    """Run a command as a person would, its output shown; stop the tour when it fails."""
    print(f"{DIM}$ yard {' '.join(arguments)}{PLAIN}", flush=True)
    done = subprocess.run([YARD, *arguments], cwd=HERE, stdout=subprocess.DEVNULL if quiet else None)
    if done.returncode != 0:
        sys.exit(done.returncode)


def ask(*arguments: str) -> str | None:
    """The output of a command, None when it fails."""
    done = subprocess.run([YARD, *arguments], cwd=HERE, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def main() -> None:
    began = time.monotonic()
    step("Start a yard: one process, SQLite and files")
    yard("up", "--port", "0", "-o", "yaml")

    step("Data: a versioned asset, written by a first job")
    if ask("data", "show", "-n", "breast-cancer") is None:
        print("The first job also builds its environment, once; this takes a minute on a new machine.")
        yard("job", "create", "-f", "prepare.yml", "--stream")
    yard("data", "list", "-o", "table")

    step("Train: a job written as Azure ML v2 YAML, tracked by MLflow")
    job = f"train-{time.strftime('%Y%m%d-%H%M%S')}"
    yard("job", "create", "-f", "job.yml", "--name", job, "--stream")
    yard("job", "metrics", "-n", job, "-o", "table")

    step("Register the model that the job logged")
    yard(
        "model",
        "create",
        "-n",
        "breast-cancer",
        "--type",
        "mlflow_model",
        "--path",
        f"azureml://jobs/{job}/outputs/artifacts/paths/model",
        quiet=True,
    )
    yard("model", "list", "-o", "table")

    step("Deploy it behind an endpoint with keys")
    yard("online-endpoint", "create", "-f", "endpoint.yml", quiet=True)
    yard("online-deployment", "create", "-f", "deployment.yml", "--all-traffic", quiet=True)
    uri = ask("online-endpoint", "show", "-n", "breast-cancer", "--query", "scoring_uri", "-o", "tsv")
    print(f"It answers at {uri}")

    step("Call it with three patients")
    with tempfile.TemporaryDirectory() as folder:
        source = ask("data", "show", "-n", "breast-cancer-request", "--query", "properties.job_name", "-o", "tsv")
        subprocess.run([YARD, "job", "download", "-n", str(source), "--output-name", "request", "-p", folder], check=True)
        request = next(Path(folder).rglob("request.json"))
        print(f"{DIM}$ yard online-endpoint invoke -n breast-cancer -r request.json{PLAIN}")
        answer = json.loads(ask("online-endpoint", "invoke", "-n", "breast-cancer", "-r", str(request)) or "null")
    if not isinstance(answer, list):
        sys.exit("the endpoint gave no answer")
    for number, value in enumerate(answer, 1):
        print(f"patient {number}: {'malignant' if value else 'benign'}")

    step(f"Done in {time.monotonic() - began:.0f} s. Where to look next")
    on_path = shutil.which("yard") is not None
    prefix = "" if on_path else f"{YARD.removesuffix('yard')}"
    for text, what in (
        (f"{prefix}yard job show -n {job}", "the job, with everything that went into it"),
        (f"{prefix}yard audit list", "what happened, and who did it"),
        (f'eval "$({prefix}yard env)"', "then any MLflow client works: mlflow.search_runs(…)"),
        (f"{prefix}yard down --all", "stop everything (plain `down` leaves the endpoint answering)"),
    ):
        print(f"  {text:<48} {what}")
    if not on_path:
        print("\nTo have `yard` on your PATH: `uv tool install .` or `pipx install .`, in this folder.")
        print(f"For this shell alone: export PATH={Path(YARD).parent}:$PATH")


if __name__ == "__main__":
    main()
