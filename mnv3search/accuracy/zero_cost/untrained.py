"""Untrained networks and the images that they are shown: the same for the same seed, and quick to make.

All networks take their weights from one long draw of normal numbers, layer after layer. So a network costs a copy
instead of a draw, and two networks that begin alike have equal weights there: what differs between their scores is less
chance than it would be with draws of their own.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from mnv3search.architecture import Architecture

if TYPE_CHECKING:
    from torch import Tensor

    from mnv3search.network.build import MobileNetwork

POOL = 1 << 22
Initialisation = Literal["training", "gaussian"]


def untrained_network(architecture: Architecture, seed: int, initialisation: Initialisation) -> MobileNetwork:
    """The network in training mode, without dropout, with weights from ``seed``; norms are 1 and 0, biases 0.

    ``training``: as training starts (He-normal over the outputs, linear layers by the head's ``linear_std``);
    ``gaussian``: every weight standard normal.
    """
    import torch
    from torch import nn

    from mnv3search.network.build import undrawn_network

    network, place = undrawn_network(architecture), 0
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                std = 1.0
                if initialisation == "training":
                    outputs = module.weight.shape[0] * math.prod(module.weight.shape[2:])
                    std = math.sqrt(2 / outputs) if isinstance(module, nn.Conv2d) else architecture.head.linear_std
                _fill(module.weight, place, seed)
                place += module.weight.numel()
                module.weight.mul_(std)
                if module.bias is not None:
                    module.bias.zero_()
    network.head.dropout.eval()
    return network


def _fill(weight: Tensor, place: int, seed: int) -> None:
    """Copy the draw from ``place`` on into ``weight``, from the start again where it ends."""
    pool, flat, done = _pool(seed), weight.view(-1), 0
    while done < len(flat):
        start = (place + done) % POOL
        count = min(len(flat) - done, POOL - start)
        flat[done : done + count] = pool[start : start + count]
        done += count


@lru_cache(maxsize=2)
def _pool(seed: int) -> Tensor:
    import torch

    return torch.randn(POOL, generator=torch.Generator().manual_seed(seed))


@lru_cache(maxsize=4)
def noise(count: int, resolution: int, seed: int) -> Tensor:
    """Standard normal images, (count, 3, resolution, resolution), not those that the weights are drawn from."""
    import torch

    generator = torch.Generator().manual_seed(seed + 2**32)
    return torch.randn(count, 3, resolution, resolution, generator=generator)
