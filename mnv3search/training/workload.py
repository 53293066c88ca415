"""What a step works on: the whole network on images, or its classifier alone on features computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from mnv3search.errors import DataError
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.batches import Batch, Batches
from mnv3search.training.evaluation import AT_ONCE, evaluating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mnv3search.network.build import MobileNetwork
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.progress import TrainingProgress
    from mnv3search.training.recipe import Recipe

Freeze = Literal["none", "features"]
MOST_CACHED_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Workload:
    """What is trained and evaluated."""

    module: nn.Module  # what a step runs: (N, …) to logits; parts of the network, which it trains
    train: Batches | CachedFeatures
    val: Batches | CachedFeatures
    evaluated_part: Callable[[MobileNetwork], nn.Module]  # of a copy of the network, what gives logits for val


def make_workload(
    network: MobileNetwork, train: LabelledImages, val: LabelledImages, recipe: Recipe, preprocessing: Preprocessing, *,
    seed: int, frozen: bool, teacher: bool, rank: int, world: int, workers: int, progress: TrainingProgress,
) -> Workload:  # fmt: skip
    """The workload of process ``rank`` of ``world``; ``recipe.batch_size`` is at most the number of training images.

    With frozen features, no augmentation and no teacher the features of every image are the same in every epoch: they
    are computed now, once, where they fit into 1 GiB.
    """
    images = Batches(
        train, preprocessing, recipe.batch_size, augmentation=recipe.augmentation, seed=seed, shuffle=True,
        drop_last=True, rank=rank, world=world, workers=workers,
    )  # fmt: skip
    at_once = max(AT_ONCE // world, 1) * world
    validation = Batches(val, preprocessing, at_once, rank=rank, world=world, workers=workers)
    fits = (len(train) + len(val)) * network.head.classifier.in_features * 4 <= MOST_CACHED_BYTES
    if not (frozen and recipe.augmentation == Augmentation() and not teacher and fits and world == 1):
        return Workload(network, images, validation, lambda copy: copy)
    progress.note("the features are frozen and the images do not change: their features are computed once")
    from torch import nn

    return Workload(
        nn.Sequential(network.head.dropout, network.head.classifier),
        CachedFeatures(network, train, preprocessing, recipe.batch_size, seed, progress, workers=workers),
        CachedFeatures(network, val, preprocessing, AT_ONCE, None, progress, workers=workers),
        lambda copy: copy.head.classifier,
    )


class CachedFeatures:
    """The inputs of a network's classifier for images: (N, features), computed once."""

    def __init__(
        self, network: MobileNetwork, images: LabelledImages, preprocessing: Preprocessing, batch_size: int,
        seed: int | None, progress: TrainingProgress, *, workers: int = 0,
    ) -> None:  # fmt: skip
        """Compute them; a ``seed`` shuffles the images of each epoch and drops what is no full batch."""
        import torch

        self._batch_size, self._seed = batch_size, seed
        progress.stage(f"features of {len(images)} images", len(images))
        classifier = network.head.classifier
        found: list[Tensor] = []
        labels: list[Tensor] = []
        hook = classifier.register_forward_pre_hook(lambda _, given: found.append(given[0].detach().cpu()))
        with evaluating(network), hook:
            for batch in Batches(images, preprocessing, AT_ONCE, workers=workers).epoch(0):
                network(batch.images.to(classifier.weight.device))
                labels.append(batch.labels)
                progress.advance(sum(map(len, labels)))
        self._features, self._labels = torch.cat(found), torch.cat(labels)

    def __len__(self) -> int:
        """Steps in an epoch."""
        full, rest = divmod(len(self._labels), self._batch_size)
        return full + (1 if rest and self._seed is None else 0)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number`` from batch ``start`` on."""
        import torch

        order = np.arange(len(self._labels))
        if self._seed is not None:
            order = np.random.default_rng((self._seed, number)).permutation(order)
        for step in range(start, len(self)):
            chosen = torch.from_numpy(order[step * self._batch_size : (step + 1) * self._batch_size])
            yield Batch(self._features[chosen], self._labels[chosen])


def check_data(network: MobileNetwork, train: LabelledImages, val: LabelledImages) -> None:
    """Raises :class:`DataError` where the images are not what this network can learn."""
    classes = network.architecture.classes
    if train.classes != val.classes:
        raise DataError(f"{train.source.name} and {val.source.name} have different classes; they must be the same")
    if len(train.classes) != classes:
        raise DataError(
            f"{train.source.name} has {len(train.classes)} classes, but the network has {classes} logits; build it "
            f"with {len(train.classes)} classes"
        )
    if classes < 2:
        raise DataError(f"{train.source.name} has one class, {train.classes[0]!r}; to learn takes at least two")
    for images, what in ((train, "train on"), (val, "validate on")):
        if not len(images):
            raise DataError(f"{images.source.name} holds no images to {what}; give more images")
