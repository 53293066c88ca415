"""How a run reports what it is doing; the command line draws it, a program may ignore it."""

from __future__ import annotations

from mnv3search.training.progress import SilentProgress, TrainingProgress

__all__ = ["DetailProgress", "RunProgress", "SilentProgress"]
RunProgress = TrainingProgress
"""What every stage, and every step within it, is reported to: the same as a training reports to."""


class DetailProgress:
    """Passes on what the stages of a run report, and lets what works within one of their steps add to it."""

    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress
        self._done, self._detail = 0, ""
        self._total: int | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins."""
        self._done, self._detail, self._total = 0, "", total
        self._progress.stage(name, total)

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        """Steps of the stage are done."""
        self._done, self._detail, self._total = done, detail, total if total is not None else self._total
        self._progress.advance(done, detail, total)

    def note(self, text: str) -> None:
        """A sentence for the reader."""
        self._progress.note(text)

    def detailed(self) -> RunProgress:
        """What a step reports to: its stages are none of the run's, and its notes are too many."""
        return _Within(self)

    def add(self, words: str) -> None:
        """How the step that is being done stands."""
        # what was reported of steps that are all done says nothing of this one
        before = "" if self._done == self._total else self._detail
        detail = f"{before}; {words}" if before else words
        self._progress.advance(self._done, detail, self._total)


class _Within:
    def __init__(self, whole: DetailProgress) -> None:
        self._whole = whole

    def stage(self, name: str, total: int | None = None) -> None:
        self._whole.add(name)

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        self._whole.add(detail)

    def note(self, text: str) -> None:
        pass
