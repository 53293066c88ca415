"""Ctrl-C: the first waits for the step, the second does not."""

from __future__ import annotations

import signal
import threading

import pytest

from mnv3search.training.loop import Interruption


def test_the_first_is_noted_the_second_raises() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        assert not interruption.asked
        signal.raise_signal(signal.SIGINT)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone() -> None:
    asked: list[bool] = []

    def work() -> None:
        with Interruption() as interruption:
            asked.append(interruption.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]
