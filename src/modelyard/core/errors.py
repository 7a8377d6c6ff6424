"""Every error a yard raises on purpose.

    YardError
    ├── NotFound          the resource does not exist, or is not visible to the caller
    ├── AlreadyExists     the name is taken
    ├── Invalid           the input cannot be accepted as it stands
    ├── Conflict          the resource's state forbids the operation now
    │   └── Superseded    it changed after it was read; what is written about it now is outdated
    ├── Forbidden         known caller, missing permission
    ├── Unauthenticated   unknown caller
    ├── LimitExceeded     too many, too often
    ├── TooLarge          more bytes than are taken
    └── Unavailable       the yard cannot do it at present; try again

An error carries a *kind*, never a status: each dialect (native REST, MLflow, the command line) has one table from
kind to its own codes.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from .terminal import harmless


class Kind(StrEnum):
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    INVALID = "invalid"
    CONFLICT = "conflict"
    FORBIDDEN = "forbidden"
    UNAUTHENTICATED = "unauthenticated"
    LIMIT = "limit"
    TOO_LARGE = "too_large"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Problem:
    """One error in an input, and its position: `file:line:column: field: message`."""

    message: str
    field: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        position = self.file
        if self.line:
            position += f":{self.line}:{self.column}" if position else f"line {self.line}, column {self.column}"
        return ": ".join(part for part in (position, self.field, self.message) if part)


class YardError(Exception):
    """What happened, to which resource; `hint` says what to do next. `code` is stable and documented.

    A `transient` error passes by itself and says nothing about the resource at hand: a loop tries again. `retry_s` is how long a caller
    waits before it asks again, where that can help.
    """

    kind: ClassVar[Kind]

    def __init__(
        self, message: str, *, code: str = "", hint: str = "", problems: tuple[Problem, ...] = (), transient: bool = False,
        retry_s: int = 1,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message = message
        self.code = code or self.kind.value
        self.hint = hint
        self.problems = problems
        self.transient = transient
        self.retry_s = retry_s

    def __str__(self) -> str:
        """For people, who read it on a terminal: what it quotes may be anybody's text."""
        lines = [self.message, *(f"  {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(self.hint)
        return harmless("\n".join(lines))


class NotFound(YardError):
    kind = Kind.NOT_FOUND


class AlreadyExists(YardError):
    kind = Kind.ALREADY_EXISTS


class Invalid(YardError):
    kind = Kind.INVALID


class Conflict(YardError):
    kind = Kind.CONFLICT


class Superseded(Conflict):
    """A later attempt, generation or request took over; the caller has nothing left to do."""


class Forbidden(YardError):
    kind = Kind.FORBIDDEN


class Unauthenticated(YardError):
    kind = Kind.UNAUTHENTICATED


class LimitExceeded(YardError):
    kind = Kind.LIMIT


class TooLarge(YardError):
    kind = Kind.TOO_LARGE


class Unavailable(YardError):
    kind = Kind.UNAVAILABLE


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def disk_full(what_is_so: str = "nothing was changed") -> Unavailable:
    return Unavailable(
        f"the yard's disk is full; {what_is_so}", code="insufficient_storage", hint="Free some space, then try again.", transient=True
    )


BY_KIND: dict[Kind, type[YardError]] = {
    cls.kind: cls for cls in (NotFound, AlreadyExists, Invalid, Conflict, Forbidden, Unauthenticated, LimitExceeded, TooLarge, Unavailable)
}

EXIT_CODES: dict[Kind, int] = {
    Kind.NOT_FOUND: 3, Kind.ALREADY_EXISTS: 5, Kind.INVALID: 2, Kind.CONFLICT: 5, Kind.FORBIDDEN: 4, Kind.UNAUTHENTICATED: 4,
    Kind.LIMIT: 1, Kind.TOO_LARGE: 1, Kind.UNAVAILABLE: 1,
}  # fmt: skip
"""What a command ends with; besides, 0 ok, 1 the operation failed, 2 usage, 6 unreachable, 130 interrupted."""


def exit_code(error: YardError) -> int:
    return {"unreachable": 6, "job_failed": 1}.get(error.code, EXIT_CODES[error.kind])
