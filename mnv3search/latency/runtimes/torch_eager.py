"""torch in eager mode on the CPU, channels_last: the network as it stands after training, norms unfolded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec
from mnv3search.cost.units import Unit
from mnv3search.errors import MissingDependencyError
from mnv3search.latency.runtimes.base import (
    CallSession,
    Precision,
    Session,
    Subject,
    clock_of,
    input_image,
    input_shape,
)

if TYPE_CHECKING:
    from torch import nn

CALIBRATION_BATCH = 4  # a norm after a global pool needs more than one value a channel
CALIBRATION_SIZE = 32  # side of the images that set the norms' statistics, at most
UNIT_NORM_EPS = 1e-3


class TorchEager:
    """Times modules in torch.

    Args:
        threads: of one call, at least 1; torch's setting is the whole process's.

    Raises:
        MissingDependencyError: torch is not installed.
    """

    name = "torch"
    precision: Precision = "fp32"

    def __init__(self, threads: int = 1) -> None:
        try:
            import torch
        except ImportError:
            raise MissingDependencyError("torch", "measuring with torch") from None
        self._torch: Any = torch
        self.version: str = torch.__version__
        self.threads = threads

    def prepare(self, subject: Subject) -> Session:
        """A module in evaluation mode with its input in place; norms bring its activations near 1."""
        torch = self._torch
        torch.set_num_threads(self.threads)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = _module(subject)
            _, channels, size, _ = input_shape(subject)
            small = min(size, CALIBRATION_SIZE)
            _set_norms(module, torch.randn(CALIBRATION_BATCH, channels, small, small))
        image = torch.from_numpy(input_image(subject)).contiguous(memory_format=torch.channels_last)
        module = module.eval().to(memory_format=torch.channels_last)

        def call() -> Any:
            with torch.inference_mode():
                return module(image)

        return CallSession(call, lambda: np.asarray(call().numpy()), clock_of(self.threads))


def _module(subject: Subject) -> nn.Module:
    from mnv3search.network.build import build_network

    if isinstance(subject, Architecture):
        return build_network(subject)
    return _unit_module(subject)


def _unit_module(unit: Unit) -> nn.Module:
    from mnv3search.network.layers import Conventions, ConvNormActivation, Head, InvertedResidual

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


def _set_norms(module: nn.Module, images: Any) -> None:
    """One pass in training mode, after which every norm divides by what it has seen."""
    import torch

    for norm in module.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            norm.momentum = None  # the running statistics are then the mean over the passes: this one
    with torch.no_grad():
        module.train()(images)
