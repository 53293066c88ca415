"""Weights for a network that is named beside them: torchvision's or timm's, or those of a RUN."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mnv3search.architecture import Architecture
from mnv3search.errors import WeightsError
from mnv3search.families import NETWORKS
from mnv3search.families.registry import network_name
from mnv3search.naming import parse_network
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.trained import TrainedNetwork, is_trained, load_trained


def read_weights(where: str) -> Path | TrainedNetwork:
    """The trained network at ``where``, or the path of a file that may hold other weights.

    Raises:
        WeightsError: there is nothing, or a trained network that is damaged.
    """
    path = Path(where)
    if not path.exists():
        raise WeightsError(f"there are no weights {path}; give a weights file or the folder of a training")
    return load_trained(path) if is_trained(path) else path


def check_weights(network: str, where: str, architecture: Architecture | None = None) -> Path | TrainedNetwork:
    """The weights at ``where``, which have every layer of ``network`` but for the classifier: ask before anything slow.

    Args:
        network: a published network's name, such as ``mobilenet_v3_large``, or a ``.json`` file.
        where: as :func:`read_weights` takes it.
        architecture: of ``network``, with what was changed; as it is named where None.

    Raises:
        UnknownNameError, ArchitectureError: no such network.
        WeightsError: there are none, they cannot be read, hold code, or are of another network; the message lists the
            layers, and names the network where it is this one by another rule of widths.
    """
    from mnv3search.network.initial_weights import check_initial_weights

    architecture = architecture or parse_network(network)
    weights = read_weights(where)
    try:
        check_initial_weights(architecture, weights)
    except WeightsError as error:
        named = "" if isinstance(weights, Path) else f"{where}: "  # then the message has its name already
        for text in _by_other_rules(network):
            with suppress(WeightsError):
                check_initial_weights(parse_network(text), weights)
                error = WeightsError(f"they are of {text}, another rule of widths; {error}")
        raise WeightsError(f"{named}{error}") from None
    return weights


def with_weights(network: str, where: str, classes: tuple[str, ...] | None = None) -> TrainedNetwork:
    """``network`` with all weights at ``where``; its logits are named ``classes``, in their order.

    Weights of ImageNet name none of their own: their logits are in the order of the sorted folders (``n01440764`` …).
    For torchvision's and timm's weights images are prepared by ImageNet's mean and deviation, for those of a RUN as
    there.

    Args:
        network: a published network's name, such as ``mobilenet_v3_large``, or a ``.json`` file.
        where: as :func:`read_weights` takes it.
        classes: of the images; None for those of a RUN, and else for the logits' numbers.

    Raises:
        UnknownNameError, ArchitectureError: no such network.
        WeightsError: as :func:`check_weights`, or the weights are for another number of classes, or for others.
    """
    from mnv3search.network.build import build_network
    from mnv3search.network.initial_weights import load_initial_weights
    from mnv3search.training.randomness import own_randomness

    weights, architecture = check_weights(network, where), parse_network(network)
    own = weights.classes if isinstance(weights, TrainedNetwork) else None
    names = classes or own or tuple(map(str, range(architecture.classes)))
    architecture = architecture.with_classes(len(names))
    with own_randomness():  # of a classifier that is drawn anew, and then refused
        module = build_network(architecture)
        loaded = load_initial_weights(module, weights)
    if loaded.fresh:
        raise WeightsError(
            f"{where}: {loaded.reason}; give --data with images of the classes that the weights tell apart, or train "
            f"on these first: mnv3search train {network} --data DIR --weights {where}"
        )
    if own is not None and own != names:
        raise WeightsError(f"{where} tells other classes apart than the images have, or in another order")
    prepared = Preprocessing(architecture.resolution)
    if isinstance(weights, TrainedNetwork):
        prepared = replace(weights.preprocessing, resolution=architecture.resolution)
    facts = {"network": network, "weights": Path(where).name}
    return TrainedNetwork(architecture, module.eval(), names, prepared, facts)


def _by_other_rules(network: str) -> tuple[str, ...]:
    """A published network at a width by the rules that are not written, in which libraries differ."""
    name = network_name(network)
    if name is None or name.name not in NETWORKS or name.width == 1:
        return ()
    side = "" if name.resolution is None else f"/{name.resolution}"
    return tuple(f"{name.name}@{name.width:g}:{rule}{side}" for rule in ("torchvision", "paper") if rule != name.rule)
