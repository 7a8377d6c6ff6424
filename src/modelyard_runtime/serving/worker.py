"""The thread that runs a model's code, and the watch over it: calls that wait, batches, streams, and calls that hang.

User code is run by one thread, in the order of arrival, so that the event loop stays free to read requests and to answer probes. The event
loop gives it what to run, and gives it the next when it is done and what arrived meanwhile has been read: calls that the model can take
together are predicted in one call. A model of numbers that has just predicted within a few milliseconds does so on the event loop itself:
the way to the thread and back would take longer than the prediction.

A call that runs too long is answered, and its thread is left to itself: another goes on with the calls behind it.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import enum
import faulthandler
import queue
import threading
import time
import traceback
from typing import Any, Callable, Deque, List, Sequence

from modelyard_runtime.scoring.contract import Answer, Batch, Handler, Part
from modelyard_runtime.serving.http1 import Request, Stream

MOST_BATCHED = 256
"""Requests that are predicted in one call at most."""
QUICK_S, SMALL = 0.005, 64 * 1024
"""Seconds and bytes: while batches are quicker, calls with smaller bodies are predicted on the event loop."""
BATCH_S = 0.005
"""A batch takes no longer than this, or twice as long as one row."""
GUARD_S = 1.0
IN_TURN = 8
"""Calls that the thread is given at once where each is run by itself: it need not wait for the event loop between them."""
MOST_HUNG = 4
"""Threads that hang at the same time; then the process has to be replaced."""


class Mode(enum.Enum):
    """How far a call is, and how it is answered."""

    UNDECODED = "undecoded"
    """It has just arrived."""
    DECODED = "decoded"
    """Its body is rows: predicted by the batch, together with those beside it."""
    ALONE = "alone"
    """Decoded, and the batch that it was in has failed."""
    HANDLED = "handled"
    """By its handler: its body is not rows."""


UNDECODED, DECODED, ALONE, HANDLED = Mode


class PredictsOn(enum.Enum):
    """Where batches are predicted."""

    THREAD = "thread"
    EVENT_LOOP = "event loop"


THREAD, EVENT_LOOP = PredictsOn


class Hung(Exception):
    """The call ran longer than it may. Raised in its thread, too, which ends it if it runs Python code."""


class Call:
    """A request on its way through the model, and in the end its answer, or the exception that the handler raised."""

    __slots__ = ("handler", "request", "future", "mode", "part", "answer", "spent")

    def __init__(self, handler: Handler, request: Request, future: asyncio.Future[Call]) -> None:
        self.handler, self.request, self.future = handler, request, future
        self.mode = UNDECODED
        self.part: Part | None = None
        self.answer: Answer | BaseException | None = None
        self.spent = 0.0


class Pace:
    """How many rows go into one call, so that it takes no longer than twice one row or BATCH_S, whichever is longer."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.limit, self.one = batch, float(min(64, batch.most)), batch.seconds

    def rows(self) -> int:
        return max(1, min(int(self.limit), self.batch.most))

    def took(self, rows: int, seconds: float) -> None:
        if rows == 1:
            self.one += (seconds - self.one) / 8
        most = max(2 * self.one, BATCH_S)
        if seconds > most and rows > 1:
            self.limit = max(1.0, min(self.limit, rows) * max(0.5, most / seconds))
        elif rows >= int(self.limit):
            self.limit = min(float(MOST_BATCHED), self.limit * 1.25 + 1)


Groups = Deque[List["Call"]]
"""Calls in the order in which they are run; those of one group in one call of the model."""


class Lane:
    """A thread that runs user code, and what it runs."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Groups] = queue.SimpleQueue()
        self.groups: Groups = collections.deque()  # what it has been given and not begun; taken from under `lock`
        self.lock = threading.Lock()
        self.busy = False  # it has been given something and has not said yet that it is done
        self.running: Sequence[Call] = ()
        self.since: float | None = None  # when user code was called that has not returned yet
        self.stream: Stream | None = None  # the answer that it is writing
        self.thread: threading.Thread | None = None

    def begin(self, calls: Sequence[Call]) -> float:
        self.running = calls
        self.since = time.monotonic()
        return time.perf_counter()


class Worker:
    """`overrun` is called, on the event loop, when so many calls hang that only a new process is free of them."""

    def __init__(self, batch: Batch | None, timeout: float, overrun: Callable[[], None]) -> None:
        self.batch, self.timeout, self.overrun = batch, timeout, overrun
        self.pace = Pace(batch) if batch is not None else None
        self.loop = asyncio.get_running_loop()
        self.waiting: Deque[Call] = collections.deque()
        self.dispatching = False  # it is to happen in a later turn of the event loop
        self.predicts_on = THREAD
        self.watching = False
        self.hung = 0
        self._new_lane()

    def ask(self, handler: Handler, request: Request) -> asyncio.Future[Call]:
        """The call, once it was answered or, for a stream, has begun. One whose future is cancelled before its turn is not run."""
        call = Call(handler, request, self.loop.create_future())
        self.waiting.append(call)
        self._dispatch_soon()
        if not self.watching:
            self.watching = True
            self.loop.call_later(self.timeout, self._watch)
            self._guard()
        return call.future

    def _new_lane(self) -> None:
        self.lane = lane = Lane()
        lane.thread = threading.Thread(target=self._run, args=(lane,), name="run", daemon=True)
        lane.thread.start()

    # The watch

    def _guard(self) -> None:
        """A call that holds the interpreter's lock stops the watch too; faulthandler needs no lock: it dumps the stack and ends the process."""
        faulthandler.dump_traceback_later(2 * self.timeout + GUARD_S, exit=True)

    def _watch(self) -> None:
        since, now = self.lane.since, time.monotonic()
        if since is not None and now - since >= self.timeout:
            self._abandon(self.lane)
            since = None
        elif since is None and not self.waiting and not self.lane.busy:
            self.watching = False
            faulthandler.cancel_dump_traceback_later()
            return
        self._guard()
        self.loop.call_later(max(0.001, self.timeout - (now - since)) if since is not None else self.timeout, self._watch)

    def _abandon(self, lane: Lane) -> None:
        """Answer what hangs, and go on with the calls behind it in another thread."""
        with lane.lock:
            self._new_lane()
            left = [call for group in lane.groups for call in group]
        self.waiting.extendleft(reversed(left))
        calls = [call for call in lane.running if not call.future.done()]
        for call in calls:
            call.answer, call.spent = Hung(), self.timeout
        if lane.stream is not None:
            lane.stream.broken = True
            lane.stream.close()
        self.hung += 1
        lane.inbox.put(collections.deque())  # should it have come back just now
        assert lane.thread is not None and lane.thread.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(lane.thread.ident), ctypes.py_object(Hung))
        answered(calls)
        self._dispatch_soon()
        if self.hung >= MOST_HUNG:
            self.overrun()

    def _returned(self) -> None:
        self.hung -= 1

    # On the event loop: who is run next

    def _dispatch_soon(self) -> None:
        """In the next turn of the event loop, when what arrives in this one is there."""
        if not self.dispatching and not self.lane.busy:
            self.dispatching = True
            self.loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self.dispatching = False
        lane = self.lane
        group = self._next_group()
        if not group or lane.busy:
            self.waiting.extendleft(reversed(group))
            return
        if self.predicts_on is EVENT_LOOP and group[0].mode in (DECODED, ALONE):
            self.waiting.extendleft(reversed(self._predict(lane, group)))
            answered([call for call in group if call.answer is not None])
            self._dispatch_soon()
            return
        lane.busy = True
        lane.groups = collections.deque([group])
        while len(lane.groups) < IN_TURN and len(group) == 1 and self.waiting and (self.batch is None or self.batch.most == 1):
            group = self._next_group()
            if group:
                lane.groups.append(group)
        lane.inbox.put(lane.groups)

    def _next_group(self) -> list[Call]:
        """The next call, and those behind it that are predicted together with it. Calls that nobody waits for any more are left out."""
        while self.waiting and self.waiting[0].future.done():
            self.waiting.popleft()
        if not self.waiting:
            return []
        first = self.waiting.popleft()
        group = [first]
        self._decode(first)
        if self.pace is None or self.batch is None or self.batch.most == 1 or first.mode is not DECODED or first.part is None:
            return group
        rows, most, left = first.part.count, self.pace.rows(), list[Call]()
        while self.waiting and rows < most and len(group) < MOST_BATCHED:
            call = self.waiting.popleft()
            if call.future.done():
                continue
            self._decode(call)
            if call.mode is DECODED and call.part is not None and call.part.key == first.part.key and rows + call.part.count <= most:
                group.append(call)
                rows += call.part.count
            else:
                left.append(call)
        self.waiting.extendleft(reversed(left))
        return group

    def _decode(self, call: Call, large: bool = False) -> None:
        """`large`: also what takes too long for the event loop."""
        if call.mode is UNDECODED and (large or len(call.request.body) <= SMALL):
            try:
                call.part = self.batch.decode(call.request) if self.batch is not None else None
            except Exception:
                traceback.print_exc()  # none is expected; the handler has the last word
            call.mode = HANDLED if call.part is None else DECODED

    def _done(self, lane: Lane, calls: list[Call], idle: bool) -> None:
        """The thread has answered these calls, and is idle."""
        answered(calls)
        if idle:
            lane.busy = False
            if lane is self.lane and self.waiting:
                self._dispatch_soon()

    # Running

    def _run(self, lane: Lane) -> None:
        """The thread."""
        try:
            while self.lane is lane:
                groups = lane.inbox.get()
                while groups:
                    with lane.lock:
                        if self.lane is not lane:
                            return
                        group = groups.popleft()
                    self._run_group(lane, groups, group)
        except Hung:
            pass
        finally:
            self.loop.call_soon_threadsafe(self._returned)

    def _run_group(self, lane: Lane, groups: Groups, group: list[Call]) -> None:
        left: list[Call] = []
        self._decode(group[0], large=True)
        if group[0].mode is HANDLED:
            self._handle(lane, group[0])
        else:
            left = self._predict(lane, group)
            groups.extendleft([call] for call in reversed(left))
        if self.lane is lane:
            self.loop.call_soon_threadsafe(self._done, lane, [] if left else group, not groups)

    def _predict(self, lane: Lane, group: list[Call]) -> list[Call]:
        """Predict the calls in one call of the model; what is left to be predicted, each alone, when that fails."""
        batch, pace = self.batch, self.pace
        assert batch is not None and pace is not None
        parts = [call.part for call in group if call.part is not None]
        began, cpu = lane.begin(group), time.thread_time()
        answers: Sequence[Answer | BaseException]
        try:
            answers = batch.predict(parts)
        except BaseException as problem:
            answers = () if len(group) > 1 else (batch.failed(parts[0], problem),)
        spent, cpu = time.perf_counter() - began, time.thread_time() - cpu
        lane.since = None
        if self.lane is not lane:
            return []
        if not answers:
            for call in group:
                call.mode = ALONE
            return group
        pace.took(sum(part.count for part in parts), max(cpu, spent / 2))  # other processes may have had the core meanwhile
        self.predicts_on = EVENT_LOOP if batch.quick and spent < QUICK_S else THREAD
        for call, answer in zip(group, answers):
            call.answer, call.spent = answer, spent
        return []

    def _handle(self, lane: Lane, call: Call) -> None:
        """Have a call answered by its handler."""
        began = lane.begin([call])
        answer: Answer | BaseException
        try:
            answer = call.handler(call.request)
        except BaseException as problem:
            answer = problem
        if self.lane is not lane:
            return
        call.answer = answer
        call.spent = time.perf_counter() - began
        if isinstance(answer, Answer) and not isinstance(answer.body, bytes):
            self._stream(lane, call, answer)
        lane.since = None

    def _stream(self, lane: Lane, call: Call, answer: Answer) -> None:
        """Begin the answer, and pass the chunks on that user code yields; each may take as long as a call."""
        chunks: Any = answer.body
        lane.stream = stream = Stream(self.loop)
        answer.body = stream  # type: ignore[assignment]
        self.loop.call_soon_threadsafe(self._done, lane, [call], False)
        try:
            lane.begin([call])
            for chunk in chunks:
                lane.since = None  # the reader takes its time
                if not stream.put(chunk):
                    break
                lane.begin([call])
            stream.end()
        except BaseException:
            traceback.print_exc()
            stream.end(broken=True)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
            lane.stream = None


def answered(calls: list[Call]) -> None:
    """On the event loop: resolve the futures of these calls, so that their waiters resume."""
    for call in calls:
        if not call.future.done():
            call.future.set_result(call)
        elif call.future.cancelled() and isinstance(call.answer, Answer) and isinstance(call.answer.body, Stream):
            call.answer.body.close()  # its reader has gone before it began; the thread that writes it waits for room
