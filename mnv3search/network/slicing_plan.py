"""Which channels of a network a slice of it keeps: a value, decided before anything is copied.

Channels that must stay together are chosen once: those of a residual group by all the filters that write to them, an
expanded channel by its expansion (its depthwise filter and its squeeze-excite gate follow), the channels of a depthwise
convolution without expansion by what enters it. That is NetAdapt's choice for pointwise layers (Yang et al. 2018,
arXiv:1804.03230, section 3.3.2: the filters with the largest L2 norm stay), carried through shortcuts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from mnv3search.architecture import Architecture, SqueezeExciteSpec, residual_groups
from mnv3search.errors import UnknownNameError, WeightsError
from mnv3search.network.narrowing import narrowing_faults

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
