"""What the folders of runs, trainings and prunings share: ``manifest.json``, with what was asked and how it ended.

A kind of folder is a :class:`ManifestFolder` with its format and its :class:`Settings`; its other files are its own.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from mnv3search.errors import InfeasibleError, RunError
from mnv3search.files import LOCK, locked, part_name, tidy, undisturbed, write_text
from mnv3search.log import logged_to
from mnv3search.reading import read_json
from mnv3search.records import Record

MANIFEST = "manifest.json"
LOG = "log.txt"
VERSION = 1
MAX_MANIFEST_BYTES = 32_000_000  # of a training on 20,000 classes
MAX_SECONDS, MAX_SESSIONS = 1e10, 10**6
RUNS = "runs"
MOST_FOLDERS = 10_000  # of one name
BEGINNING = "beginning"  # status of a folder while it is made
_COMMANDS: Mapping[str, str] = {"training": "train", "pruning": "netadapt"}  # that go on; runs keep theirs
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "int": int, "Literal[1, 2]": int, "float": (int, float), "bool": bool, "dict[str, Any]": dict,
}  # fmt: skip
"""Of JSON values, by a setting's annotation; every other one is a text."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked: a frozen dataclass of plain values, which checks their ranges when it is made."""

    OLDER: ClassVar[Mapping[str, object]] = {}
    """Settings that manifests may lack, having been written before there were any, with what they stood for."""
    RENAMED: ClassVar[Mapping[str, str]] = {}
    """Settings by the names that manifests had for them before."""

    def to_mapping(self) -> dict[str, Any]:
        """Plain values by name, as the manifest keeps them."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, mapping: object, where: str) -> Self:
        """Read what :meth:`to_mapping` gave, from JSON; ``where`` names it in errors.

        Raises:
            RunError: a missing or unknown name, or a value of another type or out of its range.
        """
        if isinstance(mapping, Mapping):
            mapping = {cls.RENAMED.get(name, name): value for name, value in mapping.items()}
        known = {f.name: str(f.type) for f in fields(cls)}
        needed = {f.name for f in fields(cls) if f.default is MISSING}
        if not isinstance(mapping, Mapping) or not needed <= set(mapping) <= set(known):
            keys = ", ".join(known)
            raise RunError(f"{where}: incomplete or unknown settings: the settings must be an object with {keys}")
        for name, value in mapping.items():
            if not _fits(value, known[name]):
                raise RunError(f"{where}: setting {name} is {value!r}, which is not {known[name]}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in mapping.items()}
        return cls(**{**cls.OLDER, **values})


S = TypeVar("S", bound=Settings)


class ManifestFolder(Generic[S]):
    """A folder with a manifest.

    Attributes:
        path: of the folder.
        settings: what was asked.
        manifest: the content of ``manifest.json``: settings, command, environment, status, times.
        finished: whether this is a session of what an earlier one finished.
    """

    KIND: ClassVar[str]  # in words
    FORMAT: ClassVar[str]
    SETTINGS: ClassVar[type[Any]]
    BEGINNINGS: ClassVar[tuple[str, ...]]  # files that may stand with the manifest before anything was found
    JOURNALS: ClassVar[tuple[str, ...]]  # what a session writes as it goes
    _REMEDY = "give the folder that --out named or the command printed (runs/DATE-...), or begin one without --resume"

    def __init__(self, path: Path, settings: S, manifest: dict[str, Any]) -> None:
        self.path, self.settings, self.manifest = path, settings, manifest
        self._before, self._began = float(manifest["seconds"]), time.monotonic()
        self.finished = False

    @classmethod
    @contextmanager
    def _made(cls, path: Path, settings: S, **facts: object) -> Iterator[Self]:
        """A new folder; what must not be missing in it is written within.

        Where that fails, nothing is left of it; where the process is killed, the manifest says so, and the folder may
        be begun again.

        Raises:
            RunError: ``path`` exists and is not empty, or cannot be made or written; another process begins there.
        """
        cls.check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the folder {path}: {error.strerror}; choose another --out") from None
        manifest = {
            "format": cls.FORMAT, "version": VERSION, "status": BEGINNING, "settings": settings.to_mapping(),
            "command": ["mnv3search", *sys.argv[1:]], "environment": describe_environment(), **facts,
            "started": _now(), "seconds": 0.0, "sessions": 1,
        }  # fmt: skip
        with locked(path):
            cls.check_free(path)  # another process may have been faster
            folder = cls(path, settings, manifest)
            try:
                folder.note()
                for name in cls.BEGINNINGS:  # of a process that was killed here
                    (path / name).unlink(missing_ok=True)
                yield folder
                folder.note(status="running")
            except BaseException:
                folder._remove(os.listdir(path))
                raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """The folder as an earlier session left it.

        Raises:
            RunError: it is of another kind, its manifest is damaged or of another version, or nothing was done yet when
                its process was killed.
        """
        file, manifest = path / MANIFEST, cls._read(path)
        if manifest.get("version") != VERSION:
            raise RunError(f"{file} has version {manifest.get('version')!r}; this release reads version {VERSION}")
        if manifest.get("status") == BEGINNING:
            raise RunError(f"{path} was only being made when its process ended: begin it anew, without --resume")
        manifest = {"seconds": 0.0, "sessions": 1, "status": "running"} | manifest
        try:
            Record(manifest).number("seconds", 0, MAX_SECONDS)
            Record(manifest).integer("sessions", 1, MAX_SESSIONS)
        except ValueError as error:
            raise RunError(f"{file} is damaged: {error}; put it right, or begin anew in another folder") from None
        return cls(path, cls.SETTINGS.from_mapping(manifest.get("settings"), str(file)), manifest)

    @classmethod
    def check_free(cls, path: Path) -> None:
        """Whether ``path`` may become such a folder; ask before anything slow.

        Raises:
            RunError: it exists and is no empty folder, nor one that a killed process was making, or is below a file.
        """
        for file in (path, *path.parents):
            if file.exists() and not file.is_dir():
                what = "is a file" if file == path else f"cannot be made: {file} is a file"
                raise RunError(f"{path} {what}; choose another --out for the folder")
        if path.exists() and not cls._is_free(path):
            raise RunError(
                f"{path} exists and is not an empty folder; choose another --out, or go on with --resume {path}"
            )

    @classmethod
    def _is_free(cls, path: Path) -> bool:
        found = {file.name for file in path.iterdir()} - {LOCK}
        if found <= {part_name(MANIFEST)}:
            return True
        ours = {MANIFEST, *cls.BEGINNINGS}
        if not found <= ours | {part_name(name) for name in ours}:
            return False
        with suppress(RunError):
            return cls._read(path).get("status") == BEGINNING
        return False

    @classmethod
    def is_one(cls, path: Path) -> bool:
        """Whether a folder is of this kind."""
        try:
            return bool(cls._read(path))
        except RunError:
            return False

    @classmethod
    def _read(cls, path: Path) -> dict[str, Any]:
        file = path / MANIFEST
        try:
            manifest = read_json(file, MAX_MANIFEST_BYTES, os.O_NOFOLLOW)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(
                f"{path} is not a {cls.KIND}: it has no readable {MANIFEST} ({reason}); {cls._REMEDY}"
            ) from None
        except ValueError as error:
            raise RunError(f"{file} is damaged: {error}; restore it, or begin anew in another folder") from None
        if not isinstance(manifest, dict) or manifest.get("format") != cls.FORMAT:
            raise RunError(f"{path} is not a {cls.KIND}: its {MANIFEST} is not of format {cls.FORMAT}; {cls._REMEDY}")
        return manifest

    @contextmanager
    def session(self, *, resumed: bool) -> Iterator[None]:
        """Hold the folder for one session, and note in its manifest how that ended; of a finished one nothing is noted.

        A new folder in which no network can meet the target is removed.
        """
        with locked(self.path):
            if resumed and self.manifest["status"] == "finished":
                self.finished = True
                tidy(self.path)
                with self.resumable(), logged_to(self.path / LOG):
                    yield
                return
            if resumed:
                self.continued()  # before notes are taken: a folder that is refused stays as it is
            try:
                with self.closing_notes():
                    yield
            except InfeasibleError:
                if not resumed:
                    self.discard()
                raise

    def discard(self) -> None:
        """Remove a folder in which nothing was found, so that its name is free again; what no session writes stays."""
        if not any((self.path / name).exists() for name in self.JOURNALS if name not in self.BEGINNINGS):
            self._remove(self.BEGINNINGS)

    def lacks(self, *names: str) -> bool:
        """Whether files are to be written: always, unless an earlier session finished and they are still there."""
        return not self.finished or not all((self.path / name).is_file() for name in names)

    def continued(self) -> None:
        """Note that one more session works in this folder, which it holds."""
        tidy(self.path)
        self._before += self._lost()
        self.note(sessions=self.manifest["sessions"] + 1, status="running")

    def _lost(self) -> float:
        """Seconds of a session that was killed, from its last note until it last wrote to one of its journals."""
        if self.manifest.get("status") != "running":
            return 0.0
        noted = (self.path / MANIFEST).stat().st_mtime
        journals = [self.path / name for name in self.JOURNALS if (self.path / name).exists()]
        return max([0.0, *(file.stat().st_mtime - noted for file in journals)])

    @contextmanager
    def closing_notes(self) -> Iterator[None]:
        """Note in the manifest how a session ended that did not finish: interrupted, infeasible or failed."""
        try:
            with self.resumable(), logged_to(self.path / LOG):
                yield
        except BaseException as error:
            bounds: dict[str, object] = {}
            status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            if isinstance(error, InfeasibleError):
                status, bounds = "infeasible", {"fastest_ms": error.fastest_ms, "slowest_ms": error.slowest_ms}
            with suppress(RunError), undisturbed():  # a full disk takes no note either, and the first error says more
                self.finish(status, **bounds)
            raise

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Let a Ctrl-C carry the note that this folder can be gone on with; the command line shows it."""
        try:
            yield
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"what was finished is kept: go on with {self.command_to_resume}")
            raise

    @property
    def command_to_resume(self) -> str:
        """What goes on with this folder, as it is typed."""
        command = _COMMANDS.get(self.KIND) or getattr(self.settings, "kind", "run")  # a run's kind is its command
        return f"mnv3search {command} --resume {shlex.quote(str(self.path))}"

    def finish(self, status: str, **facts: object) -> None:
        """Note the outcome."""
        self.note(**facts, status=status, finished=_now())

    @property
    def seconds(self) -> float:
        """Those of all sessions, this one's until now included."""
        return round(self._before + time.monotonic() - self._began, 3)

    def note(self, **facts: object) -> None:
        """Keep facts in the manifest, and how long all sessions have worked; of what is finished nothing is noted."""
        if not self.finished:
            self._keep(**facts, seconds=self.seconds)

    def note_moved_data(self) -> None:
        """Keep in the manifest where the images are now."""
        self._keep(settings=self.settings.to_mapping())

    def _keep(self, **facts: object) -> None:
        self.manifest |= facts
        self.write_json(MANIFEST, self.manifest)

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file of this folder."""
        write_text(self.path / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def _remove(self, names: Iterable[str]) -> None:
        """Remove the manifest and the files ``names``, and the folder where it holds nothing else."""
        with suppress(OSError):  # a folder that stays is no harm, and hides no error
            for name in (MANIFEST, LOG, LOCK, *names):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()
            if self.path.parent == Path(RUNS):
                self.path.parent.rmdir()


def free_folder(*words: str) -> Path:
    """Make ``runs/<date>-<words>``, with a number where that is taken; of words that are files, their stem.

    Raises:
        RunError: it cannot be made.
    """
    stems = [Path(word).stem if word.endswith((".yaml", ".yml", ".json")) else word for word in words]
    name = re.sub(r"[^A-Za-z0-9_.@-]+", "-", "-".join(stems))
    base = Path(RUNS) / f"{datetime.now().astimezone():%Y-%m-%d}-{name}"
    path = base
    for number in range(2, MOST_FOLDERS):
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            path = base.with_name(f"{base.name}-{number}")
        except FileNotFoundError:  # another process removed the empty parent just now
            continue
        except OSError as error:
            raise RunError(f"cannot make the folder {path}: {error.strerror}; choose another with --out") from None
        else:
            return path
    raise RunError(f"cannot make the folder {base}, nor one with a number after it; choose another with --out")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _fits(value: object, kind: str) -> bool:
    """Whether a JSON value is of the annotation ``kind``."""
    if value is None:
        return kind.endswith("| None")
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    wanted = _KINDS.get(kind.removesuffix(" | None"), str)
    return isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)


_PACKAGES = ("mnv3search", "numpy", "optuna", "torch", "torchvision", "accelerate", "onnxruntime", "matplotlib")


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def describe_environment() -> dict[str, object]:
    """Package versions, Python, system and processor; no host or user name."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": cpu_model(),
        "cores": os.cpu_count(),
    }
