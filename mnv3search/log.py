"""The log of a folder: what was done when, and where an error was raised, for whoever must find out later."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mnv3search.errors import RunError
from mnv3search.files import append_lines

logger = logging.getLogger("mnv3search")
"""Stages, notes and errors of everything that works in a folder; programs may add handlers of their own."""
logger.addHandler(logging.NullHandler())


class _Appending(logging.Handler):
    """Appends each line by itself, so that a kill loses none; a disk that is full loses the log, not the run."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self.path = path
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(RunError):
            append_lines(self.path, [self.format(record)])


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append what is logged meanwhile to ``path``, and what ended it."""
    handler, level = _Appending(path), logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        logger.info("began: %s", shlex.join(["mnv3search", *sys.argv[1:]]))
        yield
        logger.info("ended")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            logger.info("interrupted")
        else:
            logger.error("failed", exc_info=error)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
