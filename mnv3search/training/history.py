"""What each epoch of a training came to."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mnv3search.errors import RunError
from mnv3search.files import write_text


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: its number, from 1.
        learning_rate: of its last step.
        train_loss: mean loss of its steps, as trained (smoothed, mixed, distilled).
        val_top1, val_top5: percent, of the averaged weights where there is an average.
        val_loss: mean cross-entropy, nats.
        seconds: of training, judging left out.
        images_per_second: trained on in that time.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    val_top1: float
    val_top5: float
    val_loss: float
    seconds: float
    images_per_second: float

    @property
    def rank(self) -> tuple[float, float]:
        """By what epochs are compared: top-1, then the loss; more is better."""
        return (self.val_top1, -self.val_loss)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> EpochRecord:
        """Read what :meth:`to_mapping` gave.

        Raises:
            RunError: other names, or values that are no numbers.
        """
        names = [f.name for f in fields(cls)]
        numbers = all(isinstance(value, int | float) for value in mapping.values())
        if sorted(mapping) != sorted(names) or not numbers:
            raise RunError(f"the training's history is damaged: {dict(mapping)!r} is no epoch")
        return cls(**mapping)


def write_history(path: Path, history: Sequence[EpochRecord]) -> None:
    """Write the epochs as CSV, whole or not at all.

    Raises:
        RunError: the file cannot be written.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in record.to_mapping().items()} for record in history)
    write_text(path, stream.getvalue())
