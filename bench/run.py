"""All benchmarks, one after the other; each prints the rows for RESULTS.md."""

import subprocess
import sys
from pathlib import Path

for name in ("tracking.py", "jobs.py", "workflows.py"):
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, Path(__file__).with_name(name)], check=True)
