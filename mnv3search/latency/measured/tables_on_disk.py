"""The latency tables in the cache folder, read by their heads alone: what each is of, how old and how good it is."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mnv3search.errors import RunError
from mnv3search.files import write_text
from mnv3search.latency.device_spec import DEFAULT_RUNTIME
from mnv3search.latency.keys import Fingerprint, this_machine
from mnv3search.latency.measured.table import FORMAT, VERSION, TableKey, default_cache_dir
from mnv3search.latency.runtimes.registry import installed_version, plug_in
from mnv3search.reading import open_regular, read_json

HEAD_BYTES = 1 << 16  # the format, the version, the key and what else stands before the times
TAIL_BYTES = 256
MAX_TABLES = 1_000
MAX_NOTE_BYTES = 100_000
MAX_NOTE_TEXT = 400
NOTES = "notes"  # the folder beside the tables in which a profile leaves what it found of each
OLD_DAYS = 30
_MEMBER = re.compile(r'\s*,?\s*"([a-z_]{1,40})"\s*:\s*')


@dataclass(frozen=True, slots=True)
class TableNote:
    """What a profile found of a table: whole networks that it was not calibrated on, timed and predicted.

    Attributes:
        device: the text that names the table's device.
        checked_at: ISO time, UTC.
        networks: how many were timed whole.
        mean_error, max_error: of the predictions, absolute, as shares.
        space: whose layers were measured.
        layers: how many.
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
        path: the file.
        key: what its times have in common; None where the file is damaged.
        measured_at: when it was last measured, UTC; the file's time where it does not say.
        size: bytes.
        note: what ``mnv3search profile`` found.
        damage: what is wrong and what mends it; empty where nothing is.
        stale: why it does not speak of this machine as it is now; empty where nothing is known against it.
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
        """The text that names the device, as far as the file tells: another machine's address stands in the note."""
        if self.note is not None:
            return self.note.device
        if self.key is None:
            return ""
        words = [self.key.precision] if self.key.precision != "fp32" else []
        words += [f"threads={self.key.threads}"] if self.key.threads != 1 else []
        usual = self.key.runtime == DEFAULT_RUNTIME and not words
        return "host" if usual else ",".join([f"host:{self.key.runtime}", *words])


def tables_on_disk(cache_dir: Path | None = None, now: datetime | None = None) -> tuple[TableOnDisk, ...]:
    """Every table of the cache folder, newest first; a damaged one is listed as such, and none is read whole.

    Args:
        cache_dir: where the tables' folder ``latency`` lies; the default one where not given.
        now: against which the age is counted; this moment where not given.
    """
    folder = (default_cache_dir() if cache_dir is None else cache_dir) / "latency"
    now, here = now or datetime.now(UTC), this_machine()
    found = []
    with contextlib.suppress(OSError):  # no folder, no tables
        for path in sorted(folder.glob("*.json"))[:MAX_TABLES]:
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                table = read_head(path)
                found.append(replace(table, stale=_staleness(table, now, here)))
    return tuple(sorted(found, key=lambda table: table.measured_at, reverse=True))


def stale_table_for(key: TableKey, cache_dir: Path | None = None) -> TableOnDisk | None:
    """The newest sound table of ``key``'s machine, runtime, threads, precision and reference, but another version."""
    for table in tables_on_disk(cache_dir):
        other = table.key
        if other is None or other.runtime_version == key.runtime_version:
            continue
        if replace(other, runtime_version=key.runtime_version) == key:
            return table
    return None


def read_head(path: Path) -> TableOnDisk:
    """One table by its first :data:`HEAD_BYTES` and its end.

    Raises:
        FileNotFoundError: there is no such file.
    """
    try:
        with open_regular(path) as stream:
            stat = os.fstat(stream.fileno())
            head = stream.read(HEAD_BYTES)
            stream.seek(max(0, stat.st_size - TAIL_BYTES))
            tail = stream.read(TAIL_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        moment = datetime.fromtimestamp(0, UTC)
        return TableOnDisk(path, None, moment, 0, damage=f"cannot be read ({error.strerror}): check its permissions")
    moment = datetime.fromtimestamp(stat.st_mtime, UTC)
    members = _members(head)
    key, damage = _key(members.get("key")), ""
    if members.get("format") != FORMAT:
        damage = "damaged (no latency table of this program): delete it"
    elif members.get("version") != VERSION:
        damage = f"of format version {members.get('version')!r:.20}, not {VERSION}: delete it to measure again"
    elif key is None:
        damage = "damaged (it does not say what it is of): delete it to measure again"
    elif not tail.rstrip().endswith(b"}"):
        damage = "damaged (cut short): delete it to measure again"
    if damage:
        return TableOnDisk(path, None, moment, stat.st_size, damage=damage)
    return TableOnDisk(path, key, _moment(members.get("measured_at")) or moment, stat.st_size, read_note(path))


def write_note(table: Path, note: TableNote) -> None:
    """Leave ``note`` beside a table.

    Raises:
        RunError: it cannot be written.
    """
    folder = table.parent / NOTES
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {folder}: {error.strerror or error}; check its permissions") from None
    content = {name: getattr(note, name) for name in TableNote.__dataclass_fields__}
    write_text(folder / table.name, json.dumps(content, indent=1) + "\n")


def read_note(table: Path) -> TableNote | None:
    """What a profile left beside a table; None where there is nothing, or nothing sound."""
    try:
        content = read_json(table.parent / NOTES / table.name, MAX_NOTE_BYTES)
        texts = [content[name] for name in ("device", "checked_at", "space")]
        counts = [content[name] for name in ("networks", "layers")]
        mean, most = _share(content["mean_error"]), _share(content["max_error"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sound = all(isinstance(text, str) and len(text) <= MAX_NOTE_TEXT and text.isprintable() for text in texts)
    if not sound or not all(isinstance(count, int) for count in counts) or mean is None or most is None:
        return None
    device, checked_at, space = texts
    networks, layers = counts
    return TableNote(device, checked_at, networks, mean, most, space, layers)


def _staleness(table: TableOnDisk, now: datetime, here: Fingerprint) -> str:
    key = table.key
    if key is None:
        return ""
    if key.device != here:
        return "of another machine"
    if plug_in(key.runtime) is None:  # of these only the runtime itself, made, tells its version
        installed = installed_version(key.runtime)
        if installed is None:
            return f"{key.runtime} is not installed"
        if _release(installed) != _release(key.runtime_version):
            return f"{key.runtime} is now {installed}"
    days = (now - table.measured_at).days
    return f"{days} days old" if days > OLD_DAYS else ""


def _release(text: str) -> tuple[int, ...]:
    """The numbers at a version's start: a package and its library may tell their build differently."""
    found = re.match(r"\d{1,9}(\.\d{1,9}){0,4}", text)
    numbers = [int(part) for part in found.group().split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _members(head: bytes) -> Mapping[str, object]:
    """The members of a JSON object that lie whole in its beginning, up to the first that does not."""
    text = head.decode("utf-8", errors="replace").lstrip()
    found: dict[str, object] = {}
    decoder, at = json.JSONDecoder(), 1
    while text[:1] == "{" and (member := _MEMBER.match(text, at)):
        try:
            found[member.group(1)], at = decoder.raw_decode(text, member.end())
        except (ValueError, RecursionError):
            break
    return found


def _key(content: object) -> TableKey | None:
    if not isinstance(content, dict):
        return None
    try:
        machine = content["device"]
        device = Fingerprint(str(machine["cpu"]), int(machine["cores"]), str(machine["arch"]))
        texts = [content[name] for name in ("runtime", "runtime_version", "precision", "reference")]
        if not all(isinstance(text, str) and text.isprintable() for text in texts):
            return None
        runtime, runtime_version, precision, reference = texts
        return TableKey(device, runtime, runtime_version, int(content["threads"]), precision, reference)
    except (KeyError, TypeError, ValueError):
        return None


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _share(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def cache_place() -> str:
    """The tables' folder as a reader types it, home shortened."""
    folder, home = str(default_cache_dir() / "latency"), os.path.expanduser("~")
    return folder.replace(home, "~", 1) if folder.startswith(home + os.sep) else folder
