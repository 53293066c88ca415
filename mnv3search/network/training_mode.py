"""Networks made ready for training: the same parameters, names and gradients, in less time on a CPU."""

from __future__ import annotations

import torch
from torch import nn

from mnv3search.network.build import MobileNetwork
from mnv3search.network.layers import ConvNormActivation, Head, SqueezeExcite


def prepare_for_training(network: MobileNetwork) -> MobileNetwork:
    """Puts ``network`` into channels-last and lets its layers compute faster gradients on a CPU; returns it.

    In place: parameters stay the same objects, and a state dict has the same names. Outputs are unchanged, gradients
    are torch's own up to the rounding of float32. On another device, and where nothing is differentiated, torch's own
    layers run.
    """
    network.to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, (ConvNormActivation, Head, SqueezeExcite)):
            module.fast_gradients = True
        elif isinstance(module, (nn.Hardswish, nn.Hardsigmoid, nn.SiLU)):
            # Their gradients need what they were given, so that torch copies it before it works in place.
            module.inplace = False
    return network
