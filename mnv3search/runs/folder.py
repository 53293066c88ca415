"""The folders of runs and prunings: where each file stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mnv3search.errors import DeviceError, RunError
from mnv3search.files import write_text
from mnv3search.manifest import ManifestFolder, free_folder
from mnv3search.reading import read_bounded, utf8
from mnv3search.runs.settings import PruningSettings, RunSettings
from mnv3search.training.data.open_data import absolute_data

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

MAX_DEVICE_BYTES = 10_000_000
IMAGES_KEY = "data"  # of the manifest: what tells the images from others
BEST = "best.safetensors"
S = TypeVar("S", RunSettings, PruningSettings)


class _File:
    """A file of a folder, as an attribute: its path."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: ManifestFolder[Any], owner: type) -> Path:
        return folder.path / self.name


class LatencyFolder(ManifestFolder[S]):
    """What the folders of runs and prunings share: a device, whole networks timed, and the target in milliseconds."""

    measured = _File("measured.jsonl")  # whole networks timed
    pinned = _File("decisions.json")  # milliseconds that are worked out once
    best = _File(BEST)  # the result with its weights, which makes this folder a RUN for commands; a run may have none
    device_copy = _File("device.json")  # a device profile that the user gave as a file

    @property
    def device(self) -> str:
        """The device by name, or the path of its copied profile, which moves with the folder."""
        return str(self.device_copy) if self.device_copy.exists() else self.settings.device

    def data_are_at(self, where: str) -> None:
        """Learn from images that moved to ``where``; the session checks that they are the same."""
        if self.settings.data is None:
            raise RunError(f"the {self.KIND} of {self.path} learns from no images; leave --data away")
        self.settings = replace(self.settings, data=absolute_data(where))

    def copy_device(self) -> None:
        """Keep a device profile that the user gave as a file."""
        device = self.settings.device
        if not device.endswith(".json"):
            return
        try:
            write_text(self.device_copy, utf8(read_bounded(device, MAX_DEVICE_BYTES)))
        except (OSError, ValueError) as error:
            raise DeviceError(f"cannot read the device profile {device}: {error}; check the path") from None


class RunFolder(LatencyFolder[RunSettings]):
    """The folder of one run.

    What was asked: ``manifest.json``, ``space.yaml`` or ``seed.json``, ``device.json``. What can go on: ``study.log``
    (Optuna's journal), ``netadapt.csv`` (NetAdapt's steps), ``evaluations.jsonl`` (but the block search's),
    ``measured.jsonl``, ``decisions.json``. What was found: ``best.json``, ``candidates.csv``,
    ``pareto.csv``, ``pareto.png``, ``pareto.svg``, ``report.html``, and ``best.safetensors`` where an evaluator
    trained the winner. ``proxy/``: every network that it trained.
    """

    KIND, FORMAT, SETTINGS = "run", "mnv3search.run", RunSettings
    BEGINNINGS = ("space.yaml", "seed.json", "device.json", "evaluations.jsonl", "measured.jsonl", "decisions.json")
    JOURNALS = ("study.log", "netadapt.csv", "proxy", "evaluations.jsonl", "measured.jsonl", "decisions.json")

    study = _File("study.log")
    steps = _File("netadapt.csv")
    evaluations = _File("evaluations.jsonl")
    proxy = _File("proxy")

    @classmethod
    def create(cls, path: Path | None, settings: RunSettings) -> RunFolder:
        """A new folder: ``path``, or ``runs/<date>-<subject>-<target>`` with a number where that is taken."""
        if settings.data is not None:
            settings = replace(settings, data=absolute_data(settings.data))
        path = path or free_folder(settings.subject, "".join(settings.target.split()))
        with cls._made(path, settings) as folder:
            folder.copy_device()
            return folder


class PruningFolder(LatencyFolder[PruningSettings]):
    """The folder of one pruning.

    What was asked: ``manifest.json``, ``seed.safetensors`` (the network that is pruned), ``device.json``. What can go
    on: ``proposals.jsonl`` and ``steps/``, ``decisions.json``, ``measured.jsonl``, ``finish/`` (the training at the
    end). What was found: ``best.safetensors``, ``network.json`` (its architecture), ``result.json``, ``steps.csv``,
    ``netadapt.png``, ``netadapt.svg``.
    """

    KIND, FORMAT, SETTINGS = "pruning", "mnv3search.pruning", PruningSettings
    BEGINNINGS = ("seed.safetensors", "device.json", "decisions.json", "measured.jsonl")
    JOURNALS = ("proposals.jsonl", "steps", "finish", "decisions.json", "measured.jsonl")

    seed = _File("seed.safetensors")
    finishing = _File("finish")

    @classmethod
    def create(
        cls, path: Path | None, settings: PruningSettings, seed: TrainedNetwork, images: Mapping[str, object]
    ) -> PruningFolder:
        """A new folder: ``path``, or ``runs/<date>-<run>-pruned-<target>`` with a number where that is taken.

        ``images`` is what tells the images from others (:func:`~mnv3search.runs.images.identity`).
        """
        from mnv3search.training.trained import save_trained

        subject = settings.run if settings.weights is not None else Path(settings.run).resolve().stem
        path = path or free_folder(subject, "pruned", "".join(settings.target.split()))
        settings = replace(settings, data=absolute_data(settings.data))
        with cls._made(path, settings, **{IMAGES_KEY: dict(images)}) as folder:
            save_trained(folder.seed, seed)
            folder.copy_device()
            return folder
