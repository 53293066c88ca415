"""Latency tables on disk: an SQLite database of one row a repeat, and the JSON in which tables are exchanged.

Each round is committed when it is timed, so a killed measurement loses at most the round under way, and any number of
processes may add to one table. The journal is a write-ahead log, or a rollback journal on network file systems, whose
machines share no memory; a table that nobody adds to is one file. File systems that know no locks are used without.
Databases are not trusted: schema, size and every time are checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from mnv3search.errors import DeviceError
from mnv3search.files import locks_work
from mnv3search.latency.keys import Fingerprint
from mnv3search.latency.measured.table import CACHE_VARIABLE, VERSION, LatencyTable, Run, TableKey, TimingSession
from mnv3search.latency.runtimes.base import LONGEST_CALL, SHORTEST_CALL
from mnv3search.reading import read_json
from mnv3search.records import Record

FORMAT = "mnv3search.latency_table"  # of the JSON
APPLICATION_ID = 0x6D6E7633  # "mnv3"
MAX_FILE_BYTES = 500_000_000
MAX_TEXT = 1_000_000
BUSY_SECONDS = 60.0  # another process commits a round in milliseconds, and a whole imported table in seconds
MOUNTS = Path("/proc/self/mountinfo")
NETWORK_FILE_SYSTEMS = re.compile(
    r"nfs\d*|cifs|smb\d*|9p|afs|ceph|lustre|glusterfs|beegfs|gpfs|fuse\.(?!fuse-overlayfs).*"
)
REMEDY = "delete it to measure again"
_KEY = ("cpu", "cores", "arch", "runtime", "runtime_version", "threads", "precision", "reference")
_SCHEMA = {
    "table_key": (
        "CREATE TABLE table_key (id INTEGER PRIMARY KEY CHECK (id = 1), cpu TEXT, cores INTEGER, arch TEXT, "
        "runtime TEXT, runtime_version TEXT, threads INTEGER, precision TEXT, reference TEXT, output_difference REAL)"
    ),
    "sessions": "CREATE TABLE sessions (id INTEGER PRIMARY KEY, started TEXT NOT NULL, identity TEXT NOT NULL UNIQUE)",
    "entries": "CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, whole INTEGER NOT NULL)",
    "runs": (
        "CREATE TABLE runs (session INTEGER, entry INTEGER, slot INTEGER NOT NULL, PRIMARY KEY (session, entry)) "
        "WITHOUT ROWID"
    ),
    "readings": (
        "CREATE TABLE readings (session INTEGER, round INTEGER, slot INTEGER, ms REAL NOT NULL, "
        "PRIMARY KEY (session, round, slot)) WITHOUT ROWID"
    ),
    "repeats": (
        "CREATE TABLE repeats (session INTEGER, round INTEGER, entry INTEGER, ms REAL NOT NULL, "
        "PRIMARY KEY (session, round, entry)) WITHOUT ROWID"
    ),
}
_TIMES_MS = (1e3 * SHORTEST_CALL, 1e3 * LONGEST_CALL)


class TableFile:
    """A table's file, open to be added to; it and its folder are made where they are missing.

    Attributes:
        table: what the file holds; rounds that are added to it are written by :meth:`save`.
    """

    def __init__(self, path: Path, key: TableKey) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from None
        with _faults(path, writing=True):
            if os.path.lexists(path):
                _check_file(path)
            self._connection = _connected(path, "rwc")
            try:
                _set_journal(self._connection, path.parent)
                with self._transaction():
                    if not _objects(self._connection):
                        _create(self._connection, key)
                    self.table = _read(self._connection, path, key)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        """This file; it is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; what was not saved is not written."""
        with contextlib.suppress(sqlite3.Error):  # where others still add to it, the last one does this
            self._connection.execute("PRAGMA busy_timeout = 0")
            self._connection.execute("PRAGMA journal_mode = DELETE")
        self._connection.close()

    def save(self) -> None:
        """Write the rounds of :attr:`table` that are not in the file, in one transaction."""
        self._insert(self.table)

    def add(self, table: LatencyTable) -> None:
        """Insert the sessions of another table of the same key; what is here already stays as it is."""
        if table.key != self.table.key:
            mine, theirs = asdict(self.table.key), asdict(table.key)
            named = ", ".join(name for name in mine if mine[name] != theirs[name])
            raise DeviceError(f"latency tables of different {named} cannot be merged; keep both")
        self._insert(table)
        with _faults(self.path, writing=True), self._transaction():
            self.table = _read(self._connection, self.path, self.table.key)

    def _insert(self, table: LatencyTable) -> None:
        added = [s for s in table.sessions if len(s.reference_ms) > (s.saved if table is self.table else 0)]
        with _faults(self.path, writing=True), self._transaction():
            for session in added:
                _insert_session(self._connection, table, session, session.saved if table is self.table else 0)
            self._connection.execute(
                "UPDATE table_key SET output_difference = coalesce(output_difference, ?)", [table.output_difference]
            )
        for session in added if table is self.table else ():
            session.saved = len(session.reference_ms)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite itself has, where the disk is full
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def load_table(path: Path, key: TableKey | None = None) -> LatencyTable:
    """The table at ``path``, SQLite or JSON, which must have ``key`` where one is given; empty where there is no file.

    A JSON table of the same name, as earlier versions wrote it, is imported and then called ``NAME.json.old``.
    """
    if path.suffix == ".json":
        return read_json_table(path, key)
    old = path.with_suffix(".json")
    if not os.path.lexists(path):
        if key is None:
            raise DeviceError(f"there is no latency table {path}; mnv3search devices lists those there are")
        return import_json_table(old, key) if old.exists() else LatencyTable(key)
    with _opened_table(path) as connection:
        table = _read(connection, path, key)
    # an empty one beside an old table is an import that was cut short
    return import_json_table(old, key) if not table.sessions and old.exists() else table


@contextlib.contextmanager
def _opened_table(path: Path) -> Iterator[sqlite3.Connection]:
    """One state of a table's file, open to be read."""
    _check_file(path)
    with _faults(path), contextlib.closing(_connected(path, "ro")) as connection:
        connection.execute("BEGIN")
        yield connection


def import_json_table(path: Path, key: TableKey | None = None) -> LatencyTable:
    """The JSON table that an earlier version left at ``path``, written next to it as SQLite where that is possible."""
    table = read_json_table(path, key)
    with contextlib.suppress(DeviceError, OSError):
        with TableFile(path.with_suffix(".sqlite"), table.key) as file:
            file.add(table)
            table = file.table
        path.rename(path.with_suffix(".json.old"))
    return table


def _check_file(path: Path) -> None:
    """Refuse what is no regular file or too large, without opening it: closing it would drop SQLite's own locks."""
    try:
        found = path.stat()
    except OSError as error:
        raise DeviceError(f"cannot read the latency table {path}: {error.strerror or error}; {REMEDY}") from None
    if not stat.S_ISREG(found.st_mode):
        what = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise DeviceError(f"cannot read the latency table {path}: it is {what}; move it away to measure again")
    if found.st_size > MAX_FILE_BYTES:
        raise DeviceError(f"latency table {path} has over {MAX_FILE_BYTES:,} bytes, which no table has; {REMEDY}")


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    unlocked = "" if locks_work(path.parent) else "&nolock=1"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}{unlocked}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
    )
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _set_journal(connection: sqlite3.Connection, folder: Path) -> None:
    wanted = "DELETE" if on_network(folder) else "WAL"
    mode = ""
    with contextlib.suppress(sqlite3.OperationalError):  # others work in it just now: as they do
        mode = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]
    # a log may lose its last rounds, and nothing else, where the power fails
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")


def on_network(folder: Path) -> bool:
    """Whether ``folder`` lies on a network file system, as far as Linux knows."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
        resolved = folder.resolve()
    except OSError:
        return False
    kinds: dict[Path, str] = {}
    for line in lines:
        words, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), words.split()[4])
        kinds[Path(point)] = rest.split()[0]
    mounted = next((kinds[above] for above in (resolved, *resolved.parents) if above in kinds), "")
    return NETWORK_FILE_SYSTEMS.fullmatch(mounted) is not None


@contextlib.contextmanager
def _faults(path: Path, *, writing: bool = False) -> Iterator[None]:
    """SQLite's errors as this program's, with what to do."""
    try:
        yield
    except (sqlite3.DatabaseError, OverflowError) as error:
        if "locked" in str(error):
            raise DeviceError(f"another process keeps the latency table {path} locked; wait for it to end") from None
        if isinstance(error, sqlite3.OperationalError) and "decode" not in str(error):
            if writing:
                raise _unwritable(path, error) from None
            raise DeviceError(f"cannot read the latency table {path}: {error}; check its permissions") from None
        raise DeviceError(f"latency table {path} is damaged ({error}); {REMEDY}") from None


def _unwritable(path: Path, error: Exception) -> DeviceError:
    reason = getattr(error, "strerror", None) or error
    return DeviceError(f"cannot write the latency table {path}: {reason}; {CACHE_VARIABLE} names another folder")


def _objects(connection: sqlite3.Connection) -> dict[str, str]:
    """What the database holds, by name: the text that made it."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite@_%' ESCAPE '@'")
    return dict(rows.fetchmany(100))


def _create(connection: sqlite3.Connection, key: TableKey) -> None:
    for text in _SCHEMA.values():
        connection.execute(text)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    facts = [*asdict(key.device).values(), key.runtime, key.runtime_version, key.threads, key.precision, key.reference]
    connection.execute("INSERT INTO table_key VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", facts)


def _identity(session: TimingSession) -> str:
    """A session's identity, in whichever file it is."""
    text = json.dumps([session.started, session.reference_ms[0]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _insert_session(connection: sqlite3.Connection, table: LatencyTable, session: TimingSession, first: int) -> None:
    """Insert a session's rounds from ``first`` on."""
    identity = _identity(session)
    connection.execute("INSERT OR IGNORE INTO sessions (started, identity) VALUES (?, ?)", [session.started, identity])
    (row,) = connection.execute("SELECT id FROM sessions WHERE identity = ?", [identity]).fetchone()
    whole = set(table.networks)
    if first == 0:
        made = ((entry, entry in whole) for entry in session.runs)
        connection.executemany("INSERT OR IGNORE INTO entries (key, whole) VALUES (?, ?)", made)
        slots = ((row, run.slot, entry) for entry, run in session.runs.items())
        connection.executemany("INSERT OR IGNORE INTO runs SELECT ?, id, ? FROM entries WHERE key = ?", slots)
    connection.executemany(
        "INSERT OR IGNORE INTO readings VALUES (?, ?, ?, ?)",
        (
            (row, index, slot, ms)
            for index in range(first, len(session.reference_ms))
            for slot, ms in enumerate(session.reference_ms[index])
        ),
    )
    numbers = dict(
        connection.execute("SELECT key, id FROM entries WHERE id IN (SELECT entry FROM runs WHERE session = ?)", [row])
    )
    connection.executemany(
        "INSERT OR IGNORE INTO repeats VALUES (?, ?, ?, ?)",
        (
            (row, index, numbers[entry], run.ms[index])
            for entry, run in session.runs.items()
            for index in range(first, len(run.ms))
        ),
    )


def _key_of(connection: sqlite3.Connection, path: Path) -> TableKey:
    """The key of an open database, which is checked to be a table of this version."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise DeviceError(f"{path} is not a latency table of this program; {REMEDY}")
    if version != VERSION:
        raise DeviceError(f"latency table {path} has version {version!r}; this release reads {VERSION}; {REMEDY}")
    if _objects(connection) != _SCHEMA:
        raise DeviceError(f"latency table {path} is damaged (its tables are not this program's); {REMEDY}")
    row = connection.execute(f"SELECT {', '.join(_KEY)} FROM table_key").fetchone()  # noqa: S608
    return _checked_key(path, dict(zip(_KEY, row or (), strict=False)))


def table_head(path: Path) -> tuple[TableKey, str | None]:
    """What a table's file is of, and when it was last measured (ISO 8601), without reading its times."""
    with _opened_table(path) as connection:
        key = _key_of(connection, path)
        return key, connection.execute("SELECT max(started) FROM sessions").fetchone()[0]


def _checked_key(path: Path, content: Mapping[str, Any]) -> TableKey:
    values: dict[str, Any] = {name: content.get(name) for name in _KEY}
    for name, value in values.items():
        counts = name in ("cores", "threads")
        if type(value) is not (int if counts else str) or not (
            counts or (str(value).isprintable() and len(str(value)) <= MAX_TEXT)
        ):
            raise DeviceError(f"latency table {path} is damaged (it does not say what it is of); {REMEDY}")
    machine = Fingerprint(values.pop("cpu"), values.pop("cores"), values.pop("arch"))
    return TableKey(machine, **values)


def _check_same(path: Path, found: TableKey, wanted: TableKey | None) -> None:
    if wanted is None or found == wanted:
        return
    theirs, mine = asdict(found), asdict(wanted)
    here = ", ".join(f"{name} {_short(mine[name])}" for name in mine if mine[name] != theirs[name])
    raise DeviceError(f"latency table {path} was measured elsewhere or otherwise: here it is {here}; {REMEDY}")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _read(connection: sqlite3.Connection, path: Path, key: TableKey | None) -> LatencyTable:
    """All of a database, checked."""
    if key is not None and not _objects(connection) and connection.execute("PRAGMA user_version").fetchone() == (0,):
        return LatencyTable(key)  # another process has just made the file
    found = _key_of(connection, path)
    _check_same(path, found, key)
    (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if sound != "ok":
        raise DeviceError(f"latency table {path} is damaged ({_short(sound)}); {REMEDY}")
    table = LatencyTable(found)
    try:
        (difference,) = connection.execute("SELECT output_difference FROM table_key").fetchone()
        table.output_difference = _checked_difference(difference)
        _fill(table, connection)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DeviceError(f"latency table {path} is damaged ({error}); {REMEDY}") from None
    return table


def _fill(table: LatencyTable, connection: sqlite3.Connection) -> None:
    for name in ("readings", "repeats"):
        wrong = connection.execute(
            f"SELECT ms FROM {name} WHERE typeof(ms) <> 'real' OR ms NOT BETWEEN ? AND ? LIMIT 1",  # noqa: S608
            _TIMES_MS,
        ).fetchone()
        if wrong is not None:
            raise ValueError(f"{wrong[0]!r:.40} is not a time of a call in milliseconds")
    keys = dict(connection.execute("SELECT id, key FROM entries ORDER BY id"))
    networks = {key for (key,) in connection.execute("SELECT key FROM entries WHERE whole")}
    if not all(isinstance(key, str) and len(key) <= MAX_TEXT for key in keys.values()):
        raise ValueError("an entry is no text")
    slots: dict[int, dict[str, int]] = {}
    for number, entry, slot in connection.execute("SELECT session, entry, slot FROM runs ORDER BY session, entry"):
        slots.setdefault(number, {})[keys[entry]] = slot
    sessions = {
        number: table.start_session(slots.get(number, {}), networks, _checked_moment(started))
        for number, started in connection.execute("SELECT id, started FROM sessions ORDER BY id")
    }
    if not slots.keys() <= sessions.keys():
        raise ValueError("a run is of no session")
    for number, index, slot, ms in connection.execute("SELECT * FROM readings ORDER BY session, round, slot"):
        readings = sessions[number].reference_ms
        if slot == 0:
            readings.append([])
        if (index, slot) != (len(readings) - 1, len(readings[-1])):
            raise ValueError("a session lacks a reading of the reference")
        readings[-1].append(ms)
    for number, index, entry, ms in connection.execute("SELECT * FROM repeats ORDER BY session, round, entry"):
        times = sessions[number].runs[keys[entry]].ms
        if index != len(times):
            raise ValueError("a run lacks a round")
        times.append(ms)
    for session in sessions.values():
        _check_session(session)
        session.saved = len(session.reference_ms)


def _check_session(session: TimingSession) -> None:
    readings = session.reference_ms
    if len({len(one) for one in readings}) > 1 or not all(readings):
        raise ValueError("the rounds of a session differ in their readings of the reference")
    for run in session.runs.values():
        if type(run.slot) is not int:
            raise TypeError("a run names its slot by no whole number")
        if run.slot < 0 or len(run.ms) > len(readings):
            raise ValueError("a run has more rounds than its session")
        if run.ms and run.slot >= len(readings[0]):
            raise ValueError("a run names a slot that its session does not have")


def _checked_moment(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{text!r:.40} is no moment")
    moment = datetime.fromisoformat(text)
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds")


def _checked_difference(value: object) -> float | None:
    return None if value is None else Record({"output_difference": value}).number("output_difference", 0.0)


def table_mapping(table: LatencyTable) -> dict[str, object]:
    """The table as JSON (format :data:`FORMAT`), which :func:`read_json_table` gives back."""
    return {
        "format": FORMAT, "version": VERSION, "key": asdict(table.key),
        "measured_at": table.measured_at, "output_difference": table.output_difference,
        "sittings": [{"started": s.started, "reference_ms": s.reference_ms} for s in table.sessions],
        "units": _runs_mapping(table, table.units), "networks": _runs_mapping(table, table.networks),
    }  # fmt: skip


def _runs_mapping(table: LatencyTable, entries: Sequence[str]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {entry: [] for entry in entries}
    for index, session in enumerate(table.sessions):
        for entry, run in session.runs.items():
            if run.ms and entry in found:
                found[entry].append({"sitting": index, "slot": run.slot, "ms": run.ms})
    return {entry: runs for entry, runs in found.items() if runs}


def read_json_table(path: Path, key: TableKey | None = None) -> LatencyTable:
    """The table of a JSON file: of this release's export, or of an earlier release's cache."""
    try:
        content = read_json(path, MAX_FILE_BYTES)
    except OSError as error:
        raise DeviceError(f"cannot read the latency table {path}: {error.strerror or error}; {REMEDY}") from None
    except ValueError as error:
        raise DeviceError(f"latency table {path} is cut short or not JSON ({error}); {REMEDY}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DeviceError(f"{path} is not a latency table of this program; {REMEDY}")
    if content.get("version") != VERSION:
        version = content.get("version")
        raise DeviceError(f"latency table {path} has version {version!r:.20}; this release reads {VERSION}; {REMEDY}")
    stated = content["key"] if isinstance(content.get("key"), dict) else {}
    machine = stated["device"] if isinstance(stated.get("device"), dict) else {}
    table = LatencyTable(_checked_key(path, stated | machine))
    _check_same(path, table.key, key)
    try:
        table.output_difference = _checked_difference(content["output_difference"])
        _fill_from_json(table, content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DeviceError(f"latency table {path} is damaged ({error}); {REMEDY}") from None
    return table


def _fill_from_json(table: LatencyTable, content: Mapping[str, Any]) -> None:
    runs: list[dict[str, Run]] = [{} for _ in content["sittings"]]
    for entry, found in itertools.chain(content["units"].items(), content["networks"].items()):
        for run in found:
            at = run["sitting"]
            if type(at) is not int or at < 0 or entry in runs[at]:
                raise TypeError(f"a run names its session by no whole number, or twice: {at!r:.40}")
            runs[at][entry] = Run(run["slot"], _checked_times(run["ms"]))
    networks = set(content["networks"])
    for session, found in zip(content["sittings"], runs, strict=True):
        readings = [_checked_times(one) for one in session["reference_ms"]]
        made = table.start_session({e: r.slot for e, r in found.items()}, networks, _checked_moment(session["started"]))
        made.runs, made.reference_ms = found, readings
        _check_session(made)


def _checked_times(times: Sequence[object]) -> list[float]:
    checked = []
    low, high = _TIMES_MS
    for ms in times:
        if isinstance(ms, bool) or not isinstance(ms, (int, float)) or not low <= ms <= high:
            raise ValueError(f"{ms!r:.40} is not a time of a call in milliseconds")
        checked.append(float(ms))
    return checked
