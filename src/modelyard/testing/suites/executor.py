"""The conformance suite of the port `Executor`.

    class TestLocalExecutor(ExecutorSuite):
        @pytest.fixture
        def bench(self, tmp_path):
            yield Bench(LocalExecutor(...), objects, environment=key)

A command is text for a POSIX shell. `play` answers for the same commands in Python, for executors that have no shell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest

from modelyard_runtime.protocol import ExitRecord, Reason

from ...core.errors import Invalid
from ...ports.executor import AttemptId, Collected, Command, Executor, InputFiles, JobRun, OutputPort, Share
from ...ports.objects import File, ObjectStore, Tree
from ..memory.executor import Answer, Process

T = TypeVar("T")
AT = AttemptId("tried", 1)
NEVER = AttemptId("never", 1)
BOUND_S = 60
"""No answer of an executor takes longer; more means that it hangs."""


@dataclass
class Bench:
    """What a driver's tests hand to the suite."""

    executor: Executor
    objects: ObjectStore
    environment: str = ""
    """Key of an environment that is there."""
    again: Callable[[], Executor] | None = None
    """Opens the driver once more, as the next server does that finds what the one before has started; None where nothing outlives it."""

    def tree(self, **files: str) -> Tree:
        """Files by name; `__` stands for `.`."""
        contents = ((name.replace("__", "."), self.objects.put_bytes(text.encode())) for name, text in files.items())
        return Tree(tuple(File(name, blob.digest, blob.size) for name, blob in contents))

    def text_of(self, files: list[File], path: str) -> str:
        return next(b"".join(self.objects.open(file.digest)).decode() for file in files if file.path == path)

    def job(self, command: str, **values: Any) -> JobRun:
        return JobRun(AT, "default", Command(command), self.environment, **{"share": Share(1), **values})


@dataclass
class Ended:
    exit: ExitRecord
    collected: Collected
    log: str


async def _run(bench: Bench, run: JobRun) -> Ended:
    await bench.executor.start(run, lambda line: None)
    exit = await bench.executor.wait(run.id)
    collected = await bench.executor.collect(run.id, run.outputs)
    return Ended(exit, collected, (await bench.executor.read_log(run.id.job, 0, 1 << 20)).decode())


def _bounded(story: Awaitable[T]) -> T:
    async def within() -> T:
        return await asyncio.wait_for(story, BOUND_S)

    return asyncio.run(within())


def run(bench: Bench, command: str, **values: Any) -> Ended:
    return _bounded(_run(bench, bench.job(command, **values)))


class ExecutorSuite:
    """Tests of what a yard counts on. A subclass gives the fixture `bench`."""

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        raise NotImplementedError("the tests of a driver give the fixture `bench`")

    def test_a_command_ends_with_its_code_and_its_log(self, bench: Bench) -> None:
        ended = run(bench, FAILS)
        assert (ended.exit.reason, ended.exit.code) == (Reason.EXITED, 3)
        assert ended.log == "out\n"

    def test_the_log_is_among_what_is_collected(self, bench: Bench) -> None:
        ended = run(bench, FAILS)
        assert [bench.text_of(ended.collected.logs, file.path) for file in ended.collected.logs] == ["out\n"]

    def test_a_log_is_read_from_an_offset_and_no_further_than_asked(self, bench: Bench) -> None:
        run(bench, FAILS)
        assert _bounded(bench.executor.read_log(AT.job, 1, 2)) == b"ut"
        assert _bounded(bench.executor.read_log(AT.job, 99, 10)) == b""
        assert _bounded(bench.executor.read_log(NEVER.job, 0, 10)) == b""

    def test_a_log_at_its_limit_does_not_grow_much_further(self, bench: Bench) -> None:
        ended = run(bench, FLOODS, log_limit=1000)
        assert 1000 <= len(ended.log) < 2000 and ended.exit.code == 0

    def test_a_started_attempt_is_never_started_again(self, bench: Bench) -> None:
        async def story() -> str:
            job = bench.job(COUNTS)
            assert not await bench.executor.started(AT)
            await bench.executor.start(job, lambda line: None)
            assert await bench.executor.started(AT)
            await bench.executor.start(job, lambda line: None)
            first = await bench.executor.wait(AT)
            await bench.executor.start(job, lambda line: None)
            assert await bench.executor.wait(AT) == first
            return (await bench.executor.read_log(AT.job, 0, 100)).decode()

        assert _bounded(story()) == "once\n"

    def test_an_attempt_that_never_began_is_lost(self, bench: Bench) -> None:
        assert _bounded(bench.executor.wait(NEVER)).reason is Reason.LOST

    def test_the_next_attempt_of_a_job_begins_with_empty_folders_and_goes_on_with_its_log(self, bench: Bench) -> None:
        async def story() -> Ended:
            await _run(bench, bench.job(WRITES, outputs={"out": OutputPort()}))
            return await _run(bench, replace(bench.job(FAILS, outputs={"out": OutputPort()}), id=AttemptId(AT.job, 2)))

        ended = _bounded(story())
        assert ended.collected.outputs == {"out": []} and ended.log == "out\n"

    def test_code_is_where_the_command_begins(self, bench: Bench) -> None:
        assert run(bench, READS_CODE, code=bench.tree(main__txt="from the code")).log == "from the code"

    def test_inputs_are_folders_files_and_texts(self, bench: Bench) -> None:
        folder, single = InputFiles(bench.tree(a__txt="A", b__txt="B")), InputFiles(bench.tree(one__txt="1"), single=True)
        ended = run(bench, READS_INPUTS, inputs={"folder": folder, "file": single, "rate": "0.5"})
        assert ended.log == "B10.5\n"

    def test_a_copied_input_may_be_changed_and_what_is_stored_stays(self, bench: Bench) -> None:
        tree = bench.tree(a__txt="A")
        assert run(bench, CHANGES_INPUT, inputs={"folder": InputFiles(tree, copy=True)}).log == "AX"
        assert bench.text_of(list(tree.files), "a.txt") == "A"

    def test_an_optional_part_without_its_input_is_left_out_and_a_needed_input_is_asked_for(self, bench: Bench) -> None:
        assert run(bench, OPTIONAL).log == "begin end\n"
        with pytest.raises(Invalid, match="has no value"):
            _bounded(_run(bench, replace(bench.job(NEEDS), id=AttemptId("needs", 1))))

    def test_outputs_come_back_by_port(self, bench: Bench) -> None:
        ended = run(bench, WRITES_TWO, outputs={"out": OutputPort(), "file": OutputPort("said.txt"), "empty": OutputPort()})
        assert ended.exit.code == 0
        assert {port: sorted(file.path for file in files) for port, files in ended.collected.outputs.items()} == {
            "out": ["a.txt", "below/b.txt"], "file": ["said.txt"], "empty": [],
        }  # fmt: skip
        assert bench.text_of(ended.collected.outputs["out"], "below/b.txt") == "B"
        assert not ended.collected.refused and ended.collected.stopped is None

    def test_an_output_may_hold_files_at_first_and_tells_which_stayed_as_they_were(self, bench: Bench) -> None:
        held = bench.tree(kept__txt="kept", said__txt="old")
        ended = run(bench, WRITES_TWO, outputs={"out": OutputPort(present=held), "file": OutputPort("said.txt"), "empty": OutputPort()})
        out = ended.collected.outputs["out"]
        assert {file.path for file in out} >= {"kept.txt", "said.txt"} and bench.text_of(out, "kept.txt") == "kept"
        assert ended.collected.unchanged["out"] == {"kept.txt", "said.txt"}
        one = bench.tree(other="before")
        again = replace(bench.job(FAILS, outputs={"file": OutputPort("said.txt", present=one)}), id=AttemptId(AT.job, 2))
        ended = _bounded(_run(bench, again))
        assert bench.text_of(ended.collected.outputs["file"], "said.txt") == "before"

    def test_a_file_that_was_not_written_is_missing_and_no_error(self, bench: Bench) -> None:
        ended = run(bench, FAILS, outputs={"file": OutputPort("said.txt")})
        assert ended.collected.outputs == {"file": []} and not ended.collected.refused

    def test_what_lies_in_outputs_and_logs_of_the_working_directory_is_an_artifact(self, bench: Bench) -> None:
        ended = run(bench, LEAVES)
        assert sorted(file.path for file in ended.collected.artifacts) == ["logs/own.log", "outputs/model.txt"]

    def test_collecting_again_comes_to_the_same(self, bench: Bench) -> None:
        outputs = {"out": OutputPort()}
        ended = run(bench, WRITES, outputs=outputs)
        again = _bounded(bench.executor.collect(AT, outputs))
        assert sorted(again.outputs["out"], key=_path) == sorted(ended.collected.outputs["out"], key=_path)

    def test_variables_of_the_spec_win_and_secrets_arrive(self, bench: Bench) -> None:
        ended = run(bench, SAYS, variables={"A": "yard", "B": "yard"}, declared_variables={"B": "spec"}, secrets={"C": "secret"})
        assert ended.log == "yard spec secret\n"

    def test_ports_are_environment_variables_too(self, bench: Bench) -> None:
        inputs = {"rate": "0.5", "file": InputFiles(bench.tree(one__txt="1"), single=True)}
        assert run(bench, SAYS_PORTS, inputs=inputs).log == "0.5 1"

    def test_a_canceled_command_ends_and_says_so(self, bench: Bench) -> None:
        async def story() -> ExitRecord:
            await bench.executor.start(bench.job(GOES_ON), lambda line: None)
            await bench.executor.cancel(AT)
            ended = await bench.executor.wait(AT)
            await bench.executor.cancel(AT)
            await bench.executor.cancel(NEVER)
            return ended

        assert _bounded(story()).reason is Reason.CANCELED

    def test_a_command_whose_time_is_over_is_ended(self, bench: Bench) -> None:
        assert run(bench, GOES_ON, timeout_s=1).exit.reason is Reason.TIMEOUT

    def test_logs_are_read_until_the_job_is_released_with_them(self, bench: Bench) -> None:
        async def story() -> tuple[bytes, bytes]:
            await _run(bench, bench.job(FAILS))
            await bench.executor.release(AT.job)
            kept = await bench.executor.read_log(AT.job, 0, 100)
            await bench.executor.release(AT.job, logs=True)
            return kept, await bench.executor.read_log(AT.job, 0, 100)

        assert _bounded(story()) == (b"out\n", b"")

    def test_samples_go_on_from_an_offset(self, bench: Bench) -> None:
        async def story() -> None:
            await _run(bench, bench.job(FAILS, sample_s=1))
            samples, offset = await bench.executor.samples(AT, 0)
            assert all(set(sample) == {"time_ms", "values"} for sample in samples)
            assert (await bench.executor.samples(AT, offset))[0] == []

        _bounded(story())

    def test_there_is_room_for_a_job(self, bench: Bench) -> None:
        assert Share(1).fits(bench.executor.capacity())

    def test_the_next_server_finds_the_end_of_what_this_one_started(self, bench: Bench) -> None:
        if bench.again is None:
            pytest.skip("nothing of this executor outlives its process")
        again = bench.again

        async def story() -> tuple[ExitRecord, Collected]:
            await bench.executor.start(bench.job(WRITES, outputs={"out": OutputPort()}), lambda line: None)
            following = again()
            assert await following.started(AT)
            return await following.wait(AT), await following.collect(AT, {"out": OutputPort()})

        exit, collected = _bounded(story())
        assert exit.code == 0 and len(collected.outputs["out"]) == 2


def _path(file: File) -> str:
    return file.path


# What the suite runs

FAILS = "echo out; exit 3"
FLOODS = "i=0; while [ $i -lt 500 ]; do echo 0123456789; i=$((i+1)); done"
COUNTS = "echo once"
READS_CODE = "cat main.txt"
READS_INPUTS = "cat ${{inputs.folder}}/b.txt ${{inputs.file}}; echo ${{inputs.rate}}"
CHANGES_INPUT = "printf X >> ${{inputs.folder}}/a.txt; cat ${{inputs.folder}}/a.txt"
OPTIONAL = "echo begin $[[--rate ${{inputs.rate}} ]]end"
NEEDS = "echo ${{inputs.rate}}"
WRITES = "printf A > ${{outputs.out}}/a.txt; mkdir ${{outputs.out}}/below; printf B > ${{outputs.out}}/below/b.txt"
WRITES_TWO = WRITES + "; printf x > ${{outputs.file}}"
LEAVES = "echo model > outputs/model.txt; echo line > logs/own.log"
SAYS = "echo $A $B $C"
SAYS_PORTS = 'printf "$AZURE_ML_INPUT_rate "; cat $AZURE_ML_INPUT_file'
GOES_ON = "sleep 3600"


def play(process: Process) -> int | None:
    """Does what a shell would do with a command of the suite."""
    return PLAYED[process.run.command.text](process)


def _fails(process: Process) -> int:
    process.say("out\n")
    return 3


def _says(text: Callable[[Process], str]) -> Answer:
    def say(process: Process) -> int:
        process.say(text(process))
        return 0

    return say


def _reads_inputs(process: Process) -> str:
    _, folder, file, _, rate = process.command.replace(";", "").split()
    return (process.files[folder] + process.files[file]).decode() + rate + "\n"


def _changes_input(process: Process) -> str:
    path = process.command.split(" ")[-1]
    process.files[path] += b"X"
    return process.files[path].decode()


def _writes(process: Process) -> int:
    process.files |= {"/outputs/out/a.txt": b"A", "/outputs/out/below/b.txt": b"B"}
    if "file" in process.run.outputs:
        process.files[process.environment["AZURE_ML_OUTPUT_file"]] = b"x"
    return 0


def _leaves(process: Process) -> int:
    process.files |= {"/code/outputs/model.txt": b"model\n", "/code/logs/own.log": b"line\n"}
    return 0


def _goes_on(process: Process) -> None:
    return None


PLAYED: dict[str, Answer] = {
    FAILS: _fails,
    FLOODS: _says(lambda process: "0123456789\n" * 500),
    COUNTS: _says(lambda process: "once\n"),
    READS_CODE: _says(lambda process: process.files["/code/main.txt"].decode()),
    READS_INPUTS: _says(_reads_inputs),
    CHANGES_INPUT: _says(_changes_input),
    OPTIONAL: _says(lambda process: process.command.removeprefix("echo ") + "\n"),
    WRITES: _writes,
    WRITES_TWO: _writes,
    LEAVES: _leaves,
    SAYS: _says(lambda process: " ".join(process.environment[name] for name in "ABC") + "\n"),
    SAYS_PORTS: _says(
        lambda process: (
            process.environment["AZURE_ML_INPUT_rate"] + " " + process.files[process.environment["AZURE_ML_INPUT_file"]].decode()
        )
    ),
    GOES_ON: _goes_on,
}
