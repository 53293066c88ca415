"""Weights as deployed, norms folded into their convolutions: put into modules, and taken out of trained networks.

The weights are those of :mod:`mnv3search.graph`, so a module made here computes what the graph of the same seed does.
Its norms stay where they are, as after training; they scale by 1 and carry their layer's bias. The other way round,
:func:`folded_weights` gives what the graph of a trained network needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec
from mnv3search.errors import WeightsError
from mnv3search.graph import Weights, network_weights, unit_weights
from mnv3search.layers import Unit
from mnv3search.network.build import MobileNetwork
from mnv3search.network.modules import Conventions, ConvNormActivation, Head, InvertedResidual

FoldedWeights = Mapping[str, NDArray[Any]]
UNIT_NORM_EPS = 1e-3


def folded_network(architecture: Architecture, seed: int = 0) -> MobileNetwork:
    """The network with the weights of ``network_weights(architecture, seed)``, in evaluation mode."""
    with torch.device("meta"):
        network = MobileNetwork(architecture)
    load_folded(network, network_weights(architecture, seed))
    return network.eval()


def folded_unit(unit: Unit, seed: int = 0) -> nn.Module:
    """The module of one unit with the weights of ``unit_weights(unit, seed)``, in evaluation mode."""
    with torch.device("meta"):
        module = _unit_module(unit)
    load_folded(module, unit_weights(unit, seed))
    return module.eval()


def folded_weights(network: MobileNetwork) -> Weights:
    """The weights of ``network`` in evaluation mode, its norms folded in, by the names of ``network_weights``; float32.

    Scales and shifts are computed in float64, so that each weight is rounded once. What a norm adds becomes the bias of
    its layer. Only the state dict is read, so a network whose modules work otherwise in training is folded alike.

    Raises:
        WeightsError: a weight is not finite once it is folded.
    """
    with torch.device("meta"):
        structure = MobileNetwork(network.architecture)
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    found: Weights = {}
    for layer in _deployed_layers(structure):
        weight, bias = _fold(layer, state)
        for kind, tensor in (("weight", weight), ("bias", bias)):
            if tensor is None:
                continue
            values = tensor.to(torch.float32)
            if not bool(torch.isfinite(values).all()):
                raise WeightsError(f"{layer.name}.{kind} is not finite once its norm is folded in; train it again")
            found[f"{layer.name}.{kind}"] = values.numpy()
    return found


class _DeployedLayer(NamedTuple):
    """A convolution or linear layer: its name in the graph, and where it and its norm stand in the module."""

    name: str
    path: str
    module: nn.Conv2d | nn.Linear
    norm_path: str
    norm: _BatchNorm | None


def _deployed_layers(module: nn.Module) -> Iterator[_DeployedLayer]:
    for path, layer in list(module.named_modules()):
        if not isinstance(layer, (nn.Conv2d, nn.Linear)):
            continue
        parent_path, _, own = path.rpartition(".")
        parent = module.get_submodule(parent_path)
        if isinstance(parent, ConvNormActivation):
            # the graph calls a stem's only layer `conv`, any other by the place that it has in its block or head
            name = parent_path if parent_path and not parent_path.endswith("stem") else path
            yield _DeployedLayer(name, path, layer, f"{parent_path}.norm".lstrip("."), parent.norm)
        else:
            yield _DeployedLayer(path, path, layer, f"{path}_norm", getattr(parent, f"{own}_norm", None))


def _fold(layer: _DeployedLayer, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a layer with its norm in them, float64; no bias where there is neither bias nor norm."""
    weight = state[f"{layer.path}.weight"].double()
    bias = state[f"{layer.path}.bias"].double() if layer.module.bias is not None else None
    if layer.norm is None:
        return weight, bias
    gain, shift, mean, variance = (
        state[f"{layer.norm_path}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / torch.sqrt(variance + layer.norm.eps)
    entering = -mean if bias is None else bias - mean
    return weight * scale.reshape(-1, *(1,) * (weight.dim() - 1)), shift + entering * scale


def load_folded(module: nn.Module, weights: FoldedWeights) -> None:
    """Puts folded weights by name (``blocks.3.depthwise.bias``) into a network or a unit's module.

    A module on the meta device is given memory.

    Raises:
        WeightsError: a layer without weights, weights without a layer, or another shape.
    """
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        module.to_empty(device="cpu")
    left = dict(weights)
    with torch.no_grad():
        for layer in _deployed_layers(module):
            _load_layer(layer, left)
    if left:
        raise WeightsError(f"weights {min(left)!r} have no layer in the network; give those of its own graph")


def _load_layer(layer: _DeployedLayer, left: dict[str, NDArray[Any]]) -> None:
    _copy(layer.module.weight, layer.name, "weight", left)
    if layer.norm is not None:
        _pass_through(layer.norm)
        _copy(layer.norm.bias, layer.name, "bias", left)
        if layer.module.bias is not None:
            layer.module.bias.zero_()
    elif layer.module.bias is not None:
        _copy(layer.module.bias, layer.name, "bias", left)


def _copy(tensor: Tensor, name: str, kind: str, left: dict[str, NDArray[Any]]) -> None:
    values = left.pop(f"{name}.{kind}", None)
    if values is None or tuple(values.shape) != tuple(tensor.shape):
        found = "nothing" if values is None else str(tuple(values.shape))
        raise WeightsError(f"{name}.{kind} is {found}; the network needs {tuple(tensor.shape)}")
    tensor.copy_(torch.from_numpy(values))


def _pass_through(norm: _BatchNorm) -> None:
    """A norm that scales by 1: its weight undoes what its eps adds to a variance of 1."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.num_batches_tracked.zero_()
    norm.weight.fill_((1.0 + norm.eps) ** 0.5)


def _unit_module(unit: Unit) -> nn.Module:
    conventions = Conventions(unit.padding, unit.conv_bias, UNIT_NORM_EPS, 0.01)
    spec = unit.spec
    if isinstance(spec, BlockSpec):
        return InvertedResidual(unit.in_channels, spec, conventions)
    if isinstance(spec, HeadSpec):
        return Head(unit.in_channels, spec, unit.classes, conventions)
    return ConvNormActivation(
        unit.in_channels, spec.out_channels, conventions, kernel_size=spec.kernel_size, stride=spec.stride,
        activation=spec.activation,
    )  # fmt: skip
