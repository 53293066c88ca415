"""``--threads``: on how many a command computes that trains or judges networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from mnv3search.threads import default_threads, training_threads

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def threads_option(flag: str = "--threads") -> Callable[[Any], Any]:
    """The option; ``--train-threads`` where ``--threads`` are those of a measured device."""
    return click.option(
        flag, "train_threads", type=click.IntRange(1, 1024),
        help="That networks are trained and judged on.  [default: OMP_NUM_THREADS, else the cores that are free]",
    )  # fmt: skip


def on_threads(flag: str = "--threads") -> Decorator:
    """The option, and the command run on so many threads; one that only predicts, or that times torch, is left alone.

    How torch's threads wait for one another would be part of what is timed.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def within(*arguments: Any, train_threads: int | None, **options: Any) -> None:
            learns = options.get("data") is not None or options.get("resume") is not None
            if train_threads is None and (not learns or "torch" in f"{options.get('device')} {options.get('runtime')}"):
                function(*arguments, **options)
                return
            with training_threads(train_threads or default_threads()):
                function(*arguments, **options)

        decorated: Callable[..., None] = threads_option(flag)(within)
        return decorated

    return decorate
