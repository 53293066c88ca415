"""Norms whose statistics are measured on training images, as the weights stand, before a network is judged.

Running statistics lag behind the weights, and after few steps still hold their first values: a network that has learnt
then gives one constant class. Subnets of once-for-all networks are calibrated alike (Cai et al. 2020,
arXiv:1908.09791).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mnv3search.training.data.batches import Batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing

IMAGES = 2_000  # that statistics are measured on, at most
AT_ONCE = 256


def calibration_batches(train: LabelledImages, preprocessing: Preprocessing, workers: int = 0) -> Batches:
    """Up to 2,000 training images of all classes as they are judged, mixed, in batches of one size."""
    count = min(len(train), IMAGES)
    chosen = train.subset(np.linspace(0, len(train) - 1, count).round().astype(np.int64))
    size = count // -(-count // AT_ONCE)
    return Batches(chosen, preprocessing, size, shuffle=True, drop_last=True, workers=workers)


def calibrate_norms(network: nn.Module, batches: Batches, on_images: Callable[[int], None] | None = None) -> None:
    """Give every norm of ``network``, in place, the mean statistics of ``batches``; its mode stays as it was.

    ``on_images`` is called with the number of images of each batch.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    from mnv3search.training.judge import evaluating

    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    device = next(network.parameters()).device
    with evaluating(network), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.train().momentum = None  # the mean of all batches alike
        for batch in batches.epoch(0):
            network(batch.images.to(device))
            if on_images is not None:
                on_images(len(batch.labels))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
