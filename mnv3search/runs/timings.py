"""Whole networks timed in a run: in one interleaved session each time, and never lost.

Each session's times are appended to ``measured.jsonl``, one JSON object a line, as soon as the session ends. A resumed
run takes them from there rather than timing again, however much later: they are of the device that the run is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.errors import MeasurementError, RunError
from mnv3search.files import append_lines
from mnv3search.latency.measured.whole_networks import disturbed_sentence
from mnv3search.latency.model import WholeMeasurer
from mnv3search.records import ERROR_MS, LATENCY_MS, Record, read_log
from mnv3search.runs.evaluations import Judge


FARTHEST_TIMED = 30.0  # from what it is predicted at, as a factor, that a network is timed


@dataclass(frozen=True, slots=True)
class Timed:
    """A network timed whole: the median in milliseconds and one standard deviation of it."""

    measured_ms: float
    error_ms: float

    def upper_ms(self, z: float) -> float:
        """The median and ``z`` deviations."""
        return self.measured_ms + z * self.error_ms


class Timings:
    """Times networks whole on the run's device, where that can be done here and now.

    Raises:
        RunError: the file cannot be read, or a line other than the last is damaged.
    """

    def __init__(self, judge: Judge, log: Path) -> None:
        self._judge = judge
        self._log = log
        self._known = dict(read_log(log, _parse, "time"))

    @property
    def possible(self) -> bool:
        """Whether the device can be timed."""
        return isinstance(self._judge.device, WholeMeasurer)

    @property
    def known(self) -> Mapping[Architecture, Timed]:
        """What was timed, in this session of the run or an earlier one; the latest of each network."""
        return self._known

    def alone(self, architecture: Architecture) -> Timed:
        """One network timed now and kept nowhere: where a target is relative to it.

        Raises:
            MeasurementError: the device failed, or gave a time that is not usable.
        """
        return self._session([architecture])[0]

    def of(self, architectures: Sequence[Architecture], beside: Sequence[Architecture]) -> list[Timed]:
        """Each of ``architectures`` timed; those not known yet in one session, ``beside`` among them.

        Raises:
            MeasurementError: the device failed, or gave a time that is not usable.
            RunError: the times cannot be written.
        """
        missing = list(dict.fromkeys(a for a in architectures if a not in self._known))
        if missing:
            session = list(dict.fromkeys([*missing, *beside]))
            found = dict(zip(session, self._session(session), strict=True))
            self._append(found)
            self._known.update(found)
        return [self._known[a] for a in architectures]

    def check(self, timed: Timed, predicted_ms: float) -> None:
        """Pass where a time is one that a network of this prediction can take.

        Raises:
            RunError: it is not.
        """
        if not predicted_ms / FARTHEST_TIMED <= timed.measured_ms <= predicted_ms * FARTHEST_TIMED:
            raise RunError(
                f"a network that is predicted at {predicted_ms:g} ms was timed at {timed.measured_ms:g} ms, which no "
                f"prediction is off by; if {self._log} is damaged, remove it: its networks are then timed again"
            )

    def _session(self, architectures: Sequence[Architecture]) -> list[Timed]:
        device = self._judge.device
        if not isinstance(device, WholeMeasurer):
            raise MeasurementError(f"{self._judge.device_name} cannot be timed here")
        self._judge.progress.stage(f"timing {len(architectures)} whole networks, interleaved")
        measured = device.measure(architectures, self._judge.told)
        if sentence := disturbed_sentence(measured):
            self._judge.progress.note(sentence)
        found = [Timed(float(m.latency_ms), float(m.error_ms)) for m in measured]
        if len(found) != len(architectures) or not all(_usable(timed) for timed in found):
            raise MeasurementError(
                f"{self._judge.device_name} gave times that cannot be used; it must give one positive, finite time for "
                f"each of {len(architectures)} networks, with an error of at least 0"
            )
        return found

    def _append(self, found: Mapping[Architecture, Timed]) -> None:
        lines = [
            json.dumps(
                {"measured_ms": t.measured_ms, "error_ms": t.error_ms, "architecture": to_mapping(a)},
                separators=(",", ":"),
            )
            for a, t in found.items()
        ]
        append_lines(self._log, lines)


def _usable(timed: Timed) -> bool:
    return LATENCY_MS[0] <= timed.measured_ms <= LATENCY_MS[1] and ERROR_MS[0] <= timed.error_ms <= ERROR_MS[1]


def _parse(record: Record) -> tuple[Architecture, Timed]:
    timed = Timed(record.number("measured_ms", *LATENCY_MS), record.number("error_ms", *ERROR_MS))
    return from_mapping(record.value("architecture")), timed
