"""The layers of a space as ONNX files, for devices that cannot run Python: what to time there, and how to tell it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.errors import ArchitectureError, DeviceError
from mnv3search.files import locked, write_atomic, write_text
from mnv3search.latency.keys import network_key, unit_key, unit_of_key
from mnv3search.latency.measured.calibration import MIN_NETWORKS, assembled_networks
from mnv3search.latency.model import Progress
from mnv3search.latency.runtimes.base import Subject, graph_of, input_shape
from mnv3search.layers import Unit, unit_layers, units
from mnv3search.reading import open_regular, read_json

FORMAT, VERSION = "mnv3search.layers", 1
MANIFEST, README = "manifest.json", "README.txt"
MAX_MANIFEST_BYTES = 50_000_000
MAX_FILES = 20_000
MAX_NAME = 200
_GRAPH_BYTES = 3000  # of a graph beside its weights
_SAVED_EVERY = 50
_GUIDE = """Layers to time on your device (space {space})

  {layers} files of layers, layer-*.onnx, and {networks} of whole networks, network-*.onnx. Each has one input
  (batch 1, float32, the shape is in {manifest}) and one output.

1. Time every file as your app will run it: same runtime, precision, threads and processor. For each, run some calls
   to warm up, then at least 30, and note the median, and if you can the fastest. Random numbers do as input; zeros do
   not on every processor. Let the device cool between, and mix the order: do not time all layers, then all networks.
2. Write a CSV with one line for each file:

     file,ms,minimum_ms
     {example},1.234,1.201

   The column of times may be named ms, us or s; minimum_ms may be left out. Time whole networks too: they tell how
   much layers alone take too long. With fewer than {least} of them the sums stay uncalibrated, 10 to 35 % off.
3. mnv3search device import --layers {folder} --times times.csv --name my_phone
   mnv3search run --space {space} --device my_phone.json --target-latency 50ms

Keep the files as they are: the import checks that they are the ones that were written here.
"""


@dataclass(frozen=True, slots=True)
class LayerFile:
    """One file: a unit ("layer") or a whole network, with its canonical text; ``sha256`` is empty until written."""

    file: str
    subject: Subject
    key: str
    sha256: str = ""

    @property
    def is_network(self) -> bool:
        """Whether it is a whole network."""
        return isinstance(self.subject, Architecture)


@dataclass(frozen=True, slots=True)
class LayerFolder:
    """What a folder of layers is to hold: of a space, layers first, then networks."""

    space: str
    files: tuple[LayerFile, ...]

    @property
    def bytes(self) -> int:
        """About how many bytes the files take."""
        return sum(_about_bytes(entry.subject) for entry in self.files)

    @property
    def layers(self) -> tuple[LayerFile, ...]:
        """The files of single units."""
        return tuple(entry for entry in self.files if not entry.is_network)

    @property
    def networks(self) -> tuple[LayerFile, ...]:
        """The files of whole networks."""
        return tuple(entry for entry in self.files if entry.is_network)


def planned_layers(space: str, parts: Sequence[Unit], networks: int) -> LayerFolder:
    """The files for these units, and for up to so many networks made of them.

    Args:
        space: the name of theirs.
        parts: its units; those of equal time are one file.
        networks: how many, for the calibration.

    Raises:
        DeviceError: more files than anyone could time.
    """
    distinct = {unit_key(unit): unit for unit in parts}
    whole = assembled_networks(distinct.values(), networks)
    if len(distinct) + len(whole) > MAX_FILES:
        raise DeviceError(f"space {space} has {len(distinct)} layers; over {MAX_FILES} are too many to time")
    found = [LayerFile(_layer_name(unit, key), unit, key) for key, unit in distinct.items()]
    found += [
        LayerFile(f"network-{i:02}-{_digest(network_key(a))}.onnx", a, network_key(a)) for i, a in enumerate(whole)
    ]
    return LayerFolder(space, tuple(found))


def _layer_name(unit: Unit, key: str) -> str:
    return f"layer-{unit.part}-{unit.in_channels}x{unit.in_size}x{unit.in_size}-{_digest(key)}.onnx"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:10]


def _about_bytes(subject: Subject) -> int:
    parts = units(subject) if isinstance(subject, Architecture) else (subject,)
    return sum(_GRAPH_BYTES + 4 * sum(layer.parameters for layer in unit_layers(unit)) for unit in parts)


def write_layers(plan: LayerFolder, folder: Path, progress: Progress | None = None) -> int:
    """Write the files, ``manifest.json`` and ``README.txt``; an interrupted call goes on where it stopped.

    Returns:
        How many files were there already and were kept.

    Raises:
        DeviceError: the folder holds something else, or the disk is too small.
        RunError: a file cannot be written, or another process writes there.
        MissingDependencyError: onnx is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        done = _written(plan, folder)
        free, needed = shutil.disk_usage(folder).free, plan.bytes - sum(_about_bytes(f.subject) for f in done.values())
        if needed > free:
            raise DeviceError(f"{folder} needs {needed / 1e6:.0f} MB and has {free / 1e6:.0f} MB free; make room there")
        kept = len(done)
        write_text(folder / README, _guide(plan, folder))
        try:
            for index, entry in enumerate(plan.files):
                if progress is not None:
                    progress(index, len(plan.files), entry.file)
                if entry.file not in done:
                    done[entry.file] = _write(entry, folder)
                    if len(done) % _SAVED_EVERY == 0:
                        _save(plan, done, folder)
        finally:
            _save(plan, done, folder)
    return kept


def _written(plan: LayerFolder, folder: Path) -> dict[str, LayerFile]:
    """The planned files that are in the folder as they were written.

    Raises:
        DeviceError: the folder holds something else.
    """
    if not (folder / MANIFEST).exists():
        if any(path.name[0] != "." for path in folder.iterdir()):
            raise DeviceError(f"{folder} holds files that are no exported layers; choose an empty or a new folder")
        _save(plan, {}, folder)
        return {}
    there, _ = _read(folder)
    if [(f.file, f.key) for f in there.files] != [(f.file, f.key) for f in plan.files]:
        raise DeviceError(
            f"{folder} holds other layers, of space {there.space}; choose a new folder, or the same space and networks"
        )
    return {f.file: f for f in there.files if f.sha256 and file_sha256(folder / f.file) == f.sha256}


def _write(entry: LayerFile, folder: Path) -> LayerFile:
    content = graph_of(entry.subject)
    write_atomic(folder / entry.file, lambda path: path.write_bytes(content))
    return LayerFile(entry.file, entry.subject, entry.key, hashlib.sha256(content).hexdigest())


def _save(plan: LayerFolder, done: Mapping[str, LayerFile], folder: Path) -> None:
    content = {
        "format": FORMAT, "version": VERSION, "space": plan.space, "complete": len(done) == len(plan.files),
        "layers": [_entry(done.get(f.file, f)) for f in plan.layers],
        "networks": [_entry(done.get(f.file, f)) for f in plan.networks],
    }  # fmt: skip
    write_text(folder / MANIFEST, json.dumps(content, indent=1) + "\n")


def _entry(entry: LayerFile) -> dict[str, object]:
    subject = entry.subject
    what = {"architecture": to_mapping(subject)} if isinstance(subject, Architecture) else {"key": entry.key}
    return {"file": entry.file, "input": list(input_shape(subject)), "sha256": entry.sha256, **what}


def _guide(plan: LayerFolder, folder: Path) -> str:
    return _GUIDE.format(
        space=plan.space, layers=len(plan.layers), networks=len(plan.networks), manifest=MANIFEST, folder=folder.name,
        example=plan.files[0].file, least=MIN_NETWORKS,
    )  # fmt: skip


def file_sha256(path: Path) -> str | None:
    """The digest of a file, or None where there is none."""
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def read_layers(folder: Path) -> LayerFolder:
    """What a folder of exported layers holds, by its manifest.

    Raises:
        DeviceError: there is no whole manifest, or the export was interrupted.
    """
    found, complete = _read(folder)
    if not complete:
        raise DeviceError(f"the export to {folder} was interrupted; finish it by the same export-layers command")
    return found


def _read(folder: Path) -> tuple[LayerFolder, bool]:
    path = folder / MANIFEST
    try:
        content = read_json(path, MAX_MANIFEST_BYTES)
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"it is not of format {FORMAT}, version {VERSION}")
        layers, networks = content["layers"], content["networks"]
        if len(layers) + len(networks) > MAX_FILES:
            raise ValueError(f"it names over {MAX_FILES} files")
        files = [_file(entry) for entry in (*layers, *networks)]
        if len({f.file for f in files}) < len(files):
            raise ValueError("it names a file twice")
        return LayerFolder(str(content["space"])[:MAX_NAME], tuple(files)), content["complete"] is True
    except OSError as error:
        raise DeviceError(
            f"cannot read {path}: {error.strerror or error}; give the folder that export-layers wrote"
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, ArchitectureError, DeviceError) as error:
        if isinstance(error, DeviceError) and str(error).startswith(str(path)):
            raise
        raise DeviceError(f"{path} is no whole manifest of layers ({error}); export the layers again") from None


def _file(entry: Mapping[str, Any]) -> LayerFile:
    name, digest = entry["file"], entry["sha256"]
    if not isinstance(name, str) or name != Path(name).name or not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"{name!r:.80} is no name of a file in that folder")
    if not isinstance(digest, str):
        raise ValueError(f"the sha256 of {name} is no text")
    if "architecture" in entry:
        network = from_mapping(entry["architecture"])
        return LayerFile(name, network, network_key(network), digest)
    unit = unit_of_key(entry["key"])
    return LayerFile(name, unit, unit_key(unit), digest)
