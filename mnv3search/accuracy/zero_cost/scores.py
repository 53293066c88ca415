"""The scores of untrained networks, one function each: a network and images in, a number to maximise out.

Each is on a logarithmic scale, so that only differences mean something, and none is an accuracy.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mnv3search.accuracy.zero_cost.walk import feature_maps

if TYPE_CHECKING:
    from torch import Tensor

    from mnv3search.network.build import MobileNetwork
    from mnv3search.network.modules import ConvNormActivation

MIXUP = 0.01


def naswot(network: MobileNetwork, images: Tensor) -> float:
    """The naswot score, log |det K| of the codes of ``images``: how well the untrained network tells them apart.

    A code has a bit for each unit before an activation, 1 where it is above 0; K[i, j] counts the bits in which images
    i and j agree. Hard swish has no single bend as ReLU has; its sign is taken likewise. The few units within
    squeeze-excite are left out. Source: Mellor et al. 2021 (arXiv:2006.04647), equation 2.
    """
    import torch
    from torch.nn import functional

    agreement = torch.zeros(len(images), len(images), dtype=torch.float64)

    def record(units: Tensor) -> None:
        # of signs ±1 the product is agreements less disagreements
        signs = (units.flatten(1) > 0).float().mul_(2).sub_(1)
        agreement.add_((signs @ signs.T).double().add_(signs.shape[1]).div_(2))

    def layer(module: ConvNormActivation, maps: Tensor) -> Tensor:
        maps = module.norm(module.conv(maps))
        if module.activation is None:
            return maps
        record(maps)
        activated: Tensor = module.activation(maps)
        return activated

    with torch.no_grad():
        pooled = functional.adaptive_avg_pool2d(feature_maps(network, images, layer), 1).flatten(1)
        if network.head.hidden is not None:
            hidden = network.head.hidden(pooled)
            record(hidden if network.head.hidden_norm is None else network.head.hidden_norm(hidden))
        return float(torch.linalg.slogdet(agreement).logabsdet)


def zen(network: MobileNetwork, images: Tensor, others: Tensor) -> float:
    """The Zen-score: how much the maps before the pool change with the input, times what the norms took away.

    ``log E |f(x) - f(x + 0.01 y)| + Σ log √mean(variance)`` over all norms, of a network with standard normal weights
    and without residuals and squeeze-excite. The change is summed over the maps and averaged over images; variances are
    the batch's. Source: Lin et al. 2021 (arXiv:2102.01063), section 3 and its code.
    """
    import torch

    logs: list[float] = []

    def layer(module: ConvNormActivation, maps: Tensor) -> Tensor:
        return after(module, module.conv(maps))

    def measured(module: ConvNormActivation, maps: Tensor) -> Tensor:
        maps = module.conv(maps)
        variance = maps.var(dim=(0, 2, 3), correction=0)
        logs.append(0.5 * math.log(max(float(variance.mean()), 1e-30)))
        return after(module, maps)

    def after(module: ConvNormActivation, maps: Tensor) -> Tensor:
        maps = module.norm(maps)
        return maps if module.activation is None else module.activation(maps)

    with torch.no_grad():
        plain = feature_maps(network, images, measured, residuals=False, gates=False)
        mixed = feature_maps(network, images + MIXUP * others, layer, residuals=False, gates=False)
        change = float((plain - mixed).abs().sum(dim=(1, 2, 3)).mean())
    return math.log(max(change, 1e-30)) + sum(logs)


def synflow(network: MobileNetwork, resolution: int) -> float:
    """log₁₀ of the synaptic flow: Σ |θ · ∂R/∂θ| over weights, R the summed logits of the network of |weights|.

    The input is one image of ones. Norms and biases are left out; every sum is then positive, where ReLU passes it
    unchanged as hard swish does above 3, and gates are open, so the network is linear. Source: Tanaka et al. 2020
    (arXiv:2006.05467). A factor of 1 after a layer has the derivative Σ θ · ∂R/∂θ of that layer's weights, which spares
    their own gradients. After each block a power of 2 is divided away, so that no depth overflows.

    ``network`` is changed: its weights become positive, in float64, and its biases 0.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    factors: list[Tensor] = []
    exponents: list[int] = []

    def through(module: nn.Module, maps: Tensor) -> Tensor:
        factors.append(torch.ones((), dtype=torch.float64, requires_grad=True))
        product: Tensor = module(maps) * factors[-1]
        return product

    def layer(module: ConvNormActivation, maps: Tensor) -> Tensor:
        return through(module.conv, maps)

    def scaled(maps: Tensor) -> Tensor:
        exponents.append(math.frexp(float(maps.detach().max()))[1])
        return maps * 2.0 ** -exponents[-1]

    network.double().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.abs_() if name.endswith("weight") else parameter.zero_()
    image = torch.ones(1, 3, resolution, resolution, dtype=torch.float64)
    maps = feature_maps(network, image, layer, gates=False, after_block=scaled)
    flow = functional.adaptive_avg_pool2d(maps, 1).flatten(1)
    for linear in (network.head.hidden, network.head.classifier):
        flow = flow if linear is None else through(linear, flow)
    torch.autograd.backward(flow.sum())
    total = sum(float(factor.grad) for factor in factors if factor.grad is not None)
    return _log10(total) + sum(exponents) * math.log10(2)


def gradient_norm(network: MobileNetwork, images: Tensor, labels: Tensor) -> float:
    """log₁₀ of the summed norms of the weights' gradients: Σ ‖∂L/∂W‖₂ over convolutions and linear layers.

    L is the cross-entropy of one batch. Source: Abdelfattah et al. 2021 (arXiv:2101.08134), ``grad_norm``.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    from mnv3search.network.build import prepare_for_training

    prepare_for_training(network)
    loss = functional.cross_entropy(network(images), labels)
    weights = [m.weight for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    gradients = torch.autograd.grad(loss, weights)
    return _log10(sum(float(gradient.norm()) for gradient in gradients))


def _log10(total: float) -> float:
    """Minus infinity of nothing: what a dead network scores, and a search refuses as not finite."""
    return math.log10(total) if total > 0 else -math.inf
