"""What `begin_*` returns, as azure.core's LROPoller."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..core.errors import Unavailable

T = TypeVar("T")


class Poller(Generic[T]):
    """`result()` waits, `done()` and `status()` look."""

    def __init__(self, look: Callable[[], tuple[str, T]], error: Callable[[T], Exception | None] | None = None) -> None:
        self._look = look
        self._error = error
        self._last: tuple[str, T] | None = None

    def status(self) -> str:
        if self._last is None or self._last[0] == "InProgress":
            self._last = self._look()
        return self._last[0]

    def done(self) -> bool:
        return self.status() != "InProgress"

    def wait(self, timeout: float | None = None, *, seen: Callable[[T], object] | None = None) -> None:
        """`seen` is called with what each look on the way found."""
        began = time.monotonic()
        while not self.done():
            if seen is not None and self._last is not None:
                seen(self._last[1])
            waited = time.monotonic() - began
            if timeout is not None and waited > timeout:
                return
            time.sleep(min(1.0, max(0.05, waited / 10)))  # what is seen late by a tenth of its time is not seen late

    def result(self, timeout: float | None = None, *, seen: Callable[[T], object] | None = None) -> T:
        """The resource when the operation has ended. Raises the operation's own error, or Unavailable after `timeout` seconds."""
        self.wait(timeout, seen=seen)
        if not self.done() or self._last is None:
            raise Unavailable(f"not done after {timeout} s", code="timeout")
        if self._error is not None and (error := self._error(self._last[1])) is not None:
            raise error
        return self._last[1]


def finished(value: T) -> Poller[T]:
    return Poller(lambda: ("Succeeded", value))
