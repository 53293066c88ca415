"""Weights of other libraries, mapped onto a network by structure.

A state dict is read as the list of its convolutions, norms and linear layers in the order in which they run; the
network has such a list too, and the two are matched, shapes checked. No network is known here by its name. Where the
order of a state dict's keys says nothing (safetensors sorts them), the libraries' naming of modules does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mnv3search.errors import WeightsError

Library = Literal["mnv3search", "torchvision", "timm"]
StateDict = Mapping[str, Tensor]
OPTIONAL = frozenset({"num_batches_tracked"})
_SHOWN = 5
_MAX_ALIGNED = 1_000_000  # pairs to consider: aligning takes the more time the more layers a file names


class StateLayer(NamedTuple):
    """One convolution, norm or linear layer, and its tensors by their last name."""

    name: str
    tensors: dict[str, Tensor]

    @property
    def is_norm(self) -> bool:
        """Whether it is a norm: no tensor of it has more than one dimension."""
        return all(tensor.dim() < 2 for tensor in self.tensors.values())

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Of one tensor as a convolution's (a linear layer equals a 1×1 convolution); None where it has none."""
        found = self.tensors.get(tensor)
        if found is None:
            return None
        return tuple(found.shape) + (1,) * (4 - found.dim()) if found.dim() >= 2 else tuple(found.shape)

    def kind(self) -> tuple[object, ...]:
        """What a narrowing does not change: which tensors it has, and its kernel's size."""
        names = sorted(self.tensors.keys() - OPTIONAL)
        return (*names, *(self.shape("weight") or ())[2:])


Pair = tuple[StateLayer | None, StateLayer | None]
"""A layer of the network and the one of the weights that belongs to it; None where there is none."""


class Difference(NamedTuple):
    """A layer that is another in the weights, or is in one of the two alone.

    ``ours`` and ``theirs`` are its names, ``tensor`` the first of its tensors that differs; None is what is missing. A
    norm differs wherever its convolution does.
    """

    ours: str | None
    theirs: str | None
    tensor: str
    our_shape: tuple[int, ...] | None
    their_shape: tuple[int, ...] | None
    is_norm: bool

    def __str__(self) -> str:
        """Such as ``stem.conv.weight is (16, 3, 3, 3), conv_stem of the weights (32, 3, 3, 3)``."""
        ours, theirs = ("nothing" if shape is None else str(shape) for shape in (self.our_shape, self.their_shape))
        if self.ours is None:
            return f"{self.theirs}.{self.tensor} {theirs} of the weights has no layer in the network"
        if self.theirs is None:
            return f"{self.ours}.{self.tensor} {ours} has no layer in the weights"
        named = "" if self.theirs == self.ours else f" {self.theirs} of"
        return f"{self.ours}.{self.tensor} is {ours}, in{named} the weights {theirs}"


def _layers(state: StateDict) -> list[StateLayer]:
    """The layers of a state dict in the order of their first tensors."""
    layers: dict[str, StateLayer] = {}
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        layers.setdefault(owner, StateLayer(owner, {})).tensors[leaf] = tensor
    return list(layers.values())


def _paired_in_order(ours: Sequence[StateLayer], theirs: Sequence[StateLayer]) -> list[Pair]:
    """The layers of two namings in the order in which both run.

    Where all kinds agree the layers are paired one by one. Elsewhere they are aligned by their shapes, and what lies
    between by kind, so that what follows a missing block is still matched with its own.
    """
    agree = [layer.kind() for layer in ours] == [layer.kind() for layer in theirs]
    if agree or len(ours) * len(theirs) > _MAX_ALIGNED:
        return list(zip_longest(ours, theirs))
    pairs: list[Pair] = []
    for mine, found in _aligned(ours, theirs, lambda layer: (*layer.kind(), layer.shape("weight"))):
        for these, those in _aligned(mine, found, StateLayer.kind):
            pairs += zip_longest(these, those)
    return pairs


def _aligned(
    ours: Sequence[StateLayer], theirs: Sequence[StateLayer], key: Callable[[StateLayer], Hashable]
) -> Iterator[tuple[Sequence[StateLayer], Sequence[StateLayer]]]:
    """Runs of layers that belong together, in order: those of equal keys, and what lies between them."""
    matcher = SequenceMatcher(None, [key(x) for x in ours], [key(x) for x in theirs], autojunk=False)
    for _, start, end, their_start, their_end in matcher.get_opcodes():
        yield ours[start:end], theirs[their_start:their_end]


def differences(pairs: Iterable[Pair]) -> list[Difference]:
    """Every pair whose shapes differ, one entry a layer, in order."""
    return [found for pair in pairs if (found := _difference(*pair)) is not None]


def _difference(ours: StateLayer | None, theirs: StateLayer | None) -> Difference | None:
    mine, found = ours or StateLayer("", {}), theirs or StateLayer("", {})
    names = (mine.tensors.keys() | found.tensors.keys()) - OPTIONAL
    for tensor in sorted(names, key=lambda name: (name != "weight", name)):
        shapes = mine.shape(tensor), found.shape(tensor)
        if shapes[0] != shapes[1]:
            of = ours.name if ours else None, theirs.name if theirs else None
            return Difference(*of, tensor, *shapes, (ours or found).is_norm)
    return None


def _is_narrowing(pairs: Iterable[Pair]) -> bool:
    """Whether all layers are in both, of one kind, and nowhere wider in the network than in the weights."""
    return all(
        ours is not None
        and theirs is not None
        and ours.kind() == theirs.kind()
        and all(a <= b for a, b in zip_longest(ours.shape("weight") or (), theirs.shape("weight") or (), fillvalue=0))
        for ours, theirs in pairs
    )


_OrderKey = tuple[object, ...]
# the first layers that each library's naming begins with; torchvision's MNASNet has names of its own
FIRST_LAYERS: tuple[tuple[str, Library], ...] = (
    ("stem.conv.weight", "mnv3search"), ("conv_stem.weight", "timm"), ("features.0.0.weight", "torchvision"),
    ("layers.0.weight", "torchvision"),
)  # fmt: skip


def library_of(state: StateDict) -> Library:
    """Whose naming of layers a state dict has.

    Raises:
        WeightsError: nobody's that is known here; the message lists its first names.
    """
    for name, library in FIRST_LAYERS:
        if name in state:
            return library
    names = ", ".join(list(state)[:4])
    raise WeightsError(
        f"weights named {names} … are of none of the networks that are understood: the MobileNets, MNASNet and "
        "EfficientNet of torchvision, timm's EfficientNet and MobileNetV3 classes, and those of mnv3search"
    )


def paired_layers(network: nn.Module, state: StateDict, library: Library) -> list[Pair]:
    """Each layer of ``network`` with the one of ``state`` that belongs to it, by the naming of ``library``."""
    ours, theirs = _layers(network.state_dict()), _layers(state)
    if library == "mnv3search":
        by_name = {layer.name: layer for layer in theirs}
        pairs: list[Pair] = [(layer, by_name.pop(layer.name, None)) for layer in ours]
        return [*pairs, *((None, layer) for layer in by_name.values())]
    if library == "torchvision":
        return _paired_in_order(ours, sorted(theirs, key=lambda layer: _torchvision_order(layer.name)))
    inverted = {name.rsplit(".", 2)[0] for name in state if name.endswith(".conv_pwl.weight")}
    return _paired_in_order(ours, sorted(theirs, key=lambda layer: _timm_order(layer.name, inverted)))


def check_pairs(pairs: Sequence[Pair]) -> None:
    """Pass where the two of each pair differ in nothing and hold finite numbers.

    Raises:
        WeightsError: they do not; the message lists the first layers that differ and says how many do.
    """
    found = differences(pairs)
    if found:
        remedy = "take the weights of this very architecture"
        if _is_narrowing(pairs):
            remedy = (
                "the network is a narrowing of the weights': load them into the network that they are of, and narrow "
                "that with slice_network or mnv3search netadapt"
            )
        shown = sorted(found, key=lambda difference: difference.is_norm)[:_SHOWN]
        more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
        listed = "; ".join(map(str, shown))
        raise WeightsError(f"{len(found)} of {len(pairs)} layers differ: {listed}{more}: {remedy}")
    for layer in (theirs for _, theirs in pairs if theirs is not None):
        for name, tensor in layer.tensors.items():
            named = f"{layer.name}.{name} of the weights"
            if name not in OPTIONAL and not tensor.is_floating_point():
                raise WeightsError(f"{named} is {tensor.dtype}; give weights in floating point")
            if name not in OPTIONAL and not bool(torch.isfinite(tensor.float()).all()):
                raise WeightsError(f"{named} holds NaN or infinity; take an earlier checkpoint")


def copy_pairs(pairs: Sequence[Pair]) -> None:
    """Copies the weights' tensors into the network's, in place."""
    with torch.no_grad():
        for ours, theirs in pairs:
            assert ours is not None
            assert theirs is not None
            for name in ours.tensors.keys() & theirs.tensors.keys():
                ours.tensors[name].copy_(theirs.tensors[name].reshape(ours.tensors[name].shape))


def _torchvision_order(name: str) -> _OrderKey:
    """``features.2.block.1.fc1`` by its numbers; the classifier last."""
    return (name.startswith("classifier"), *map(_natural, name.split(".")))


def _natural(part: str) -> tuple[int, str]:
    """A part of a module's name, by its number: ``2`` before ``10``, ``fc1`` before ``fc2``."""
    text = part.rstrip("0123456789")
    return (int(part[len(text) :] or 0), text)


_TIMM_NETWORK = ("conv_stem", "bn1", "blocks", "conv_head", "bn2", "norm_head", "classifier")
_TIMM_INVERTED = ("conv_pw", "bn1", "conv_dw", "bn2", "se", "conv_pwl", "bn3")
_TIMM_SEPARABLE = ("conv_dw", "conv", "bn1", "se", "conv_pw", "bn2")
_TIMM_SQUEEZE_EXCITE = ("conv_reduce", "conv_expand")


def _timm_order(name: str, inverted: set[str]) -> _OrderKey:
    """The position of timm's module names in its forward passes; ``inverted`` holds the blocks with an expansion."""
    top, *rest = name.split(".")
    if top != "blocks" or len(rest) < 3:
        return (_position(_TIMM_NETWORK, top),)
    stage, block, module, *inner = rest
    order = _TIMM_INVERTED if f"{top}.{stage}.{block}" in inverted else _TIMM_SEPARABLE
    within = _position(_TIMM_SQUEEZE_EXCITE, inner[0]) if inner else 0
    return (_position(_TIMM_NETWORK, top), _natural(stage), _natural(block), _position(order, module), within)


def _position(order: tuple[str, ...], module: str) -> int:
    return order.index(module) if module in order else len(order)
