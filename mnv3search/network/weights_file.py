"""Weights files of any library, read as tensors by name; of a pickle nothing is run.

A checkpoint with more than weights is understood as timm and torchvision write it: averaged weights are taken before
the last ones. A wrapper's prefix of a network's names is removed, and what is not the network's (a loss's weights, a
second head) is left out.
"""

from __future__ import annotations

import argparse
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mnv3search.errors import WeightsError
from mnv3search.network.weights import FIRST_LAYERS
from mnv3search.reading import open_regular

MAX_FILE_BYTES = 4 << 30
_BEST = "best.safetensors"
_NESTED = (
    "state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "network", "module",
)  # fmt: skip
_NO_WEIGHTS = "n_averaged"  # torch's AveragedModel counts its updates beside the weights
_MAX_DEPTH = 4
_MAX_NAME = 256
_ZIP, _SAFETENSORS_HEADER = b"PK\x03\x04", b"{"  # what files begin with; a safetensors file after 8 bytes of length


class WeightsFile(NamedTuple):
    """What a file holds: ``tensors`` by name, and the texts in a ``.safetensors`` file's ``metadata``."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def load_weights_file(path: Path) -> WeightsFile:
    """The weights in a file of safetensors or of ``torch.save``, whichever it is by its content, or in a run's folder.

    Raises:
        WeightsError: no such file, a damaged or too large one, or one that holds more than tensors.
    """
    if path.is_dir():
        if not (path / _BEST).is_file():
            raise WeightsError(f"{path} holds no {_BEST}; give a weights file or the folder of a training that has one")
        path = path / _BEST
    if path.suffix.lower() == ".safetensors" or _begin(path)[8:9] == _SAFETENSORS_HEADER:
        content, metadata = read_safetensors(path)
        return WeightsFile(unwrapped(content, str(path)), metadata)
    return WeightsFile(unwrapped(_read_torch(path), str(path)), {})


def unwrapped(content: object, where: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint: nested under a usual name or not, without the prefixes of wrappers.

    Raises:
        WeightsError: there is none; ``where`` names the checkpoint.
    """
    for _ in range(_MAX_DEPTH):
        if isinstance(content, Mapping):
            content = next((content[name] for name in _NESTED if isinstance(content.get(name), Mapping)), content)
    if not isinstance(content, Mapping) or not content or not all(map(_is_named_tensor, content, content.values())):
        found = ", ".join(repr(key)[:40] for key in list(content)[:4]) if isinstance(content, Mapping) else ""
        raise WeightsError(
            f"{where} holds {f'{found} …' if found else type(content).__name__}, not plain tensors by name (alone, or "
            f"under one of {', '.join(_NESTED)}); save network.state_dict()"
        )
    state = {name: tensor for name, tensor in content.items() if name.rpartition(".")[2] != _NO_WEIGHTS}
    prefix = _prefix(state, where)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _prefix(state: Mapping[str, Tensor], where: str) -> str:
    """What a wrapper (``module.``, ``_orig_mod.``, ``model.``, ``backbone.`` …) put before the names of a network."""
    found = {name.removesuffix(first) for name in state for first, _ in FIRST_LAYERS if name.endswith(first)}
    found = {p for p in found if not p or p.endswith(".")}
    outer = sorted(p for p in found if not any(p != other and p.startswith(other) for other in found))
    averaged = [p for p in outer if "ema" in p]
    chosen = averaged or outer
    if len(chosen) > 1:
        raise WeightsError(
            f"{where} holds several networks, under {', '.join(chosen[:4])}; save the state dict of the one to use"
        )
    return chosen[0] if chosen else ""


def _is_named_tensor(name: object, tensor: object) -> bool:
    """Whether a name is one short line, and a tensor has its numbers in memory (not sparse, quantised or meta)."""
    return (
        isinstance(name, str)
        and len(name) <= _MAX_NAME
        and name.isprintable()
        and isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
    )


def _begin(path: Path) -> bytes:
    """The first bytes of a file of a kind and size that can be read."""
    try:
        with open_regular(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            start = stream.read(9)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}; give the path of a weights file") from None
    if size > MAX_FILE_BYTES:
        raise WeightsError(f"{path} has {size} bytes; weights of a network of this kind have at most {MAX_FILE_BYTES}")
    return start


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a ``.safetensors`` file, on the CPU, and its metadata; a WeightsError where it is damaged."""
    from safetensors import SafetensorError, safe_open

    _begin(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}; it is damaged or no .safetensors file") from None


def _read_torch(path: Path) -> object:
    if _begin(path).startswith(_ZIP):
        _refuse_bomb(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # torch's, of kinds of tensors that are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can make the reader raise anything
        raise WeightsError(_refusal(path, error)) from None


def _harmless() -> list[Any]:
    """What checkpoints of timm and torchvision hold beside tensors; to make one of these runs nothing else."""
    numbers = {type(np.dtype(kind)) for kind in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    return [
        argparse.Namespace, np.dtype, *numbers,
        *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *((PurePath, f"pathlib.{kind}Path") for kind in ("Posix", "Windows", "_local.Posix", "_local.Windows")),
    ]  # fmt: skip


def _refuse_bomb(path: Path) -> None:
    """Torch's files are ZIP archives of plain tensors; packed ones could unfold to any size."""
    try:
        with zipfile.ZipFile(path) as archive:
            unfolded = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return  # an old file of torch's, or one that torch will refuse
    if unfolded > MAX_FILE_BYTES:
        raise WeightsError(f"{path} unfolds to {unfolded} bytes; weights have at most {MAX_FILE_BYTES}")


def _refusal(path: Path, error: Exception) -> str:
    """What to say of a file that torch does not read as tensors alone; torch's own advice is to run its code."""
    text = str(error)
    named = re.search(r"(?:GLOBAL|global|class) ([\w.]+) (?:was not|not|whose)|unsupported class ([\w.]+)", text)
    if named or "TorchScript" in text:
        what = next(filter(None, named.groups())) if named else "a TorchScript module"
        return (
            f"{path} holds more than tensors ({what}), and to open that is to run what it says, so it is refused; "
            "where you trust it, load it with torch and save its state dict alone: torch.save(state_dict, 'w.pth')"
        )
    lines = text.strip().splitlines()
    reason = "" if "weights_only" in text or not lines else f": {lines[0][:160]}"
    return (
        f"{path} is damaged, or no file of torch.save with tensors alone{reason}; fetch it again, or save "
        "network.state_dict() with torch.save"
    )
