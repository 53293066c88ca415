"""A network on labelled images: accuracy, loss, confusions, and the norms' statistics measured beforehand."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError, DivergedError
from mnv3search.training.data.batches import Batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing

MIN_TOP5_CLASSES = 6  # below, a label is always among the first five
CALIBRATION_IMAGES = 2_000  # that the norms' statistics are measured on, at most
AT_ONCE = 256


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """The metrics of a network on labelled images.

    ``answers`` (M, 3) are sorted: true class, predicted class, and how many images of the one are taken for the other,
    above 0; a training by several processes has none.
    """

    top1: float  # percent of images whose label is the network's first class
    top5: float  # percent of images whose label is among its first five
    loss: float  # mean cross-entropy, nats
    images: int
    answers: NDArray[np.int64]
    classes: int
    seconds: float  # of the evaluation, reading the images included

    @property
    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes), row = true class, column = predicted class; 8 bytes for each pair of classes."""
        matrix = np.zeros((self.classes, self.classes), np.int64)
        true, predicted, count = self.answers.T
        matrix[true, predicted] = count
        return matrix

    @property
    def class_images(self) -> NDArray[np.int64]:
        """(classes,) images of each class."""
        return self._by_class(self.answers)

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """(classes,) percent of each class's images that are recognised; NaN for a class without images."""
        right = self._by_class(self.answers[self.answers[:, 0] == self.answers[:, 1]])
        with np.errstate(invalid="ignore"):
            shares: NDArray[np.float64] = 100.0 * right / self.class_images
        return shares

    def worst_confusions(self, count: int = 5, true: int | None = None) -> list[tuple[int, int, int]]:
        """The most frequent mistakes, of class ``true`` or of all: (true class, predicted, images), most first."""
        wrong = self.answers[self.answers[:, 0] != self.answers[:, 1]]
        if true is not None:
            wrong = wrong[wrong[:, 0] == true]
        order = np.argsort(-wrong[:, 2], kind="stable")[:count]
        return [(int(a), int(b), int(n)) for a, b, n in wrong[order]]

    def _by_class(self, answers: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(answers[:, 0], answers[:, 2], self.classes).astype(np.int64)


def evaluate_network(
    network: nn.Module,
    images: LabelledImages,
    preprocessing: Preprocessing,
    *,
    batch_size: int = AT_ONCE,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Evaluate ``network``, where its weights are, on all of ``images``; its training mode stays as it was.

    The labels are in the order of the logits; on CPUs 256 small images at a time are as fast as any.
    """
    architecture = getattr(network, "architecture", None)
    check_evaluable(images, len(images.classes) if architecture is None else architecture.classes)
    began, sums = time.perf_counter(), MetricSums(len(images.classes))
    device = next((parameter.device for parameter in network.parameters()), "cpu")
    with evaluating(network):
        for batch in Batches(images, preprocessing, batch_size).epoch(0):
            sums.add(network(batch.images.to(device)), batch.labels.to(device))
            if progress is not None:
                progress(sums.images, len(images))
    return sums.metrics(time.perf_counter() - began)


def check_evaluable(images: LabelledImages, logits: int) -> None:
    """Raises :class:`DataError` where there are no images or other classes than the network has ``logits``."""
    if logits != len(images.classes):
        raise DataError(
            f"{images.source.name} has {len(images.classes)} classes, but the network has {logits} logits; give images "
            "of the classes that it was trained on"
        )
    if not len(images):
        raise DataError(f"{images.source.name} holds no images to evaluate on; give a folder with one folder a class")


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """``network`` in evaluation mode and without gradients, then as it was."""
    import torch

    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():  # not inference mode: a batch that stays in memory may be trained on later
            yield
    finally:
        for module, training in modes:
            module.training = training


class MetricSums:
    """Sums over batches, which can be added up over processes: images, those right, and cross-entropies (nats)."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self._answers: Counter[int] = Counter()  # by true × classes + predicted class: sparse, as classes are many
        self.images = self.right = self.among_five = 0
        self.loss = 0.0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Take in logits (N, C) and labels (N,)."""
        from torch.nn import functional

        logits = logits.float()
        first = logits.topk(min(5, self.classes), dim=1).indices
        self._answers.update((labels * self.classes + first[:, 0]).tolist())
        self.images += len(labels)
        self.right += int((first[:, 0] == labels).sum())
        self.among_five += int((first == labels[:, None]).any(dim=1).sum())
        self.loss += float(functional.cross_entropy(logits, labels, reduction="sum"))

    def add_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace every sum by ``total`` of it, that over all processes; the confusions are given up."""
        import torch

        own = [self.images, self.right, self.among_five, self.loss]
        images, right, among_five, self.loss = total(torch.tensor(own, dtype=torch.float64)).tolist()
        self.images, self.right, self.among_five = int(images), int(right), int(among_five)
        self._answers.clear()

    def metrics(self, seconds: float) -> Metrics:
        """The metrics of all batches; raises :class:`DivergedError` where the loss is not finite."""
        images = max(self.images, 1)
        loss = self.loss / images
        if not np.isfinite(loss):
            raise DivergedError(
                f"the network's loss is {loss} on the images of the evaluation: its weights are damaged or too large; "
                "take an earlier checkpoint"
            )
        top1, top5 = 100.0 * self.right / images, 100.0 * self.among_five / images
        counted = sorted(self._answers.items())
        answers = np.array([(*divmod(code, self.classes), n) for code, n in counted], np.int64).reshape(-1, 3)
        return Metrics(top1, top5, loss, self.images, answers, self.classes, seconds)


def calibration_batches(train: LabelledImages, preprocessing: Preprocessing, workers: int = 0) -> Batches:
    """Up to 2,000 training images of all classes, prepared as for evaluation, mixed, in batches of one size."""
    count = min(len(train), CALIBRATION_IMAGES)
    chosen = train.subset(np.linspace(0, len(train) - 1, count).round().astype(np.int64))
    size = count // -(-count // AT_ONCE)
    return Batches(chosen, preprocessing, size, shuffle=True, drop_last=True, workers=workers)


def calibrate_norms(network: nn.Module, batches: Batches, on_images: Callable[[int], None] | None = None) -> None:
    """Recalibrate the batch norms of ``network`` in place: running statistics become the means over ``batches``.

    Running statistics lag behind the weights: after few steps a network that has learnt gives one constant class.
    Subnets of once-for-all networks are calibrated alike (Cai et al. 2020, arXiv:1908.09791).
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    device = next(network.parameters()).device
    with evaluating(network):
        for norm in norms:
            norm.reset_running_stats()
            norm.train().momentum = None  # the mean of all batches alike
        for batch in batches.epoch(0):
            network(batch.images.to(device))
            if on_images is not None:
                on_images(len(batch.labels))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
