"""The latency table: every repeat that was measured, on disk as JSON, of one machine, runtime, version and threads."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mnv3search.errors import DeviceError, RunError
from mnv3search.files import write_text
from mnv3search.latency.keys import Fingerprint
from mnv3search.latency.measured.measuring import (
    Drift,
    FloatArray,
    Round,
    Timing,
    drift_of,
    halves_disagreement,
    moment_deviation,
    summarise,
)
from mnv3search.latency.runtimes.base import LONGEST_CALL, SHORTEST_CALL
from mnv3search.reading import read_json

FORMAT = "mnv3search.latency_table"
VERSION = 3  # from 3 on whole networks are timed right after the reference
MAX_FILE_BYTES = 500_000_000
DIGITS = 5  # of a time in milliseconds: 10 ns
CACHE_VARIABLE = "MNV3SEARCH_CACHE"


@dataclass(frozen=True, slots=True)
class TableKey:
    """What all times of one table have in common; ``reference`` is the canonical text of the reference network."""

    device: Fingerprint
    runtime: str
    runtime_version: str
    threads: int
    precision: str
    reference: str

    @property
    def file_name(self) -> str:
        """A file name that differs wherever the key does."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]
        readable = re.sub(r"[^A-Za-z0-9.]+", "_", f"{self.runtime}-{self.runtime_version}-{self.precision}")
        return f"{readable}-{self.threads}t-v{VERSION}-{digest}.json"


def default_cache_dir() -> Path:
    """``$MNV3SEARCH_CACHE``, else the user's cache folder for this program (``$XDG_CACHE_HOME`` or ``~/.cache``)."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "mnv3search"


def table_path(key: TableKey, cache_dir: Path | None = None) -> Path:
    """Where the table of ``key`` lies."""
    return (default_cache_dir() if cache_dir is None else cache_dir) / "latency" / key.file_name


@dataclass(slots=True)
class Sitting:
    """When a round-robin began (UTC, ISO 8601), and the reference's readings in it: a list a round, one a slot; ms."""

    started: str
    reference_ms: list[list[float]] = field(default_factory=list)

    def grew_into(self, other: Sitting) -> bool:
        """Whether ``other`` is this sitting, as far on or further."""
        return self.started == other.started and self.reference_ms == other.reference_ms[: len(self.reference_ms)]


@dataclass(slots=True)
class Run:
    """The repeats of one entry in one sitting, with the slot in which it took its turn; milliseconds, in order."""

    sitting: int
    slot: int
    ms: list[float] = field(default_factory=list)


class LatencyTable:
    """Repeats by entry (a unit's or a network's canonical text), in sittings that share a reference network.

    Every time is given at one level: that of the reference in the first sitting of units, or of networks. So later
    sittings add entries without moving those that are there.

    Attributes:
        output_difference: of the runtime's outputs from torch's when it was first used, relative; None: not checked.
    """

    def __init__(self, key: TableKey) -> None:
        self.key = key
        self.output_difference: float | None = None
        self._sittings: list[Sitting] = []
        self._units: dict[str, list[Run]] = {}
        self._networks: dict[str, list[Run]] = {}
        self._drifts: dict[int, Drift] = {}

    @property
    def networks(self) -> tuple[str, ...]:
        """Keys of the whole networks."""
        return tuple(self._networks)

    def __len__(self) -> int:
        """How many entries there are, units and networks."""
        return len(self._units) + len(self._networks)

    def rounds_of(self, entry: str) -> int:
        """How many repeats an entry has; 0 where it is unknown."""
        return sum(len(run.ms) for run in self._runs(entry))

    def _runs(self, entry: str) -> list[Run]:
        return self._units.get(entry) or self._networks.get(entry) or []

    def start_sitting(self, slots: Mapping[str, int], networks: Iterable[str] = ()) -> list[Run]:
        """Begin a round-robin over entries at these slots; ``networks`` says which are whole networks.

        Returns:
            The runs to which :meth:`add_round` adds, in the order of ``slots``.
        """
        whole = set(networks)
        self._sittings.append(Sitting(datetime.now(UTC).isoformat(timespec="seconds")))
        runs = []
        for entry, slot in slots.items():
            run = Run(len(self._sittings) - 1, slot)
            (self._networks if entry in whole else self._units).setdefault(entry, []).append(run)
            runs.append(run)
        return runs

    def add_round(self, runs: Sequence[Run], times: Round) -> None:
        """Add one round of the last sitting."""
        # the reference first: where this is interrupted, no entry has a repeat without its reading
        self._sittings[-1].reference_ms.append([round(ms, DIGITS) for ms in times.reference_ms.tolist()])
        for run, ms in zip(runs, times.ms.tolist(), strict=True):
            run.ms.append(round(ms, DIGITS))
        self._drifts.pop(len(self._sittings) - 1, None)

    @property
    def measured_at(self) -> str | None:
        """When the last sitting began (UTC, ISO 8601); None where nothing is measured."""
        return max((sitting.started for sitting in self._sittings if sitting.reference_ms), default=None)

    @property
    def halves_disagreement(self) -> float:
        """By how much odd and even rounds disagree, a share, in the last sittings of units and of networks; or 0."""
        last = {max(found) for found in map(_sittings, (self._units, self._networks)) if found}
        by_sitting: dict[int, list[FloatArray]] = {}
        for run in itertools.chain(*self._units.values(), *self._networks.values()):
            if run.ms and run.sitting in last:
                by_sitting.setdefault(run.sitting, []).append(self._at_pace(run))
        shares = []
        for times in by_sitting.values():
            rounds = min(map(len, times))  # the last one may have been interrupted
            shares.append(halves_disagreement(np.stack([one[:rounds] for one in times], axis=1)))
        return max(shares, default=0.0)

    def merge(self, other: LatencyTable) -> None:
        """Take a copy of every sitting of ``other`` that is not here already.

        Where one of the tables was copied while a sitting went on, that sitting's longer state stays.

        Raises:
            DeviceError: it is of another machine, runtime, version, thread count, precision or reference network.
        """
        if other.key != self.key:
            named = [f.name for f in fields(TableKey) if getattr(other.key, f.name) != getattr(self.key, f.name)]
            raise DeviceError(f"latency tables of different {', '.join(named)} cannot be merged; keep both")
        taken: dict[int, int] = {}  # sittings of theirs, by where they go
        for index, sitting in enumerate(other._sittings):
            if any(sitting.grew_into(known) for known in self._sittings):
                continue
            here = next((i for i, known in enumerate(self._sittings) if known.grew_into(sitting)), len(self._sittings))
            self._sittings[here : here + 1] = [Sitting(sitting.started, [list(one) for one in sitting.reference_ms])]
            self._drifts.pop(here, None)
            taken[here] = index
        at = {theirs: mine for mine, theirs in taken.items()}
        for mine, theirs in ((self._units, other._units), (self._networks, other._networks)):
            for entry in dict.fromkeys([*mine, *theirs]):
                kept = [run for run in mine.get(entry, []) if run.sitting not in taken]
                found = [run for run in theirs.get(entry, []) if run.sitting in at]
                new = [Run(at[run.sitting], run.slot, list(run.ms)) for run in found]
                mine[entry] = sorted([*kept, *new], key=lambda run: run.sitting)
        if self.output_difference is None:
            self.output_difference = other.output_difference

    @property
    def level_ms(self) -> float:
        """What the reference network takes at the level of units: the median pace of their first sitting; milliseconds.

        Raises:
            DeviceError: no unit has been measured.
        """
        return self._drift(self._sitting_of(self._units, min)).reference_ms

    @property
    def network_level_ms(self) -> float:
        """The same of whole networks: there it takes its turns among networks, whose weights push its own out.

        Raises:
            DeviceError: no network has been measured.
        """
        return self._drift(self._sitting_of(self._networks, min)).reference_ms

    @property
    def latest_network_drift(self) -> Drift:
        """The machine's pace in the last sitting of networks, and what the reference took there.

        Raises:
            DeviceError: no network has been measured.
        """
        return self._drift(self._sitting_of(self._networks, max))

    @property
    def level_error(self) -> float:
        """How far the pace is at another moment, by the last sitting of units: one standard deviation, as a share.

        Raises:
            DeviceError: no unit has been measured.
        """
        return moment_deviation(self._drift(self._sitting_of(self._units, max)).pace.reshape(-1))

    def _sitting_of(self, entries: Mapping[str, list[Run]], which: Callable[[set[int]], int]) -> int:
        """The first (``min``) or the last (``max``) sitting of these entries."""
        sittings = _sittings(entries)
        if not sittings:
            raise DeviceError("the latency table is empty; measure its units first")
        return which(sittings)

    def timing(self, entry: str) -> Timing:
        """Median, minimum and error of an entry, at the table's level: of units, or of whole networks.

        The minimum is scaled by the reference's minima, all else by the drift.

        Raises:
            DeviceError: the entry has not been measured.
        """
        runs = [run for run in self._runs(entry) if run.ms]
        if not runs:
            raise DeviceError(f"the latency table has no time of {entry}; measure it first")
        first = self._sitting_of(self._networks if entry in self._networks else self._units, min)
        level_ms, least_ms = self._drift(first).reference_ms, self._least_reference(first)
        times, minima = [], []
        for run in runs:
            times.append(self._at_pace(run) * level_ms / self._drift(run.sitting).reference_ms)
            minima.append(min(run.ms) * least_ms / self._least_reference(run.sitting))
        return summarise(np.concatenate(times), min(minima))

    def _least_reference(self, sitting: int) -> float:
        return min(map(min, self._sittings[sitting].reference_ms))

    def _at_pace(self, run: Run) -> FloatArray:
        """A run's times at the median pace of its sitting; milliseconds."""
        return np.array(run.ms) / self._drift(run.sitting).pace[: len(run.ms), run.slot]

    def _drift(self, sitting: int) -> Drift:
        if sitting not in self._drifts:
            readings = np.array(self._sittings[sitting].reference_ms)
            everything = itertools.chain(*self._units.values(), *self._networks.values())
            runs = [run for run in everything if run.sitting == sitting and run.ms]
            ms = np.full((len(readings), len(runs)), np.nan)  # an interrupted round lacks some
            for column, run in enumerate(runs):
                ms[: len(run.ms), column] = run.ms
            self._drifts[sitting] = drift_of(ms, np.array([run.slot for run in runs], dtype=np.int64), readings)
        return self._drifts[sitting]

    def save(self, path: Path) -> None:
        """Write the table, atomically.

        Raises:
            DeviceError: the file cannot be written.
        """
        content = {
            "format": FORMAT, "version": VERSION, "key": asdict(self.key),
            "measured_at": self.measured_at, "output_difference": self.output_difference,
            "sittings": [asdict(sitting) for sitting in self._sittings],
            "units": _to_json(self._units), "networks": _to_json(self._networks),
        }  # fmt: skip
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(content, separators=(",", ":")))
        except (OSError, RunError) as error:
            raise DeviceError(
                f"cannot write the latency table: {error}; {CACHE_VARIABLE} names another folder"
            ) from None

    @classmethod
    def load(cls, path: Path, key: TableKey) -> LatencyTable:
        """The table at ``path``, or an empty one where there is none.

        Raises:
            DeviceError: the file is damaged, of another version, or of another machine, runtime or reference network.
        """
        try:
            content = read_json(path, MAX_FILE_BYTES)
        except FileNotFoundError:
            return cls(key)
        except OSError as error:
            raise DeviceError(
                f"cannot read the latency table {path}: {error.strerror or error}; delete it to measure again"
            ) from None
        except ValueError as error:
            raise DeviceError(
                f"latency table {path} is cut short or not JSON ({error}); delete it to measure again"
            ) from None
        table = cls(key)
        table._fill(_checked_content(content, path, key), path)
        return table

    def _fill(self, content: Mapping[str, Any], path: Path) -> None:
        try:
            self.output_difference = _checked_share(content["output_difference"])
            self._sittings = [_checked_sitting(sitting) for sitting in content["sittings"]]
            for entries, name in ((self._units, "units"), (self._networks, "networks")):
                for entry, runs in content[name].items():
                    entries[entry] = [self._checked_run(run) for run in runs]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DeviceError(f"latency table {path} is damaged ({error}); delete it to measure again") from None

    def _checked_run(self, content: Mapping[str, Any]) -> Run:
        run = Run(content["sitting"], content["slot"], _checked_times(content["ms"]))
        if type(run.sitting) is not int or type(run.slot) is not int:
            raise TypeError("a run names its sitting or slot by no whole number")
        readings = self._sittings[run.sitting].reference_ms
        if run.sitting < 0 or run.slot < 0 or len(run.ms) > len(readings):
            raise ValueError("a run has more rounds than its sitting")
        if run.ms and run.slot >= len(readings[0]):
            raise ValueError("a run names a slot that its sitting does not have")
        return run


def _sittings(entries: Mapping[str, list[Run]]) -> set[int]:
    return {run.sitting for runs in entries.values() for run in runs if run.ms}


def _to_json(entries: Mapping[str, list[Run]]) -> dict[str, list[dict[str, Any]]]:
    return {
        entry: [asdict(run) for run in runs if run.ms] for entry, runs in entries.items() if any(r.ms for r in runs)
    }


def _checked_content(content: object, path: Path, key: TableKey) -> Mapping[str, Any]:
    remedy = "delete it to measure again"
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DeviceError(f"{path} is not a latency table of this program; {remedy}")
    if content.get("version") != VERSION:
        raise DeviceError(
            f"latency table {path} has version {content.get('version')!r}; this release reads {VERSION}; {remedy}"
        )
    found, wanted = content.get("key"), asdict(key)
    if found != wanted:
        named = [n for n in wanted if not isinstance(found, dict) or found.get(n) != wanted[n]]
        here = ", ".join(f"{n} {_short(wanted[n])}" for n in named)
        raise DeviceError(f"latency table {path} was measured elsewhere or otherwise: here it is {here}; {remedy}")
    return content


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _checked_sitting(content: Mapping[str, Any]) -> Sitting:
    checked = [_checked_times(readings) for readings in content["reference_ms"]]
    if len({len(readings) for readings in checked}) > 1 or not all(checked):
        raise ValueError("the rounds of a sitting differ in their readings of the reference")
    return Sitting(datetime.fromisoformat(content["started"]).isoformat(timespec="seconds"), checked)


def _checked_share(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{value!r} is no difference of outputs")
    return float(value)


def _checked_times(times: Sequence[object]) -> list[float]:
    checked = []
    for ms in times:
        if (
            isinstance(ms, bool)
            or not isinstance(ms, (int, float))
            or not (1e3 * SHORTEST_CALL <= ms <= 1e3 * LONGEST_CALL)
        ):
            raise ValueError(f"{ms!r:.40} is not a time of a call in milliseconds")
        checked.append(float(ms))
    return checked
