"""A run's folder: where each file stands, and the manifest that says how it was made and how far it came."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mnv3search.errors import InfeasibleError, Mnv3SearchError, RunError
from mnv3search.files import write_text
from mnv3search.runs.environment import describe_environment
from mnv3search.runs.settings import RunSettings

FORMAT = "mnv3search.run"
VERSION = 1
MAX_MANIFEST_BYTES = 1_000_000
RUNS = "runs"
_BEGINNINGS = (
    "manifest.json", "space.yaml", "seed.json", "device.json", "evaluations.jsonl", "measured.jsonl", "decisions.json",
)  # fmt: skip


class RunFolder:
    """The folder of one run.

    What was asked: ``manifest.json``, ``space.yaml`` or ``seed.json``, ``device.json`` (a profile given as a file).
    What can go on: ``study.log`` (Optuna's journal), ``netadapt.csv``, ``evaluations.jsonl``, ``measured.jsonl`` (whole
    networks timed), ``decisions.json`` (targets in milliseconds). What was found: ``best.json``, ``candidates.csv``,
    ``pareto.csv``, ``pareto.png``, ``pareto.svg``, ``report.html``. ``proxy/``: networks that an evaluator
    trained.
    """

    def __init__(self, path: Path, settings: RunSettings, manifest: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        self.manifest = manifest

    @property
    def study(self) -> Path:
        """Optuna's journal file."""
        return self.path / "study.log"

    @property
    def steps(self) -> Path:
        """NetAdapt's steps."""
        return self.path / "netadapt.csv"

    @property
    def evaluations(self) -> Path:
        """Evaluations other than the block search's."""
        return self.path / "evaluations.jsonl"

    @property
    def measured(self) -> Path:
        """Whole networks timed."""
        return self.path / "measured.jsonl"

    @property
    def decisions(self) -> Path:
        """Milliseconds that the run fixed once."""
        return self.path / "decisions.json"

    @property
    def proxy(self) -> Path:
        """Where an evaluator that trains keeps its networks."""
        return self.path / "proxy"

    @property
    def device_copy(self) -> Path:
        """Where a device profile stands that the user gave as a file."""
        return self.path / "device.json"

    @property
    def device(self) -> str:
        """The run's device by name, or the path of its copied profile, which moves with the folder."""
        return str(self.device_copy) if self.device_copy.exists() else self.settings.device

    @classmethod
    def create(cls, path: Path | None, settings: RunSettings) -> RunFolder:
        """A new folder: ``path``, or ``runs/<date>-<subject>-<target>`` with a number where that is taken.

        Raises:
            RunError: ``path`` exists and is not empty, or cannot be made.
        """
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
        folder._save()
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of an earlier run.

        Raises:
            RunError: not a run's folder, or its manifest is damaged or of another version.
        """
        file = path / "manifest.json"
        try:
            if file.stat().st_size > MAX_MANIFEST_BYTES:
                raise RunError(f"{file} has more than {MAX_MANIFEST_BYTES} bytes, which no run writes")
            manifest = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise RunError(f"{path} is not a run: it has no readable manifest.json") from None
        except (json.JSONDecodeError, RecursionError) as error:
            raise RunError(f"{file} is damaged: {error}") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise RunError(f"{path} is not a run: its manifest.json is not of format {FORMAT}")
        if manifest.get("version") != VERSION:
            raise RunError(f"{file} has version {manifest.get('version')!r}; this release reads version {VERSION}")
        seconds, sessions = manifest.get("seconds", 0.0), manifest.get("sessions", 1)
        if type(seconds) not in (int, float) or type(sessions) is not int or not 0 <= seconds < math.inf:
            raise RunError(f"{file} is damaged: seconds is {seconds!r} and sessions {sessions!r}, which no run writes")
        return cls(path, RunSettings.from_mapping(manifest.get("settings"), str(file)), manifest)

    def continued(self) -> None:
        """Note that one more session works on this run."""
        self.manifest["sessions"] = int(self.manifest.get("sessions", 1)) + 1
        self.manifest["status"] = "running"
        self._save()

    @contextmanager
    def closing_notes(self) -> Iterator[None]:
        """Note in the manifest how a session ended that did not finish: interrupted, infeasible or failed."""
        began = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self.finish("interrupted", time.monotonic() - began)
            raise
        except InfeasibleError as error:
            self.finish(
                "infeasible", time.monotonic() - began, fastest_ms=error.fastest_ms, slowest_ms=error.slowest_ms
            )
            raise
        except Mnv3SearchError:
            with suppress(RunError):  # a full disk takes no note either, and the first error says more
                self.finish("failed", time.monotonic() - began)
            raise

    def finish(self, status: str, seconds: float, **facts: object) -> None:
        """Note the outcome; ``seconds`` are this session's and are added to those before."""
        self.manifest.update(facts)
        self.manifest["status"] = status
        self.manifest["finished"] = now()
        self.manifest["seconds"] = self.seconds_with(seconds)
        self._save()

    def seconds_with(self, seconds: float) -> float:
        """The seconds of all sessions, this one's ``seconds`` included."""
        return round(float(self.manifest.get("seconds", 0.0)) + seconds, 3)

    def note(self, **facts: object) -> None:
        """Keep facts in the manifest that later sessions go by."""
        self.manifest.update(facts)
        self._save()

    def discard(self) -> None:
        """Remove a folder in which nothing was found, so that its name is free again.

        One in which a search or a narrowing has begun stays, and so does every file that no run writes.
        """
        if self.study.exists() or self.steps.exists():
            return
        with suppress(OSError):  # a folder that stays is no harm, and hides no error
            for name in _BEGINNINGS:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()
            if self.path.parent == Path(RUNS):
                self.path.parent.rmdir()

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file of this folder."""
        write_text(self.path / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _save(self) -> None:
        self.write_json("manifest.json", self.manifest)


def now() -> str:
    """The local time with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _free_default(settings: RunSettings) -> Path:
    is_file = settings.subject.endswith((".yaml", ".yml", ".json"))
    subject = re.sub(r"[^A-Za-z0-9_.@-]+", "-", Path(settings.subject).stem if is_file else settings.subject)
    target = re.sub(r"[^A-Za-z0-9_.]+", "", settings.target)
    return free_folder(f"{subject}-{target}")


def free_folder(name: str) -> Path:
    """``runs/<date>-<name>``, with a number where that is taken."""
    base = Path(RUNS) / f"{datetime.now().astimezone():%Y-%m-%d}-{name}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path
