"""How good a network is on labelled images: accuracy, loss and what it takes for what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DataError, DivergedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from mnv3search.training.data.batches import Batch
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing


MIN_TOP5_CLASSES = 6  # below, a label is always among the first five
_DAMAGED = "its weights are damaged or too large; take an earlier checkpoint"


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What a network scored.

    Attributes:
        top1, top5: percent of images whose label is the first, or among the first five, of its classes.
        loss: mean cross-entropy in nats.
        images: how many there were.
        confusion: (classes, classes) int64; row = true class, column = what the network says.
        seconds: that judging took, reading the images included.
    """

    top1: float
    top5: float
    loss: float
    images: int
    confusion: NDArray[np.int64]
    seconds: float

    @property
    def class_accuracy(self) -> NDArray[np.float64]:
        """(classes,) percent of each class's images that are recognised; NaN for a class without images."""
        totals = self.confusion.sum(axis=1)
        with np.errstate(invalid="ignore"):
            shares: NDArray[np.float64] = 100.0 * np.diag(self.confusion) / totals
        return shares

    def worst_confusions(self, count: int = 5) -> list[tuple[int, int, int]]:
        """The most frequent mistakes as (true class, said class, images), most frequent first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(wrong, axis=None, kind="stable")[::-1][:count]
        pairs = [divmod(int(place), len(wrong)) for place in order]
        return [(true, said, int(wrong[true, said])) for true, said in pairs if wrong[true, said]]


def judge(
    network: nn.Module,
    images: LabelledImages,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Judgement:
    """Judge ``network``, where its weights are, on every one of ``images``; its training mode stays as it was.

    Args:
        network: (N, 3, R, R) to logits (N, classes).
        images: with labels in the order of the logits.
        preprocessing: of an image for the network.
        batch_size: images that are judged at a time; on CPUs 256 small images are as fast as any.
        progress: told how many images of how many are judged.

    Raises:
        DataError: no images, a label that the network has no logit for, or an image that cannot be read.
        DivergedError: the network gives NaN.
    """
    from mnv3search.training.data.batches import Batches

    architecture = getattr(network, "architecture", None)
    check_judged(images, len(images.classes) if architecture is None else architecture.classes)
    began = time.perf_counter()
    batches = Batches(images, preprocessing, batch_size)
    tally = Tally(len(images.classes))
    with evaluating(network):
        for batch in batches.epoch(0):
            tally.judge(network, batch)
            if progress is not None:
                progress(tally.images, len(images))
    return tally.judgement(time.perf_counter() - began)


def check_judged(images: LabelledImages, logits: int) -> None:
    """Raises :class:`DataError` where there are no images or other classes than the network has ``logits``."""
    if logits != len(images.classes):
        raise DataError(
            f"{images.source.name} has {len(images.classes)} classes, but the network has {logits} logits; give images "
            "of the classes that it was trained on"
        )
    if not len(images):
        raise DataError(f"{images.source.name} holds no images to judge on; give a folder with one folder a class")


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


class Tally:
    """Sums over judged batches, which can be added up over processes.

    Attributes:
        confusion: (classes, classes) int64, as a judgement has it.
        images: how many were judged.
        among_five: how many have their label among the network's first five.
        loss: the sum of their cross-entropies.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion: NDArray[np.int64] = np.zeros((classes, classes), dtype=np.int64)
        self.images = self.among_five = 0
        self.loss = 0.0

    def judge(self, network: Callable[[Tensor], Tensor], batch: Batch) -> None:
        """Add the judgement of one batch whose labels are (N,)."""
        device = next(iter(_tensors(network)), batch.images).device
        self.add(network(batch.images.to(device)), batch.labels.to(device))

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add logits (N, C) with labels (N,)."""
        from torch.nn import functional

        logits = logits.float()
        first = logits.topk(min(5, self.classes), dim=1).indices
        np.add.at(self.confusion, (labels.cpu().numpy(), first[:, 0].cpu().numpy()), 1)
        self.images += len(labels)
        self.among_five += int((first == labels[:, None]).any(dim=1).sum())
        self.loss += float(functional.cross_entropy(logits, labels, reduction="sum"))

    def add_up(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace every sum by ``total`` of it: that over all processes."""
        import torch

        self.confusion = total(torch.from_numpy(self.confusion)).cpu().numpy()
        figures = total(torch.tensor([self.images, self.among_five, self.loss], dtype=torch.float64))
        self.images, self.among_five, self.loss = int(figures[0]), int(figures[1]), float(figures[2])

    def judgement(self, seconds: float) -> Judgement:
        """The figures of all that was added.

        Raises:
            DivergedError: the loss is not finite.
        """
        images = max(self.images, 1)
        loss = self.loss / images
        if not np.isfinite(loss):
            raise DivergedError(f"the network's loss is {loss} on the images that judge it: {_DAMAGED}")
        top1, top5 = 100.0 * int(np.trace(self.confusion)) / images, 100.0 * self.among_five / images
        return Judgement(top1, top5, loss, self.images, self.confusion, seconds)


def _tensors(network: object) -> Iterable[Tensor]:
    parameters = getattr(network, "parameters", None)
    return parameters() if callable(parameters) else ()
