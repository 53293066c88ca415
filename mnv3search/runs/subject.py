"""What a run works on: its space or network, copied into the folder so that the run can continue from it alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.architecture import Architecture, dump_architecture, load_architecture
from mnv3search.errors import DeviceError
from mnv3search.files import write_text
from mnv3search.naming import parse_network
from mnv3search.reading import read_bounded, utf8
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.images import class_count

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

MAX_DEVICE_BYTES = 10_000_000


def load_space_subject(folder: RunFolder) -> SearchSpace:
    """The run's space, from the copy in its folder; its networks take the classes of the run's images."""
    from mnv3search.space import load_space, parse_space, space_text

    copy = folder.path / "space.yaml"
    if not copy.exists():
        load_space(folder.settings.subject)
        write_text(copy, space_text(folder.settings.subject))
    space = parse_space(space_text(copy), Path(folder.settings.subject).stem, str(copy))
    classes = class_count(folder)
    return space if classes is None else with_classes(space, classes)


def with_classes(space: SearchSpace, classes: int) -> SearchSpace:
    """``space`` with networks of so many classes, its reference too."""
    if classes == space.skeleton.classes:
        return space
    return replace(
        space, skeleton=replace(space.skeleton, classes=classes), reference=space.reference.with_classes(classes),
        reference_name=None,
        reference_label=f"{space.reference_label.split(' (', maxsplit=1)[0]} (for {classes} classes)",
    )  # fmt: skip


def load_network_subject(folder: RunFolder) -> Architecture:
    """The run's seed network, from the copy in its folder, with the classes of the run's images."""
    copy = folder.path / "seed.json"
    if not copy.exists():
        write_text(copy, dump_architecture(parse_network(folder.settings.subject)))
    network, classes = load_architecture(copy), class_count(folder)
    return network if classes is None else network.with_classes(classes)


def copy_device(device: str, copy: Path) -> None:
    """Keep a device profile that the user gave as a file.

    Raises:
        DeviceError: it is too large to be one.
    """
    if not device.endswith(".json"):
        return
    try:
        write_text(copy, utf8(read_bounded(device, MAX_DEVICE_BYTES)))
    except (OSError, ValueError) as error:
        raise DeviceError(f"cannot read the device profile {device}: {error}; check the path") from None
