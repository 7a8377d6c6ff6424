"""Schema versions, forward only. `HEAD` is the newest revision."""

from pathlib import Path

HEAD = max(path.name[:4] for path in (Path(__file__).parent / "versions").glob("[0-9]*.py"))
