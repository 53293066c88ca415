"""What every executor must keep to; one joins by being added to ``EXECUTORS``."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mnv3search.errors import InfeasibleError, Mnv3SearchError, RunError, UnknownNameError
from mnv3search.execution import Executor, ProcessExecutor, SerialExecutor, Worker, executor_of

EXECUTORS: dict[str, Executor] = {"serial": SerialExecutor(), "processes": ProcessExecutor(2)}
ERRORS: dict[int, Mnv3SearchError] = {
    -1: RunError("the disk is full; make room"),
    -2: UnknownNameError("network", "mobilnet", ["mobilenet_v2"]),
    -3: InfeasibleError(5.0, 8.0, 20.0, exact=True),
}


@dataclass(frozen=True)
class Squares:
    """Squares numbers above a base; raises an error of ``ERRORS`` for a negative one, and ends its process for 13."""

    base: int

    def __call__(self, worker: Worker) -> Callable[[int], tuple[int, int]]:
        seen = []

        def square(number: int) -> tuple[int, int]:
            if number in ERRORS:
                raise ERRORS[number]
            if number == 13:
                os._exit(1)
            seen.append(number)
            worker.progress(number)
            return self.base + number**2, worker.number

        return square


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return EXECUTORS[request.param]


def test_every_task_has_its_own_result_and_progress_is_whole(executor: Executor) -> None:
    units: list[int] = []
    with executor.open(Squares(100), units.append) as run:
        assert list(run([])) == []
        first, second = dict(run([3, 1, 2])), dict(run(range(5, 10)))
    assert {position: result for position, (result, _) in first.items()} == {0: 109, 1: 101, 2: 104}
    assert [second[position][0] for position in range(5)] == [100 + n**2 for n in range(5, 10)]
    assert {worker for _, worker in second.values()} <= set(range(executor.workers))
    assert sum(units) == 1 + 2 + 3 + 5 + 6 + 7 + 8 + 9


@pytest.mark.parametrize("task", ERRORS)
def test_an_exception_of_a_task_reaches_the_caller_and_leaves_no_process(executor: Executor, task: int) -> None:
    before = multiprocessing.active_children()
    with pytest.raises(type(ERRORS[task])) as caught, executor.open(Squares(0)) as run:
        list(run([task]))
    assert str(caught.value) == str(ERRORS[task])
    assert multiprocessing.active_children() == before


class Foreign(Exception):
    """An exception that cannot be unpickled."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")


def _raises_foreign(worker: Worker) -> Callable[[int], int]:
    def task(code: int) -> int:
        raise Foreign(code, "out of paper")

    return task


def test_an_exception_that_cannot_be_sent_is_said_in_words() -> None:
    with pytest.raises(RunError) as caught, ProcessExecutor(2).open(_raises_foreign) as run:
        list(run([7]))
    assert str(caught.value) == "Foreign in a worker process: out of paper (7)"


def _interrupted(executor: Executor) -> None:
    with executor.open(Squares(0)) as run:
        for _ in run(range(14, 1000)):
            raise KeyboardInterrupt


def test_ctrl_c_leaves_no_process(executor: Executor) -> None:
    before = multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(executor)
    assert multiprocessing.active_children() == before


def test_a_dead_worker_is_said_in_one_line() -> None:
    before = multiprocessing.active_children()
    with pytest.raises(RunError) as caught, ProcessExecutor(2).open(Squares(0)) as run:
        list(run([1, 13]))
    assert str(caught.value).startswith("a worker process has ended")
    assert str(caught.value).endswith("fewer --workers")
    assert multiprocessing.active_children() == before


def test_one_worker_is_this_process() -> None:
    assert isinstance(executor_of(1), SerialExecutor)
    assert executor_of(3) == ProcessExecutor(3)


def _cannot_begin(worker: Worker) -> Callable[[int], int]:
    raise UnknownNameError("device", f"gpu{worker.number}", ["cpu"])


def test_an_exception_of_the_setup_reaches_the_caller_as_it_was_raised(executor: Executor) -> None:
    with pytest.raises(UnknownNameError, match="unknown device 'gpu"), executor.open(_cannot_begin) as run:
        list(run([1, 2]))
    assert multiprocessing.active_children() == []


@dataclass(frozen=True)
class Slow:
    """Fails at the task 0, and elsewhere works for long and then leaves a file."""

    folder: Path

    def __call__(self, worker: Worker) -> Callable[[int], None]:
        def work(task: int) -> None:
            (self.folder / f"began {task}").touch()
            if task == 0:
                while not (self.folder / "began 1").exists():
                    time.sleep(0.01)
                raise RunError("task 0 failed")
            time.sleep(20)
            (self.folder / "ended").touch()

        return work


def test_an_error_ends_what_is_under_way_in_other_processes(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="task 0"), ProcessExecutor(2).open(Slow(tmp_path)) as run:
        list(run([0, 1]))
    assert not (tmp_path / "ended").exists()
    assert multiprocessing.active_children() == []
