"""Weights as deployed, norms folded into their convolutions: put into modules, and taken out of trained networks.

The weights are those of :mod:`mnv3search.graph`, so a module made here computes what the graph of the same seed does.
Its norms stay where they are, as after training; they scale by 1 and carry their layer's bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnv3search.architecture import Architecture
from mnv3search.errors import WeightsError
from mnv3search.graph import Weights, network_weights, unit_weights
from mnv3search.layers import Layer, Unit, learned_layers, network_layers, unit_layers
from mnv3search.network.build import MobileNetwork, empty_network
from mnv3search.network.modules import Conventions, ConvNormActivation, Head, UnitModule, module_paths

FoldedWeights = Mapping[str, NDArray[Any]]
UNIT_NORM_EPS = 1e-3


def folded_network(architecture: Architecture, seed: int = 0) -> MobileNetwork:
    """The network with the weights of ``network_weights(architecture, seed)``, in evaluation mode."""
    network = empty_network(architecture)
    load_folded(network, network_weights(architecture, seed))
    return network.eval()


def folded_unit(unit: Unit, seed: int = 0) -> nn.Module:
    """The module of one unit with the weights of ``unit_weights(unit, seed)``, in evaluation mode."""
    conventions, layers = Conventions(unit.padding, UNIT_NORM_EPS, 0.01), unit_layers(unit)
    with torch.device("meta"):
        if unit.part == "stem":
            module: nn.Module = ConvNormActivation(layers[0], conventions)
        else:
            module = (Head if unit.part == "head" else UnitModule)(unit, conventions)
    _load(module.to_empty(device="cpu"), layers, unit_weights(unit, seed), UNIT_NORM_EPS)
    return module.eval()


def folded_weights(network: MobileNetwork) -> Weights:
    """The weights of ``network`` in evaluation mode, its norms folded in, by the names of ``network_weights``; float32.

    Scales and shifts are computed in float64, so that each weight is rounded once. What a norm adds becomes the bias of
    its layer. A WeightsError names a weight that is not finite once it is folded.
    """
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    found: Weights = {}
    for layer in learned_layers(network_layers(network.architecture)):
        weight, bias = _fold(layer, state, network.architecture.norm_eps)
        for kind, tensor in (("weight", weight), ("bias", bias)):
            if tensor is None:
                continue
            values = tensor.to(torch.float32)
            if not bool(torch.isfinite(values).all()):
                raise WeightsError(f"{layer.name}.{kind} is not finite once its norm is folded in; train it again")
            found[f"{layer.name}.{kind}"] = values.numpy()
    return found


def _fold(layer: Layer, state: Mapping[str, Tensor], eps: float) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer with its norm in them, float64; no bias where there is neither bias nor norm."""
    path, norm = module_paths(layer)
    weight = state[f"{path}.weight"].double()
    bias = state[f"{path}.bias"].double() if layer.bias else None
    if not layer.norm:
        return weight, bias
    gain, shift, mean, variance = (
        state[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / torch.sqrt(variance + eps)
    entering = -mean if bias is None else bias - mean
    return weight * scale.reshape(-1, *(1,) * (weight.dim() - 1)), shift + entering * scale


def load_folded(network: MobileNetwork, weights: FoldedWeights) -> None:
    """Puts folded weights by name (``blocks.3.depthwise.bias``) into a network; raises WeightsError."""
    _load(network, network_layers(network.architecture), weights, network.architecture.norm_eps)


def _load(module: nn.Module, layers: Sequence[Layer], weights: FoldedWeights, eps: float) -> None:
    state, left = module.state_dict(), dict(weights)
    for layer in learned_layers(layers):
        path, norm = module_paths(layer)
        _copy(state[f"{path}.weight"], f"{layer.name}.weight", left)
        if layer.bias:
            state[f"{path}.bias"].zero_()
        if layer.norm:  # it scales by 1: its weight undoes what its eps adds to a variance of 1
            state[f"{norm}.running_mean"].zero_()
            state[f"{norm}.running_var"].fill_(1.0)
            state[f"{norm}.num_batches_tracked"].zero_()
            state[f"{norm}.weight"].fill_((1.0 + eps) ** 0.5)
        if layer.norm or layer.bias:
            _copy(state[f"{norm if layer.norm else path}.bias"], f"{layer.name}.bias", left)
    if left:
        raise WeightsError(f"weights {min(left)!r} have no layer in the network; give those of its own graph")


def _copy(tensor: Tensor, name: str, left: dict[str, NDArray[Any]]) -> None:
    values = left.pop(name, None)
    if values is None or tuple(values.shape) != tuple(tensor.shape):
        found = "nothing" if values is None else str(tuple(values.shape))
        raise WeightsError(f"{name} is {found}; the network needs {tuple(tensor.shape)}")
    tensor.copy_(torch.from_numpy(values))
