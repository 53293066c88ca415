"""The progress line on stderr: live in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

from mnv3search.cli import verbosity
from mnv3search.cli.output import shown
from mnv3search.log import logger

PLAIN_INTERVAL_S = 5.0
SILENCE_S = 9.0  # after so long without a word it is said what is still under way


class ProgressLine:
    """Draws what a run is doing; use it as a context manager."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich import progress
        from rich.markup import escape

        from mnv3search.cli.console import ShowingConsole

        quiet = quiet or verbosity.quiet()
        self._console = ShowingConsole(stderr=True, quiet=quiet)
        self._live = self._console.is_terminal and not quiet
        self._quiet = quiet
        text = progress.TextColumn
        self._progress = progress.Progress(
            progress.SpinnerColumn(), text("{task.description}"), progress.BarColumn(20), progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(), text("left"), progress.TimeRemainingColumn(), text("{task.fields[detail]}"),
            console=self._console, transient=True, disable=not self._live,
        )  # fmt: skip
        self._task = self._progress.add_task("starting", total=None, detail="")
        self._escape, self._name = escape, ""
        self._total: int | None = None
        self._last_plain = self._began = self._last_word = 0.0
        self._ended = threading.Event()
        self._heartbeat = threading.Thread(target=self._break_silences, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._progress.start()
        if not self._live and not self._quiet:
            self._heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._progress.stop()

    def _break_silences(self) -> None:
        """Where nobody sees a clock run: a line whenever nothing was said for a while."""
        while not self._ended.wait(SILENCE_S / 4):
            if self._name and time.monotonic() - self._last_word >= SILENCE_S:
                self._say(f"  {self._name}: under way for {time.monotonic() - self._began:.0f} s")

    def _say(self, text: str) -> None:
        self._last_word = time.monotonic()
        sys.stderr.write(f"{shown(text)}\n")
        sys.stderr.flush()

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins."""
        self._name, self._total = name, total
        self._last_plain = self._began = time.monotonic()
        self._progress.reset(self._task, total=total, description=self._escape(name), detail="")
        if not self._live and not self._quiet:
            self._say(name)
        logger.info("%s", name)

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        """Steps of the stage are done."""
        if total is not None:
            self._total = total
        self._progress.update(self._task, completed=done, total=self._total, detail=self._escape(detail))
        if not self._live and not self._quiet and time.monotonic() - self._last_plain >= PLAIN_INTERVAL_S:
            self._last_plain = time.monotonic()
            of = f" of {self._total}{self._left(done)}" if self._total else ""
            self._say(f"  {self._name}: {done}{of}{f', {detail}' if detail else ''}")

    def step(self, done: int, total: int, what: str) -> None:
        """The same as devices report it: ``done`` steps of ``total``, the last of them ``what``."""
        self.advance(done, what, total)

    def _left(self, done: int) -> str:
        """``, about 40 s left``, once a twentieth is done: the first steps, which prepare, tell too little."""
        if not self._total or not self._total / 20 <= done < self._total:
            return ""
        seconds = (time.monotonic() - self._began) * (self._total - done) / done
        return f", about {seconds:.0f} s left" if seconds < 120 else f", about {seconds / 60:.0f} min left"

    def note(self, text: str) -> None:
        """A sentence that stays above the line."""
        if self._live:
            self._progress.console.print(self._escape(text))
        elif not self._quiet:
            self._say(text)
        logger.info("%s", text)
