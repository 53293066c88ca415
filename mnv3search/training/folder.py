"""A training's folder: its settings and its files.

``manifest.json`` (settings, versions, hardware, status), ``network.json`` (the architecture), ``best.safetensors`` (the
trained network), ``last.safetensors`` (the state to resume from) and ``history.csv`` (every epoch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, get_args

from mnv3search.architecture import Architecture, dump_architecture, load_architecture
from mnv3search.errors import RunError
from mnv3search.files import write_text
from mnv3search.manifest import ManifestFolder, Settings, free_folder
from mnv3search.training.data.open_data import absolute_data
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.recipe import Recipe
from mnv3search.training.workload import Freeze


@dataclass(frozen=True, slots=True)
class TrainingSettings(Settings):
    """The settings of a training."""

    network: str  # as the user named it
    data: str  # as open_data takes it
    recipe: dict[str, Any]  # with every change that the user made to it
    recipe_name: str  # of the recipe that it was made of
    preprocessing: dict[str, Any]
    seed: int = 0
    weights: str | None = None  # that the training begins with
    freeze: Freeze = "none"
    teacher: str | None = None  # a trained network to learn from
    tensorboard: bool = False
    threads: int | None = None  # that torch computes on, where given: the last bits of the weights depend on them
    held_out: float = 0.0  # share of the training images that is left out, for NetAdapt to score its proposals on

    def __post_init__(self) -> None:
        if self.freeze not in get_args(Freeze):
            raise RunError(f"freeze is {self.freeze!r}; it must be one of {', '.join(get_args(Freeze))}")
        if not 0 <= self.held_out < 1:
            raise RunError(f"the held-out share is {self.held_out!r}; it must be from 0 to below 1, such as 0.1")

    def loaded_recipe(self) -> Recipe:
        """The recipe, checked."""
        return Recipe.from_mapping(self.recipe, self.recipe_name)

    def loaded_preprocessing(self) -> Preprocessing:
        """The preprocessing, checked."""
        return Preprocessing.from_mapping(self.preprocessing)


class TrainingFolder(ManifestFolder[TrainingSettings]):
    """The folder of one training; see the module."""

    KIND, FORMAT, SETTINGS = "training", "mnv3search.training", TrainingSettings
    BEGINNINGS = ("network.json",)
    JOURNALS = ("history.csv", "last.safetensors", "best.safetensors")

    @classmethod
    def create(
        cls, path: Path | None, settings: TrainingSettings, architecture: Architecture, images: Mapping[str, int]
    ) -> Self:
        """A new folder: ``path``, or ``runs/<date>-train-<network>`` with a number where that is taken."""
        path = path or free_folder("train", settings.network)
        weights, teacher = (where and absolute_data(where) for where in (settings.weights, settings.teacher))
        settings = replace(settings, data=absolute_data(settings.data), weights=weights, teacher=teacher)
        with cls._made(path, settings, images=dict(images)) as folder:
            write_text(path / "network.json", dump_architecture(architecture))
            return folder

    def architecture(self) -> Architecture:
        """The network that is trained."""
        return load_architecture(self.path / "network.json")
