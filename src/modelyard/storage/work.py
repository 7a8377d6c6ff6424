"""The queue between callers and the database's threads: units of work are taken one by one or in groups, and answered together."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ..core.actor import Actor
from ..core.errors import Unavailable
from .unit import Unit


@dataclass(slots=True)
class Work:
    """`loop` is the event loop that waits for `future`; None when a thread does."""

    fn: Callable[[Unit], Any]
    actor: Actor
    workspace: str
    future: asyncio.Future[Any] | Future[Any]
    loop: asyncio.AbstractEventLoop | None
    result: Any = None
    error: BaseException | None = None


def answer(ended: Iterable[Work]) -> None:
    """Answer each caller; an event loop is woken once for all of its callers."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Work]] = {}
    for work in ended:
        if work.loop is None:
            _settle(work)
        else:
            by_loop.setdefault(work.loop, []).append(work)
    for loop, ended_here in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_all, ended_here)
        except RuntimeError:
            pass  # the loop is closed: its callers are gone


def _settle_all(ended: list[Work]) -> None:
    for work in ended:
        _settle(work)


def _settle(work: Work) -> None:
    if work.future.done():
        return
    if work.error is None:
        work.future.set_result(work.result)
    else:
        work.future.set_exception(work.error)


class Workers:
    """Threads that take from one queue up to `group` pieces of work at a time, pass them to `handle`, then answer.

    `handle` sets `result` or `error` of each piece; what it raises becomes the error of those that have neither.
    """

    def __init__(self, name: str, threads: int, group: int, handle: Callable[[list[Work]], None]) -> None:
        self._handle = handle
        self._group = group
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{index}", daemon=True) for index in range(threads)]
        for thread in self._threads:
            thread.start()

    def put(self, work: Work) -> None:
        if self._closed:
            work.error = Unavailable("the yard is shutting down", code="shutting_down", transient=True)
            answer([work])
        else:
            self._queue.put(work)

    def close(self) -> None:
        """Finish what is queued, then end the threads."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            group, last = self._take()
            if not group:
                continue
            try:
                self._handle(group)
            except BaseException as error:
                for work in group:
                    work.error = work.error or error
            answer(group)

    def _take(self) -> tuple[list[Work], bool]:
        """Wait for one piece of work, then take what else is queued; True when the queue was closed."""
        group: list[Work] = []
        item = self._queue.get()
        while True:
            if item is None:
                return group, True
            if not item.future.cancelled():
                group.append(item)
            if len(group) >= self._group:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
