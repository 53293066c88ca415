"""Our counts against fvcore's, an independent counter that runs the network."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from mnv3search.architecture import Architecture
from mnv3search.errors import MissingDependencyError

if TYPE_CHECKING:
    from mnv3search.network.build import MobileNetwork


def fvcore_madds(architecture: Architecture) -> int:
    """Multiply-adds that fvcore counts in the convolutions and linear layers of the built network, at batch 1.

    Raises:
        MissingDependencyError: fvcore is not installed.
    """
    return traced_madds(blank_network(architecture))


def blank_network(architecture: Architecture) -> MobileNetwork:
    """The network with all its numbers 0, in evaluation mode: enough to be traced, and quickly made."""
    import torch

    from mnv3search.network.build import MobileNetwork

    with torch.device("meta"):
        network = MobileNetwork(architecture).eval()
    network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.zero_()
    return network


def traced_madds(network: MobileNetwork) -> int:
    """As :func:`fvcore_madds`, of a network in evaluation mode that is built already.

    fvcore also counts norms and pools, which our convention leaves out, and has no handlers for hard swish and hard
    sigmoid; its figures for convolutions and linear layers alone are comparable to the integer.
    """
    import torch

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
