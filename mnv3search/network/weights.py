"""Weights of other libraries, mapped onto a network by structure.

A state dict is read as the list of its convolutions, norms and linear layers in the order in which they run; the
network has such a list too, and the two are matched, shapes checked. No network is known here by its name. Where the
order of a state dict's keys says nothing (safetensors sorts them), the libraries' naming of modules does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mnv3search.errors import WeightsError
from mnv3search.network.layer_matching import (
    Layer,
    Pair,
    differences,
    grouped,
    is_narrowing,
    listed,
    paired_by_name,
    paired_in_order,
)

Library = Literal["mnv3search", "torchvision", "timm"]
StateDict = Mapping[str, Tensor]
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


def load_torchvision_state(network: nn.Module, state: StateDict) -> None:
    """Copies a state dict of ``torchvision.models`` (MobileNetV2, MobileNetV3, MNASNet, EfficientNet) into ``network``.

    Padding, eps and momentum are no part of a state dict: they are fields of the architecture that ``network`` was
    built from.

    Raises:
        WeightsError: the first layers that differ, with both shapes, and how many; ``network`` is then as it was.
    """
    copy_pairs(checked(paired_layers(network, state, "torchvision")))


def load_timm_state(network: nn.Module, state: StateDict) -> None:
    """Copies a state dict of timm's EfficientNet or MobileNetV3 classes into ``network``.

    timm's ports from TensorFlow (``tf_…``) pad as ``same`` and have eps 1e-3, its own have eps 1e-5: fields of the
    architecture that ``network`` was built from.

    Raises:
        WeightsError: the first layers that differ, with both shapes, and how many; ``network`` is then as it was.
    """
    copy_pairs(checked(paired_layers(network, state, "timm")))


def paired_layers(network: nn.Module, state: StateDict, library: Library) -> list[Pair]:
    """Each layer of ``network`` with the one of ``state`` that belongs to it, by the naming of ``library``."""
    ours, theirs = grouped(network.state_dict().items()), grouped(state.items())
    if library == "mnv3search":
        return paired_by_name(ours, theirs)
    if library == "torchvision":
        return paired_in_order(ours, sorted(theirs, key=lambda layer: _torchvision_order(layer.name)))
    inverted = {name.rsplit(".", 2)[0] for name in state if name.endswith(".conv_pwl.weight")}
    return paired_in_order(ours, sorted(theirs, key=lambda layer: _timm_order(layer.name, inverted)))


def checked(pairs: Sequence[Pair]) -> Sequence[Pair]:
    """The pairs, which differ in nothing and hold finite numbers.

    Raises:
        WeightsError: they do not; the message lists the first layers that differ and says how many do.
    """
    found = differences(pairs)
    if found:
        remedy = "take the weights of this very architecture"
        if is_narrowing(pairs):
            remedy = (
                "the network is a narrowing of the weights': load them into the network that they are of, and narrow "
                "that with slice_network or mnv3search netadapt"
            )
        raise WeightsError(f"{listed(found, len(pairs))}: {remedy}")
    for _, theirs in pairs:
        if theirs is not None:
            _check_numbers(theirs)
    return pairs


def _check_numbers(layer: Layer) -> None:
    for name, tensor in layer.tensors.items():
        if name == "num_batches_tracked":
            continue
        if not tensor.is_floating_point():
            raise WeightsError(f"{layer.name}.{name} of the weights is {tensor.dtype}; give weights in floating point")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(f"{layer.name}.{name} of the weights holds NaN or infinity; take an earlier checkpoint")


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
    """The place of timm's module names in its forward passes; ``inverted`` holds the blocks with an expansion."""
    top, *rest = name.split(".")
    if top != "blocks" or len(rest) < 3:
        return (_place(_TIMM_NETWORK, top),)
    stage, block, module, *inner = rest
    order = _TIMM_INVERTED if f"{top}.{stage}.{block}" in inverted else _TIMM_SEPARABLE
    within = _place(_TIMM_SQUEEZE_EXCITE, inner[0]) if inner else 0
    return (_place(_TIMM_NETWORK, top), _natural(stage), _natural(block), _place(order, module), within)


def _place(order: tuple[str, ...], module: str) -> int:
    return order.index(module) if module in order else len(order)
