"""Networks as users name them: published ones, spaces' references, files, and folders of runs."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mnv3search.architecture import Architecture, from_mapping, load_architecture
from mnv3search.errors import ArchitectureError, UnknownNameError, WeightsError
from mnv3search.families import NETWORKS
from mnv3search.families.registry import network_name
from mnv3search.reading import open_regular, parse_json, utf8
from mnv3search.space import load_space, space_names
from mnv3search.trained_header import SUFFIX, trained_header

FORMS = (
    "A network is NAME[@WIDTH][:torchvision][/RESOLUTION], where :torchvision is that library's width rule and NAME a "
    "published network's, or a search space's for its reference; or it is a .json, .yaml or .safetensors file, a run's "
    "folder, or in it RUN:NUMBER, RUN:front/PLACE or RUN:finalist/NUMBER."
)
_IN_FOLDERS = ("best.json", "best.safetensors", "network.json")  # of a search; of a training or pruning; of one begun
_SPACES = (".yaml", ".yml")
_IN_RUN = re.compile(r"(?P<run>.+):(?:(?P<table>front|finalist)/)?(?P<number>[0-9]{1,9})")
_TABLES = {None: "candidates.csv", "front": "pareto.csv", "finalist": "netadapt.csv"}
MAX_TABLE_BYTES, MAX_LINE = 512_000_000, 1_000_000


def parse_network(text: str | Path) -> Architecture:
    """The architecture that ``text`` names.

    Examples: ``mobilenet_v3_large``, ``mobilenet_v2@0.75``, ``mobilenet_v3_small/160``,
    ``mobilenet_v3_large@0.75:torchvision/192``; ``mnv3_small_32`` and ``mnv3_small_32@0.75``, the reference of a search
    space; ``runs/today/best.json``; ``runs/flowers`` and ``runs/flowers/best.safetensors``, of which the header is read
    and no weights. A name goes before a folder of the same name, which is then written ``./NAME``.

    Networks of a run: ``runs/today:12``, candidate 12 of the block search (its number in ``candidates.csv``);
    ``runs/today:front/3``, the third fastest of the Pareto front; ``runs/today:finalist/2``, the second finalist after
    NetAdapt.

    Raises:
        UnknownNameError: no such network, or a form that is none of these.
        ArchitectureError: a width or resolution that cannot be, or a file or folder that is missing or holds no
            network.
        SpaceError: a space's file that breaks a rule.
        WeightsError: a ``.safetensors`` file that is damaged, or no trained network.
    """
    text = str(text)
    if not text:
        raise UnknownNameError("network", text, (), FORMS)
    name = network_name(text)
    if name is not None and name.name in NETWORKS:
        return name.published()
    if name is not None and name.name in space_names():
        return name.of(load_space(name.name).reference)
    path = Path(text)
    found = _in_file(text, path)
    if found is not None:
        return found
    if _is_path(text, is_name=name is not None):
        raise ArchitectureError(f"{text}: no such file or folder; a network's file ends in .json or {SUFFIX}")
    shown = text if name is None else name.name
    raise UnknownNameError("network", shown, (*NETWORKS, *space_names()), FORMS if name is None else "")


def run_of(text: str) -> Path | None:
    """The folder of the run in which ``RUN:12``, ``RUN:front/3`` or ``RUN:finalist/2`` names a network, else None."""
    candidate = _IN_RUN.fullmatch(text)
    return Path(candidate["run"]) if candidate is not None and Path(candidate["run"]).is_dir() else None


def _in_file(text: str, path: Path) -> Architecture | None:
    """The network in the file, folder or run that ``text`` names; None where it has another form."""
    if text.endswith(".json"):
        return load_architecture(path)
    if text.endswith(SUFFIX):
        return _trained(path)
    if text.endswith(_SPACES):
        return load_space(path).reference
    if path.is_dir():
        return _in_folder(path)
    run, named = run_of(text), _IN_RUN.fullmatch(text)
    return None if run is None or named is None else _in_run(run, named["table"], int(named["number"]))


def _is_path(text: str, *, is_name: bool) -> bool:
    """Whether what is no network plainly means a file or folder; ``runs/160`` may be NAME/RESOLUTION."""
    if not is_name:
        return "/" in text or "\\" in text
    return "/" in text and Path(text).parent.is_dir()


def _in_folder(folder: Path) -> Architecture:
    for file in (folder / name for name in _IN_FOLDERS):
        if file.is_file():
            return _trained(file) if file.suffix == SUFFIX else load_architecture(file)
    raise ArchitectureError(
        f"{folder} holds no {', '.join(_IN_FOLDERS[:-1])} or {_IN_FOLDERS[-1]}: it is no run's folder, or its run "
        "found nothing yet"
    )


def _in_run(folder: Path, table: str | None, number: int) -> Architecture:
    """A network of a run's tables: by its number among the candidates, its position on the front, or its finalist."""
    file = folder / _TABLES[table]
    key = {None: "number", "front": "", "finalist": "finalist"}[table]
    found, seen = None, set()
    try:
        for position, row in enumerate(_rows(file), start=1):
            seen.add(int(row[key]) if key else position)
            if (int(row[key]) if key else position) == number:
                found = row["architecture"]  # of a finalist's steps the last
                if table != "finalist":
                    break
        if found is not None:
            return from_mapping(parse_json(found))
    except OSError as error:
        raise ArchitectureError(f"{folder} has no such network: cannot read {file}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ArchitectureError(
            f"{file} is damaged or of an earlier release ({error}): remove it and resume its run, which writes it anew"
        ) from None
    known = f"they go from {min(seen)} to {max(seen)}" if seen else "it is empty"
    raise ArchitectureError(f"{folder} has no network {f'{table}/' if table else ''}{number}; of {file.name} {known}")


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """The rows of a table, read as they are asked for: no more than :data:`MAX_LINE` bytes a line, and of the whole."""
    left = MAX_TABLE_BYTES

    def lines(stream: BinaryIO) -> Iterator[str]:
        nonlocal left
        while line := stream.readline(MAX_LINE + 1):
            left -= len(line)
            if len(line) > MAX_LINE or left < 0:
                raise ValueError("it has more bytes than such a table may have")
            yield utf8(line)

    with open_regular(file) as stream:
        yield from csv.DictReader(lines(stream))


def _trained(path: Path) -> Architecture:
    try:
        return from_mapping(trained_header(path).get("architecture"))
    except ArchitectureError as error:
        raise WeightsError(f"{path}: {error}") from None
