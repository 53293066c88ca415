"""Weights and norm statistics that keep every activation near 1, so that equal logits prove something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def randomise(network: nn.Module, images: Tensor, seed: int) -> None:
    """Random weights and statistics, each layer rescaled, in order, by what it gives for ``images``."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor, mean: float, spread: float) -> None:
        tensor.copy_(mean + spread * torch.randn(tensor.shape, generator=generator))

    def rescaled(module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            return output
        bias = torch.zeros(()) if module.bias is None else module.bias.reshape(1, -1, *(1,) * (output.dim() - 2))
        std = (output - bias).std().clamp(min=1e-3)
        module.weight.div_(std)
        return (output - bias) / std + bias

    network.eval()
    with torch.no_grad(), _hooked(network, rescaled):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                draw(module.weight, 0.0, 1.0)
                if module.bias is not None:
                    draw(module.bias, 0.0, 0.2)
            elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                draw(module.weight, 1.0, 0.2)
                draw(module.bias, 0.0, 0.3)
                draw(module.running_mean, 0.0, 0.3)  # type: ignore[arg-type]
                module.running_var.copy_(torch.empty_like(module.running_var).uniform_(0.5, 1.5, generator=generator))  # type: ignore[union-attr,arg-type]
        network(images)


@contextmanager
def _hooked(network: nn.Module, hook: object) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in network.modules()]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
