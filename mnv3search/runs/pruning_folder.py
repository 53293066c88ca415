"""A pruning's folder: where each file stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.manifest import ManifestFolder, free_folder
from mnv3search.runs.environment import describe_environment
from mnv3search.runs.images import KEY
from mnv3search.runs.pruning_settings import PruningSettings
from mnv3search.runs.subject import copy_device
from mnv3search.training.data.open_data import absolute_data

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

BEST = "best.safetensors"


class PruningFolder(ManifestFolder[PruningSettings]):
    """The folder of one pruning.

    What was asked: ``manifest.json``, ``seed.safetensors`` (the network that is pruned), ``device.json`` (a profile
    given as a file). What can go on: ``proposals.jsonl`` and ``steps/``, ``decisions.json``, ``measured.jsonl``,
    ``finish/`` (the training at the end). What was found: ``best.safetensors``, ``network.json`` (its architecture),
    ``result.json``, ``steps.csv``,
    ``netadapt.png``, ``netadapt.svg``.
    """

    KIND, FORMAT, SETTINGS = "pruning", "mnv3search.pruning", PruningSettings
    BEGINNINGS = ("seed.safetensors", "device.json", "decisions.json", "measured.jsonl")

    @property
    def seed(self) -> Path:
        """The copy of the trained network."""
        return self.path / "seed.safetensors"

    @property
    def best(self) -> Path:
        """The result: what makes this folder a RUN for other commands."""
        return self.path / BEST

    @property
    def finishing(self) -> Path:
        """The folder of the training at the end."""
        return self.path / "finish"

    @property
    def device(self) -> str:
        """The device by name, or the path of its copied profile, which moves with the folder."""
        copy = self.path / "device.json"
        return str(copy) if copy.exists() else self.settings.device

    @classmethod
    def create(
        cls, path: Path | None, settings: PruningSettings, seed: TrainedNetwork, images: Mapping[str, object]
    ) -> PruningFolder:
        """A new folder: ``path``, or ``runs/<date>-<run>-pruned-<target>`` with a number where that is taken.

        ``images`` is what tells the images from others (:func:`~mnv3search.runs.images.identity`).

        Raises:
            RunError: ``path`` exists and is not empty, or cannot be made or written.
            DeviceError: a device profile that is none.
        """
        from mnv3search.training.trained import save_trained

        subject = settings.run if settings.weights is not None else Path(settings.run).resolve().stem
        path = path or free_folder(subject, "pruned", "".join(settings.target.split()))
        settings = replace(settings, data=absolute_data(settings.data))
        with cls._made(path, settings, describe_environment(), **{KEY: dict(images)}) as folder:
            save_trained(folder.seed, seed)
            copy_device(settings.device, path / "device.json")
            return folder

    def discard(self) -> None:
        """Remove a folder in which nothing was found, so that its name is free again."""
        if not (self.path / "proposals.jsonl").exists():
            self._remove(self.BEGINNINGS)
