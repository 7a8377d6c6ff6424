"""The thread that runs a model's code, and the watch over it: calls that wait, batches, streams, and calls that hang.

User code is run by one thread, in the order of arrival, so that the event loop stays free to read requests and to answer probes. Calls
that waited while it ran, and that the model can take together, are predicted in one call. A model that has just predicted within a few
milliseconds does so on the event loop itself, whose next turn collects what arrived meanwhile: the way to the thread and back would take
longer than the prediction. Whoever holds `turn` runs user code, so the two never do so at the same time.
"""

from __future__ import annotations

import asyncio
import enum
import faulthandler
import queue
import threading
import time
import traceback
from typing import Any, Callable, Sequence

from modelyard_runtime.scoring.contract import Answer, Batch, Handler
from modelyard_runtime.serving.http1 import Request, Stream

MOST_BATCHED = 256
"""Requests that are predicted in one call at most."""
QUICK_S, SMALL = 0.005, 64 * 1024
"""Seconds and bytes: while batches are quicker, calls with smaller bodies are predicted on the event loop."""
GUARD_S = 1.0


class Mode(enum.Enum):
    """How far a call is, and how it is answered."""

    UNDECODED = "undecoded"
    """It has just arrived."""
    BATCHED = "batched"
    """Its body is rows: predicted in one call of the model with those of the calls beside it."""
    SINGLE = "single"
    """By its handler alone: its body is not rows, or the batch that it was in has failed."""
    ANSWERED = "answered"


UNDECODED, BATCHED, SINGLE, ANSWERED = Mode


class PredictsOn(enum.Enum):
    """Where batches are predicted."""

    THREAD = "thread"
    EVENT_LOOP = "event loop"


THREAD, EVENT_LOOP = PredictsOn


class Hung(Exception):
    """The call ran longer than it may."""


class Call:
    """A request on its way through the model, and in the end its answer, or the exception that the handler raised."""

    __slots__ = ("handler", "request", "future", "mode", "rows", "form", "answer", "spent")

    def __init__(self, handler: Handler, request: Request, future: asyncio.Future[Call]) -> None:
        self.handler, self.request, self.future = handler, request, future
        self.mode = UNDECODED
        self.rows: list[Any] = []
        self.form = False
        self.answer: Answer | BaseException | None = None
        self.spent = 0.0


class Worker:
    """`hung` is called, on the event loop, with the calls that ran longer than `timeout` seconds: only a new process is free of them."""

    def __init__(self, batch: Batch | None, timeout: float, hung: Callable[[list[Call]], None]) -> None:
        self.batch, self.timeout, self.hung = batch, timeout, hung
        self.loop = asyncio.get_running_loop()
        self.queue: queue.SimpleQueue[Call] = queue.SimpleQueue()  # for the thread
        self.turn = threading.Lock()
        self.predicts_on = THREAD
        self.arrived: list[Call] = []  # for the event loop, in this turn of it
        self.running: Sequence[Call] = ()
        self.since: float | None = None  # when user code was called that has not returned yet
        self.watching = False
        threading.Thread(target=self._run, name="run", daemon=True).start()

    def ask(self, handler: Handler, request: Request) -> asyncio.Future[Call]:
        """The call, once it was answered or, for a stream, has begun."""
        call = Call(handler, request, self.loop.create_future())
        if self.predicts_on is THREAD or len(request.body) > SMALL:
            self.queue.put(call)
        else:
            if not self.arrived:
                self.loop.call_soon(self._run_here)
            self.arrived.append(call)
        if not self.watching:
            self.watching = True
            self.loop.call_later(self.timeout, self._watch)
            self._guard()
        return call.future

    # The watch

    def _guard(self) -> None:
        """A call that holds the interpreter's lock stops the watch too; faulthandler needs no lock: it dumps the stack and ends the process."""
        faulthandler.dump_traceback_later(2 * self.timeout + GUARD_S, exit=True)

    def _watch(self) -> None:
        since = self.since
        now = time.monotonic()
        if since is not None and now - since >= self.timeout:
            self.hung([call for call in self.running if not call.future.done()])
            return
        if since is None and self.queue.empty() and not self.arrived:
            self.watching = False
            faulthandler.cancel_dump_traceback_later()
            return
        self._guard()
        self.loop.call_later(max(0.001, self.timeout - (now - since)) if since is not None else self.timeout, self._watch)

    def _begin(self, calls: Sequence[Call]) -> None:
        self.running = calls
        self.since = time.monotonic()

    # Running

    def _run_here(self) -> None:
        """On the event loop: answer the calls that arrived in its last turn, unless the thread is predicting; the thread answers the remaining."""
        calls, self.arrived = self.arrived, []
        if self.turn.acquire(blocking=False):
            try:
                calls = self._predict(calls, answered)
            finally:
                self.turn.release()
        for call in calls:
            self.queue.put(call)

    def _run(self) -> None:
        """The thread: answer the queued calls, as many as possible in one call of the model."""
        while True:
            calls = [self.queue.get()]
            while len(calls) < MOST_BATCHED:
                try:
                    calls.append(self.queue.get_nowait())
                except queue.Empty:
                    break
            with self.turn:
                for call in self._predict(calls, self._answered_from_thread):
                    self._handle(call)

    def _predict(self, calls: list[Call], tell: Callable[[list[Call]], None]) -> list[Call]:
        """Answer the calls that can be predicted in one call of the model; the others, which their handlers have to answer."""
        batch = self.batch
        if batch is None:
            return calls
        together = [call for call in calls if self._is_rows(batch, call)]
        if not together:
            return calls
        self._begin(together)
        began = time.perf_counter()
        try:
            rows = together[0].rows if len(together) == 1 else [row for call in together for row in call.rows]
            predictions = batch.predict(rows)
            if len(predictions) != len(rows):
                raise ValueError("%d predictions of %d rows" % (len(predictions), len(rows)))
            start = 0
            for call in together:
                end = start + len(call.rows)
                call.answer = batch.encode(predictions[start:end], call.form)
                if call.answer is not None:
                    call.mode = ANSWERED
                start = end
        except Exception:
            pass  # each of them is run once more by itself: the error is reported to the one request that it belongs to
        spent = time.perf_counter() - began
        self.predicts_on = EVENT_LOOP if spent < QUICK_S else THREAD
        self.since = None
        done = [call for call in together if call.mode is ANSWERED]
        for call in done:
            call.spent = spent
        if done:
            tell(done)
        left = [call for call in calls if call.mode is not ANSWERED]
        for call in left:
            call.mode = SINGLE
        return left

    @staticmethod
    def _is_rows(batch: Batch, call: Call) -> bool:
        if call.mode is UNDECODED:
            try:
                decoded = batch.decode(call.request)
            except Exception:
                decoded = None
            if decoded is None:
                call.mode = SINGLE
            else:
                call.mode = BATCHED
                call.rows, call.form = decoded
        return call.mode is BATCHED

    def _handle(self, call: Call) -> None:
        """Have a call answered by its handler."""
        self._begin([call])
        began = time.perf_counter()
        answer: Answer | BaseException
        try:
            answer = call.handler(call.request)
        except BaseException as problem:
            answer = problem
        call.answer = answer
        call.spent = time.perf_counter() - began
        if isinstance(answer, Answer) and not isinstance(answer.body, bytes):
            self._stream(call, answer)
        else:
            self.since = None
            self._answered_from_thread([call])

    def _stream(self, call: Call, answer: Answer) -> None:
        """Begin the answer, and pass the chunks on that user code yields; each may take as long as a call."""
        chunks: Any = answer.body
        stream = Stream(self.loop)
        answer.body = stream  # type: ignore[assignment]
        self._answered_from_thread([call])
        try:
            for chunk in chunks:
                self.since = time.monotonic()
                if not stream.put(chunk):
                    break
            stream.end()
        except BaseException:
            traceback.print_exc()
            stream.end(broken=True)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()
            self.since = None

    def _answered_from_thread(self, calls: list[Call]) -> None:
        self.loop.call_soon_threadsafe(answered, calls)


def answered(calls: list[Call]) -> None:
    """On the event loop: resolve the futures of these calls, so that their waiters resume."""
    for call in calls:
        if not call.future.done():
            call.future.set_result(call)
