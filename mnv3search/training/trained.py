"""A trained network as one file: weights, architecture, class names and preprocessing; other weights made into one.

The file is a ``.safetensors`` whose metadata say the rest, so that what the weights need travels with them and nothing
is ever unpickled. Every command that takes a RUN reads such a file, or the ``best.safetensors`` in a run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.errors import Mnv3SearchError, WeightsError
from mnv3search.families import NETWORKS
from mnv3search.families.registry import network_name
from mnv3search.files import write_bytes
from mnv3search.naming import parse_network, run_of
from mnv3search.trained_header import FORMAT, KEY, REMEDY, VERSION, about, described, trained_header
from mnv3search.training.data.preprocessing import Preprocessing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from mnv3search.network.build import MobileNetwork

BEST = "best.safetensors"
EVALUATED = "proxy"  # of a run's folder: the networks that its evaluator trained
_OTHER = "or name the network of other weights: NETWORK --weights FILE"


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """A network with what it needs to classify an image.

    Attributes:
        architecture: of ``network``.
        network: in evaluation mode, on the CPU.
        classes: names of its logits, in their order.
        preprocessing: from an image to the network's input.
        facts: what is known of it (``val_accuracy`` in percent, ``epoch``, ``recipe``, …); plain JSON values.
    """

    architecture: Architecture
    network: MobileNetwork
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    facts: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.classes) != self.architecture.classes:
            raise WeightsError(
                f"the network has {self.architecture.classes} logits, but {len(self.classes)} class names are given; "
                "give one name for each"
            )
        if len(set(self.classes)) != len(self.classes):
            raise WeightsError("two classes have the same name; class names must differ")

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, R, R, 3) uint8 RGB, resized and cropped, to (n, classes), on the CPU."""
        import torch

        with torch.inference_mode():
            logits: NDArray[np.float32] = self.network(self.preprocessing.normalised(pixels)).numpy()
        return logits


def save_trained(path: Path, trained: TrainedNetwork) -> None:
    """Write ``trained`` to ``path``, one ``.safetensors`` file, whole or not at all.

    Equal networks with equal facts give equal bytes.
    """
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path} is no name for a trained network; it must end in .safetensors")
    header = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": to_mapping(trained.architecture),
        "classes": list(trained.classes),
        "preprocessing": trained.preprocessing.to_mapping(),
        "facts": dict(trained.facts),
    }
    write_tensors(path, trained.network.state_dict(), {KEY: json.dumps(header, ensure_ascii=False)})


def load_trained(path: str | Path) -> TrainedNetwork:
    """The trained network in a file of :func:`save_trained`, or the best of a run's folder.

    Raises:
        WeightsError: no such file or folder, one of another kind (a pickled checkpoint among them), or one whose
            weights do not belong to its architecture; the message says which.
    """
    from mnv3search.network.weights_file import read_safetensors

    path = trained_file(path)
    tensors, metadata = read_safetensors(path)
    header = described(path, metadata)
    try:
        architecture = from_mapping(header.get("architecture"))
        preprocessing = Preprocessing.from_mapping(header.get("preprocessing"))
        classes, facts = header.get("classes"), header.get("facts")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise WeightsError("its class names are no list of words; the file is damaged")
        network = _network(architecture, tensors)
        facts = facts if isinstance(facts, dict) else {}
        return TrainedNetwork(architecture, network, tuple(classes), preprocessing, facts)
    except Mnv3SearchError as error:
        raise WeightsError(f"{path}: {error}") from None


def trained_file(path: str | Path) -> Path:
    """The file that holds the trained network of ``path``: itself, or a folder's ``best.safetensors``.

    ``RUN:12`` and the like name a network of a run whose evaluator trained it.
    """
    if path == "":
        raise WeightsError(f"the path of the trained network is empty; {REMEDY}")
    path = Path(path)
    if path.is_dir():
        if (path / BEST).is_file():
            return path / BEST
        if (path / "best.json").is_file():
            raise WeightsError(
                f"{path} holds no weights: its networks were not trained; train the best of them: "
                f"mnv3search train {path} --data …"
            )
        raise WeightsError(f"{path} holds no {BEST}: no epoch of its training was finished, or it is no training")
    if not path.exists():
        run = run_of(str(path))
        if run is None:
            raise WeightsError(f"there is no file or folder {path}; {REMEDY}, {_OTHER}")
        return _evaluated_file(path, run)
    if path.suffix == ".onnx":
        raise WeightsError(
            f"{path} is an exported model, which only evaluate and predict take; {REMEDY}, from which it was exported"
        )
    if path.suffix != ".safetensors":
        raise WeightsError(
            f"{path} is not a trained network of mnv3search, which ends in .safetensors; {REMEDY}, {_OTHER}"
        )
    return path


def _evaluated_file(network: Path, run: Path) -> Path:
    """The file of a network that a run's evaluator trained and kept; of several seeds one."""
    wanted = parse_network(network)
    for file in sorted((run / EVALUATED).glob("*.safetensors")):
        kept = from_mapping(trained_header(file).get("architecture"))
        if kept == wanted.with_resolution(kept.resolution):
            return file
    raise WeightsError(
        f"{network} has no weights in {run / EVALUATED}: it was searched, not trained; train it with mnv3search train "
        f"{network} --data DIR, and give the folder of that training"
    )


def is_trained(path: Path) -> bool:
    """Whether ``path`` is a folder, or a file that :func:`save_trained` wrote, and not weights of another kind."""
    if path.is_dir():
        return True
    if path.suffix != ".safetensors":
        return False
    from mnv3search.network.weights_file import read_safetensors

    header = about(read_safetensors(path)[1])
    return header is not None and header.get("format") == FORMAT


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors by name with text beside them as ``.safetensors``, whole or not at all."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, dict(metadata)))


def _network(architecture: Architecture, tensors: Mapping[str, Tensor]) -> MobileNetwork:
    """The network with these very tensors, which must be its own by name, shape and kind."""
    import torch

    from mnv3search.network.build import MobileNetwork

    with torch.device("meta"):  # takes no memory, so that a file cannot ask for more than it holds
        network = MobileNetwork(architecture)
    wanted = network.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        mine, found = wanted.get(name), tensors.get(name)
        if mine is None or found is None:
            raise WeightsError(f"{name} is {'missing' if found is None else 'no part of its architecture'}")
        if mine.shape != found.shape or mine.dtype != found.dtype:
            raise WeightsError(
                f"{name} is {tuple(found.shape)} {found.dtype}; its architecture needs {tuple(mine.shape)} {mine.dtype}"
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise WeightsError(f"{name} holds NaN or infinity; take an earlier checkpoint")
    network.load_state_dict(dict(tensors), assign=True)
    return network.eval()


def read_weights(where: str) -> Path | TrainedNetwork:
    """The trained network at ``where``, or the path of a file that may hold other weights."""
    path = Path(where)
    if not where or not path.exists():
        raise WeightsError(f"there are no weights {where or repr(where)}; give a weights file or a training's folder")
    return load_trained(path) if is_trained(path) else path


def check_weights(network: str, where: str, architecture: Architecture | None = None) -> Path | TrainedNetwork:
    """The weights at ``where``, which have every layer of ``network`` but for the classifier.

    ``architecture`` is that of ``network`` (a published network's name or a ``.json`` file), where it was changed. The
    error lists the layers that differ, and names the network if it is this one by another rule of widths.
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
    there. Without ``classes`` they are those of a RUN, and else the logits' numbers.
    """
    from mnv3search.network.build import build_network
    from mnv3search.network.initial_weights import load_initial_weights
    from mnv3search.training.devices import own_randomness

    weights, architecture = check_weights(network, where), parse_network(network)
    own = weights.classes if isinstance(weights, TrainedNetwork) else None
    names = classes or own or tuple(map(str, range(architecture.classes)))
    architecture = architecture.with_classes(len(names))
    with own_randomness():  # of a classifier that is drawn anew, and then refused
        module = build_network(architecture)
        loaded = load_initial_weights(module, weights)
    if loaded.fresh:
        raise WeightsError(
            f"{where}: {loaded.reason}; give --data with images of the classes of the weights, or train "
            f"on these first: mnv3search train {network} --data DIR --weights {where}"
        )
    if own is not None and own != names:
        raise WeightsError(f"{where} has other classes than the images, or in another order")
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
