"""A narrower network made of a trained one: whether it is a narrowing, which channels stay, and their copy.

Channels that must stay together are chosen once: those of a residual group by all the filters that write to them, an
expanded channel by its expansion (its depthwise filter and its squeeze-excite gate follow), the channels of a depthwise
convolution without expansion by what enters it. That is NetAdapt's choice for pointwise layers (Yang et al. 2018,
arXiv:1804.03230, section 3.3.2: the filters with the largest L2 norm stay), carried through shortcuts.

Where what is left out was zero, the slice computes what the network does. Where it was not, this is NetAdapt's and
every filter pruner's start: short training brings back most of what was lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mnv3search.architecture import Architecture
from mnv3search.errors import UnknownNameError, WeightsError
from mnv3search.layers import Layer, channel_groups, learned_layers, network_layers, unit_layers, unit_names, units
from mnv3search.network.build import MobileNetwork
from mnv3search.network.modules import module_paths

SliceRule = Literal["l2", "first", "norm_scale"]
Channels = tuple[int, ...]
"""Indices of the channels that stay, rising."""
StateDict = Mapping[str, Tensor]

_OF_NETWORK = ("classes", "padding", "conv_bias", "norm_eps")
_OF_LAYER = ("kind", "kernel_size", "stride", "activation", "norm")


class Fault(NamedTuple):
    """One field, or layer, in which an architecture is no narrowing of another.

    ``where`` is such as ``block 3``; ``wide`` and ``narrow`` are its two values, or whether the layer is there.
    """

    where: str
    what: str
    wide: object
    narrow: object

    def described(self, other: str) -> str:
        """Such as ``block 3 has depthwise.stride 1, OTHER 2``."""
        if isinstance(self.wide, bool) and "." not in self.what and self.what not in _OF_NETWORK:
            no, found = ("", "none") if self.wide else ("no ", "one")
            return f"{self.where} has {no}{self.what}, {other} {found}"
        return f"{self.where} has {self.what} {self.wide}, {other} {self.narrow}"


def narrowing_faults(wide: Architecture, narrow: Architecture) -> Iterator[Fault]:
    """What keeps ``narrow`` from being a narrowing of ``wide``: the same layers, none of them wider.

    Resolution, dropout, initial spreads and the norms' momentum are free. A projected shortcut may fall away where its
    two widths came to agree.
    """
    for name in _OF_NETWORK:
        yield from _differing("the network", name, getattr(wide, name), getattr(narrow, name))
    if len(wide.blocks) != len(narrow.blocks):
        yield Fault("the network", "block count", len(wide.blocks), len(narrow.blocks))
        return
    same_bias = wide.conv_bias == narrow.conv_bias
    for name, before, after in zip(unit_names(wide), units(wide), units(narrow), strict=True):
        where = name.replace("blocks.", "block ") if "." in name else f"the {name}"
        yield from _unit_faults(where, unit_layers(before), unit_layers(after), same_bias)


def described_faults(wide: Architecture, narrow: Architecture, other: str) -> str:
    """The first of the faults, where ``other`` names ``narrow``, and how many more there are; empty for a narrowing."""
    faults = list(narrowing_faults(wide, narrow))
    if not faults:
        return ""
    more = f" (and {len(faults) - 1} more differ)" if len(faults) > 1 else ""
    return faults[0].described(other) + more


def _unit_faults(where: str, wide: list[Layer], narrow: list[Layer], same_bias: bool) -> Iterator[Fault]:
    before, after = ({layer.name: layer for layer in layers} for layers in (wide, narrow))
    falls_away = {layer.name for layer in wide if layer.kind == "shortcut" and "add" in after}
    missing = [_name(layer) for layer in wide if layer.name not in after and layer.name not in falls_away]
    added = [_name(layer) for layer in narrow if layer.name not in before]
    yield from (Fault(where, name, True, False) for name in dict.fromkeys(missing))
    yield from (Fault(where, name, False, True) for name in dict.fromkeys(added))
    for layer in wide:
        other = after.get(layer.name)
        if other is None:
            continue
        for field in (*_OF_LAYER, *(["bias"] if same_bias else [])):
            yield from _differing(where, f"{layer.name}.{field}", getattr(layer, field), getattr(other, field))
        if not missing and not added:
            yield from _differing(where, f"{layer.name}.source", _source(layer, wide), _source(other, narrow))
        widths = layer.out_channels, other.out_channels
        if layer.kind == "depthwise":
            widths = layer.out_channels // layer.in_channels, other.out_channels // other.in_channels
        if widths[1] > widths[0] and layer.kernel_size and layer.kind not in {"squeeze_expand", "classifier"}:
            field = "outputs per channel" if layer.kind == "depthwise" else "out_channels"
            yield Fault(where, f"{layer.name}.{field}", *widths)


def _name(layer: Layer) -> str:
    return "residual" if layer.kind == "add" else layer.name.partition(".")[0]


def _source(layer: Layer, layers: list[Layer]) -> str:
    return layers[layer.source - 1].name if layer.source else "input"


def _differing(where: str, what: str, before: object, after: object) -> Iterator[Fault]:
    if before != after:
        yield Fault(where, what, before, after)


class LayerChannels(NamedTuple):
    """The output and input channels of one convolution or linear layer that stay."""

    outputs: Channels
    inputs: Channels


SlicingPlan = dict[str, LayerChannels]
"""The channels that stay, by the name of each layer."""


def plan_slicing(
    wide: Architecture, state: StateDict, architecture: Architecture, rule: SliceRule = "l2"
) -> SlicingPlan:
    """The channels that stay when the network ``wide`` with weights ``state`` is sliced to ``architecture``.

    Rules:
        ``l2``: those whose producing filters have the largest L2 norm, all filters that write to a channel taken
        together. ``norm_scale``: the largest ``|γ|`` of the norms after those filters, summed (``l2`` where a layer
        has no norm). ``first``: the first ones. Among equals the first stay.

    Raises:
        WeightsError: ``architecture`` is no narrowing; the message names the block and both widths.
        UnknownNameError: no such rule.
    """
    if rule not in get_args(SliceRule):
        raise UnknownNameError("slicing rule", rule, get_args(SliceRule))
    if faults := described_faults(wide, architecture, "the architecture asked for"):
        raise WeightsError(f"{faults}; a slice has the same layers, each as wide or narrower")
    layers = network_layers(wide)
    widths = {layer.name: layer.out_channels for layer in network_layers(architecture)}
    groups = channel_groups(layers)
    kept: list[Channels] = []
    for group in groups.groups:
        writers = [layers[number - 1] for number in group.writers]
        # a shortcut's convolution may have fallen away, but no group is written by such a one alone
        width = next((widths[layer.name] for layer in writers if layer.name in widths), group.channels)
        if width == group.channels:
            kept.append(tuple(range(width)))
        elif group.base < 0:
            kept.append(_largest(_importance(writers, state, rule), width))
        else:
            entered, importance = kept[group.base], _importance(writers, state, rule)
            outputs = group.channels // groups.groups[group.base].channels
            starts = [channel * outputs for channel in entered]
            kept.append(tuple(
                start + channel for start in starts
                for channel in _largest(importance[start : start + outputs], width // len(entered))
            ))  # fmt: skip
    return {
        layer.name: LayerChannels(kept[groups.of_tensor[number]], kept[groups.of_tensor[layer.source]])
        for number, layer in enumerate(layers, 1) if layer.kernel_size
    }  # fmt: skip


def _importance(writers: list[Layer], state: StateDict, rule: SliceRule) -> Tensor:
    """One figure a channel that ``writers`` write together, float64; its order alone matters."""
    total = torch.zeros(writers[0].out_channels, dtype=torch.float64)
    for layer in writers if rule != "first" else ():
        path, norm = module_paths(layer)
        filters, scale = state[f"{path}.weight"], state.get(f"{norm}.weight")
        if rule == "norm_scale" and scale is not None:
            total = total + scale.detach().double().abs().cpu()
        else:
            total = total + filters.detach().double().square().flatten(1).sum(1).cpu()
    return total


def _largest(importance: Tensor, count: int) -> Channels:
    """Indices; of equals the first."""
    order = torch.sort(importance, descending=True, stable=True).indices
    return tuple(sorted(order[:count].tolist()))


def slice_network(network: MobileNetwork, architecture: Architecture, rule: SliceRule = "l2") -> MobileNetwork:
    """A new network of ``architecture`` with the weights of the channels of ``network`` that stay by ``rule``.

    It shares no memory with ``network``, and has its mode and device. ``architecture`` is a narrowing of the network's,
    as NetAdapt's proposals are; rules and errors are those of :func:`plan_slicing`.
    """
    plan = plan_slicing(network.architecture, network.state_dict(), architecture, rule)
    return apply_slicing(network, architecture, plan)


def apply_slicing(network: MobileNetwork, architecture: Architecture, plan: SlicingPlan) -> MobileNetwork:
    """The network of ``architecture`` that holds the channels of ``plan``, copied from ``network``."""
    state = network.state_dict()
    with torch.device("meta"):
        narrowed = MobileNetwork(architecture)
    kept: dict[str, tuple[Channels | None, ...]] = {}
    for layer in learned_layers(network_layers(architecture)):
        path, norm = module_paths(layer)
        outputs, inputs = plan[layer.name]
        kept[path], kept[norm] = (outputs, None if layer.kind == "depthwise" else inputs), (outputs,)
    tensors = {name: _sliced(state[name], kept[name.rpartition(".")[0]]) for name in narrowed.state_dict()}
    narrowed.load_state_dict(tensors, assign=True)
    learned = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    for name, parameter in narrowed.named_parameters():
        parameter.requires_grad_(learned[name])
    return narrowed.train(network.training)


def _sliced(tensor: Tensor, kept: tuple[Channels | None, ...]) -> Tensor:
    """The kept rows of a tensor, and of a convolution's or linear layer's weight (out, in, …) the kept columns."""
    result = tensor.detach().clone()
    for dimension, channels in enumerate(kept):
        if channels is not None and tensor.dim() > dimension:
            result = result.index_select(dimension, torch.tensor(channels, device=tensor.device))
    return result
