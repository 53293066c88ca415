"""Optuna's journal in one file, written in batches and mended after a kill."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mnv3search.errors import RunError
from mnv3search.files import locked
from mnv3search.reading import parse_json
from mnv3search.records import UNREADABLE, Record

if TYPE_CHECKING:
    from optuna.storages.journal import BaseJournalBackend

MAX_BYTES, MAX_LINE_BYTES = 100_000_000_000, 4_000_000
CREATE_TRIAL, SET_PARAM, SET_STATE, SET_USER_ATTR = 4, 5, 6, 8
"""Optuna's numbers of the operations that a trial is read from."""
_LINE_START = b'{"op_code"'
Log = dict[str, Any]
Take = Callable[[Record, int], None]


def without_params(log: Log) -> Log:
    """A log as Optuna is handed it where it need not know parameters: they are most of the memory."""
    return {key: log[key] for key in log.keys() - {"distributions", "params"}}


def open_journal(
    path: Path, take: Take = lambda log, number: None, handed: Callable[[Log], Log] = without_params
) -> StudyJournal:
    """The journal at ``path``, made where missing, locked for this process until it is closed or the process ends.

    A last line that a kill cut short is removed. Lines about trials are given to ``take`` with their numbers as they
    are read; Optuna is handed every log, read or appended, as ``handed`` changes it.
    """
    with contextlib.ExitStack() as opened:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(_opened(path))
            opened.enter_context(locked(path))
        except OSError as error:
            raise RunError(
                f"cannot open the study {path}: {error.strerror}; give a folder that can be written"
            ) from error
        logs = [handed(log) for log in _read_and_mend(file, path, take)]
        return StudyJournal(file, path, logs, handed, opened.pop_all())


def _opened(path: Path) -> IO[bytes]:
    """``path`` to read and append; neither a link nor a pipe is opened, nor anything else but a file."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            raise RunError(f"{path} is a link or no file; give the path of a study, or a new one") from None
        raise
    file = os.fdopen(descriptor, "ab+")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        file.close()
        raise RunError(f"{path} is no file of at most {MAX_BYTES:,} bytes; give the path of a study, or a new one")
    return file


class StudyJournal:
    """Log lines of one study: appended in memory, put on disk by :meth:`flush` with one write and one fsync.

    The file's format is that of Optuna's ``JournalFileBackend``, so ``optuna-dashboard`` and ``optuna.load_study``
    open it.
    """

    def __init__(
        self, file: IO[bytes], path: Path, logs: list[Log], handed: Callable[[Log], Log], opened: contextlib.ExitStack
    ) -> None:
        self._file, self._path, self._handed, self._opened = file, path, handed, opened
        self._unread = logs
        self._pending: list[bytes] = []

    def read_logs(self, log_number_from: int) -> Iterable[Log]:
        """What was not yet read; this process is the only writer, so nothing else is ever asked for."""
        unread, self._unread = self._unread, []
        return unread

    def append_logs(self, logs: list[Log]) -> None:
        """Keep ``logs`` until the next flush."""
        self._pending += [json.dumps(_shortened(log), separators=(",", ":")).encode() + b"\n" for log in logs]
        self._unread += map(self._handed, logs)

    def flush(self) -> None:
        """Put everything pending on disk; RunError where the disk is full or the file cannot be written."""
        if not self._pending:
            return
        try:
            self._file.write(b"".join(self._pending))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunError(
                f"cannot write the study {self._path}: {error.strerror}; what was saved is safe, make room and resume"
            ) from error
        self._pending = []

    def close(self) -> None:
        """Let go of the file and its lock."""
        with contextlib.suppress(OSError):  # flush has raised what a full disk does not take
            self._opened.close()

    def backend(self) -> BaseJournalBackend:
        """This journal as Optuna's storage takes it."""
        from optuna.storages.journal import BaseJournalBackend

        BaseJournalBackend.register(StudyJournal)
        return self  # type: ignore[return-value]  # registered above, so that importing this file needs no Optuna


def _shortened(log: Log) -> Log:
    """A trial's distributions, which are most of its line, in the short form that Optuna reads as well."""
    if "distribution" in log:
        return {**log, "distribution": _short_distribution(log["distribution"])}
    if "distributions" not in log:
        return log
    return {**log, "distributions": {name: _short_distribution(text) for name, text in log["distributions"].items()}}


@functools.lru_cache(maxsize=1024)
def _short_distribution(text: str) -> str:
    content = json.loads(text)
    if content.get("name") != "CategoricalDistribution":
        return text
    return json.dumps({"type": "categorical", **content["attributes"]}, separators=(",", ":"))


def _read_and_mend(file: IO[bytes], path: Path, take: Take) -> list[Log]:
    file.seek(0)
    logs: list[Log] = []
    whole = 0
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES), b""), start=1):
        if not line.endswith(b"\n"):
            text = line.rstrip(b"\0")
            if len(line) == MAX_LINE_BYTES or not (text.startswith(_LINE_START) or _LINE_START.startswith(text)):
                raise RunError(f"{path} is not an Optuna journal; give a study's path, or a new one")
            file.truncate(whole)
            break
        logs.append(_parsed(line, number, path, take))
        whole += len(line)
    return logs


def _parsed(line: bytes, number: int, path: Path, take: Take) -> Log:
    try:
        log = parse_json(line)
    except UNREADABLE as error:
        raise RunError(f"{path}, line {number}: {error}: the study is damaged; restore it or start another") from None
    if not isinstance(log, dict) or "op_code" not in log:
        raise RunError(f"{path}, line {number}: not an entry of an Optuna journal; give the path of a study")
    if log["op_code"] in {CREATE_TRIAL, SET_PARAM, SET_STATE, SET_USER_ATTR}:
        take(Record(log), number)
    return log
