"""A narrower network made of a trained one: the channels of a plan, copied layer by layer.

Where what is left out was zero, the slice computes what the network does. Where it was not, this is NetAdapt's and
every filter pruner's start: short training brings back most of what was lost.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mnv3search.architecture import Architecture
from mnv3search.network.build import MobileNetwork
from mnv3search.network.slicing_plan import Channels, HeadChannels, SliceRule, SlicingPlan, plan_slicing

_Kept = tuple[Channels | None, Channels | None]
"""A layer's outputs and inputs that stay; None for all."""


def slice_network(network: MobileNetwork, architecture: Architecture, rule: SliceRule = "l2") -> MobileNetwork:
    """A network of ``architecture`` whose weights are those of the channels of ``network`` that stay.

    Args:
        network: left as it is.
        architecture: a narrowing of ``network.architecture``, as NetAdapt's proposals are: the same layers, each as
            wide or narrower. Where a projected shortcut's two widths come to agree, its convolution falls away.
        rule: which channels stay, as :func:`~mnv3search.network.slicing_plan.plan_slicing` says.

    Returns:
        A new network that shares no memory with ``network``, in its mode and on its device.

    Raises:
        WeightsError: ``architecture`` is no narrowing; the message names the block and both widths.
        UnknownNameError: no such rule.
    """
    state = network.state_dict()
    plan = plan_slicing(network.architecture, state, architecture, rule)
    return apply_slicing(network, architecture, plan)


def apply_slicing(network: MobileNetwork, architecture: Architecture, plan: SlicingPlan) -> MobileNetwork:
    """The network of ``architecture`` that holds the channels of ``plan``, copied from ``network``."""
    state, kept = network.state_dict(), dict(_kept_by_layer(plan))
    with torch.device("meta"):
        narrowed = MobileNetwork(architecture)
    tensors = {name: _sliced(state[name], kept[name.rpartition(".")[0]]) for name in narrowed.state_dict()}
    narrowed.load_state_dict(tensors, assign=True)
    learned = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    for name, parameter in narrowed.named_parameters():
        parameter.requires_grad_(learned[name])
    return narrowed.train(network.training)


def _sliced(tensor: Tensor, kept: _Kept) -> Tensor:
    """The kept rows of a tensor, and of a convolution's or linear layer's weight (out, in, …) the kept columns."""
    result = tensor.detach().clone()
    for dimension, channels in enumerate(kept):
        if channels is not None and tensor.dim() > dimension:
            result = result.index_select(dimension, torch.tensor(channels, device=tensor.device))
    return result


def _kept_by_layer(plan: SlicingPlan) -> Iterator[tuple[str, _Kept]]:
    """For each layer by its path: the outputs and inputs that stay."""
    yield from _normed("stem", plan.stem, None)
    for index, block in enumerate(plan.blocks):
        path = f"blocks.{index}"
        yield from _normed(f"{path}.expansion", block.expanded, block.entered)
        yield from _normed(f"{path}.depthwise", block.expanded, None)  # a filter has one input channel
        yield from _normed(f"{path}.projection", block.out, block.expanded)
        yield from _normed(f"{path}.shortcut", block.out, block.entered)
        if block.squeezed is not None and block.scaled is not None:
            yield from _squeeze_excite(path, block.scaled, block.squeezed)
    yield from _head(plan.head, plan.blocks[-1].out)


def _head(head: HeadChannels, entered: Channels) -> Iterator[tuple[str, _Kept]]:
    if head.feature is not None:
        yield from _normed("head.feature", head.feature, entered)
        entered = head.feature
    if head.squeezed is not None:
        yield from _squeeze_excite("head", entered, head.squeezed)
    if head.hidden is not None:
        yield "head.hidden", (head.hidden, entered)
        yield "head.hidden_norm", (head.hidden, None)
        entered = head.hidden
    yield "head.classifier", (None, entered)


def _normed(path: str, out: Channels, entered: Channels | None) -> Iterator[tuple[str, _Kept]]:
    yield f"{path}.conv", (out, entered)
    yield f"{path}.norm", (out, None)


def _squeeze_excite(path: str, scaled: Channels, squeezed: Channels) -> Iterator[tuple[str, _Kept]]:
    yield f"{path}.squeeze_excite.reduce", (squeezed, scaled)
    yield f"{path}.squeeze_excite.reduce_norm", (squeezed, None)
    yield f"{path}.squeeze_excite.expand", (scaled, squeezed)
    yield f"{path}.squeeze_excite.expand_norm", (scaled, None)
