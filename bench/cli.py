"""CPU of commands and of importing the client, beside that of the libraries that they cannot do without.

    python bench/cli.py [--rounds 15]

Each row is the median CPU time (user and system, of the process and its children) of that many runs against a running yard, standard output
being no terminal. Bytecode is compiled before, as an installation compiles it.
"""

from __future__ import annotations

import compileall
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from measure import Table, circumstances, cpu_seconds_of_own_children, options
from yards import PROGRAM, Yard

import modelyard

COMMANDS = (
    "--help", "job --help", "job list", "job list -o table", "job show -n train", "job create -f job.yml", "data list", "model show -n m",
    "data create -n d --path job.yml", "online-endpoint list", "run list", "status",
)  # fmt: skip
IMPORT = "from modelyard import MLClient, command, Input, Output, load_job"
LIBRARIES = {
    "Python alone": "pass",
    "click": "import click",
    "click, http.client": "import click, http.client",
    "click, http.client, yaml, pydantic": "import click, http.client, yaml\nfrom pydantic import BaseModel, Field, TypeAdapter",
}
JOB = "command: echo hello\nenvironment: {pip: []}\n"


def main() -> None:
    arguments = options(__doc__, rounds=15).parse_args()
    folder: Path = arguments.work / "cli"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.yml").write_text(JOB)
    compileall.compile_dir(Path(modelyard.__file__).parent, quiet=2)
    with Yard(arguments.work / "cli-yard") as yard:
        yard.run("job", "create", "-f", folder / "job.yml", "--name", "train", "--stream")
        yard.run("model", "create", "-n", "m", "--path", folder / "job.yml")
        environment = {name: value for name, value in yard.environment.items() if name != "PYTHONDONTWRITEBYTECODE"}
        rows = {f"`yard {command}`": [PROGRAM, *command.split()] for command in COMMANDS}
        rows |= {f"`{IMPORT}`": [sys.executable, "-c", IMPORT]}
        rows |= {name: [sys.executable, "-c", code] for name, code in LIBRARIES.items()}
        used: dict[str, list[float]] = {name: [] for name in rows}
        for number in range(arguments.rounds + 1):
            for name, command_line in rows.items():  # one of each, so that a busy moment of the machine falls on all
                seconds = cpu_seconds(command_line, folder, environment)
                if number:  # the first fills caches
                    used[name].append(seconds * 1000)
    table = Table("what", "CPU ms", "fastest")
    for name, times in used.items():
        table.add(name, f"{statistics.median(times):.0f}", f"{min(times):.0f}")
    print(circumstances(*(f"{name} {metadata.version(name)}" for name in ("click", "pydantic"))), table, sep="\n\n")


def cpu_seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """User and system time of one run. Raises CalledProcessError."""
    before = cpu_seconds_of_own_children()
    subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
    )
    return cpu_seconds_of_own_children() - before


if __name__ == "__main__":
    main()
