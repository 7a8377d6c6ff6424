"""The thread that runs a model's code: which calls it puts together, what becomes of those that fail, hang, or are waited for by nobody."""

from __future__ import annotations

import asyncio
import faulthandler
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from modelyard_runtime.scoring.contract import Answer, Part, Request
from modelyard_runtime.serving import http1, worker
from modelyard_runtime.serving.worker import Call, Hung, Pace, Worker


class Doubles:
    """A model that doubles the number in a body, several in one call. `gate` holds its first call; a number below zero fails, 0 hangs."""

    quick = False
    seconds = 0.0
    proven = staticmethod(lambda: None)

    def __init__(self, most: int = 256) -> None:
        self.most = most
        self.calls: list[list[int]] = []
        self.begun, self.gate, self.free = threading.Event(), threading.Event(), threading.Event()

    def decode(self, request: Request) -> Part | None:
        number = int(request.body)
        if number == 999:
            raise RecursionError("no decoder is perfect")
        return None if number == 1000 else Part(request, number, 1, None, request.path)

    def predict(self, parts: Sequence[Part]) -> list[Answer]:
        numbers = [int(part.rows) for part in parts]
        self.calls.append(numbers)
        self.begun.set()
        self.gate.wait()
        if 0 in numbers:
            self.free.wait()
        if min(numbers) < 0:
            raise ValueError("below zero")
        return [Answer(200, b"%d" % (number * 2)) for number in numbers]

    def failed(self, part: Part, problem: BaseException) -> Answer | BaseException:
        return problem


@pytest.fixture(autouse=True)
def _unguarded() -> Iterator[None]:
    """The guard of a worker ends its process, which is the one of these tests."""
    yield
    faulthandler.cancel_dump_traceback_later()


def by_handler(request: Request) -> Answer:
    return Answer(200, b"handled")


def request(number: int, path: str = "/") -> http1.Request:
    return http1.Request("POST", path, "", {}, b"%d" % number)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


async def behind_a_held_call(made: Worker, model: Doubles, requests: Sequence[http1.Request]) -> list[asyncio.Future[Call]]:
    """Calls that wait while the first of them is predicted."""
    futures = [made.ask(by_handler, requests[0])]
    await asyncio.to_thread(model.begun.wait)
    futures += [made.ask(by_handler, request) for request in requests[1:]]
    return futures


def answer_of(call: Call) -> bytes:
    assert isinstance(call.answer, Answer) and isinstance(call.answer.body, bytes), call.answer
    return call.answer.body


def test_calls_that_wait_are_predicted_together_with_their_like_and_each_gets_its_own_answer() -> None:
    async def test() -> None:
        model = Doubles()
        made = Worker(model, 30, lambda: None)
        futures = await behind_a_held_call(
            made, model, [request(1), request(2), request(1000), request(3, "/other"), request(4), request(5, "/other")]
        )
        model.gate.set()
        answers = [answer_of(call) for call in await asyncio.gather(*futures)]
        assert answers == [b"2", b"4", b"handled", b"6", b"8", b"10"]
        assert model.calls == [[1], [2, 4], [3, 5]]

    run(test)


def test_one_bad_row_fails_its_own_request_only() -> None:
    async def test() -> None:
        model = Doubles()
        made = Worker(model, 30, lambda: None)
        futures = await behind_a_held_call(made, model, [request(number) for number in (1, 2, -1, 3)])
        model.gate.set()
        calls = await asyncio.gather(*futures)
        assert isinstance(calls[2].answer, ValueError)
        assert [answer_of(call) for call in calls if call is not calls[2]] == [b"2", b"4", b"6"]
        assert model.calls == [[1], [2, -1, 3], [2], [-1], [3]]

    run(test)


def test_a_model_that_takes_one_request_at_a_time_gets_them_in_their_order() -> None:
    async def test() -> None:
        model = Doubles(most=1)
        made = Worker(model, 30, lambda: None)
        futures = await behind_a_held_call(made, model, [request(number) for number in range(1, 6)])
        model.gate.set()
        await asyncio.gather(*futures)
        assert model.calls == [[1], [2], [3], [4], [5]]

    run(test)


def test_a_decoder_that_breaks_leaves_the_request_to_its_handler() -> None:
    async def test() -> None:
        model = Doubles()
        model.gate.set()
        made = Worker(model, 30, lambda: None)
        answers = await asyncio.gather(*(made.ask(by_handler, request(number)) for number in (999, 2, 999)))
        assert [answer_of(call) for call in answers] == [b"handled", b"4", b"handled"]

    run(test)


def test_a_call_that_nobody_waits_for_any_more_is_not_run() -> None:
    async def test() -> None:
        model = Doubles()
        made = Worker(model, 30, lambda: None)
        futures = await behind_a_held_call(made, model, [request(1), request(2), request(3)])
        futures[1].cancel()
        model.gate.set()
        assert answer_of(await futures[2]) == b"6"
        assert model.calls == [[1], [3]]

    run(test)


def test_what_stands_behind_a_call_that_hangs_is_answered_by_another_thread() -> None:
    async def test() -> None:
        model = Doubles(most=1)
        made = Worker(model, 0.2, lambda: pytest.fail("one call is not too many"))
        model.gate.set()
        hung, behind = made.ask(by_handler, request(0)), made.ask(by_handler, request(2))
        assert isinstance((await hung).answer, Hung)
        assert answer_of(await behind) == b"4" and made.hung == 1
        model.free.set()
        while made.hung:
            await asyncio.sleep(0)
        assert answer_of(await made.ask(by_handler, request(3))) == b"6", "the thread that came back does nothing more"

    run(test)


def test_python_code_that_hangs_is_ended(capfd: pytest.CaptureFixture[str]) -> None:
    async def test() -> None:
        ended = threading.Event()

        def spin(request: Request) -> Answer:
            try:
                while True:
                    pass
            finally:
                ended.set()

        made = Worker(None, 0.2, lambda: None)
        assert isinstance((await made.ask(spin, request(1))).answer, Hung)
        assert await asyncio.to_thread(ended.wait)
        while made.hung:
            await asyncio.sleep(0)

    run(test)


def test_when_many_hang_the_process_is_said_to_be_beyond_help() -> None:
    async def test() -> None:
        over, free = asyncio.Event(), threading.Event()

        def hang(request: Request) -> Answer:
            free.wait()
            return Answer(200, b"")

        made = Worker(None, 0.05, over.set)
        futures = [made.ask(hang, request(1)) for _ in range(worker.MOST_HUNG)]
        await over.wait()
        assert all(isinstance(call.answer, Hung) for call in await asyncio.gather(*futures))
        free.set()
        while made.hung:
            await asyncio.sleep(0)

    run(test)


def test_a_stream_whose_caller_left_before_it_began_lets_its_thread_go() -> None:
    async def test() -> None:
        begin = threading.Event()
        closed = threading.Event()

        def chunks() -> Iterator[bytes]:
            try:
                while True:
                    yield b"chunk"
            finally:
                closed.set()

        def stream(request: Request) -> Answer:
            begin.wait()
            return Answer(200, chunks())

        made = Worker(None, 30, lambda: None)
        future = made.ask(stream, request(1))
        await asyncio.sleep(0)
        future.cancel()
        # It may have been taken up before it was cancelled, or not: in both cases the thread is free afterwards.
        begin.set()
        assert answer_of(await made.ask(by_handler, request(2))) == b"handled"

    run(test)


@pytest.mark.parametrize(
    ("call_s", "row_s", "least", "most"),
    [(0.0, 0.001, 2, 8), (0.0, 0.0001, 30, 60), (0.1, 0.001, 60, 120), (0.01, 0.0, 256, 256), (0.0, 0.1, 1, 2)],
)
def test_a_call_takes_as_many_rows_as_5_ms_or_twice_one_row_allow(call_s: float, row_s: float, least: int, most: int) -> None:
    model = Doubles()
    model.seconds = call_s + row_s
    pace = Pace(model)
    for _ in range(200):
        rows = pace.rows()
        pace.took(rows, call_s + rows * row_s)
    assert least <= rows <= most
    assert Pace(Doubles(most=8)).rows() == 8
