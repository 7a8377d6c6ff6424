"""The chain of the audit log: what a row's hash says, and what is known of the chain outside the database. Pure."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from ...core.events import Event


@dataclass(frozen=True)
class Keys:
    """The keys that rows are sealed with, by id. They lie outside the database, so that who can write there can make no row."""

    current: str
    by_id: Mapping[str, bytes]

    @classmethod
    def new(cls) -> Keys:
        return cls("", {}).rotated()

    def rotated(self) -> Keys:
        """With a new key for what is sealed from now on."""
        id = secrets.token_hex(4)
        return Keys(id, {**self.by_id, id: secrets.token_bytes(32)})

    def mac(self, data: bytes) -> str:
        """`key id:HMAC-SHA256`, by the current key."""
        return f"{self.current}:{hmac.digest(self.by_id[self.current], data, 'sha256').hex()}"

    def is_mac(self, text: str, data: bytes) -> bool:
        key = self.by_id.get(key_id(text) or "")
        return key is not None and hmac.compare_digest(text.partition(":")[2], hmac.digest(key, data, "sha256").hex())

    def seal(self, previous: str, event: Event) -> str:
        """The hash of a row that follows the one with the hash `previous`."""
        return self.mac(_sealed(previous, event))

    def fits(self, previous: str, event: Event, digest: str) -> bool:
        """Whether a row has its hash, by whichever key it names; rows from before there were keys name none (plain SHA-256)."""
        data = _sealed(previous, event)
        if key_id(digest) is None:
            return hmac.compare_digest(digest, hashlib.sha256(data).hexdigest())
        return self.is_mac(digest, data)


def key_id(digest: str) -> str | None:
    """The key that a hash was made with; None for one without."""
    id, colon, _ = digest.partition(":")
    return id if colon else None


def _sealed(previous: str, event: Event) -> bytes:
    """previous ‖ canonical JSON of the row"""
    return previous.encode() + orjson.dumps(asdict(event), option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True)
class Anchor:
    """That the row `seq` had `hash` at some time: what is in the database must still agree."""

    seq: int
    hash: str
    keyed_from: int
    """The first row that is sealed with a key; none after it may be without."""
    time_ms: int

    def line(self, keys: Keys) -> bytes:
        """As it is written outside the database, with a code that only a holder of the key can make."""
        body = {"seq": self.seq, "hash": self.hash, "keyed_from": self.keyed_from, "time_ms": self.time_ms}
        return orjson.dumps({**body, "mac": keys.mac(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))}) + b"\n"

    @classmethod
    def read(cls, line: bytes, keys: Keys) -> Anchor | None:
        """None for a line that no holder of a key wrote."""
        try:
            document = orjson.loads(line)
            mac = document.pop("mac")
            anchor = cls(**document)
        except (ValueError, TypeError, AttributeError, KeyError):
            return None
        return anchor if keys.is_mac(str(mac), orjson.dumps(document, option=orjson.OPT_SORT_KEYS)) else None


@dataclass
class Ledger:
    """What is known of the chain outside the database."""

    keys: Keys
    head: Anchor | None = None
    """The newest row that was sealed; None before the first."""
    anchors: list[Anchor] = field(default_factory=list)
    forged: int = 0
    """How many lines among them no holder of a key wrote."""

    def known(self) -> dict[int, str]:
        """row → the hash that it had"""
        anchors = [*self.anchors, *([self.head] if self.head is not None else [])]
        return {anchor.seq: anchor.hash for anchor in anchors}

    def keyed_from(self) -> int | None:
        anchors = [*self.anchors, *([self.head] if self.head is not None else [])]
        return min((anchor.keyed_from for anchor in anchors), default=None)


class Verification:
    """The walk over all sealed rows, in their order."""

    def __init__(self, ledger: Ledger) -> None:
        self._keys = ledger.keys
        self._known = ledger.known()
        self._keyed_from = ledger.keyed_from()
        self._previous = ""
        self._last = 0
        self._checked = 0
        self._first_bad: int | None = None
        self._parts: list[dict[str, Any]] = []
        self.problems: list[str] = []
        if ledger.forged:
            self.problems.append(f"{ledger.forged} lines of the anchors were not written by this yard")

    def row(self, event: Event, digest: str) -> bool:
        """Check the next row; False for the first that is wrong, after which nothing more can be told."""
        problem = self._problem(event, digest)
        if problem is not None:
            self._first_bad = event.seq
            self.problems.append(f"row {event.seq} {problem}")
            return False
        key = key_id(digest)
        if not self._parts or self._parts[-1]["key"] != key:
            self._parts.append({"from": event.seq, "to": event.seq, "key": key})
        self._parts[-1]["to"] = event.seq
        self._previous, self._last, self._checked = digest, event.seq, self._checked + 1
        return True

    def _problem(self, event: Event, digest: str) -> str | None:
        passed = [seq for seq in self._known if self._last < seq < event.seq]
        if passed:
            return f"follows on row {min(passed)}, which an anchor knows and which is gone"
        key = key_id(digest)
        if key is None and self._keyed_from is not None and event.seq >= self._keyed_from:
            return "is sealed without a key, after rows that were sealed with one"
        if key is not None and key not in self._keys.by_id:
            return f"is sealed with the key {key}, which is not at hand"
        if not self._keys.fits(self._previous, event, digest):
            return "is not as it was sealed, or a row before it is gone"
        if self._known.get(event.seq, digest) != digest:
            return "is not the one that an anchor knows: it was forged, or the database replaced"
        return None

    def result(self, unsealed_before: int) -> dict[str, Any]:
        """`unsealed_before`: rows without a hash that lie before the newest sealed one."""
        gone = [seq for seq in self._known if seq > self._last]
        if self._first_bad is None and gone:
            self._first_bad = min(gone)
            self.problems.append(f"row {min(gone)}, which an anchor knows, is gone: rows were cut off, or the database replaced")
        if unsealed_before:
            self.problems.append(f"{unsealed_before} rows have lost their seal")
        ok = not self.problems
        return {
            "ok": ok, "checked": self._checked, "parts": self._parts, "anchors": len(self._known),
            **({"head": self._previous} if ok else {"problems": self.problems}),
            **({"first_bad_row": self._first_bad} if self._first_bad is not None else {}),
        }  # fmt: skip
