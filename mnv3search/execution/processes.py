"""An executor of processes on this machine, which end with the job and with the process that began them."""

from __future__ import annotations

import copy
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mnv3search.errors import RunError
from mnv3search.execution.executor import Executor, Result, Run, SerialExecutor, Setup, Task, Worker

PROGRESS_EVERY_S = 1.0


def executor_of(workers: int) -> Executor:
    """Processes, or where one worker is asked for, this process."""
    return SerialExecutor() if workers == 1 else ProcessExecutor(workers)


@dataclass(frozen=True, slots=True)
class ProcessExecutor:
    """Runs tasks in ``workers`` processes; setup, tasks and results are pickled."""

    workers: int

    @contextmanager
    def open(
        self, setup: Setup[Task, Result], progress: Callable[[int], None] | None = None
    ) -> Iterator[Run[Task, Result]]:
        """As :class:`Executor`, with ``progress`` at least once a second; RunError where a process has ended."""
        context = multiprocessing.get_context("spawn")  # a fork of a process that runs torch's threads may hang
        done = context.RawArray("q", self.workers)  # one for each: none waits for a lock of one that was killed
        pool = ProcessPoolExecutor(
            self.workers, context, initializer=_begin, initargs=(setup, context.Value("i", 0), done)
        )
        processes = pool._processes  # filled as they begin; the pool itself forgets it when it ends
        assert processes is not None
        reported = 0

        def report() -> None:
            nonlocal reported
            total = sum(done)
            if progress is not None:
                progress(total - reported)
            reported = total

        def run(tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
            try:
                waiting = {pool.submit(_run, task): position for position, task in enumerate(tasks)}
                while waiting:
                    finished = wait(waiting, timeout=PROGRESS_EVERY_S, return_when=FIRST_COMPLETED).done
                    report()
                    for future in finished:
                        yield waiting.pop(future), future.result()
            except BrokenProcessPool:
                raise RunError(
                    "a worker process has ended, most likely for want of memory; go on with fewer --workers"
                ) from None

        try:
            yield run
        except BaseException:
            for process in list(processes.values()):
                process.terminate()  # what is under way is lost anyway, and may take minutes
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_FUNCTION: list[Callable[[Any], Any]] = []
"""What this worker runs tasks with."""


def _begin(setup: Setup[Any, Any], begun: Any, done: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    with begun.get_lock():
        number, begun.value = begun.value, begun.value + 1

    def progress(units: int) -> None:
        done[number] += units

    try:
        _FUNCTION.append(setup(Worker(number, progress)))
    except Exception as error:
        failure = error

        def failed(_: Any) -> Any:
            raise failure

        _FUNCTION.append(failed)  # raised where a task is run: an initializer's error is known to the pool as its end


def _run(task: Any) -> Any:
    try:
        return _FUNCTION[0](task)
    except Exception as error:
        try:
            copy.copy(error)  # as unpickling does: one that cannot be would break the pool in the parent
        except Exception:
            raise RunError(f"{type(error).__name__} in a worker process: {error}") from None
        raise


def _end_with_parent() -> None:
    """Ends this process when its parent has ended; the queue stays open among a pool's processes, so none notices."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
