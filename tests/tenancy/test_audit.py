"""The audit log: what was altered, forged, cut off or replaced is found, with the keys outside the database."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from modelyard.core.errors import Invalid
from modelyard.core.events import Event
from modelyard.settings import Settings
from modelyard.tenancy.audit.anchoring import read_setting
from modelyard.tenancy.audit.files import LedgerFiles
from modelyard.tenancy.audit.loop import Sealer
from modelyard.testing.yard import InProcessYard


def record(yard: InProcessYard, count: int = 3) -> None:
    for number in range(count):
        yard.write(lambda unit, number=number: unit.record("test.made", f"thing{number}", value=number))  # type: ignore[misc]


def sealed(yard: InProcessYard, count: int = 3) -> None:
    record(yard, count)
    yard.run(Sealer(yard.yard).turn())


def verify(yard: InProcessYard) -> dict[str, Any]:
    return dict(yard.call("GET", "/api/v1/audit/verify", expect=200).json())


def tamper(yard: InProcessYard, *statements: str) -> None:
    """As somebody with the database file would."""
    with sqlite3.connect(yard.home.database) as connection:
        connection.executescript("DROP TRIGGER IF EXISTS events_fixed; DROP TRIGGER IF EXISTS events_kept;" + ";".join(statements))
    connection.close()


def rows(yard: InProcessYard) -> list[tuple[Event, str | None]]:
    with sqlite3.connect(yard.home.database) as connection:
        found = connection.execute(
            "SELECT seq, time_ms, workspace, actor, topic, subject, detail, hash FROM events ORDER BY seq"
        ).fetchall()
    connection.close()
    return [(Event(*row[:6], orjson.loads(row[6])), row[7]) for row in found]


def unkeyed(previous: str, event: Event) -> str:
    """The hash that rows had before there were keys: anybody can make it."""
    return hashlib.sha256(previous.encode() + orjson.dumps(asdict(event), option=orjson.OPT_SORT_KEYS)).hexdigest()


def rechain(yard: InProcessYard) -> None:
    """Forge the whole chain anew, as somebody without the key can."""
    previous = ""
    for event, _ in rows(yard):
        previous = unkeyed(previous, event)
        tamper(yard, f"UPDATE events SET hash = '{previous}' WHERE seq = {event.seq}")


def last(yard: InProcessYard) -> int:
    return rows(yard)[-1][0].seq


ATTACKS: dict[str, Callable[[InProcessYard], object]] = {
    "a row is altered": lambda yard: tamper(yard, f"UPDATE events SET actor = 'nobody' WHERE seq = {last(yard) - 1}"),
    "a row is deleted": lambda yard: tamper(yard, f"DELETE FROM events WHERE seq = {last(yard) - 1}"),
    "the newest rows are cut off": lambda yard: tamper(yard, f"DELETE FROM events WHERE seq > {last(yard) - 2}"),
    "all rows are gone": lambda yard: tamper(yard, "DELETE FROM events"),
    "a row is altered and all are chained anew": lambda yard: (tamper(yard, "UPDATE events SET actor = 'x' WHERE seq = 1"), rechain(yard)),
    "the newest row is altered and its seal taken": lambda yard: tamper(yard, f"UPDATE events SET actor = 'x', hash = NULL WHERE seq = {last(yard)}"),
    "a row in the middle loses its seal": lambda yard: tamper(yard, f"UPDATE events SET hash = NULL WHERE seq = {last(yard) - 1}"),
    "a row is put in": lambda yard: tamper(
        yard, "INSERT INTO events (time_ms, workspace, actor, topic, subject, detail, hash) VALUES (1, 'default', 'eve', 'x', 'y', '{}', 'abcd:00')"
    ),
    "rows change places": lambda yard: tamper(
        yard, f"UPDATE events SET seq = 10000 WHERE seq = {last(yard)}", f"UPDATE events SET seq = seq + 1 WHERE seq = {last(yard) - 1}"
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("goes_on", [False, True])
def test_who_has_the_database_changes_nothing_unnoticed(turned: InProcessYard, attack: str, goes_on: bool) -> None:
    sealed(turned)
    assert verify(turned)["ok"]
    ATTACKS[attack](turned)
    if goes_on:
        sealed(turned)
        # The sealer looks at the end of the chain; what is changed before it is found by who verifies.
        assert turned.yard.alarms.counts() == ({} if attack in ("a row is altered", "a row is deleted") else {"audit_altered": 1})
    result = verify(turned)
    assert result["ok"] is False and result["problems"], result
    assert "head" not in result


def test_a_database_that_is_replaced_by_an_older_one_is_found(turned: InProcessYard, tmp_path: Path) -> None:
    sealed(turned)
    with sqlite3.connect(turned.home.database) as live, sqlite3.connect(tmp_path / "older.db") as copy:
        live.backup(copy)
    live.close()
    copy.close()
    sealed(turned)
    with sqlite3.connect(tmp_path / "older.db") as older:
        kept = older.execute("SELECT max(seq) FROM events").fetchone()[0]
    older.close()
    tamper(turned, f"DELETE FROM events WHERE seq > {kept}")
    assert "gone" in verify(turned)["problems"][0]


def test_the_chain_of_before_goes_on_with_a_key_and_verify_says_which_part_is_which(turned: InProcessYard) -> None:
    record(turned)
    rechain(turned)
    before = last(turned)
    sealed(turned)
    result = verify(turned)
    assert result["ok"] and [(part["from"], part["to"]) for part in result["parts"]] == [(1, before), (before + 1, last(turned))]
    assert result["parts"][0]["key"] is None and result["parts"][1]["key"] is not None
    tamper(turned, f"UPDATE events SET actor = 'x' WHERE seq = {before}")
    rechain(turned)
    assert verify(turned)["ok"] is False


def test_a_key_that_is_rotated_seals_what_comes_and_the_rows_before_are_verified(turned: InProcessYard) -> None:
    files = LedgerFiles(turned.home.audit)
    sealed(turned)
    before = last(turned)
    files.write_keys(files.keys().rotated())
    sealed(turned)
    result = verify(turned)
    assert result["ok"] and [(part["from"], part["to"]) for part in result["parts"]] == [(1, before), (before + 1, last(turned))]
    assert len({part["key"] for part in result["parts"]}) == 2
    ledger = files.read()
    assert ledger.anchors[-1].seq == last(turned) and files.last_anchor_key() == ledger.keys.current
    (forged := {**json.loads((turned.home.audit / "head.json").read_bytes()), "seq": 1}).pop("mac")
    (turned.home.audit / "head.json").write_bytes(orjson.dumps({**forged, "mac": "00:00"}))
    assert "not written by this yard" in verify(turned)["problems"][0]


def test_a_kill_between_sealing_and_its_note_costs_nothing(turned: InProcessYard) -> None:
    sealed(turned)
    head = (turned.home.audit / "head.json").read_bytes()
    sealed(turned)
    (turned.home.audit / "head.json").write_bytes(head)
    assert verify(turned)["ok"]
    sealed(turned)
    assert verify(turned)["ok"] and not turned.yard.alarms.counts()
    with (turned.home.audit / "anchors.jsonl").open("ab") as file:
        file.write(b'{"seq": 1, "ha')  # a line that a power cut tore
    turned.clock.turn(hours=2)
    sealed(turned)
    ledger = LedgerFiles(turned.home.audit).read()
    assert ledger.forged == 1 and ledger.anchors[-1].seq == last(turned), "the torn line is shown, and harms no other"


def test_an_anchor_is_made_at_intervals_and_handed_to_the_operators_command(turned: InProcessYard, tmp_path: Path) -> None:
    from dataclasses import replace

    kept = tmp_path / "kept"
    script = f"import sys; open({str(kept)!r}, 'a').write(sys.stdin.read())"
    turned.yard.settings = replace(turned.yard.settings, audit_anchor=json.dumps([sys.executable, "-c", script]), audit_anchor_s=60)
    sealer = Sealer(turned.yard)
    for minutes in (0, 0.5, 0.4, 0.2):
        turned.clock.turn(minutes=minutes)
        record(turned)
        turned.run(sealer.turn())
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(lines) == 2 == len(LedgerFiles(turned.home.audit).read().anchors) and lines[1]["seq"] == last(turned)
    turned.yard.settings = replace(turned.yard.settings, audit_anchor=json.dumps([sys.executable, "-c", "import sys; sys.exit('full')"]))
    failing = Sealer(turned.yard)
    turned.clock.turn(minutes=2)
    record(turned)
    turned.run(failing.turn())
    assert turned.yard.alarms.counts() == {"audit_not_anchored": 1}
    failing._target = read_setting(json.dumps([sys.executable, "-c", script]))
    turned.run(failing.turn())
    assert turned.yard.alarms.counts() == {} and len(kept.read_text().splitlines()) == 3


def test_an_anchor_goes_to_a_command_as_words_and_nothing_else() -> None:
    assert Settings().audit_anchor == "" and read_setting("") is None and read_setting("syslog") == ["syslog"]
    assert read_setting('["/bin/keep", "--to x; y"]') == ["/bin/keep", "--to x; y"]
    for wrong in ("/bin/keep --append", "[]", '{"a": 1}', '["a", 1]', '[""]'):
        with pytest.raises(Invalid):
            read_setting(wrong)


def test_keys_are_for_their_owner_alone(turned: InProcessYard) -> None:
    sealed(turned)
    assert {path.name: path.stat().st_mode & 0o777 for path in turned.home.audit.iterdir()} == {
        "keys.json": 0o600, "head.json": 0o600, "anchors.jsonl": 0o600,
    }  # fmt: skip
    assert turned.home.audit.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(turned.home.audit)
