"""Weights that a network starts from: another library's, or those of a network that was trained here.

Either every layer but the classifier is loaded, or none is and every one that differs is named: a network is never
half-loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import nn

from mnv3search.architecture import Architecture, from_mapping
from mnv3search.errors import ArchitectureError, WeightsError
from mnv3search.network.build import MobileNetwork
from mnv3search.network.slicing import described_faults
from mnv3search.network.weights import (
    Library,
    Pair,
    StateDict,
    check_pairs,
    copy_pairs,
    differences,
    library_of,
    paired_layers,
)
from mnv3search.network.weights_file import load_weights_file, unwrapped
from mnv3search.trained_header import FORMAT as TRAINED
from mnv3search.trained_header import about

CLASSIFIER = "head.classifier"
_STATE = "mnv3search.training_state"


class HasNetwork(Protocol):
    """As ``training.trained.TrainedNetwork``: the module, and the names of its logits."""

    @property
    def network(self) -> MobileNetwork: ...  # noqa: D102

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102


Source = Path | StateDict | HasNetwork


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """What a network was given.

    Attributes:
        library: whose naming the weights had.
        loaded, fresh: its layers that hold them, in order, and those drawn anew: the classifier, or none.
        reason: why the classifier was drawn anew; empty where it was not.
        classes: class names that came with the weights, by logit; None where none did.
    """

    library: Library
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    reason: str = ""
    classes: tuple[str, ...] | None = None

    def __str__(self) -> str:
        """One line for a person."""
        loaded = f"loaded {len(self.loaded)} layers of {self.library}'s naming"
        return f"{loaded}; the classifier is drawn anew: {self.reason}" if self.fresh else f"{loaded}, all there are"


class _Weights(NamedTuple):
    """A source that was read."""

    state: StateDict
    architecture: Architecture | None = None
    classes: tuple[str, ...] | None = None


def load_initial_weights(
    network: MobileNetwork, source: Source, *, new_classifier: bool | None = None
) -> InitialWeights:
    """Copies weights into ``network``, in place; its mode and device stay.

    A state dict says nothing of padding, eps or activations: they are taken from the network's architecture. Those of
    timm's own networks have eps 1e-5 where the papers' have 1e-3, its ports of TensorFlow's (``tf_…``) are padded as
    ``same``. A file that was trained here names its network, which must be the same.

    Args:
        network: to fill.
        source: a file of torchvision's, timm's or this package's weights (``.safetensors``, or torch's formats with
            tensors alone), the folder of a training, a state dict, or a trained network.
        new_classifier: whether the last layer is drawn anew, from torch's global generator; None does so where the
            weights are for another number of classes, or have no classifier.

    Raises:
        WeightsError: the source cannot be read, holds code, or is of another network; the message lists the layers
            that differ, and ``network`` is as it was.
    """
    given, pairs = _fitting(network, source, new_classifier)
    copy_pairs(pairs)
    if given.fresh:
        _draw_classifier(network)
    return given


def check_initial_weights(architecture: Architecture, source: Source) -> None:
    """Pass where a network of ``architecture``, for any number of classes, can start from ``source``.

    Raises as :func:`load_initial_weights`.
    """
    with torch.device("meta"):
        network = MobileNetwork(architecture)
    _fitting(network, source, None)


def _fitting(
    network: MobileNetwork, source: Source, new_classifier: bool | None
) -> tuple[InitialWeights, Sequence[Pair]]:
    """What ``network`` would be given, and the pairs of layers to copy."""
    weights, where = _read(source)
    try:
        library = library_of(weights.state)
        pairs = paired_layers(network, weights.state, library)
        classifier = next(pair for pair in pairs if pair[0] is not None and pair[0].name == CLASSIFIER)
        features = [pair for pair in pairs if pair is not classifier]
        _check_architecture(network.architecture, weights.architecture, features)
        check_pairs(features)
        reason = _reason_for_new(classifier, new_classifier)
        if not reason:
            check_pairs([classifier])
    except WeightsError as error:
        raise WeightsError(f"{where}: {error}" if where else str(error)) from None
    loaded = tuple(ours.name for ours, _ in features if ours is not None)
    if reason:
        return InitialWeights(library, loaded, (CLASSIFIER,), reason, weights.classes), features
    return InitialWeights(library, (*loaded, CLASSIFIER), (), "", weights.classes), [*features, classifier]


def _read(source: Source) -> tuple[_Weights, str]:
    """The weights of a source, and its name for messages."""
    if isinstance(source, Mapping):
        return _Weights(unwrapped(source, "the state dict")), ""
    if not isinstance(source, Path):
        network = source.network
        return _Weights(network.state_dict(), network.architecture, source.classes), ""
    file = load_weights_file(source)
    header = about(file.metadata) or {}
    kind = header.get("format")
    if kind == _STATE:
        raise WeightsError(f"{source} is the state of a training; give its folder, or the best.safetensors in it")
    if kind != TRAINED:
        return _Weights(file.tensors), str(source)
    try:
        architecture = from_mapping(header.get("architecture"))
    except ArchitectureError as error:
        raise WeightsError(f"{source}: {error}; the file is damaged") from None
    named = header.get("classes")
    classes = tuple(map(str, named)) if isinstance(named, list) and len(named) == architecture.classes else None
    return _Weights(file.tensors, architecture, classes), str(source)


def _check_architecture(ours: Architecture, theirs: Architecture | None, features: list[Pair]) -> None:
    """What shapes do not show: strides, activations, gates, padding and eps of a network that was trained here."""
    if theirs is None or differences(features):
        return  # differing layers say more
    if faults := described_faults(replace(theirs, classes=ours.classes), ours, "in this one"):
        raise WeightsError(f"in the weights' network {faults}; build that of the weights")


def _reason_for_new(classifier: Pair, new_classifier: bool | None) -> str:
    """Why the classifier is drawn anew; empty where it is loaded."""
    if new_classifier:
        return "as was asked for"
    if new_classifier is False:
        return ""
    ours, theirs = classifier
    assert ours is not None
    if theirs is None:
        return "the weights have none"
    mine, found = ours.shape("weight"), theirs.shape("weight")
    if mine is not None and found is not None and mine[0] != found[0] and mine[1:] == found[1:]:
        return f"the weights are for {found[0]} classes, the network for {mine[0]}"
    return ""


def _draw_classifier(network: MobileNetwork) -> None:
    classifier = network.head.classifier
    nn.init.normal_(classifier.weight, 0.0, network.architecture.head.linear_std)
    nn.init.zeros_(classifier.bias)
