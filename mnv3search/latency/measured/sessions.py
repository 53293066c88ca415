"""A timing session: units or whole networks, a bounded number at a time, timed round by round into a table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mnv3search.architecture import Architecture
from mnv3search.errors import MeasurementError
from mnv3search.graph.model_file import OnnxModel
from mnv3search.latency.measured.measuring import MeasuringPlan, Round, Turns, WatchedTurns, rounds, slot_of
from mnv3search.latency.measured.table_file import TableFile
from mnv3search.latency.model import Progress
from mnv3search.latency.runtimes.base import LoadsGraphs, Runtime, Session, Subject
from mnv3search.layers import Unit

FIRST = 5  # parts of a measurement from which the duration of all of it is estimated
MAX_SESSIONS = 400  # in memory at once; a session holds a few megabytes


class Steps:
    """Counts steps of a known total, and reports them with an estimate of how long all of it takes."""

    def __init__(self, total: int, progress: Progress | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._progress, self._clock, self._done = total, progress, clock, 0

    def phase(self, what: str, times: int) -> None:
        """Begin ``what``, which is done in so many like parts."""
        self._what, self._times, self._part, self._began = what, times, 0, self._clock()

    def add(self, steps: int) -> None:
        """One more part is done, which counts as so many steps."""
        self._done, self._part = min(self._done + steps, self._total), self._part + 1
        if self._progress is not None:
            self._progress(self._done, self._total, self._what + self._estimate())

    def _estimate(self) -> str:
        if self._part < min(FIRST, self._times):
            return ""
        seconds = (self._clock() - self._began) / self._part * max(self._times, self._part)
        return f", about {seconds:.0f} s" if seconds < 120 else f", about {seconds / 60:.0f} min"


def measure_into(
    file: TableFile,
    subjects: Mapping[str, Subject],
    reference: Session,
    runtime: Runtime,
    plan: MeasuringPlan,
    whole_plan: MeasuringPlan,
    progress: Progress | None = None,
) -> float:
    """Measure ``subjects`` by their keys into a table's file, round by round: units first, then whole networks.

    Returns:
        The share of the time in which the calls waited for a core.
    """
    networks = {key: subject for key, subject in subjects.items() if isinstance(subject, Architecture)}
    parts = {key: subject for key, subject in subjects.items() if key not in networks}
    steps = Steps(len(subjects) * (1 + plan.rounds), progress)
    turns = WatchedTurns(runtime)
    for batch in _batches(parts):
        _measure_batch(file, batch, [], reference, runtime, plan, steps, turns)
    for batch in _batches(networks):
        _measure_batch(file, batch, list(batch), reference, runtime, whole_plan, steps, turns)
    return turns.waited


def _measure_batch(
    file: TableFile,
    batch: Mapping[str, Subject],
    networks: Sequence[str],
    reference: Session,
    runtime: Runtime,
    plan: MeasuringPlan,
    steps: Steps,
    turns: Turns,
) -> None:
    sessions = _prepared(list(batch.values()), runtime, steps)
    slots = dict(zip(batch, slot_of(len(batch), plan.slot_size).tolist(), strict=True))
    session = file.table.start_session(slots, networks)
    lacking = max(plan.rounds - file.table.rounds_of(key) for key in batch)  # fewer where an interrupted one goes on
    steps.phase(f"timing {_named(list(batch.values()))} on {runtime.name}, {lacking} calls of each", lacking)
    for found in rounds(sessions, reference, replace(plan, rounds=max(1, lacking)), turns=turns):
        file.table.add_round(session, found)
        file.save()
        steps.add(len(batch))


def _prepared(subjects: Sequence[Subject | OnnxModel], runtime: Runtime, steps: Steps) -> list[Session]:
    sessions = []
    steps.phase(f"preparing {_named(subjects)} for {runtime.name}", len(subjects))
    for subject in subjects:
        if not isinstance(subject, OnnxModel):
            sessions.append(runtime.prepare(subject))
        elif isinstance(runtime, LoadsGraphs):
            sessions.append(runtime.load(subject.content, subject.image(), str(subject)))
        else:
            raise MeasurementError(
                f"{runtime.name} cannot take {subject} as it is; time ONNX files in onnxruntime or openvino, here or "
                "on a board"
            )
        steps.add(1)
    return sessions


def _named(subjects: Sequence[Subject | OnnxModel]) -> str:
    """``3 whole networks`` or ``120 layers``."""
    whole = any(not isinstance(subject, Unit) for subject in subjects)
    return f"{len(subjects):,} {'whole network' if whole else 'layer'}{'' if len(subjects) == 1 else 's'}"


def _batches(subjects: Mapping[str, Subject]) -> list[dict[str, Subject]]:
    """The subjects in batches of nearly equal size, none above :data:`MAX_SESSIONS`."""
    items = list(subjects.items())
    size = math.ceil(len(items) / max(1, math.ceil(len(items) / MAX_SESSIONS))) if items else 1
    return [dict(items[first : first + size]) for first in range(0, len(items), size)]


def whole_rounds(
    networks: Sequence[Architecture | OnnxModel],
    reference: Session,
    runtime: Runtime,
    plan: MeasuringPlan,
    steps: Steps,
) -> tuple[list[Round], float]:
    """Rounds of whole networks against the reference, kept in no table, and the share of time that calls waited."""
    sessions = _prepared(networks, runtime, steps)
    found, turns = [], WatchedTurns(runtime)
    steps.phase(f"timing {_named(networks)} on {runtime.name}, {plan.rounds} calls of each or more", plan.rounds)
    for one in rounds(sessions, reference, plan, turns=turns):
        found.append(one)
        steps.add(len(networks))
    return found, turns.waited
