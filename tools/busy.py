"""Runs a command several times on a machine that is kept busy: a loop on every core, as in a CI that shares its machines.

python tools/busy.py TIMES COMMAND …
"""

from __future__ import annotations

import os
import subprocess
import sys

LOOP = "while True: pass"


def main(times: int, command: list[str]) -> int:
    """The exit code of the first run that fails, else 0."""
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(os.cpu_count() or 1)]
    try:
        for _ in range(times):
            code = subprocess.run(command).returncode
            if code != 0:
                return code
        return 0
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
