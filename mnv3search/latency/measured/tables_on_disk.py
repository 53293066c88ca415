"""The latency tables in the cache folder, read by their heads: what each is of, how old and how good it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mnv3search.errors import DeviceError, RunError
from mnv3search.files import write_text
from mnv3search.latency.device_spec import DEFAULT_RUNTIME
from mnv3search.latency.keys import Fingerprint, this_machine
from mnv3search.latency.measured.table import TableKey, default_cache_dir
from mnv3search.latency.measured.table_file import import_json_table, table_head
from mnv3search.latency.runtimes.registry import installed_version, plug_in
from mnv3search.reading import read_json
from mnv3search.records import Record

MAX_TABLES = 1_000
MAX_NOTE_BYTES = 100_000
MAX_NOTE_TEXT, MAX_NOTE_COUNT = 400, 10**9
NOTES = "notes"  # the folder in which a profile leaves what it found of each table
OLD_DAYS = 30


@dataclass(frozen=True, slots=True)
class TableNote:
    """What a profile found of a table: absolute errors, as shares, on networks that it was not calibrated on.

    ``checked_at`` is ISO time, UTC; ``networks`` were timed whole; ``layers`` of ``space`` were measured.
    """

    device: str
    checked_at: str
    networks: int
    mean_error: float
    max_error: float
    space: str
    layers: int


@dataclass(frozen=True, slots=True)
class TableOnDisk:
    """One table file, by its head.

    Attributes:
        key: what its times have in common; None where the file is damaged.
        measured_at: when it was last measured, UTC; the file's time where it does not say.
        size: bytes.
        note: what ``mnv3search profile`` found.
        damage: the fault and its remedy; empty where there is none.
        stale: why it may not hold for this machine as it is now; empty where no reason is known.
    """

    path: Path
    key: TableKey | None
    measured_at: datetime
    size: int
    note: TableNote | None = None
    damage: str = ""
    stale: str = ""

    @property
    def device(self) -> str:
        """The text that names the device; another machine's address is in the note alone."""
        if self.note is not None:
            return self.note.device
        if self.key is None:
            return ""
        words = [self.key.precision] if self.key.precision != "fp32" else []
        words += [f"threads={self.key.threads}"] if self.key.threads != 1 else []
        usual = self.key.runtime == DEFAULT_RUNTIME and not words
        return "host" if usual else ",".join([f"host:{self.key.runtime}", *words])


def tables_on_disk(cache_dir: Path | None = None, now: datetime | None = None) -> tuple[TableOnDisk, ...]:
    """Every table of the cache folder, newest first, by its head; a damaged one is listed as such."""
    folder = (default_cache_dir() if cache_dir is None else cache_dir) / "latency"
    now, here = now or datetime.now(UTC), this_machine()
    found = []
    with contextlib.suppress(OSError):  # no folder, no tables
        old = (path for path in folder.glob("*.json") if not path.with_suffix(".sqlite").exists())
        for path in sorted([*folder.glob("*.sqlite"), *old])[:MAX_TABLES]:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                table = _described(path)
                found.append(replace(table, stale=_staleness(table, now, here)))
    return tuple(sorted(found, key=lambda table: table.measured_at, reverse=True))


def stale_table_for(key: TableKey, cache_dir: Path | None = None) -> TableOnDisk | None:
    """The newest sound table of ``key``'s machine, runtime, threads, precision and reference, but another version."""
    for table in tables_on_disk(cache_dir):
        other = table.key
        if other and other != key and replace(other, runtime_version=key.runtime_version) == key:
            return table
    return None


def _described(path: Path) -> TableOnDisk:
    """One table by its head; a JSON table of an earlier version is first written as SQLite."""
    moment, size = datetime.fromtimestamp(path.stat().st_mtime, UTC), path.stat().st_size
    try:
        if path.suffix == ".json":
            table = import_json_table(path)
            key, started = table.key, table.measured_at
            if not path.exists():
                path = path.with_suffix(".sqlite")
                size = path.stat().st_size
        else:
            key, started = table_head(path)
    except DeviceError as error:
        damage = str(error).removeprefix("latency table ").replace(f"{path} ", "", 1)
        return TableOnDisk(path, None, moment, size, damage=damage)
    return TableOnDisk(path, key, _moment(started) or moment, size, read_note(path))


def write_note(table: Path, note: TableNote) -> None:
    """Leave ``note`` in the folder :data:`NOTES` of a table."""
    path = _note_path(table)
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f"cannot make the folder {path.parent}: {reason}; check its permissions") from None
    write_text(path, json.dumps(asdict(note), indent=1) + "\n")


def _note_path(table: Path) -> Path:
    return table.parent / NOTES / table.with_suffix(".json").name


def read_note(table: Path) -> TableNote | None:
    """The note of a table; None where there is none, or it is damaged."""
    try:
        record = Record(read_json(_note_path(table), MAX_NOTE_BYTES))
        note = TableNote(
            record.text("device"), record.text("checked_at"), record.integer("networks", 0, MAX_NOTE_COUNT),
            record.number("mean_error", 0.0), record.number("max_error", 0.0), record.text("space"),
            record.integer("layers", 0, MAX_NOTE_COUNT),
        )  # fmt: skip
    except (OSError, ValueError):
        return None
    texts = (note.device, note.checked_at, note.space)
    return note if all(len(text) <= MAX_NOTE_TEXT and text.isprintable() for text in texts) else None


def _staleness(table: TableOnDisk, now: datetime, here: Fingerprint) -> str:
    key = table.key
    if key is None:
        return ""
    if key.device != here:
        return "of another machine"
    if plug_in(key.runtime) is None:  # a plug-in's version is known of a loaded runtime alone
        installed = installed_version(key.runtime)
        if installed is None:
            return f"{key.runtime} is not installed"
        if _release(installed) != _release(key.runtime_version):
            return f"{key.runtime} is now {installed}"
    days = (now - table.measured_at).days
    return f"{days} days old" if days > OLD_DAYS else ""


def _release(text: str) -> tuple[int, ...]:
    """The numbers at a version's start: a package and its library may name their build differently."""
    found = re.match(r"\d{1,9}(\.\d{1,9}){0,4}", text)
    numbers = [int(part) for part in found.group().split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def cache_folder() -> str:
    """The tables' folder as a reader types it, home shortened."""
    folder, home = str(default_cache_dir() / "latency"), os.path.expanduser("~")
    return folder.replace(home, "~", 1) if folder.startswith(home + os.sep) else folder
