"""How a training tells what it is doing; the command line draws it, a program may ignore it."""

from __future__ import annotations

from typing import Protocol


class TrainingProgress(Protocol):
    """Told of every stage and of every step within it."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins; ``total`` is its number of steps where that is known."""
        ...

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        """``done`` steps of the stage are done; ``detail`` says how it stands."""
        ...

    def note(self, text: str) -> None:
        """A sentence for the reader that stays."""
        ...


class SilentProgress:
    """Says nothing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
