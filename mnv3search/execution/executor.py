"""What an executor is, and the one that runs tasks in this process.

A job is a picklable ``setup`` and picklable tasks: each worker calls ``setup`` once and gets the function that it runs
its tasks with, so what all tasks share is sent to a worker once. A result may not depend on which worker computed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Worker:
    """The worker that ``setup`` is called in.

    Attributes:
        number: from 0.
        progress: to be called with a number of finished units of work, such as images.
    """

    number: int
    progress: Callable[[int], None]


Setup = Callable[[Worker], Callable[[Task], Result]]
Run = Callable[[Sequence[Task]], Iterator[tuple[int, Result]]]
"""Runs tasks; gives (position of the task, its result) as soon as each is done, and an exception as it was raised."""


class Executor(Protocol):
    """Runs the tasks of jobs."""

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""
        ...

    def open(
        self, setup: Setup[Task, Result], progress: Callable[[int], None] | None = None
    ) -> AbstractContextManager[Run[Task, Result]]:
        """Workers for one job; they have ended when the context is left, whatever ends it.

        Args:
            setup: makes the function that runs a task; called once in each worker.
            progress: called in this process with the units that workers report.
        """
        ...


class SerialExecutor:
    """Runs tasks in this process, one after the other."""

    workers = 1

    @contextmanager
    def open(
        self, setup: Setup[Task, Result], progress: Callable[[int], None] | None = None
    ) -> Iterator[Run[Task, Result]]:
        """As :class:`Executor`; nothing is pickled."""
        function = setup(Worker(0, progress or (lambda _: None)))

        def run(tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
            for position, task in enumerate(tasks):
                yield position, function(task)

        yield run
