"""A pruning's folder: where each file stands, and the manifest that says how it was made and how far it came."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnv3search.errors import InfeasibleError, Mnv3SearchError, RunError
from mnv3search.files import write_text
from mnv3search.runs.environment import describe_environment
from mnv3search.runs.folder import MAX_MANIFEST_BYTES, RUNS, free_folder, now
from mnv3search.runs.pruning_settings import PruningSettings

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

FORMAT = "mnv3search.pruning"
VERSION = 1
BEST = "best.safetensors"


class PruningFolder:
    """The folder of one pruning.

    What was asked: ``manifest.json``, ``seed.safetensors`` (the network that is pruned), ``device.json`` (a profile
    given as a file). What can go on: ``proposals.jsonl`` and ``steps/``, ``decisions.json``, ``measured.jsonl``,
    ``finish/`` (the training at the end). What was found: ``best.safetensors``, ``result.json``, ``steps.csv``,
    ``netadapt.png``, ``netadapt.svg``.
    """

    def __init__(self, path: Path, settings: PruningSettings, manifest: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.manifest = manifest

    @property
    def seed(self) -> Path:
        """The copy of the trained network."""
        return self.path / "seed.safetensors"

    @property
    def best(self) -> Path:
        """The result: what makes this folder a RUN for other commands."""
        return self.path / BEST

    @property
    def finish(self) -> Path:
        """The folder of the training at the end."""
        return self.path / "finish"

    @property
    def device(self) -> str:
        """The device by name, or the path of its copied profile, which moves with the folder."""
        copy = self.path / "device.json"
        return str(copy) if copy.exists() else self.settings.device

    @classmethod
    def create(cls, path: Path | None, settings: PruningSettings, seed: TrainedNetwork) -> PruningFolder:
        """A new folder: ``path``, or ``runs/<date>-<run>-<target>`` with a number where that is taken.

        Raises:
            RunError: ``path`` exists and is not empty, or cannot be made.
        """
        from mnv3search.training.trained import save_trained

        if path is None:
            path = _free_default(settings)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"{path} exists and is not an empty folder; choose another --out, or go on with --resume {path}"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {path}: {error.strerror}") from None
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "status": "running",
            "settings": settings.to_mapping(),
            "command": ["mnv3search", *sys.argv[1:]],
            "environment": describe_environment(),
            "started": now(),
            "seconds": 0.0,
            "sessions": 1,
        }
        folder = cls(path, settings, manifest)
        save_trained(folder.seed, seed)
        if settings.device.endswith(".json"):
            write_text(path / "device.json", Path(settings.device).read_text(encoding="utf-8"))
        folder._save()
        return folder

    @classmethod
    def open(cls, path: Path) -> PruningFolder:
        """The folder of an earlier pruning.

        Raises:
            RunError: not a pruning's folder, or its manifest is damaged or of another version.
        """
        file, manifest = path / "manifest.json", _manifest(path)
        if manifest.get("format") != FORMAT:
            raise RunError(f"{path} is no pruning: its manifest.json is not of format {FORMAT}")
        if manifest.get("version") != VERSION:
            raise RunError(f"{file} has version {manifest.get('version')!r}; this release reads version {VERSION}")
        seconds, sessions = manifest.get("seconds", 0.0), manifest.get("sessions", 1)
        if type(seconds) not in (int, float) or type(sessions) is not int or not 0 <= seconds < math.inf:
            raise RunError(f"{file} is damaged: seconds is {seconds!r} and sessions {sessions!r}, which no run writes")
        return cls(path, PruningSettings.from_mapping(manifest.get("settings"), str(file)), manifest)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether this is a pruning's folder."""
        try:
            return _manifest(path).get("format") == FORMAT
        except RunError:
            return False

    def continued(self) -> None:
        """Note that one more session works on this pruning."""
        self.manifest |= {"sessions": int(self.manifest.get("sessions", 1)) + 1, "status": "running"}
        self._save()

    @contextmanager
    def closing_notes(self) -> Iterator[None]:
        """Note in the manifest how a session ended that did not finish: interrupted, infeasible or failed."""
        began = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self.note("interrupted", time.monotonic() - began)
            raise
        except InfeasibleError as error:
            self.note("infeasible", time.monotonic() - began, fastest_ms=error.fastest_ms, slowest_ms=error.slowest_ms)
            raise
        except Mnv3SearchError:
            with suppress(RunError):  # a full disk takes no note either, and the first error says more
                self.note("failed", time.monotonic() - began)
            raise

    def note(self, status: str, seconds: float, **facts: object) -> None:
        """Note the outcome; ``seconds`` are this session's and are added to those before."""
        self.manifest |= {**facts, "status": status, "finished": now()}
        self.manifest["seconds"] = round(float(self.manifest.get("seconds", 0.0)) + seconds, 3)
        self._save()

    def discard(self) -> None:
        """Remove a folder in which nothing was found, so that its name is free again."""
        if (self.path / "proposals.jsonl").exists():
            return
        names = ("manifest.json", "seed.safetensors", "device.json", "decisions.json", "measured.jsonl")
        with suppress(OSError):  # a folder that stays is no harm, and hides no error
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()
            if self.path.parent == Path(RUNS):
                self.path.parent.rmdir()

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file of this folder."""
        write_text(self.path / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _save(self) -> None:
        self.write_json("manifest.json", self.manifest)


def _manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    try:
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise RunError(f"{file} has more than {MAX_MANIFEST_BYTES} bytes, which no run writes")
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise RunError(f"{path} is not a run: it has no readable manifest.json") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise RunError(f"{file} is damaged: {error}") from None
    if not isinstance(manifest, dict):
        raise RunError(f"{file} is damaged: it holds no object")
    return manifest


def _free_default(settings: PruningSettings) -> Path:
    subject = re.sub(r"[^A-Za-z0-9_.@-]+", "-", Path(settings.run).resolve().stem)
    target = re.sub(r"[^A-Za-z0-9_.]+", "", settings.target)
    return free_folder(f"{subject}-pruned-{target}")
