"""The layers of two state dicts, paired and compared: what differs, and how they would differ in a narrowing alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from torch import Tensor

OPTIONAL = frozenset({"num_batches_tracked"})
_SHOWN = 5
_MAX_ALIGNED = 1_000_000  # pairs to consider: aligning takes the more time the more layers a file names


class Layer(NamedTuple):
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


Pair = tuple[Layer | None, Layer | None]
"""A layer of the network and the one of the weights that belongs to it; None where there is none."""


class Difference(NamedTuple):
    """A layer that is another in the weights, or is in one of the two alone.

    Attributes:
        ours, theirs: the layer's name in the network and in the weights; None where it is missing.
        tensor: the first of its tensors that differs, with its shapes; None where there is no such tensor.
        is_norm: whether it is a norm, which differs wherever its convolution does.
    """

    ours: str | None
    theirs: str | None
    tensor: str
    our_shape: tuple[int, ...] | None
    their_shape: tuple[int, ...] | None
    is_norm: bool

    def __str__(self) -> str:
        """Such as ``stem.conv.weight is (16, 3, 3, 3), conv_stem of the weights (32, 3, 3, 3)``."""
        ours, theirs = (_shape_text(shape) for shape in (self.our_shape, self.their_shape))
        if self.ours is None:
            return f"{self.theirs}.{self.tensor} {theirs} of the weights has no layer in the network"
        if self.theirs is None:
            return f"{self.ours}.{self.tensor} {ours} has no layer in the weights"
        named = "" if self.theirs == self.ours else f" {self.theirs} of"
        return f"{self.ours}.{self.tensor} is {ours}, in{named} the weights {theirs}"


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else str(shape)


def grouped(state: Iterable[tuple[str, Tensor]]) -> list[Layer]:
    """The layers of a state dict's items in the order of their first tensors."""
    layers: dict[str, Layer] = {}
    for name, tensor in state:
        owner, _, leaf = name.rpartition(".")
        layers.setdefault(owner, Layer(owner, {})).tensors[leaf] = tensor
    return list(layers.values())


def paired_by_name(ours: Sequence[Layer], theirs: Sequence[Layer]) -> list[Pair]:
    """The layers of one naming; those of ``theirs`` alone come last."""
    by_name = {layer.name: layer for layer in theirs}
    pairs: list[Pair] = [(layer, by_name.pop(layer.name, None)) for layer in ours]
    return [*pairs, *((None, layer) for layer in by_name.values())]


def paired_in_order(ours: Sequence[Layer], theirs: Sequence[Layer]) -> list[Pair]:
    """The layers of two namings in the order in which both run.

    Where all kinds agree the layers are paired one by one. Elsewhere they are aligned by their shapes, and what lies
    between by kind, so that what follows a missing block is still matched with its own.
    """
    agree = [layer.kind() for layer in ours] == [layer.kind() for layer in theirs]
    if agree or len(ours) * len(theirs) > _MAX_ALIGNED:
        return list(_padded(ours, theirs))
    pairs: list[Pair] = []
    for mine, found in _aligned(ours, theirs, lambda layer: (*layer.kind(), layer.shape("weight"))):
        for these, those in _aligned(mine, found, Layer.kind):
            pairs += _padded(these, those)
    return pairs


def _aligned(
    ours: Sequence[Layer], theirs: Sequence[Layer], key: Callable[[Layer], Hashable]
) -> Iterator[tuple[Sequence[Layer], Sequence[Layer]]]:
    """Runs of layers that belong together, in order: those of equal keys, and what lies between them."""
    matcher = SequenceMatcher(None, [key(x) for x in ours], [key(x) for x in theirs], autojunk=False)
    for _, start, end, their_start, their_end in matcher.get_opcodes():
        yield ours[start:end], theirs[their_start:their_end]


def _padded(ours: Sequence[Layer], theirs: Sequence[Layer]) -> Iterator[Pair]:
    for index in range(max(len(ours), len(theirs))):
        yield ours[index] if index < len(ours) else None, theirs[index] if index < len(theirs) else None


def differences(pairs: Iterable[Pair]) -> list[Difference]:
    """Every pair whose shapes differ, one entry a layer, in order."""
    return [found for pair in pairs if (found := _difference(*pair)) is not None]


def _difference(ours: Layer | None, theirs: Layer | None) -> Difference | None:
    mine, found = ours or Layer("", {}), theirs or Layer("", {})
    names = (mine.tensors.keys() | found.tensors.keys()) - OPTIONAL
    for tensor in sorted(names, key=lambda name: (name != "weight", name)):
        shapes = mine.shape(tensor), found.shape(tensor)
        if shapes[0] != shapes[1]:
            of = ours.name if ours else None, theirs.name if theirs else None
            return Difference(*of, tensor, *shapes, (ours or found).is_norm)
    return None


def is_narrowing(pairs: Iterable[Pair]) -> bool:
    """Whether every layer is there in both, of one kind, and nowhere wider in the network than in the weights."""
    return all(
        ours is not None
        and theirs is not None
        and ours.kind() == theirs.kind()
        and _is_no_wider(ours.shape("weight") or (), theirs.shape("weight") or ())
        for ours, theirs in pairs
    )


def _is_no_wider(ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    return len(ours) == len(theirs) and all(a <= b for a, b in zip(ours, theirs, strict=True))


def listed(found: Sequence[Difference], layers: int) -> str:
    """The first differences in words, convolutions and linear layers before norms, and how many there are."""
    shown = sorted(found, key=lambda difference: difference.is_norm)[:_SHOWN]
    more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return f"{len(found)} of {layers} layers differ: " + "; ".join(map(str, shown)) + more
