"""Optuna's journal in one file, written in batches and mended after a kill."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mnv3search.errors import RunError
from mnv3search.files import locked
from mnv3search.reading import parse_json
from mnv3search.records import UNREADABLE, Record

if TYPE_CHECKING:
    from optuna.storages.journal import BaseJournalBackend

MAX_LINE_BYTES = 4_000_000
_LINE_START = b'{"op_code"'
Take = Callable[[Record, int], None]
# A search keeps its own record of what it appends: parsing a trial's parameters back would cost as much as saving it.
_NOT_READ_AGAIN = frozenset({"distributions", "params"})


def open_journal(path: Path, take: Take = lambda log, number: None) -> StudyJournal:
    """The journal at ``path``, made where missing, locked for this process until it is closed or the process ends.

    A last line that a kill cut short is removed. Lines that hold whole trials are given to ``take`` with their numbers
    as they are read; Optuna is handed them without parameters, which would be most of the memory.

    Raises:
        RunError: another process writes it, it cannot be opened, or it is not a journal.
    """
    with contextlib.ExitStack() as opened:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            opened.enter_context(locked(path))
            file = opened.enter_context(path.open("ab+"))
        except OSError as error:
            remedy = "give a folder that can be written"
            raise RunError(f"cannot open the study {path}: {error.strerror}; {remedy}") from error
        return StudyJournal(file, path, _read_and_mend(file, path, take), opened.pop_all())


class StudyJournal:
    """Log lines of one study: appended in memory, put on disk by :meth:`flush` with one write and one fsync.

    The file's format is that of Optuna's ``JournalFileBackend``, so ``optuna-dashboard`` and ``optuna.load_study``
    open it.
    """

    def __init__(self, file: IO[bytes], path: Path, logs: list[dict[str, Any]], opened: contextlib.ExitStack) -> None:
        self._file = file
        self._path = path
        self._opened = opened
        self._unread = logs
        self._pending: list[bytes] = []

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """What was not yet read; this process is the only writer, so nothing else is ever asked for."""
        unread, self._unread = self._unread, []
        return unread

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Hold ``logs`` until the next flush; Optuna reads them back without the parameters of trials."""
        self._pending += [json.dumps(_shortened(log), separators=(",", ":")).encode() + b"\n" for log in logs]
        self._unread += [{key: log[key] for key in log.keys() - _NOT_READ_AGAIN} for log in logs]

    def flush(self) -> None:
        """Put everything held on disk.

        Raises:
            RunError: the disk is full or the file cannot be written; what was flushed before is safe.
        """
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
        with contextlib.suppress(OSError):  # what a full disk does not take was said by flush
            self._opened.close()

    def backend(self) -> BaseJournalBackend:
        """This journal as Optuna's storage takes it."""
        from optuna.storages.journal import BaseJournalBackend

        BaseJournalBackend.register(StudyJournal)
        return self  # type: ignore[return-value]  # registered above, so that importing this file needs no Optuna


def _shortened(log: dict[str, Any]) -> dict[str, Any]:
    """A trial's distributions, which are most of its line, in the short form that Optuna reads as well."""
    if "distributions" not in log:
        return log
    return {**log, "distributions": {name: _short_distribution(text) for name, text in log["distributions"].items()}}


@functools.lru_cache(maxsize=1024)
def _short_distribution(text: str) -> str:
    content = json.loads(text)
    if content.get("name") != "CategoricalDistribution":
        return text
    return json.dumps({"type": "categorical", **content["attributes"]}, separators=(",", ":"))


def _read_and_mend(file: IO[bytes], path: Path, take: Take) -> list[dict[str, Any]]:
    file.seek(0)
    logs: list[dict[str, Any]] = []
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


def _parsed(line: bytes, number: int, path: Path, take: Take) -> dict[str, Any]:
    try:
        log = parse_json(line)
    except UNREADABLE as error:
        raise RunError(f"{path}, line {number}: {error}: the study is damaged; restore it or start another") from None
    if not isinstance(log, dict) or "op_code" not in log:
        raise RunError(f"{path}, line {number}: not an entry of an Optuna journal; give the path of a study")
    if "params" in log:
        take(Record(log), number)
    return {key: log[key] for key in log.keys() - _NOT_READ_AGAIN}
