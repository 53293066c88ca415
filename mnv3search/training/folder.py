"""A training's folder: what was asked, how far it came, and where its files stand.

``manifest.json`` (settings, versions, hardware, status), ``network.json`` (the architecture), ``best.safetensors`` (the
trained network), ``last.safetensors`` (the state to resume from), ``history.csv`` (every epoch), and ``tensorboard/``
where it was asked for.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from mnv3search.architecture import Architecture
from mnv3search.architecture_json import dump_architecture, load_architecture
from mnv3search.errors import Mnv3SearchError, RunError
from mnv3search.files import write_text
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.recipe import Recipe
from mnv3search.training.workload import Freeze

FORMAT = "mnv3search.training"
VERSION = 1
MAX_MANIFEST_BYTES = 1_000_000
RUNS = "runs"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """What a training was asked.

    Attributes:
        network: as the user named it.
        data: as :func:`~mnv3search.training.data.open_data.open_data` takes it.
        recipe: with every change that the user made to it.
        recipe_name: of the recipe that it was made of.
        preprocessing: of every image.
        seed: of everything random.
        weights: where the training began, or None for fresh ones.
        freeze: ``features`` or ``none``.
        teacher: a trained network to learn from, or None.
        tensorboard: whether TensorBoard's events are written.
    """

    network: str
    data: str
    recipe: dict[str, Any]
    recipe_name: str
    preprocessing: dict[str, Any]
    seed: int = 0
    weights: str | None = None
    freeze: Freeze = "none"
    teacher: str | None = None
    tensorboard: bool = False

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by name."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: object, where: str) -> Self:
        """Read what :meth:`to_mapping` gave; ``where`` names it in errors.

        Raises:
            RunError: other names, or a value of another kind.
        """
        known = {f.name for f in fields(cls)}
        if not isinstance(mapping, dict) or set(mapping) != known:
            raise RunError(f"{where} is damaged: its settings must be {', '.join(sorted(known))}")
        kinds: dict[str, type | tuple[type, ...]] = {
            "network": str, "data": str, "recipe": dict, "recipe_name": str, "preprocessing": dict, "seed": int,
            "weights": (str, type(None)), "freeze": str, "teacher": (str, type(None)), "tensorboard": bool,
        }  # fmt: skip
        for name, kind in kinds.items():
            if not isinstance(mapping[name], kind):
                raise RunError(f"{where} is damaged: its setting {name} is {mapping[name]!r}")
        if mapping["freeze"] not in {"none", "features"}:
            raise RunError(f"{where} is damaged: freeze is {mapping['freeze']!r}, not none or features")
        return cls(**mapping)

    def loaded_recipe(self) -> Recipe:
        """The recipe, checked."""
        return Recipe.from_mapping(self.recipe, self.recipe_name)

    def loaded_preprocessing(self) -> Preprocessing:
        """The preprocessing, checked."""
        return Preprocessing.from_mapping(self.preprocessing)


class TrainingFolder:
    """The folder of one training; see the module."""

    def __init__(self, path: Path, settings: TrainingSettings, manifest: dict[str, Any]) -> None:
        self.path, self.settings, self.manifest = path, settings, manifest

    @classmethod
    def create(
        cls,
        path: Path | None,
        settings: TrainingSettings,
        architecture: Architecture,
        environment: Mapping[str, object],
        images: Mapping[str, int],
    ) -> Self:
        """A new folder: ``path``, or ``runs/<date>-train-<network>`` with a number where that is taken.

        Raises:
            RunError: ``path`` exists and is not empty, or cannot be made or written.
        """
        path = _free_default(settings) if path is None else path
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {path}: {error.strerror}") from None
        manifest = {
            "format": FORMAT, "version": VERSION, "status": "running", "settings": settings.to_mapping(),
            "command": ["mnv3search", *sys.argv[1:]], "environment": dict(environment),
            "images": dict(images), "started": _now(), "seconds": 0.0, "sessions": 1,
        }  # fmt: skip
        folder = cls(path, settings, manifest)
        write_text(path / "network.json", dump_architecture(architecture))
        folder._save()
        return folder

    @classmethod
    def open(cls, path: Path) -> Self:
        """The folder of an earlier training.

        Raises:
            RunError: it is none, or its manifest is damaged or of another version.
        """
        file = path / "manifest.json"
        try:
            if file.stat().st_size > MAX_MANIFEST_BYTES:
                raise RunError(f"{file} has more than {MAX_MANIFEST_BYTES} bytes, which no training writes")
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise RunError(f"{path} is not a training: it has no readable manifest.json") from None
        except (ValueError, RecursionError) as error:
            raise RunError(f"{file} is damaged: {error}") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise RunError(f"{path} is not a training: its manifest.json is not of format {FORMAT}")
        if manifest.get("version") != VERSION:
            raise RunError(f"{file} has version {manifest.get('version')!r}; this release reads version {VERSION}")
        if not isinstance(manifest.get("seconds"), int | float) or not isinstance(manifest.get("sessions"), int):
            raise RunError(f"{file} is damaged: it has no seconds or sessions")
        return cls(path, TrainingSettings.from_mapping(manifest.get("settings"), str(file)), manifest)

    def architecture(self) -> Architecture:
        """The network that is trained."""
        return load_architecture(self.path / "network.json")

    def continued(self) -> None:
        """Note that one more session works on this training."""
        self.manifest |= {"sessions": self.manifest["sessions"] + 1, "status": "running"}
        self._save()

    @contextmanager
    def closing_notes(self) -> Iterator[None]:
        """Note in the manifest how a session ended that did not finish: interrupted or failed."""
        began = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self.finish("interrupted", time.monotonic() - began)
            raise
        except Mnv3SearchError:
            with suppress(RunError):  # a full disk takes no note either, and the first error says more
                self.finish("failed", time.monotonic() - began)
            raise

    def finish(self, status: str, seconds: float, **facts: object) -> None:
        """Note the outcome; ``seconds`` are this session's and are added to those before."""
        total = round(float(self.manifest["seconds"]) + seconds, 3)
        self.manifest |= {**facts, "status": status, "finished": _now(), "seconds": total}
        self._save()

    def _save(self) -> None:
        write_text(self.path / "manifest.json", json.dumps(self.manifest, indent=1, ensure_ascii=False) + "\n")


def check_free(path: Path) -> None:
    """Whether a training may have ``path`` as its folder.

    Raises:
        RunError: it exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path} exists and is not an empty folder; choose another --out, or go on with --resume {path}")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _free_default(settings: TrainingSettings) -> Path:
    stem = Path(settings.network).stem if settings.network.endswith(".json") else settings.network
    name = re.sub(r"[^A-Za-z0-9_.@-]+", "-", stem)
    base = Path(RUNS) / f"{datetime.now().astimezone():%Y-%m-%d}-train-{name}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path
