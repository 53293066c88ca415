"""Executors: where tasks run, such as the trainings of a search."""

from mnv3search.execution.executor import Executor, Run, SerialExecutor, Setup, Worker

__all__ = ["Executor", "Run", "SerialExecutor", "Setup", "Worker"]
