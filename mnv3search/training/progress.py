"""How a training reports what it is doing: to the command line, to a program, to TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from mnv3search.errors import MissingDependencyError
from mnv3search.training.state import EpochRecord


class TrainingProgress(Protocol):
    """Receives every stage and every step within it."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A new stage begins; ``total`` is its number of steps where that is known."""
        ...

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        """``done`` steps of the stage are done; ``detail`` describes the last."""
        ...

    def note(self, text: str) -> None:
        """A sentence for the reader that stays."""
        ...


class SilentProgress:
    """Reports nothing."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Nothing."""

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def speed_text(images_per_second: float) -> str:
    """A speed for a reader: ``1234 images/s``, and from 10 down with the digits that a slow one needs."""
    return f"{rate_text(images_per_second)} images/s"


def rate_text(rate: float) -> str:
    """A rate without its unit: whole from 10 up, one decimal below, and never 0 for a slow one."""
    if rate >= 9.95:
        return f"{rate:.0f}"
    return f"{rate:.1f}" if rate >= 0.05 or rate == 0 else f"{rate:.1g}"


def duration_text(seconds: float) -> str:
    """A length of time for a reader: ``40 s``, ``25 min``, ``2 h 10 min``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60:,} h {minutes % 60} min"


class TensorBoardLog:
    """Writes each epoch's figures below ``folder``; resumed trainings continue the same curves."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingDependencyError("tensorboard", "--tensorboard", extra="tensorboard") from None
        self._writer: Any = SummaryWriter(str(folder))

    def record(self, epoch: EpochRecord) -> None:
        """Add one epoch."""
        for name, value in epoch.to_mapping().items():
            if name != "epoch":
                group, _, rest = name.partition("_")
                tag = f"{group}/{rest}" if group in {"train", "val"} else name
                self._writer.add_scalar(tag, value, epoch.epoch)
        self._writer.flush()
