"""A network with weights from elsewhere, torchvision's or timm's, as if it had been trained here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.errors import WeightsError
from mnv3search.naming import parse_network
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.trained import TrainedNetwork

if TYPE_CHECKING:
    from mnv3search.network.initial_weights import InitialWeights


def check_weights(network: str, file: Path) -> None:
    """Pass where ``file`` has every layer of ``network`` but for the classifier: ask before anything slow.

    Raises:
        UnknownNameError, ArchitectureError: no such network.
        WeightsError: the file cannot be read, holds code, or is of another network; the message lists the layers.
    """
    _filled(network, file, None)


def with_weights(network: str, file: Path, classes: tuple[str, ...]) -> TrainedNetwork:
    """``network`` with all weights of ``file``; its logits are named ``classes``, in their order.

    Weights of ImageNet name none of their own: their logits are in the order of the sorted folders (``n01440764`` …).
    Images are prepared as torchvision does, by ImageNet's mean and deviation.

    Args:
        network: a published network's name, such as ``mobilenet_v3_large``, or a ``.json`` file.
        file: as :func:`~mnv3search.network.initial_weights.load_initial_weights` takes it.
        classes: of the images.

    Raises:
        UnknownNameError, ArchitectureError: no such network.
        WeightsError: as :func:`check_weights`, or the weights are for another number of classes, or for others.
    """
    trained, loaded = _filled(network, file, classes)
    if loaded.fresh:
        raise WeightsError(
            f"{file}: {loaded.reason}; give images of the classes that the weights tell apart, or train on these "
            f"first: mnv3search train {network} --data DIR --weights {file}"
        )
    if loaded.classes is not None and loaded.classes != classes:
        raise WeightsError(f"{file} tells other classes apart than the images have, or in another order")
    return trained


def _filled(network: str, file: Path, classes: tuple[str, ...] | None) -> tuple[TrainedNetwork, InitialWeights]:
    from mnv3search.network.build import build_network
    from mnv3search.network.initial_weights import load_initial_weights
    from mnv3search.training.randomness import own_randomness

    architecture = parse_network(network)
    if classes is not None:
        architecture = architecture.with_classes(len(classes))
    with own_randomness():  # of a classifier that is drawn anew, and then refused or dropped
        module = build_network(architecture)
        loaded = load_initial_weights(module, file, new_classifier=True if classes is None else None)
    names = classes or tuple(str(number) for number in range(architecture.classes))
    facts = {"network": network, "weights": file.name}
    return TrainedNetwork(architecture, module.eval(), names, Preprocessing(architecture.resolution), facts), loaded
