"""The layers of a space as ONNX files to time, for devices that cannot run Python."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.errors import DeviceError
from mnv3search.files import locked, write_atomic, write_text
from mnv3search.latency.keys import network_key, unit_key, unit_of_key
from mnv3search.latency.measured.calibration import MIN_NETWORKS, assembled_networks
from mnv3search.latency.model import Progress
from mnv3search.latency.runtimes.base import Subject, graph_of, input_shape
from mnv3search.layers import Unit, unit_layers, units
from mnv3search.reading import open_regular, read_json
from mnv3search.records import Record

FORMAT, VERSION = "mnv3search.layers", 1
MANIFEST, README = "manifest.json", "README.txt"
MAX_MANIFEST_BYTES = 50_000_000
MAX_FILES = 20_000
MAX_NAME = 200
_GRAPH_BYTES = 3000  # of a graph without its weights
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

   The column of times may be named ms, us or s; minimum_ms may be left out. Time whole networks too: they show how
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

    @property
    def parts(self) -> tuple[Unit, ...]:
        """The units in it."""
        return units(self.subject) if isinstance(self.subject, Architecture) else (self.subject,)

    @property
    def bytes(self) -> int:
        """About how many bytes it takes."""
        return sum(_GRAPH_BYTES + 4 * sum(layer.parameters for layer in unit_layers(unit)) for unit in self.parts)


@dataclass(frozen=True, slots=True)
class LayerFolder:
    """What a folder holds of a space, layers first, then networks; ``complete`` once all of it is written."""

    space: str
    files: tuple[LayerFile, ...]
    complete: bool = False

    @property
    def bytes(self) -> int:
        """About how many bytes the files take."""
        return sum(entry.bytes for entry in self.files)

    @property
    def layers(self) -> tuple[LayerFile, ...]:
        """The files of single units."""
        return tuple(entry for entry in self.files if not entry.is_network)

    @property
    def networks(self) -> tuple[LayerFile, ...]:
        """The files of whole networks."""
        return tuple(entry for entry in self.files if entry.is_network)


def planned_layers(space: str, parts: Sequence[Unit], networks: int) -> LayerFolder:
    """The files for a space's units, those of equal time once, and for up to so many networks made of them."""
    distinct = {unit_key(unit): unit for unit in parts}
    whole = {network_key(network): network for network in assembled_networks(distinct.values(), networks)}
    if len(distinct) + len(whole) > MAX_FILES:
        raise DeviceError(f"space {space} has {len(distinct)} layers; over {MAX_FILES} are too many to time")
    found = []
    for key, unit in distinct.items():
        shape = f"{unit.part}-{unit.in_channels}x{unit.in_size}x{unit.in_size}"
        found.append(LayerFile(f"layer-{shape}-{_digest(key)}.onnx", unit, key))
    for number, (key, network) in enumerate(whole.items()):
        found.append(LayerFile(f"network-{number:02}-{_digest(key)}.onnx", network, key))
    return LayerFolder(space, tuple(found))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:10]


def write_layers(plan: LayerFolder, folder: Path, progress: Progress | None = None) -> int:
    """Write the files, ``manifest.json`` and ``README.txt``; returns how many an interrupted call had written."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        done = _written(plan, folder)
        free, needed = shutil.disk_usage(folder).free, plan.bytes - sum(f.bytes for f in done.values())
        if needed > free:
            raise DeviceError(f"{folder} needs {needed / 1e6:.0f} MB and has {free / 1e6:.0f} MB free; make room there")
        kept = len(done)
        guide = _GUIDE.format(
            space=plan.space, layers=len(plan.layers), networks=len(plan.networks), manifest=MANIFEST,
            folder=folder.name, example=plan.files[0].file, least=MIN_NETWORKS,
        )  # fmt: skip
        write_text(folder / README, guide)
        try:
            for index, entry in enumerate(plan.files):
                if progress is not None:
                    progress(index, len(plan.files), entry.file)
                if entry.file not in done:
                    content = graph_of(entry.subject)
                    write_atomic(folder / entry.file, partial(Path.write_bytes, data=content))
                    done[entry.file] = replace(entry, sha256=hashlib.sha256(content).hexdigest())
                    if len(done) % _SAVED_EVERY == 0:
                        _save(plan, done, folder)
        finally:
            _save(plan, done, folder)
    return kept


def _written(plan: LayerFolder, folder: Path) -> dict[str, LayerFile]:
    """The planned files that are in the folder as they were written."""
    if not (folder / MANIFEST).exists():
        if any(path.name[0] != "." for path in folder.iterdir()):
            raise DeviceError(f"{folder} holds files that are no exported layers; choose an empty or a new folder")
        _save(plan, {}, folder)
        return {}
    there = _read(folder)
    if [(f.file, f.key) for f in there.files] != [(f.file, f.key) for f in plan.files]:
        raise DeviceError(
            f"{folder} holds other layers, of space {there.space}; choose a new folder, or the same space and networks"
        )
    return {f.file: f for f in there.files if f.sha256 and file_sha256(folder / f.file) == f.sha256}


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


def file_sha256(path: Path) -> str | None:
    """The digest of a file, or None where there is none."""
    try:
        with open_regular(path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def read_layers(folder: Path) -> LayerFolder:
    """What a folder of exported layers holds, by its manifest."""
    found = _read(folder)
    if not found.complete:
        raise DeviceError(f"the export to {folder} was interrupted; finish it by the same export-layers command")
    return found


def _read(folder: Path) -> LayerFolder:
    path = folder / MANIFEST
    try:
        content = Record(read_json(path, MAX_MANIFEST_BYTES))
        if content.value("format") != FORMAT or content.value("version") != VERSION:
            raise ValueError(f"it is not of format {FORMAT}, version {VERSION}")
        entries = [*content.list("layers"), *content.list("networks")]
        if len(entries) > MAX_FILES:
            raise ValueError(f"it names over {MAX_FILES} files")
        found = [_file(Record(entry)) for entry in entries]
        if len({entry.file for entry in found}) < len(found):
            raise ValueError("it names a file twice")
        return LayerFolder(content.text("space")[:MAX_NAME], tuple(found), content.value("complete") is True)
    except OSError as error:
        raise DeviceError(
            f"cannot read {path}: {error.strerror or error}; give the folder that export-layers wrote"
        ) from None
    except (ValueError, DeviceError) as error:
        raise DeviceError(f"{path} is no whole manifest of layers ({error}); export the layers again") from None


def _file(entry: Record) -> LayerFile:
    name, digest = entry.text("file"), entry.text("sha256")
    if name != Path(name).name or not 0 < len(name) <= MAX_NAME:
        raise ValueError(f"{name!r:.80} is no name of a file in that folder")
    if "architecture" in entry:
        network = from_mapping(entry.value("architecture"))
        return LayerFile(name, network, network_key(network), digest)
    unit = unit_of_key(entry.text("key"))
    return LayerFile(name, unit, unit_key(unit), digest)
