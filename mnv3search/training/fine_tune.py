"""A few plain steps, as NetAdapt takes them between two cuts: no epochs, no evaluation, no files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mnv3search.errors import DivergedError, TrainingError
from mnv3search.training.devices import own_randomness, step_seed
from mnv3search.training.distillation import batch_loss
from mnv3search.training.optimisers import decay_groups
from mnv3search.training.steps import prepared

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from mnv3search.network.build import MobileNetwork
    from mnv3search.training.data.batches import Batch, Batches


def fine_tune(
    network: MobileNetwork, batches: Batches, steps: int, learning_rate: float, *, momentum: float = 0.9,
    weight_decay: float = 1e-5, label_smoothing: float = 0.0, clip_norm: float | None = 5.0, first_step: int = 0,
    seed: int = 0, on_step: Callable[[int], None] | None = None,
) -> None:  # fmt: skip
    """Train ``network`` in place for ``steps`` steps of SGD with Nesterov momentum at a constant rate.

    A pure function of its arguments: equal weights, batches, seed and first step give equal weights again, bit for bit,
    on one machine with one number of threads. The network stays where it is and in the mode that it was in.

    The epochs of ``batches`` follow one another, from batch ``first_step`` of their stream on, so that one call can
    continue another. Norms and biases are not decayed; ``label_smoothing`` is the share of the label that is spread
    over all classes; ``clip_norm`` is the gradients' largest norm (a network that has just been cut has large ones),
    None for any; ``seed`` is of dropout. ``on_step`` is called with the number of steps done.
    """
    import torch

    if len(batches) < 1:
        raise TrainingError("there is no batch to fine-tune on; give more images or smaller batches")
    if steps < 0 or first_step < 0:
        raise TrainingError(f"steps ({steps}) and first_step ({first_step}) must be 0 or more")
    if not 0 < learning_rate < math.inf:
        raise TrainingError(f"the learning rate of a fine-tuning, {learning_rate!r}, must be above 0")
    training = network.training
    prepared(network).train()
    optimiser = torch.optim.SGD(
        decay_groups(network, weight_decay), learning_rate, momentum=momentum, nesterov=momentum > 0, fused=True
    )
    try:
        with own_randomness():
            for number, batch in enumerate(_stream(batches, first_step, steps)):
                torch.manual_seed(step_seed(seed, 0, first_step + number, 0))
                loss = _step(network, batch, optimiser, label_smoothing, clip_norm)
                if not math.isfinite(loss):
                    raise DivergedError(
                        f"the loss is {loss} at step {number + 1} of {steps} of a fine-tuning at a learning rate of "
                        f"{learning_rate:g}; lower it"
                    )
                if on_step is not None:
                    on_step(number + 1)
    finally:
        network.train(training)


def _step(
    network: MobileNetwork, batch: Batch, optimiser: Optimizer, label_smoothing: float, clip_norm: float | None
) -> float:
    """One step of ``optimiser``, unless the loss, which is returned, is not finite."""
    from torch.nn.utils import clip_grad_norm_

    device = network.head.classifier.weight.device
    loss = batch_loss(network(batch.images.to(device)), batch.labels.to(device), label_smoothing)
    value = float(loss.detach())
    if math.isfinite(value):
        loss.backward()  # type: ignore[no-untyped-call]
        if clip_norm is not None:
            clip_grad_norm_(network.parameters(), clip_norm, foreach=True)
        optimiser.step()
        optimiser.zero_grad()
    return value


def _stream(batches: Batches, first: int, count: int) -> Iterator[Batch]:
    epoch, start = divmod(first, len(batches))
    while count > 0:
        for batch in batches.epoch(epoch, start):
            if count == 0:
                return
            yield batch
            count -= 1
        epoch, start = epoch + 1, 0
