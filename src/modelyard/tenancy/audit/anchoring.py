"""Anchors outside the machine: each is handed to a command of the operator's, or to syslog, where whoever holds the home cannot take it back."""

from __future__ import annotations

import asyncio
import json
import syslog

from ...core.errors import Invalid, Unavailable

SYSLOG = "syslog"
COMMAND_S = 60.0


def read_setting(text: str) -> list[str] | None:
    """The argument vector of the setting `audit_anchor`; `["syslog"]` for syslog, None for none. Raises Invalid."""
    if not text:
        return None
    if text == SYSLOG:
        return [SYSLOG]
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word and "\0" not in word for word in words):
        raise Invalid(
            f"setting audit_anchor: {text!r} is neither syslog nor a command",
            hint='A command is a JSON list of its words, such as \'["/usr/local/bin/keep-anchor", "--append"]\'.',
        )
    return words


async def hand_over(target: list[str], line: bytes) -> None:
    """The command gets the line on its standard input; it has a minute. Raises Unavailable when it fails."""
    if target == [SYSLOG]:
        await asyncio.to_thread(syslog.syslog, syslog.LOG_NOTICE | syslog.LOG_AUTH, f"modelyard audit {line.decode().strip()}")
        return
    try:
        process = await asyncio.create_subprocess_exec(
            *target,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise _failed(target, error.strerror or str(error)) from None
    try:
        _, said = await asyncio.wait_for(process.communicate(line), COMMAND_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise _failed(target, f"it was not done after {COMMAND_S:.0f} s") from None
    if process.returncode:
        raise _failed(target, said.decode(errors="replace").strip()[-300:] or f"exit code {process.returncode}")


def _failed(target: list[str], reason: str) -> Unavailable:
    return Unavailable(f"the audit anchor was not taken by {target[0]}: {reason}", code="audit_anchor_failed", transient=True)
