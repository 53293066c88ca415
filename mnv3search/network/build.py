"""From an architecture (a value) to a network (a module): initialised, undrawn, blank or prepared for training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mnv3search.architecture import Architecture, check_architecture
from mnv3search.errors import MissingDependencyError
from mnv3search.layers import unit_layers, units
from mnv3search.network.fast_gradients import FastGradientConv2d
from mnv3search.network.modules import Conventions, ConvNormActivation, Head, UnitModule


class MobileNetwork(nn.Module):
    """The module of one :attr:`architecture`: ``stem``, ``blocks`` and ``head``, registered as they run."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        conventions = Conventions.of(architecture)
        stem, *blocks, head = units(architecture)
        self.stem = ConvNormActivation(unit_layers(stem)[0], conventions)
        self.blocks = nn.Sequential(*(UnitModule(block, conventions) for block in blocks))
        self.head = Head(head, conventions)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) of any size to logits (N, classes)."""
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits


def build_network(architecture: Architecture) -> MobileNetwork:
    """The network of ``architecture``, in training mode, freshly initialised from torch's global generator.

    Convolutions are He-normal over their outputs, norms 1 and 0, linear layers normal with the head's ``linear_std``,
    biases 0 (as torchvision and the papers' code do).

    Raises:
        ArchitectureError: ``architecture`` is none, but a name or a list, say.
    """
    check_architecture(architecture)
    network = MobileNetwork(architecture)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, architecture.head.linear_std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def empty_network(architecture: Architecture) -> MobileNetwork:
    """The network in training mode, all its numbers unset."""
    with torch.device("meta"):
        network = MobileNetwork(architecture)
    return network.to_empty(device="cpu")


def undrawn_network(architecture: Architecture) -> MobileNetwork:
    """The network in training mode, its norms 1 and 0, other weights and biases unset; draws nothing random."""
    with _Undrawn():  # in half the time of `empty_network`
        return MobileNetwork(architecture)


class _Undrawn(TorchFunctionMode):
    """Within it, on this thread, torch's layers leave their weights and biases unset."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        given = dict(kwargs or {})
        if func in (nn.init.kaiming_uniform_, nn.init.uniform_):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def blank_network(architecture: Architecture) -> MobileNetwork:
    """The network with all its numbers 0, in evaluation mode: enough to be traced, and quickly made."""
    network = empty_network(architecture).eval()
    for tensor in network.state_dict().values():
        tensor.zero_()
    return network


def prepare_for_training(network: MobileNetwork) -> MobileNetwork:
    """Puts ``network``, in place, into channels-last with layers that compute faster gradients on a CPU; returns it.

    Parameters stay the same objects under the same names. Outputs are unchanged, gradients are torch's own up to the
    rounding of float32.
    """
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = FastGradientConv2d
        elif isinstance(module, (nn.Hardswish, nn.Hardsigmoid, nn.SiLU)):
            # Their gradients need what they were given, so that torch copies it before it works in place.
            module.inplace = False
    return network


def fvcore_madds(architecture: Architecture) -> int:
    """Multiply-adds that fvcore counts in the convolutions and linear layers of the built network, at batch 1."""
    return traced_madds(blank_network(architecture))


def traced_madds(network: MobileNetwork) -> int:
    """As :func:`fvcore_madds`, of a network in evaluation mode that is built already.

    fvcore also counts norms and pools, which our convention leaves out, and not hard swish and hard sigmoid.
    """
    side = network.architecture.resolution
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # fvcore imports and traces with what torch calls deprecated
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError:
            raise MissingDependencyError("fvcore", "checking counts") from None
        analysis = FlopCountAnalysis(network, torch.zeros(1, 3, side, side))
        by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return int(by_operator["conv"] + by_operator["linear"])
