"""The router's log: which request was answered what, by which generation of which deployment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.clock import iso

BLOCK = 1 << 18


def answered(
    log: Path, endpoint: str, *, deployment: str | None = None, failed: bool = False, prediction_id: str | None = None, limit: int = 100
) -> list[dict[str, Any]]:
    """The newest first. `endpoint` is workspace/endpoint; `failed`: only statuses of 400 and more."""
    required = [f'"path":"/{endpoint}/'.encode()]
    if deployment is not None:
        required.append(f'"deployment":{json.dumps(deployment)}'.encode())
    if prediction_id is not None:
        required.append(f'"prediction_id":{json.dumps(prediction_id)}'.encode())
    lines: list[dict[str, Any]] = []
    for line in _backwards(log):
        if all(part in line for part in required):
            try:
                document = json.loads(line)
            except ValueError:
                continue  # the machine stopped while it was written
            if not failed or document["status"] >= 400:
                lines.append({**document, "time": iso(document["time"])})
                if len(lines) >= limit:
                    break
    return lines


def _backwards(log: Path) -> Iterator[bytes]:
    """Lines from the last one to the first, of this file and then of the one before it."""
    for path in (log, log.with_name(log.name + ".1")):
        try:
            file = path.open("rb")
        except FileNotFoundError:
            continue
        with file:
            at = file.seek(0, os.SEEK_END)
            rest = b""
            while at:
                size = min(BLOCK, at)
                at = file.seek(at - size)
                first, *lines = (file.read(size) + rest).split(b"\n")
                yield from reversed(lines)
                rest = first
            yield rest
