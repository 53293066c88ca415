"""A run's folder: where each file stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mnv3search.errors import RunError
from mnv3search.manifest import ManifestFolder, free_folder
from mnv3search.runs.environment import describe_environment
from mnv3search.runs.settings import RunSettings
from mnv3search.training.data.open_data import absolute_data



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
