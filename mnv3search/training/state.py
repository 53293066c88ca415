"""A training's state on disk, from which it resumes to the very weights that it would have reached undisturbed.

It holds the weights, their average, the optimiser's tensors and the counters, and of frozen features a digest alone,
once ``best.safetensors`` has them. What is random is drawn for each step from the seed: no generator's state is kept.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnv3search.errors import RunError, WeightsError
from mnv3search.files import write_text
from mnv3search.reading import parse_json
from mnv3search.records import Record
from mnv3search.training.trained import BEST, write_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch."""

    epoch: int  # from 1
    learning_rate: float  # of its last step
    train_loss: float  # mean of its steps, as trained (smoothed, mixed, distilled)
    val_top1: float  # percent, of the averaged weights where there is an average
    val_top5: float
    val_loss: float  # mean cross-entropy, nats
    seconds: float  # of training, evaluation left out
    images_per_second: float  # trained on in that time

    @property
    def rank(self) -> tuple[float, float]:
        """Orders epochs: by top-1, then by loss; more is better."""
        return (self.val_top1, -self.val_loss)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def read(cls, record: Record) -> EpochRecord:
        """Read what :meth:`to_mapping` gave."""
        numbers = [record.number(f.name) for f in fields(cls) if f.name != "epoch"]
        return cls(record.integer("epoch", 1, MOST), *numbers)


def write_history(path: Path, history: Sequence[EpochRecord]) -> None:
    """Write the epochs as CSV, whole or not at all."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [f.name for f in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in record.to_mapping().items()} for record in history)
    write_text(path, stream.getvalue())


FORMAT = "mnv3search.training_state"
VERSION = 1
LAST = "last.safetensors"
MOST = 2**53


@dataclass(slots=True)
class Counters:
    """How far a training is."""

    epoch: int = 0  # the current one, from 0
    step: int = 0  # how many of its steps are done
    loss_sum: float = 0.0  # of this epoch: loss times images
    seen: int = 0  # images
    seconds: float = 0.0  # that this epoch's steps took
    history: list[EpochRecord] = field(default_factory=list)  # the epochs that are done
    scaler: dict[str, Any] | None = None  # of fp16's loss
    features: str | None = None  # digest of the frozen features, where best.safetensors alone has them


def save_state(path: Path, asked: Mapping[str, Any], counters: Counters, tensors: Mapping[str, Tensor]) -> None:
    """Write a state, whole or not at all; only a training that was ``asked`` the same resumes from it."""
    content = {"format": FORMAT, "version": VERSION, "asked": asked, "counters": asdict(counters)}
    write_tensors(path, tensors, {"mnv3search": json.dumps(content)})


def load_state(path: Path, asked: Mapping[str, Any]) -> tuple[Counters, dict[str, Tensor]]:
    """A state that :func:`save_state` wrote, and the frozen features of ``best.safetensors``."""
    tensors, content = _read(path)
    before, now = content.get("asked"), json.loads(json.dumps(asked))
    if before != now:
        raise RunError(f"{path} is of another training: {_difference(before, now)}; start anew in another folder")
    counters = _counters(path, content.get("counters"))
    if counters.features is not None:
        tensors |= _features(path, tensors, counters.features)
    return counters, tensors


def load_counters(path: Path) -> Counters:
    """The counters of a state, whatever its training was asked."""
    return _counters(path, _read(path)[1].get("counters"))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from mnv3search.network.weights_file import read_safetensors

    if not path.exists():
        raise RunError(f"{path.parent} has no {path.name}: no step of its training was saved; start it anew")
    try:
        tensors, metadata = read_safetensors(path)
        content = parse_json(metadata.get("mnv3search", "null"))
    except (WeightsError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}; start the training anew") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path} is no training's state; start the training anew")
    if content.get("version") != VERSION:
        raise RunError(f"{path} has version {content.get('version')!r}; this release reads version {VERSION}")
    return tensors, content


def _features(path: Path, tensors: Mapping[str, Tensor], known: str) -> dict[str, Tensor]:
    """The network's tensors that the best epoch's file has and ``tensors``, those of the state, have not."""
    from mnv3search.network.weights_file import read_safetensors

    best = path.with_name(BEST)
    try:
        every = {f"network.{name}": tensor for name, tensor in read_safetensors(best)[0].items()}
    except WeightsError as error:
        raise RunError(f"{path} resumes from the frozen features in {BEST}, but {error}; start anew") from None
    found = {name: tensor for name, tensor in every.items() if name not in tensors}
    if digest(found) != known:
        raise RunError(f"{best} holds other features than those that {path} resumes from; put its own there again")
    return found


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of tensors and their names."""
    import torch

    found = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _difference(before: object, now: Mapping[str, Any]) -> str:
    if not isinstance(before, dict):
        return "it names no settings"
    name = next(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
    return f"its {name} was {_short(before.get(name))} and is now {_short(now.get(name))}"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _counters(path: Path, mapping: object) -> Counters:
    try:
        values = Record(mapping)
        epoch, step, seen = (values.integer(name, 0, MOST) for name in ("epoch", "step", "seen"))
        history = [EpochRecord.read(Record(entry)) for entry in values.list("history")]
        scaler, features = values.content.get("scaler"), values.content.get("features")
        return Counters(
            epoch, step, values.number("loss_sum"), seen, values.number("seconds"), history, scaler, features
        )
    except ValueError as error:
        raise RunError(f"{path} is damaged: its counters: {error}; start the training anew") from None


def all_tensors(network: nn.Module, average: Mapping[str, Tensor] | None, optimiser: Optimizer) -> dict[str, Tensor]:
    """The tensors of a training by name: ``network.…``, ``average.…``, ``optimiser.NUMBER.…``."""
    found = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    found |= {f"average.{name}": tensor for name, tensor in (average or {}).items()}
    for number, entries in optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{number}.{name}": value for name, value in entries.items() if value is not None}
    return found


def tensors_of(tensors: Mapping[str, Tensor], owner: str) -> dict[str, Tensor]:
    """Those of ``network``, ``average`` or ``optimiser``, by their names there."""
    return {name.removeprefix(f"{owner}."): t for name, t in tensors.items() if name.startswith(f"{owner}.")}


def restore_network(path: Path, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy saved weights into ``network``, whose memory layout stays."""
    try:
        network.load_state_dict(tensors_of(tensors, "network"))
    except RuntimeError as error:
        raise RunError(f"{path} holds another network's weights: {str(error).splitlines()[-1].strip()}") from None


def restore_optimiser(path: Path, optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser its tensors back, each laid out in memory as the parameter that it belongs to.

    Sums over memory in another order round otherwise, and the weights would no longer be the same bit for bit.
    """
    import torch

    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, saved in tensors_of(tensors, "optimiser").items():
        number, _, entry = name.partition(".")
        if not number.isdecimal() or int(number) >= len(parameters):
            raise RunError(f"{path} holds another optimiser's state ({name}); start the training anew")
        parameter = parameters[int(number)]
        laid_out = saved.clone()
        if saved.shape == parameter.shape:
            laid_out = torch.empty_like(parameter).copy_(saved)
        state.setdefault(int(number), {})[entry] = laid_out.detach()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
