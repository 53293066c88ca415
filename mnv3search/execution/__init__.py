"""Executors: where tasks run, such as the trainings of a search."""

from mnv3search.execution.executor import Executor, Run, SerialExecutor, Setup, Worker
from mnv3search.execution.processes import ProcessExecutor, executor_of

__all__ = ["Executor", "ProcessExecutor", "Run", "SerialExecutor", "Setup", "Worker", "executor_of"]
