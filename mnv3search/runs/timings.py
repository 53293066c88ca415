"""Whole networks timed in a run or a pruning: in one interleaved session each time, and never lost.

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
from mnv3search.latency.model import Device, WholeMeasurer
from mnv3search.records import ERROR_MS, LATENCY_MS, Record, read_log
from mnv3search.runs.evaluations import Scorer

MAX_TIMED_RATIO = 30.0  # of a measured to a predicted latency


@dataclass(frozen=True, slots=True)
class Latency:
    """A network's latency and one standard deviation of it, in milliseconds: timed whole, or predicted."""

    ms: float
    error_ms: float
    measured: bool = True

    def upper_ms(self, z: float) -> float:
        """The latency and ``z`` deviations."""
        return self.ms + z * self.error_ms

    def to_mapping(self) -> dict[str, object]:
        """As a pruning's JSON has it."""
        return {"latency_ms": self.ms, "latency_error_ms": self.error_ms, "measured": self.measured}


class Timings:
    """Times networks whole on the run's device, where that can be done here and now."""

    def __init__(self, scorer: Scorer, log: Path) -> None:
        self._scorer = scorer
        self._log = log
        self._known = dict(read_log(log, _parse, "time"))

    @property
    def device(self) -> Device:
        """What times networks, or prices them."""
        return self._scorer.device

    @property
    def possible(self) -> bool:
        """Whether the device can be timed."""
        return isinstance(self.device, WholeMeasurer)

    @property
    def known(self) -> Mapping[Architecture, Latency]:
        """What was timed, in this session of the run or an earlier one; the latest of each network."""
        return self._known

    def alone(self, architecture: Architecture) -> Latency:
        """One network timed now and kept nowhere: where a target is relative to it."""
        return self._session([architecture])[0]

    def of(self, architectures: Sequence[Architecture], baselines: Sequence[Architecture]) -> list[Latency]:
        """Each of ``architectures`` timed; those not known yet in one session, ``baselines`` among them."""
        missing = list(dict.fromkeys(a for a in architectures if a not in self._known))
        if missing:
            session = list(dict.fromkeys([*missing, *baselines]))
            found = dict(zip(session, self._session(session), strict=True))
            append_lines(self._log, [_line(architecture, time) for architecture, time in found.items()])
            self._known.update(found)
        return [self._known[a] for a in architectures]

    def check(self, timed: Latency, predicted_ms: float) -> None:
        """Raise RunError where no network of this prediction can take this time."""
        if not predicted_ms / MAX_TIMED_RATIO <= timed.ms <= predicted_ms * MAX_TIMED_RATIO:
            raise RunError(
                f"a network that is predicted at {predicted_ms:g} ms was timed at {timed.ms:g} ms, which no "
                f"prediction is off by; if {self._log} is damaged, remove it: its networks are then timed again"
            )

    def _session(self, architectures: Sequence[Architecture]) -> list[Latency]:
        device, progress = self.device, self._scorer.progress
        if not isinstance(device, WholeMeasurer):
            raise MeasurementError(f"{device.name} cannot be timed here")
        progress.stage(f"timing {len(architectures)} whole networks, interleaved")
        measured = device.measure(architectures, self._scorer.on_progress)
        if sentence := disturbed_sentence(measured):
            progress.note(sentence)
        found = [Latency(float(m.latency_ms), float(m.error_ms)) for m in measured]
        if len(found) != len(architectures) or not all(_usable(timed) for timed in found):
            raise MeasurementError(
                f"{self._scorer.device.name} gave times that cannot be used; it must give one positive, finite time "
                f"for each of {len(architectures)} networks, with an error of at least 0"
            )
        return found


def _usable(timed: Latency) -> bool:
    return LATENCY_MS[0] <= timed.ms <= LATENCY_MS[1] and ERROR_MS[0] <= timed.error_ms <= ERROR_MS[1]


def _line(architecture: Architecture, timed: Latency) -> str:
    content = {"measured_ms": timed.ms, "error_ms": timed.error_ms, "architecture": to_mapping(architecture)}
    return json.dumps(content, separators=(",", ":"))


def _parse(record: Record) -> tuple[Architecture, Latency]:
    timed = Latency(record.number("measured_ms", *LATENCY_MS), record.number("error_ms", *ERROR_MS))
    return from_mapping(record.value("architecture")), timed
