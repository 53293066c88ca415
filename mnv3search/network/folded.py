"""Networks and modules of units that hold given weights, as deployed: norms folded into their convolutions.

The weights are those of :mod:`mnv3search.graph`, so a module made here computes what the graph of the same seed does.
Its norms stay where they are, as after training; they scale by 1 and carry their layer's bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec
from mnv3search.cost.units import Unit
from mnv3search.errors import WeightsError
from mnv3search.graph import network_weights, unit_weights
from mnv3search.network.build import MobileNetwork
from mnv3search.network.layers import Conventions, ConvNormActivation, Head, InvertedResidual

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
        for path, layer in list(module.named_modules()):
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                _load_layer(module, path, layer, left)
    if left:
        raise WeightsError(f"weights {min(left)!r} have no layer in the network; give those of its own graph")


def _load_layer(module: nn.Module, path: str, layer: nn.Conv2d | nn.Linear, left: dict[str, NDArray[Any]]) -> None:
    parent_path, _, own = path.rpartition(".")
    parent = module.get_submodule(parent_path)
    name = path
    norm: _BatchNorm | None = getattr(parent, f"{own}_norm", None)
    if isinstance(parent, ConvNormActivation):
        norm = parent.norm
        # the graph calls a stem's only layer `conv`, any other by the place that it has in its block or head
        name = parent_path if parent_path and not parent_path.endswith("stem") else path
    _copy(layer.weight, name, "weight", left)
    if norm is not None:
        _pass_through(norm)
        _copy(norm.bias, name, "bias", left)
        if layer.bias is not None:
            layer.bias.zero_()
    elif layer.bias is not None:
        _copy(layer.bias, name, "bias", left)


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
