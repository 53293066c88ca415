"""Signals that ask to end: the first ends in order what runs, a second one at once; none ends in a traceback."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # as type checkers read it; nothing is imported here that Python has not loaded already
if TYPE_CHECKING:
    import signal
    from types import FrameType
    from typing import NoReturn
else:
    import _signal as signal

ASKING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
AGAIN_S = 0.01
SAME_S = 0.5  # GNU timeout and process managers signal a process and its group: one request that comes twice
_SHOW_CURSOR = b"\x1b[?25h\n"  # which a progress line hides


class Stopping:
    """What this process does about signals; SIGTERM and a closed terminal go the way of Ctrl-C.

    Attributes:
        orderly: whether a command runs, which ends in order; before and after, there is nothing to lose.
    """

    def __init__(self) -> None:
        self.orderly = False
        self._number, self._at = 0, 0.0

    @property
    def exit_code(self) -> int:
        """128 and the number of the signal, as shells have it."""
        return 128 + (self._number or signal.SIGINT)

    def answer_signals(self) -> None:
        """Answer them from here on; those that are ignored, as under nohup, stay so."""
        for number in ASKING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._asked)
        signal.signal(signal.SIGALRM, self._again)
        sys.unraisablehook = self._swallowed

    def _asked(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if number == self._number != signal.SIGINT and now - self._at < SAME_S:
            return
        first, self._number, self._at = not self._number, self._number or number, now
        interrupted = signal.getsignal(signal.SIGINT)
        if number != signal.SIGINT and callable(interrupted) and interrupted != self._asked:
            interrupted(signal.SIGINT, frame)  # a training ends its step first
        elif self.orderly and first:
            raise KeyboardInterrupt
        else:
            self._leave()

    def _swallowed(self, lost: sys.UnraisableHookArgs) -> None:
        """An interrupt in a callback or a destructor, where nothing can be raised: it comes again a moment later."""
        if lost.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
        else:
            sys.__unraisablehook__(lost)

    def _again(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def _leave(self) -> NoReturn:
        try:
            os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + (b"" if self.orderly else b"interrupted\n"))
        except OSError:  # nobody is there to read it
            pass
        finally:
            os._exit(self.exit_code)
