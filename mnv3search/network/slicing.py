"""A narrower network made of a trained one: whether it is a narrowing, which channels stay, and their copy.

Channels that must stay together are chosen once: those of a residual group by all the filters that write to them, an
expanded channel by its expansion (its depthwise filter and its squeeze-excite gate follow), the channels of a depthwise
convolution without expansion by what enters it. That is NetAdapt's choice for pointwise layers (Yang et al. 2018,
arXiv:1804.03230, section 3.3.2: the filters with the largest L2 norm stay), carried through shortcuts.

Where what is left out was zero, the slice computes what the network does. Where it was not, this is NetAdapt's and
every filter pruner's start: short training brings back most of what was lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, SqueezeExciteSpec, residual_groups
from mnv3search.errors import UnknownNameError, WeightsError
from mnv3search.network.build import MobileNetwork

_WHOLE = ("classes", "padding", "conv_bias", "norm_eps")
_BLOCK = ("kernel_size", "stride", "activation", "linear_bottleneck")
_SQUEEZE = ("activation", "gate", "position", "use_norm", "use_bias")
_HEAD = ("activation", "hidden_norm", "hidden_bias")
_LAYERS = frozenset(
    {"expansion", "residual", "convolution in its shortcut", "squeeze-excite", "feature_layer", "hidden_layer"}
)


class Fault(NamedTuple):
    """One thing in which an architecture is no narrowing of another.

    Attributes:
        where: ``the network``, ``the stem``, ``block 3``, ``the head``.
        what: a field of its spec, or a layer.
        wide, narrow: its two values; for a layer, whether it is there.
    """

    where: str
    what: str
    wide: object
    narrow: object

    def told(self, other: str) -> str:
        """Such as ``block 3 has stride 1, OTHER 2``."""
        if isinstance(self.wide, bool) and self.what in _LAYERS:
            no, found = ("", "none") if self.wide else ("no ", "one")
            return f"{self.where} has {no}{self.what}, {other} {found}"
        return f"{self.where} has {self.what} {self.wide}, {other} {self.narrow}"


class _Pair(NamedTuple):
    """A block and its input channels, in the wide and in the narrow architecture."""

    wide: BlockSpec
    wide_in: int
    narrow: BlockSpec
    narrow_in: int


def narrowing_faults(wide: Architecture, narrow: Architecture) -> Iterator[Fault]:
    """What keeps ``narrow`` from being a narrowing of ``wide``, in the order of the layers; nothing where it is one.

    Resolution, dropout, initial spreads and the norms' momentum are free. Expansions and shortcuts are compared by
    what is there: a block whose expansion came to equal its input keeps it by ``expansion="always"``. A projected
    shortcut may fall away where its two widths came to agree.
    """
    yield from _differing("the network", _WHOLE, wide, narrow)
    yield from _differing("the stem", ("kernel_size", "stride", "activation"), wide.stem, narrow.stem)
    yield from _wider("the stem", "out_channels", wide.stem.out_channels, narrow.stem.out_channels)
    if len(wide.blocks) != len(narrow.blocks):
        yield Fault("the network", "block count", len(wide.blocks), len(narrow.blocks))
        return
    pairs = map(_Pair, wide.blocks, wide.in_channels(), narrow.blocks, narrow.in_channels())
    for index, pair in enumerate(pairs):
        yield from _block_faults(f"block {index}", pair)
    yield from _head_faults(wide.head, narrow.head)


def _block_faults(where: str, pair: _Pair) -> Iterator[Fault]:
    wide, wide_in, narrow, narrow_in = pair
    yield from _differing(where, _BLOCK, wide, narrow)
    yield from _presence(where, "expansion", wide.has_expansion(wide_in), narrow.has_expansion(narrow_in))
    yield from _presence(where, "residual", wide.has_residual(wide_in), narrow.has_residual(narrow_in))
    if narrow.has_projected_shortcut(narrow_in) and not wide.has_projected_shortcut(wide_in):
        yield from _presence(where, "convolution in its shortcut", False, True)
    yield from _wider(where, "out_channels", wide.out_channels, narrow.out_channels)
    yield from _wider(where, "expanded_channels", wide.expanded_channels, narrow.expanded_channels)
    if not wide.has_expansion(wide_in) and not narrow.has_expansion(narrow_in):
        multipliers = wide.expanded_channels // wide_in, narrow.expanded_channels // narrow_in
        yield from _wider(where, "depthwise outputs per input channel", *multipliers)
    yield from _squeeze_faults(where, wide.squeeze_excite, narrow.squeeze_excite)


def _head_faults(wide: HeadSpec, narrow: HeadSpec) -> Iterator[Fault]:
    yield from _differing("the head", _HEAD, wide, narrow)
    for name in ("feature_channels", "hidden_channels"):
        before, after = getattr(wide, name), getattr(narrow, name)
        yield from _presence("the head", name.replace("channels", "layer"), before is not None, after is not None)
        yield from _wider("the head", name, before, after)
    yield from _squeeze_faults("the head", wide.squeeze_excite, narrow.squeeze_excite)


def _squeeze_faults(where: str, wide: SqueezeExciteSpec | None, narrow: SqueezeExciteSpec | None) -> Iterator[Fault]:
    yield from _presence(where, "squeeze-excite", wide is not None, narrow is not None)
    if wide is not None and narrow is not None:
        yield from _differing(f"squeeze-excite of {where}", _SQUEEZE, wide, narrow)
        yield from _wider(where, "squeeze_channels", wide.squeeze_channels, narrow.squeeze_channels)


def _differing(where: str, names: tuple[str, ...], wide: object, narrow: object) -> Iterator[Fault]:
    for name in names:
        before, after = getattr(wide, name), getattr(narrow, name)
        if before != after:
            yield Fault(where, name, before, after)


def _presence(where: str, what: str, before: bool, after: bool) -> Iterator[Fault]:
    if before != after:
        yield Fault(where, what, before, after)


def _wider(where: str, name: str, before: int | None, after: int | None) -> Iterator[Fault]:
    if before is not None and after is not None and after > before:
        yield Fault(where, name, before, after)


SliceRule = Literal["l2", "first", "norm_scale"]
Channels = tuple[int, ...]
"""Indices of the channels that stay, rising."""
StateDict = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class BlockChannels:
    """The channels of one block that stay.

    Attributes:
        entered: of its input.
        expanded: of the depthwise convolution's output.
        out: of its output.
        squeezed: between the two layers of its squeeze-excite, or None without one.
        scaled: those that its squeeze-excite scales: ``expanded`` or ``out``, by where it stands.
    """

    entered: Channels
    expanded: Channels
    out: Channels
    squeezed: Channels | None
    scaled: Channels | None


@dataclass(frozen=True, slots=True)
class HeadChannels:
    """The channels of the head that stay; None where the head has no such layer."""

    feature: Channels | None
    squeezed: Channels | None
    hidden: Channels | None


@dataclass(frozen=True, slots=True)
class SlicingPlan:
    """Every channel that stays, by place."""

    stem: Channels
    blocks: tuple[BlockChannels, ...]
    head: HeadChannels


def plan_slicing(
    wide: Architecture, state: StateDict, architecture: Architecture, rule: SliceRule = "l2"
) -> SlicingPlan:
    """The channels that stay when a network is sliced to ``architecture``.

    Args:
        wide: the network's architecture.
        state: its state dict; read only.
        architecture: a narrowing of ``wide``.
        rule: which channels stay. ``l2``: those whose producing filters have the largest L2 norm, all filters that
            write to a channel taken together. ``norm_scale``: the largest ``|γ|`` of the norms after those filters,
            summed (``l2`` where a layer has no norm). ``first``: the first ones. Among equals the first stay.

    Raises:
        WeightsError: ``architecture`` is no narrowing; the message names the block and both widths.
        UnknownNameError: no such rule.
    """
    if rule not in get_args(SliceRule):
        raise UnknownNameError("slicing rule", rule, get_args(SliceRule))
    faults = list(narrowing_faults(wide, architecture))
    if faults:
        more = f" (and {len(faults) - 1} more differ)" if len(faults) > 1 else ""
        told = faults[0].told("the architecture asked for")
        raise WeightsError(f"{told}{more}; a slice has the same layers, each as wide or narrower")
    choice = _Choice(state, rule)
    widths = [architecture.stem.out_channels, *(block.out_channels for block in architecture.blocks)]
    kept: list[Channels] = []
    for group in residual_groups(wide):
        kept += [choice.best(_writers(state, group), widths[len(kept)])] * len(group)
    blocks = []
    for index, (block, before, entering) in enumerate(
        zip(architecture.blocks, wide.blocks, wide.in_channels(), strict=True)
    ):
        path, entered = f"blocks.{index}", kept[index]
        if before.has_expansion(entering):
            expanded = choice.best([f"{path}.expansion"], block.expanded_channels)
        else:
            multipliers = before.expanded_channels // entering, block.expanded_channels // len(entered)
            expanded = choice.best_of_each(f"{path}.depthwise", entered, *multipliers)
        se, out = block.squeeze_excite, kept[index + 1]
        scaled = None if se is None else expanded if se.position == "depthwise" else out
        blocks.append(BlockChannels(entered, expanded, out, choice.squeezed(path, se), scaled))
    return SlicingPlan(kept[0], tuple(blocks), _head_channels(choice, architecture))


def _writers(state: StateDict, group: Sequence[int]) -> list[str]:
    """The layers whose outputs are added up in a residual group: its projections, a shortcut's, the stem's."""
    paths = [path for member in group for path in (f"blocks.{member}.projection", f"blocks.{member}.shortcut")]
    return [*(["stem"] if group[0] < 0 else []), *(path for path in paths if f"{path}.conv.weight" in state)]


def _head_channels(choice: _Choice, architecture: Architecture) -> HeadChannels:
    head = architecture.head
    return HeadChannels(
        choice.best(["head.feature"], head.feature_channels) if head.feature_channels is not None else None,
        choice.squeezed("head", head.squeeze_excite),
        choice.best(["head.hidden"], head.hidden_channels) if head.hidden_channels is not None else None,
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """Channels of layers, chosen by their weights under one rule."""

    state: StateDict
    rule: SliceRule

    def best(self, paths: Sequence[str], count: int) -> Channels:
        """The ``count`` most important channels that the layers at ``paths`` write together."""
        importance = self._importance(paths[0])
        for path in paths[1:]:
            importance = importance + self._importance(path)
        return _largest(importance, count)

    def best_of_each(self, path: str, entered: Channels, outputs: int, count: int) -> Channels:
        """Of the ``outputs`` that a depthwise layer makes of each channel that entered, the ``count`` best."""
        importance = self._importance(path)
        starts = [channel * outputs for channel in entered]
        return tuple(start + kept for start in starts for kept in _largest(importance[start : start + outputs], count))

    def squeezed(self, path: str, spec: SqueezeExciteSpec | None) -> Channels | None:
        """The channels between the two gates' layers of the squeeze-excite at ``path``."""
        return None if spec is None else self.best([f"{path}.squeeze_excite.reduce"], spec.squeeze_channels)

    def _importance(self, path: str) -> Tensor:
        """One figure an output channel, float64; its order alone matters."""
        filters = self.state.get(f"{path}.conv.weight", self.state.get(f"{path}.weight"))
        assert filters is not None
        scale = self.state.get(f"{path}.norm.weight", self.state.get(f"{path}_norm.weight"))
        if self.rule == "first":
            return torch.zeros(filters.shape[0], dtype=torch.float64)
        if self.rule == "norm_scale" and scale is not None:
            return scale.detach().double().abs()
        return filters.detach().double().square().flatten(1).sum(1)


def _largest(importance: Tensor, count: int) -> Channels:
    """The places of the ``count`` largest, rising; of equals the first."""
    order = torch.sort(importance, descending=True, stable=True).indices
    return tuple(sorted(order[:count].tolist()))


_Kept = tuple[Channels | None, Channels | None]
"""A layer's outputs and inputs that stay; None for all."""


def slice_network(network: MobileNetwork, architecture: Architecture, rule: SliceRule = "l2") -> MobileNetwork:
    """A network of ``architecture`` whose weights are those of the channels of ``network`` that stay.

    Args:
        network: left as it is.
        architecture: a narrowing of ``network.architecture``, as NetAdapt's proposals are: the same layers, each as
            wide or narrower. Where a projected shortcut's two widths come to agree, its convolution falls away.
        rule: which channels stay, as :func:`~mnv3search.network.slicing.plan_slicing` says.

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
