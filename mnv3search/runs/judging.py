"""One judge for a whole run: every network, searched or published, by the same evaluator and latency model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mnv3search.accuracy.evaluator import Evaluator, checked_evaluations
from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.layers import units
from mnv3search.families.figures import published_figures
from mnv3search.latency.devices import load_device
from mnv3search.latency.model import (
    Device,
    LatencyKind,
    LatencyModel,
    Preparable,
    checked_latencies,
)
from mnv3search.report.summary import Judged
from mnv3search.runs.progress import RunProgress, SilentProgress

PAPER_VERSION = "v5"


@dataclass(slots=True)
class Judge:
    """Gives networks their figures; ``evaluator`` may be None where only latency is asked."""

    device: LatencyModel
    device_name: str
    kind: LatencyKind
    evaluator: Evaluator | None = None
    progress: RunProgress = field(default_factory=SilentProgress)

    @staticmethod
    def of(device_name: str, evaluator: Evaluator | None, progress: RunProgress) -> Judge:
        """A judge by a device's name or path."""
        return Judge.by(load_device(device_name), evaluator, progress)

    @staticmethod
    def by(device: Device, evaluator: Evaluator | None, progress: RunProgress) -> Judge:
        """A judge by a device."""
        return Judge(device, device.name, device.kind, evaluator, progress)

    def told(self, done: int, total: int, what: str) -> None:
        """What a device reports while it measures."""
        self.progress.advance(done, what, total)

    def latencies(self, architectures: Sequence[Architecture]) -> list[tuple[float, float | None]]:
        """(milliseconds, one standard deviation or None where the model states none) of each network."""
        if isinstance(self.device, Preparable):
            parts = dict.fromkeys(part for a in architectures for part in units(a))
            self.device.prepare(list(parts), self.told)
        values = checked_latencies(self.device, architectures)
        error_of = getattr(self.device, "latency_error_ms", None)
        errors = [None] * len(values) if error_of is None else [float(e) for e in error_of(architectures)]
        return [(float(ms), error) for ms, error in zip(values, errors, strict=True)]

    def errors_ms(self, architectures: Sequence[Architecture]) -> dict[Architecture, float]:
        """One standard deviation of each network's latency, where the model states any."""
        found = zip(architectures, self.latencies(architectures), strict=True) if architectures else ()
        return {architecture: error for architecture, (_, error) in found if error is not None}

    def judge(self, name: str, architecture: Architecture, origin: str, published_top1: float | None = None) -> Judged:
        """Every figure of one network."""
        latency_ms, error_ms = self.latencies([architecture])[0]
        answer = checked_evaluations(self.evaluator, [architecture])[0] if self.evaluator else None
        counts = count(architecture)
        return Judged(
            name, architecture, answer.top1 if answer else None, answer.top1_std if answer else None, latency_ms,
            error_ms, counts.madds, counts.parameters, origin, published_top1,
        )  # fmt: skip


def published_top1(network: str) -> float | None:
    """The top-1 that the V3 paper (ICCV version) prints for a network, or else the first source that prints one."""
    rows = [row for row in published_figures() if row.network == network and row.top1 and "int8" not in row.version]
    rows.sort(key=lambda row: row.version != PAPER_VERSION)
    return rows[0].top1 if rows else None
