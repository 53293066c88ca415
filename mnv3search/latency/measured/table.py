"""The latency table in memory: every repeat of one machine, runtime, version and threads, and its statistics."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mnv3search.errors import DeviceError
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

VERSION = 3  # from 3 on whole networks are timed right after the reference
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
        return f"{readable}-{self.threads}t-v{VERSION}-{digest}.sqlite"


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
class Run:
    """The repeats of one entry in one session, with the slot in which it took its turn; milliseconds, in order."""

    slot: int
    ms: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class TimingSession:
    """One round-robin: when it began, the reference's readings, and the runs of its entries.

    Attributes:
        started: UTC, ISO 8601, to the microsecond: with the first readings it identifies the session.
        reference_ms: a list a round, one reading a slot.
        saved: how many of its rounds are in the table's file.
    """

    started: str
    reference_ms: list[list[float]] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    saved: int = 0
    _drift: tuple[int, Drift] | None = None

    def drift(self) -> Drift:
        """The clock drift over its rounds."""
        if self._drift is None or self._drift[0] != len(self.reference_ms):
            runs = [run for run in self.runs.values() if run.ms]
            ms = np.full((len(self.reference_ms), len(runs)), np.nan)  # an interrupted round lacks some
            for column, run in enumerate(runs):
                ms[: len(run.ms), column] = run.ms
            slots = np.array([run.slot for run in runs], dtype=np.int64)
            self._drift = len(self.reference_ms), drift_of(ms, slots, np.array(self.reference_ms))
        return self._drift[1]

    def least_reference_ms(self) -> float:
        """The smallest reading of the reference."""
        return min(map(min, self.reference_ms))

    def corrected_ms(self, run: Run) -> FloatArray:
        """A run's times at the session's median speed; milliseconds, shape (rounds,)."""
        return np.array(run.ms) / self.drift().factors[: len(run.ms), run.slot]


class LatencyTable:
    """Repeats by entry (a unit's or a network's canonical text), in sessions that share a reference network.

    Every time is given at one speed: that of the reference in the first session of units, or of networks. So later
    sessions add entries without moving those that are there.

    Attributes:
        output_difference: of the runtime's outputs from torch's when it was first used, relative; None: not checked.
        sessions: in the order in which they were begun.
    """

    def __init__(self, key: TableKey) -> None:
        self.key = key
        self.output_difference: float | None = None
        self.sessions: list[TimingSession] = []
        self._units: dict[str, list[TimingSession]] = {}
        self._networks: dict[str, list[TimingSession]] = {}

    @property
    def networks(self) -> tuple[str, ...]:
        """Keys of the whole networks."""
        return tuple(self._networks)

    @property
    def units(self) -> tuple[str, ...]:
        """Keys of the units."""
        return tuple(self._units)

    def __len__(self) -> int:
        """How many entries there are, units and networks."""
        return len(self._units) + len(self._networks)

    def rounds_of(self, entry: str) -> int:
        """How many repeats an entry has; 0 where it is unknown."""
        return sum(len(session.runs[entry].ms) for session in self._sessions_of(entry))

    def _sessions_of(self, entry: str) -> list[TimingSession]:
        return self._units.get(entry) or self._networks.get(entry) or []

    def start_session(
        self, slots: Mapping[str, int], networks: Iterable[str] = (), started: str | None = None
    ) -> TimingSession:
        """Begin a round-robin over entries at these slots, some of them whole ``networks``; ISO time, now if None."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        session = TimingSession(started or now, runs={entry: Run(slot) for entry, slot in slots.items()})
        self.sessions.append(session)
        whole = set(networks)
        for entry in slots:
            (self._networks if entry in whole else self._units).setdefault(entry, []).append(session)
        return session

    @staticmethod
    def add_round(session: TimingSession, times: Round) -> None:
        """Add one round of a session."""
        # the reference first: where this is interrupted, no entry has a repeat without its reading
        session.reference_ms.append([round(ms, DIGITS) for ms in times.reference_ms.tolist()])
        for run, ms in zip(session.runs.values(), times.ms.tolist(), strict=True):
            run.ms.append(round(ms, DIGITS))

    @property
    def measured_at(self) -> str | None:
        """When the last session began (UTC, ISO 8601); None where nothing is measured."""
        return max((session.started for session in self.sessions if session.reference_ms), default=None)

    @property
    def halves_disagreement(self) -> float:
        """By how much odd and even rounds disagree, as a share, in the last sessions of units and networks; or 0."""
        shares = []
        for session in {id(s): s for s in map(self._last, (self._units, self._networks)) if s is not None}.values():
            times = [session.corrected_ms(run) for run in session.runs.values() if run.ms]
            rounds = min(map(len, times))  # the last one may have been interrupted
            shares.append(halves_disagreement(np.stack([one[:rounds] for one in times], axis=1)))
        return max(shares, default=0.0)

    @property
    def unit_reference_ms(self) -> float:
        """What the reference takes at the speed at which units are given, that of their first session."""
        return self._first(self._units).drift().reference_ms

    @property
    def network_reference_ms(self) -> float:
        """The same of whole networks: there it takes its turns among networks, whose weights push its own out."""
        return self._first(self._networks).drift().reference_ms

    @property
    def latest_network_drift(self) -> Drift:
        """The clock drift in the last session of networks, and what the reference took there."""
        return _measured(self._last(self._networks)).drift()

    @property
    def clock_drift(self) -> float:
        """How far the speed is at another moment, by the last session of units: one standard deviation, as a share."""
        return moment_deviation(_measured(self._last(self._units)).drift().factors.reshape(-1))

    def _first(self, entries: Mapping[str, Sequence[TimingSession]]) -> TimingSession:
        return _measured(next((s for s in self.sessions if _has_times(s, entries)), None))

    def _last(self, entries: Mapping[str, Sequence[TimingSession]]) -> TimingSession | None:
        return next((s for s in reversed(self.sessions) if _has_times(s, entries)), None)

    def timing(self, entry: str) -> Timing:
        """An entry's times at the table's speed; the minimum is scaled by the reference's minima, all else by drift."""
        sessions = [session for session in self._sessions_of(entry) if session.runs[entry].ms]
        if not sessions:
            raise DeviceError(f"the latency table has no time of {entry}; measure it first")
        first = self._first(self._networks if entry in self._networks else self._units)
        times, minima = [], []
        for session in sessions:
            run = session.runs[entry]
            times.append(session.corrected_ms(run) * first.drift().reference_ms / session.drift().reference_ms)
            minima.append(min(run.ms) * first.least_reference_ms() / session.least_reference_ms())
        return summarise(np.concatenate(times), min(minima))


def _has_times(session: TimingSession, entries: Mapping[str, Sequence[TimingSession]]) -> bool:
    return any(run.ms and entry in entries for entry, run in session.runs.items())


def _measured(session: TimingSession | None) -> TimingSession:
    if session is None:
        raise DeviceError("the latency table is empty; measure its units first")
    return session
