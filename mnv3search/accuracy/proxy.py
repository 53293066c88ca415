"""The proxy evaluator: trains every network for a few epochs on your images and measures its top-1 on held-out ones.

Its answers are accuracies, in percent, of short trainings: lower than a full training gives, in an order that is close
to it; ``benchmarks/evaluators.py`` measures how close.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from mnv3search.accuracy.evaluator import Capabilities, Evaluation, Report, parse_numbers
from mnv3search.architecture import Architecture, to_mapping
from mnv3search.errors import DivergedError, EvaluatorError, RunError
from mnv3search.training.data.splits import DataSplits, stable_subset

if TYPE_CHECKING:
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.loop import TrainingResult
    from mnv3search.training.progress import TrainingProgress
    from mnv3search.training.recipe import Recipe

RECIPE = "small_32"
OPTIONS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "epochs": (1, 1_000),
        "images": (2, 100_000_000),
        "resolution": (8, 1_024),
        "seeds": (1, 16),
        "seed": (0, 2**31 - 1),
    }
)
"""Each option's range."""
LEAST_EPOCHS, MOST_EPOCHS, PASSES = 3, 30, 10_000
COST_STEPS = 4
_SCORED = "proxy"
_VERSION = 2  # of what a training does; an accuracy of another is not this one's


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """How short a training is.

    Attributes:
        epochs: over the subset; where None as many as make 10,000 passes over an image, 3 to 30.
        images: to train on: a stable subset of the training images, or all where there are fewer. At most as many
            measure the accuracy.
        resolution: of network and images; each network's own where None.
        seeds: trainings of each network, whose mean is its accuracy.
        seed: of the first of them: weights, order of the images, augmentation, dropout.
    """

    epochs: int | None = None
    images: int = 10_000
    resolution: int | None = None
    seeds: int = 1
    seed: int = 0

    @staticmethod
    def parsed(text: str) -> ProxyOptions:
        """The options of ``epochs=3,images=10000``."""
        return ProxyOptions(**parse_numbers(text, OPTIONS, "proxy"))


class Proxy:
    """Trains each network from scratch, for a little while."""

    def __init__(
        self, data: DataSplits, options: ProxyOptions | None = None, *, folder: Path | None = None,
        progress: TrainingProgress | None = None,
    ) -> None:  # fmt: skip
        """Train on ``data.train``, measure on ``data.val``; ``data.test`` is never read.

        Args:
            data: images with labels.
            options: how short the trainings are.
            folder: where trained networks are kept (``<key>.safetensors``) and found again; None keeps none.
            progress: notified of every step.
        """
        self.options = options or ProxyOptions()
        self._folder, self._progress = folder, progress
        self._train = _at_most(data.train, self.options.images)
        self._val = _at_most(data.val, self.options.images)
        chance = 100.0 * float(np.bincount(self._val.labels).max()) / len(self._val) if len(self._val) else 0.0
        passes = -(-PASSES // max(len(self._train), 1))
        self.epochs = self.options.epochs or min(max(passes, LEAST_EPOCHS), MOST_EPOCHS)
        images = " ".join(_digest(*part.files, *map(str, part.labels.tolist())) for part in (self._train, self._val))
        self.capabilities = Capabilities(
            trains=True, chance=chance, identity=f"{self.options} in {self.epochs} epochs on {images}",
            trained_file=self.trained_file, seconds_each=self.seconds_each,
        )  # fmt: skip

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """The accuracy of each in the best epoch of its short training; ``top1_std`` is :func:`spread`'s.

        A network whose loss does not stay finite has the accuracy of chance.

        Raises:
            DataError: images that this network cannot learn from, such as other classes, or that cannot be read.
            RunError: a trained network cannot be kept in the folder.
            WeightsError, EvaluatorError: one that was kept there is damaged.
        """
        return [self.evaluate_until(architecture, lambda _: False) for architecture in architectures]

    def evaluate_until(
        self, architecture: Architecture, should_prune: Callable[[Sequence[Report]], bool]
    ) -> Evaluation:
        """As :meth:`evaluate`, of one network; ``should_prune`` may end the first seed's training after any epoch."""
        best: list[float] = []
        reports: tuple[Report, ...] = ()
        for seed in range(self.options.seed, self.options.seed + self.options.seeds):
            found = self._kept(architecture, seed)
            if found is None:
                try:
                    result = self._trained(architecture, seed, None if best else should_prune)
                except DivergedError:  # the network's fault; a full disk or lost images are not, and are raised
                    return self._answer([self.capabilities.chance], stopped=True)
                found = tuple((record.epoch, record.val_top1) for record in result.history)
                if result.stopped:
                    return self._answer([_best(found)], found, stopped=True)
                self._keep(architecture, seed, result, found)
            reports = reports or found
            best.append(_best(found))
        return self._answer(best, reports)

    def _answer(self, best: Sequence[float], reports: tuple[Report, ...] = (), *, stopped: bool = False) -> Evaluation:
        return Evaluation(statistics.fmean(best), spread(best, len(self._val)), reports, stopped=stopped)

    def _trained(
        self, architecture: Architecture, seed: int, should_prune: Callable[[Sequence[Report]], bool] | None
    ) -> TrainingResult:
        import torch

        from mnv3search.network.build import build_network
        from mnv3search.training.data.preprocessing import Preprocessing
        from mnv3search.training.loop import train_network
        from mnv3search.training.state import EpochRecord

        reports: list[Report] = []

        def ask(record: EpochRecord) -> bool:
            reports.append((record.epoch, record.val_top1))
            return record.epoch < self.epochs and should_prune is not None and should_prune(reports)

        trained = self._resized(architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build_network(trained)
        return train_network(
            network, (self._train, self._val), self._recipe(), preprocessing=Preprocessing(trained.resolution),
            seed=seed, progress=self._progress, on_epoch=ask,
        )  # fmt: skip

    def seconds_each(self, architecture: Architecture) -> float:
        """Seconds of this network's trainings on this machine, extrapolated from a few steps, without evaluation."""
        from mnv3search.network.build import build_network
        from mnv3search.training.data.batches import Batches
        from mnv3search.training.data.preprocessing import Preprocessing
        from mnv3search.training.fine_tune import fine_tune

        trained, recipe = self._resized(architecture), self._recipe()
        batches = Batches(
            self._train, Preprocessing(trained.resolution), min(recipe.batch_size, len(self._train)),
            augmentation=recipe.augmentation, shuffle=True, drop_last=True,
        )  # fmt: skip
        network = build_network(trained)
        fine_tune(network, batches, 1, 1e-3)  # warm-up
        began = time.perf_counter()
        fine_tune(network, batches, COST_STEPS, 1e-3, first_step=1)
        each = (time.perf_counter() - began) / COST_STEPS
        return each * len(batches) * self.epochs * self.options.seeds

    def _resized(self, architecture: Architecture) -> Architecture:
        return architecture.with_resolution(self.options.resolution or architecture.resolution)

    def _recipe(self) -> Recipe:
        from mnv3search.training.recipe import load_recipe

        return load_recipe(RECIPE).for_epochs(self.epochs).for_images(len(self._train))

    def _path(self, architecture: Architecture, seed: int) -> Path | None:
        """Where the network is kept: its name depends on everything that its accuracy depends on."""
        if self._folder is None:
            return None
        asked: dict[str, Any] = {
            "version": _VERSION,
            "architecture": to_mapping(architecture),
            "resolution": self.options.resolution,
            "recipe": self._recipe().to_mapping(),
            "seed": seed,
            "images": [_digest(*images.files) for images in (self._train, self._val)],
        }
        return self._folder / f"{_digest(json.dumps(asked, sort_keys=True))}.safetensors"

    def trained_file(self, architecture: Architecture) -> Path | None:
        """The file of the network as the first seed trained it; None where there is none."""
        path = self._path(architecture, self.options.seed)
        return path if path is not None and path.is_file() else None

    def _kept(self, architecture: Architecture, seed: int) -> tuple[Report, ...] | None:
        """The reports of a training that was kept; None where there is none."""
        from mnv3search.training.trained import load_trained

        path = self._path(architecture, seed)
        if path is None or not path.exists():
            return None
        reports = load_trained(path).facts.get(_SCORED)
        try:
            return tuple((int(epoch), float(top1)) for epoch, top1 in reports)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            raise EvaluatorError(f"{path} holds no report of its training; delete it, then resume") from None

    def _keep(self, architecture: Architecture, seed: int, result: TrainingResult, reports: tuple[Report, ...]) -> None:
        from mnv3search.training.trained import save_trained

        path = self._path(architecture, seed)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot make the folder {path.parent} of trained networks: {error.strerror}; name another, or mend it"
            ) from None
        facts = {**result.trained.facts, _SCORED: [list(report) for report in reports]}
        save_trained(path, replace(result.trained, facts=facts))


def spread(top1: Sequence[float], images: int) -> float:
    """One standard deviation of the mean of ``top1``, in points: of so many held-out images, and of several seeds.

    The binomial's, with one image added on either side so that it is never 0; one seed does not show how trainings of
    the same network differ, which for short trainings is often more.
    """
    right = images * statistics.fmean(top1) / 100
    share = (right + 1) / (images + 2)
    variance = 1e4 * share * (1 - share) / (images + 2)
    if len(top1) > 1:
        variance += statistics.variance(top1) / len(top1)
    return math.sqrt(variance)


def _best(reports: Sequence[Report]) -> float:
    """The top-1 of the epoch whose network is kept."""
    return max(top1 for _, top1 in reports)


def _at_most(images: LabelledImages, count: int) -> LabelledImages:
    return images if len(images) <= count else stable_subset(images, count, "proxy")


def _digest(*texts: str) -> str:
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
