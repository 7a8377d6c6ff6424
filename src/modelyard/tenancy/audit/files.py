"""What is kept of the audit log outside the database, in `control/audit`: the keys, the head of the chain, and an anchor each hour.

The head is replaced whenever rows were sealed, after they are durable; after a kill it is older than the chain, never newer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from modelyard_runtime.files import sync_folder, write_whole

from ...core.errors import Unavailable
from .model import Anchor, Keys, Ledger

KEYS, HEAD, ANCHORS = "keys.json", "head.json", "anchors.jsonl"


class LedgerFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Ledger:
        """Everything, with a first key where there is none. Raises Unavailable for keys that cannot be read."""
        ledger = Ledger(self.keys())
        head = self._bytes(HEAD)
        if head is not None:
            ledger.head = Anchor.read(head, ledger.keys)
            ledger.forged += ledger.head is None
        for line in (self._bytes(ANCHORS) or b"").splitlines():
            anchor = Anchor.read(line, ledger.keys)
            if anchor is None:
                ledger.forged += 1
            else:
                ledger.anchors.append(anchor)
        if ledger.head is None and ledger.anchors:
            ledger.head = ledger.anchors[-1]
        return ledger

    def keys(self) -> Keys:
        data = self._bytes(KEYS)
        if data is None:
            keys = Keys.new()
            self.write_keys(keys)
            return keys
        try:
            document = json.loads(data)
            return Keys(document["current"], {id: bytes.fromhex(key) for id, key in document["keys"].items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise Unavailable(
                f"{self._folder / KEYS} does not hold the keys of the audit log",
                code="audit_keys_damaged",
                hint="Restore it from a backup.",
            ) from None

    def write_keys(self, keys: Keys) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        document = {"current": keys.current, "keys": {id: key.hex() for id, key in keys.by_id.items()}}
        write_whole(self._folder / KEYS, json.dumps(document), 0o600, durable=True)

    def write_head(self, head: Anchor, keys: Keys) -> None:
        write_whole(self._folder / HEAD, head.line(keys), 0o600, durable=True)

    def add_anchor(self, anchor: Anchor, keys: Keys) -> None:
        path = self._folder / ANCHORS
        new = not path.exists()
        with path.open("ab") as file:
            # A line that a kill or a full disk cut short is ended, so that this one is whole.
            file.write((b"" if new or path.read_bytes().endswith(b"\n") or not path.stat().st_size else b"\n") + anchor.line(keys))
            file.flush()
            os.fsync(file.fileno())
        if new:
            path.chmod(0o600)
            sync_folder(self._folder)

    def last_anchor_key(self) -> str | None:
        """The id of the key that the last anchor was written with."""
        lines = (self._bytes(ANCHORS) or b"").splitlines()
        try:
            return str(json.loads(lines[-1])["mac"]).partition(":")[0] if lines else None
        except (ValueError, TypeError, KeyError):
            return None

    def _bytes(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
