"""A training that has nothing left to do: what it came to, from its folder alone and without its images."""

from __future__ import annotations

from pathlib import Path

from mnv3search.training.folder import TrainingFolder
from mnv3search.training.loop import TrainingResult
from mnv3search.training.state import LAST, load_counters
from mnv3search.training.trained import BEST, load_trained


def finished_training(path: Path) -> TrainingResult | None:
    """What the training in the folder ``path`` came to, or None where something of it is left to do.

    Its ``seconds`` are those of all sessions.

    Raises:
        RunError: it is no training's folder, or its state is damaged.
        WeightsError: its best network is damaged.
    """
    folder = TrainingFolder.open(path)
    if folder.manifest.get("status") != "finished" or not all((path / name).exists() for name in (LAST, BEST)):
        return None
    counters = load_counters(path / LAST)
    if not counters.history or counters.epoch < folder.settings.loaded_recipe().epochs:
        return None
    images = sum(round(record.images_per_second * record.seconds) for record in counters.history)
    return TrainingResult(load_trained(path / BEST), tuple(counters.history), float(folder.manifest["seconds"]), images)
