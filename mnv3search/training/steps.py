"""The steps of a training: each a function of the weights, the images, the seed, the epoch and its number alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mnv3search.errors import DivergedError
from mnv3search.training.devices import accelerator, step_seed
from mnv3search.training.distillation import Teacher, batch_loss
from mnv3search.training.evaluation import Metrics, MetricSums, calibrate_norms, calibration_batches, evaluating
from mnv3search.training.optimisers import MovingAverage, make_optimiser
from mnv3search.training.recipe import learning_rate
from mnv3search.training.state import Counters
from mnv3search.training.workload import Freeze, make_workload

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mnv3search.network.build import MobileNetwork
    from mnv3search.training.data.batches import Batch
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.progress import TrainingProgress
    from mnv3search.training.recipe import Recipe

CHECK_EVERY = 25  # steps after which a GPU's losses are read: reading waits for it


class Steps:
    """Makes ``network`` ready, in place, then takes one step after another.

    ``evaluated`` is a plain copy that :meth:`evaluate` fills with the weights to evaluate and keep.
    """

    def __init__(
        self, network: MobileNetwork, train: LabelledImages, val: LabelledImages, recipe: Recipe,
        preprocessing: Preprocessing, *, seed: int, freeze: Freeze, teacher: nn.Module | None, workers: int,
        progress: TrainingProgress,
    ) -> None:  # fmt: skip
        self.recipe, self.network, self._seed, self._frozen = recipe, network, seed, freeze == "features"
        self.accelerator: Any = accelerator(recipe.precision)
        self._device: torch.device = self.accelerator.device
        network.to(self._device)
        self.evaluated = plain_copy(network)
        prepared(network, frozen=self._frozen)
        network.train(not self._frozen)  # frozen features keep the statistics of their norms
        network.head.dropout.train()
        self._work = make_workload(
            network, train, val, recipe, preprocessing, seed=seed, frozen=self._frozen, teacher=teacher is not None,
            rank=self.accelerator.process_index, world=self.accelerator.num_processes, workers=workers,
            progress=progress,
        )  # fmt: skip
        self.optimiser = make_optimiser(self._work.module, recipe)
        self._module, self._stepper = self.accelerator.prepare(self._work.module, self.optimiser)
        self.average = MovingAverage(network, recipe.ema_decay, self._moving()) if recipe.ema_decay else None
        self._teacher = None if teacher is None else Teacher(teacher.to(self._device), recipe, len(train.classes))
        self._classes = len(train.classes)
        self._calibration = None if self._frozen else calibration_batches(train, preprocessing, workers)
        self.counters = Counters()
        self._pending: list[tuple[int, float, int, Tensor]] = []

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return len(self._work.train)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return bool(self.accelerator.is_main_process)

    def release(self) -> None:
        """Give the network its own ``forward`` back, which mixed precision wraps in place."""
        unwrapped = self.accelerator.unwrap_model(self._module, keep_fp32_wrapper=False)
        vars(unwrapped).pop("forward", None)  # the class's own is there again

    def rate_at(self, epoch: int, step: int) -> float:
        """The learning rate of a step, by its middle."""
        return learning_rate(self.recipe, epoch + (step + 0.5) / self.steps)

    def epoch(self) -> Iterator[int]:
        """Take the steps of the current epoch that are left; yields the number of steps done after each."""
        counters = self.counters
        began = time.perf_counter()
        for batch in self._work.train.epoch(counters.epoch, counters.step):
            self._step(batch)
            counters.step += 1
            now = time.perf_counter()
            counters.seconds, began = counters.seconds + now - began, now
            yield counters.step
            began = time.perf_counter()
        self.check_losses()

    def _step(self, batch: Batch) -> None:
        import torch

        epoch, step = self.counters.epoch, self.counters.step
        rate = self.rate_at(epoch, step)
        for group in self._stepper.param_groups:
            group["lr"] = rate
        torch.manual_seed(step_seed(self._seed, epoch, step, self.accelerator.process_index))
        images, labels = batch.images.to(self._device), batch.labels.to(self._device)
        logits = self._module(images)
        loss = batch_loss(logits, labels, self.recipe.label_smoothing)
        if self._teacher is not None:
            loss = self._teacher.loss(images, logits, loss)
        self._pending.append((step, rate, len(images) * self.accelerator.num_processes, loss.detach()))
        if self._device.type == "cpu" or len(self._pending) >= CHECK_EVERY:
            self.check_losses()
        self.accelerator.backward(loss)
        if self.recipe.clip_norm is not None:
            self.accelerator.clip_grad_norm_(self._module.parameters(), self.recipe.clip_norm)
        self._stepper.step()
        self._stepper.zero_grad()
        if self.average is not None:
            self.average.update(epoch * self.steps + step + 1)

    def check_losses(self) -> None:
        """Add up the losses since the last check; raises :class:`DivergedError` where one is not finite."""
        counters = self.counters
        for step, rate, images, loss in self._pending:
            value = float(loss)
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss is {value} at step {step + 1} of {self.steps} in epoch {counters.epoch + 1}, "
                    f"at a learning rate of {rate:.4g}"
                )
            counters.loss_sum += value * images
            counters.seen += images
        self._pending.clear()

    def evaluate(self) -> Metrics:
        """Evaluate the averaged weights, or the weights where there is no average; they are then in ``evaluated``.

        Their norms are calibrated, in every process alike; frozen ones keep their statistics.
        """
        state = self.network.state_dict() | (self.average.tensors if self.average else {})
        self.evaluated.load_state_dict(state)
        if self._calibration is not None:
            calibrate_norms(self.evaluated, self._calibration)
        sums, began = MetricSums(self._classes), time.perf_counter()
        part = self._work.evaluated_part(self.evaluated)
        with evaluating(self.evaluated):
            for batch in self._work.val.epoch(0):
                if len(batch):
                    sums.add(part(batch.images.to(self._device)), batch.labels.to(self._device))
        if self.accelerator.num_processes > 1:
            sums.add_up(lambda own: self.accelerator.reduce(own.to(self._device), "sum"))
        return sums.metrics(time.perf_counter() - began)

    @property
    def fixed(self) -> set[str]:
        """Names of the tensors that training leaves as they are."""
        return set(self.network.state_dict()).difference(self._moving())

    def _moving(self) -> list[str]:
        """Names of the tensors that training changes."""
        if not self._frozen:
            return list(self.network.state_dict())
        return [name for name, parameter in self.network.named_parameters() if parameter.requires_grad]


def plain_copy(network: MobileNetwork) -> MobileNetwork:
    """A network of the same architecture and weights, in evaluation mode, as it is built and not as it is trained."""
    import torch

    from mnv3search.network.build import MobileNetwork

    with torch.device("meta"):
        made = MobileNetwork(network.architecture)
    made.load_state_dict({name: t.detach().clone() for name, t in network.state_dict().items()}, assign=True)
    return made.requires_grad_(False).eval()


def prepared(network: MobileNetwork, *, frozen: bool = False) -> MobileNetwork:
    """``network`` laid out and rewired for fast training, in place; with ``frozen`` only its classifier learns."""
    from mnv3search.network.build import prepare_for_training

    network.requires_grad_(not frozen)
    network.head.classifier.requires_grad_(True)
    return prepare_for_training(network)


@contextmanager
def recipe_settings(network: MobileNetwork, recipe: Recipe) -> Iterator[None]:
    """Within it ``network`` has the recipe's dropout and norm momentum; its architecture stays as it is."""
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)] if recipe.norm_momentum else []
    momenta, dropout = [norm.momentum for norm in norms], network.head.dropout.p
    for norm in norms:
        norm.momentum = recipe.norm_momentum
    if recipe.dropout is not None:
        network.head.dropout.p = recipe.dropout
    try:
        yield
    finally:
        network.head.dropout.p = dropout
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
