"""Epochs as TensorBoard's events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mnv3search.errors import MissingDependencyError
from mnv3search.training.history import EpochRecord


class TensorBoardLog:
    """Writes each epoch's figures below ``folder``; resumed trainings go on in the same curves."""

    def __init__(self, folder: Path) -> None:
        """Begin a file of events.

        Raises:
            MissingDependencyError: TensorBoard is not installed.
        """
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
