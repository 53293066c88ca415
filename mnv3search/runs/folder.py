"""The folders of runs and prunings: where each file stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from mnv3search.errors import DeviceError, RunError
from mnv3search.files import write_text
from mnv3search.reading import read_bounded, utf8
from mnv3search.manifest import ManifestFolder, describe_environment, free_folder
from mnv3search.runs.settings import PruningSettings, RunSettings
from mnv3search.training.data.open_data import absolute_data
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

MAX_DEVICE_BYTES = 10_000_000
IMAGES_KEY = "data"  # of the manifest: what tells the images from others


class RunFolder(ManifestFolder[RunSettings]):
    """The folder of one run.

    What was asked: ``manifest.json``, ``space.yaml`` or ``seed.json``, ``device.json`` (a profile given as a file).
    What can go on: ``study.log`` (Optuna's journal), ``netadapt.csv``, ``evaluations.jsonl``, ``measured.jsonl`` (whole
    networks timed), ``decisions.json`` (targets in milliseconds). What was found: ``best.json``, ``candidates.csv``,
    ``pareto.csv``, ``pareto.png``, ``pareto.svg``, ``report.html``, and ``best.safetensors`` where an evaluator
    trained the winner. ``proxy/``: every network that it trained.
    """

    KIND, FORMAT, SETTINGS = "run", "mnv3search.run", RunSettings
    BEGINNINGS = ("space.yaml", "seed.json", "device.json", "evaluations.jsonl", "measured.jsonl", "decisions.json")

    @property
    def study(self) -> Path:
        """Optuna's journal file."""
        return self.path / "study.log"

    @property
    def steps(self) -> Path:
        """NetAdapt's steps."""
        return self.path / "netadapt.csv"

    @property
    def evaluations(self) -> Path:
        """Evaluations other than the block search's."""
        return self.path / "evaluations.jsonl"

    @property
    def measured(self) -> Path:
        """Whole networks timed."""
        return self.path / "measured.jsonl"

    @property
    def decisions(self) -> Path:
        """Milliseconds that the run fixed once."""
        return self.path / "decisions.json"

    @property
    def proxy(self) -> Path:
        """Where an evaluator that trains keeps its networks."""
        return self.path / "proxy"

    @property
    def trained(self) -> Path:
        """The winner as an evaluator trained it: what makes this folder a RUN for other commands."""
        return self.path / "best.safetensors"

    @property
    def device_copy(self) -> Path:
        """Where a device profile stands that the user gave as a file."""
        return self.path / "device.json"

    @property
    def device(self) -> str:
        """The run's device by name, or the path of its copied profile, which moves with the folder."""
        return str(self.device_copy) if self.device_copy.exists() else self.settings.device

    @classmethod
    def create(cls, path: Path | None, settings: RunSettings) -> RunFolder:
        """A new folder: ``path``, or ``runs/<date>-<subject>-<target>`` with a number where that is taken.

        Raises:
            RunError: ``path`` exists and is not empty, or cannot be made or written.
        """
        if settings.data is not None:
            settings = replace(settings, data=absolute_data(settings.data))
        path = path or free_folder(settings.subject, "".join(settings.target.split()))
        with cls._made(path, settings, describe_environment()) as folder:
            return folder

    def data_are_at(self, where: str) -> None:
        """Learn from images that moved to ``where``; the session checks that they are the same.

        Raises:
            RunError: the run learns from no images.
        """
        if self.settings.data is None:
            raise RunError(f"the run of {self.path} learns from no images; leave --data away")
        self.settings = replace(self.settings, data=absolute_data(where))

    def discard(self) -> None:
        """Remove a folder in which nothing was found, so that its name is free again.

        One in which a search, a narrowing or a training has begun stays, and so does every file that no run writes.
        """
        if not (self.study.exists() or self.steps.exists() or self.proxy.exists()):
            self._remove(self.BEGINNINGS)


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
        with cls._made(path, settings, describe_environment(), **{IMAGES_KEY: dict(images)}) as folder:
            save_trained(folder.seed, seed)
            copy_device(settings.device, path / "device.json")
            return folder

    def discard(self) -> None:
        """Remove a folder in which nothing was found, so that its name is free again."""
        if not (self.path / "proposals.jsonl").exists():
            self._remove(self.BEGINNINGS)


def copy_device(device: str, copy: Path) -> None:
    """Keep a device profile that the user gave as a file.

    Raises:
        DeviceError: it is too large to be one.
    """
    if not device.endswith(".json"):
        return
    try:
        write_text(copy, utf8(read_bounded(device, MAX_DEVICE_BYTES)))
    except (OSError, ValueError) as error:
        raise DeviceError(f"cannot read the device profile {device}: {error}; check the path") from None
