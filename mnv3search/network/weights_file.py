"""Weights files of any library, read as tensors by name; nothing but tensors is ever unpickled.

A checkpoint that holds its weights beside other things is understood as timm and torchvision write it: averaged weights
are taken before the last ones. Prefixes that a wrapper put before every name are taken away.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mnv3search.errors import WeightsError

SAFE, TORCH = (".safetensors",), (".pt", ".pth", ".bin", ".ckpt", ".tar")
MAX_FILE_BYTES = 4 << 30
_BEST = "best.safetensors"
_NESTED = (
    "state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model_state_dict", "model", "network", "module",
)  # fmt: skip
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.")
_NO_WEIGHTS = frozenset({"n_averaged"})  # torch's AveragedModel counts its updates beside the weights
_MAX_DEPTH = 4
_MAX_NAME = 256


class WeightsFile(NamedTuple):
    """What a file holds: ``tensors`` by name, and the texts in a ``.safetensors`` file's ``metadata``."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def load_weights_file(path: Path) -> WeightsFile:
    """The weights in a ``.safetensors`` file, a run's folder, or a ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` or ``.tar``.

    Raises:
        WeightsError: no such file, another kind of file, a damaged or too large one, or one that holds code or other
            things than tensors; the message says what to do.
    """
    path = _file_at(path)
    if path.suffix in SAFE:
        content, metadata = _read_safetensors(path)
        return WeightsFile(unwrapped(content, str(path)), metadata)
    return WeightsFile(unwrapped(_read_torch(path), str(path)), {})


def unwrapped(content: object, where: str) -> dict[str, Tensor]:
    """The state dict in a checkpoint: nested under a usual name or not, without the prefixes of wrappers.

    Raises:
        WeightsError: there is none; ``where`` names the checkpoint.
    """
    for _ in range(_MAX_DEPTH):
        if not isinstance(content, Mapping):
            break
        nested = next((name for name in _NESTED if isinstance(content.get(name), Mapping)), None)
        if nested is None:
            break
        content = content[nested]
    if not isinstance(content, Mapping) or not _is_state(content):
        found = ", ".join(repr(key)[:40] for key in list(content)[:4]) if isinstance(content, Mapping) else ""
        raise WeightsError(
            f"{where} holds {f'{found} …' if found else type(content).__name__}, not plain tensors by name (alone, or "
            f"under one of {', '.join(_NESTED)}); save network.state_dict()"
        )
    state = {name: tensor for name, tensor in content.items() if name not in _NO_WEIGHTS}
    for _ in range(_MAX_DEPTH):
        prefix = next((p for p in _PREFIXES if state and all(name.startswith(p) for name in state)), None)
        if prefix is None:
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _is_state(content: Mapping[object, object]) -> bool:
    return bool(content) and all(_is_name(name) and _is_plain(tensor) for name, tensor in content.items())


def _is_name(name: object) -> bool:
    """Whether a key can stand in a message: one line of a sensible length."""
    return isinstance(name, str) and len(name) <= _MAX_NAME and name.isprintable()


def _is_plain(tensor: object) -> bool:
    """Whether it is a tensor of numbers in memory: a file may also hold sparse, quantised or empty shells of them."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested)
    )


def _file_at(path: Path) -> Path:
    """``path`` itself or the best network of a run's folder, of a kind and size that can be read."""
    if path.is_dir():
        if not (path / _BEST).is_file():
            raise WeightsError(f"{path} holds no {_BEST}; give a weights file or the folder of a training that has one")
        path = path / _BEST
    if path.suffix not in SAFE + TORCH:
        raise WeightsError(f"{path} is no weights file; it must end in {', '.join(SAFE + TORCH)}, or be a run's folder")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}; give the path of a weights file") from None
    if size > MAX_FILE_BYTES:
        raise WeightsError(f"{path} has {size} bytes; weights of a network of this kind have at most {MAX_FILE_BYTES}")
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}; save it again with safetensors.torch.save_file") from None


def _read_torch(path: Path) -> object:
    _refuse_bomb(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of kinds of tensors that are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can make the reader raise anything
        raise WeightsError(_refusal(path, error)) from None


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
