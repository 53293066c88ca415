"""Weights of other libraries, mapped onto a network by structure.

A state dict is read as the list of its convolutions, norms and linear layers in the order in which they run; the
network has such a list too, and the two are matched one by one, shapes checked. No network is known here by its name.
Where the order of a state dict's keys says nothing (safetensors sorts them), the libraries' naming of modules does.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mnv3search.errors import MissingDependencyError, WeightsError

StateDict = Mapping[str, Tensor]
_OrderKey = tuple[object, ...]
_OPTIONAL = frozenset({"num_batches_tracked"})


class _Layer(NamedTuple):
    """One convolution, norm or linear layer, and its tensors by their last name."""

    name: str
    tensors: dict[str, Tensor]

    def shape(self, tensor: str) -> str:
        found = self.tensors.get(tensor)
        return "nothing" if found is None else str(tuple(found.shape))


def load_torchvision_state(network: nn.Module, state: StateDict) -> None:
    """Copies a state dict of ``torchvision.models`` (MobileNetV2, MobileNetV3, MNASNet) into ``network``.

    Padding, eps and momentum are no part of a state dict: they are fields of the architecture that ``network`` was
    built from.

    Raises:
        WeightsError: the first layer that differs, with both shapes; ``network`` is then as it was.
    """
    _load(network, state, _torchvision_order)


def load_timm_state(network: nn.Module, state: StateDict) -> None:
    """Copies a state dict of timm's EfficientNet or MobileNetV3 classes into ``network``.

    timm's ports from TensorFlow (``tf_…``) pad as ``same`` and have eps 1e-3, its own have eps 1e-5: fields of the
    architecture that ``network`` was built from.

    Raises:
        WeightsError: the first layer that differs, with both shapes; ``network`` is then as it was.
    """
    inverted = {name.rsplit(".", 2)[0] for name in state if name.endswith(".conv_pwl.weight")}
    _load(network, state, lambda name: _timm_order(name, inverted))


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """The state dict in a ``.safetensors`` file, or in a ``.pt``, ``.pth`` or ``.bin`` file of tensors alone.

    Nothing is unpickled but tensors (``weights_only=True``).

    Raises:
        WeightsError: another kind of file, a damaged one, or one that holds more than tensors by name.
        MissingDependencyError: the package safetensors is missing.
    """
    if path.suffix == ".safetensors":
        content = _read_safetensors(path)
    elif path.suffix in {".pt", ".pth", ".bin"}:
        content = _read_torch(path)
    else:
        raise WeightsError(f"{path} is no weights file; it must end in .safetensors, .pt, .pth or .bin")
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise WeightsError(f"{path} must hold tensors by name alone; save network.state_dict()")
    return content


def _read_safetensors(path: Path) -> object:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise MissingDependencyError("safetensors", f"reading {path}") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}; save it again with safetensors.torch.save_file") from None


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"cannot read {path} as tensors alone: {reason}; save network.state_dict() with torch.save"
        ) from None


def _load(network: nn.Module, state: StateDict, order: Callable[[str], _OrderKey]) -> None:
    found = sorted(_grouped(state), key=lambda layer: order(layer.name))
    copies: list[tuple[Tensor, Tensor]] = []
    for mine, theirs in zip_longest(_grouped(network.state_dict()), found):
        copies += _matched(mine, theirs)
    with torch.no_grad():
        for mine, theirs in copies:
            mine.copy_(theirs.reshape(mine.shape))


def _grouped(state: StateDict) -> list[_Layer]:
    """The layers of a state dict in the order of their first tensors."""
    layers: dict[str, _Layer] = {}
    for name, tensor in state.items():
        owner, _, leaf = name.rpartition(".")
        layers.setdefault(owner, _Layer(owner, {})).tensors[leaf] = tensor
    return list(layers.values())


def _matched(mine: _Layer | None, theirs: _Layer | None) -> list[tuple[Tensor, Tensor]]:
    """Pairs of equal tensors of two layers that are of one kind and shape."""
    if mine is None or theirs is None:
        longer = mine or theirs or _Layer("", {})
        owner, other = ("network", "weights") if mine else ("weights", "network")
        raise WeightsError(
            f"layer {longer.name} of the {owner} has weight {longer.shape('weight')}, "
            f"but nothing is left in the {other}: {_REMEDY}"
        )
    for tensor in sorted(mine.tensors.keys() | theirs.tensors.keys(), reverse=True):
        if tensor not in _OPTIONAL and not _same_shape(mine.tensors.get(tensor), theirs.tensors.get(tensor)):
            raise WeightsError(
                f"layer {mine.name} of the network has {tensor} {mine.shape(tensor)}, "
                f"but {theirs.name} of the weights has {theirs.shape(tensor)}: {_REMEDY}"
            )
    return [(mine.tensors[name], theirs.tensors[name]) for name in mine.tensors.keys() & theirs.tensors.keys()]


_REMEDY = "take the weights of this very architecture"


def _same_shape(mine: Tensor | None, theirs: Tensor | None) -> bool:
    """Equal shapes; a linear layer equals a 1×1 convolution."""
    if mine is None or theirs is None:
        return False
    shapes = [tuple(t.shape) + (1,) * (4 - t.dim()) if t.dim() >= 2 else tuple(t.shape) for t in (mine, theirs)]
    return shapes[0] == shapes[1]


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
