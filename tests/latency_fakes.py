"""What tests of latency tables stand on: small networks, and a machine whose times follow a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.blocks import Activation, BlockSpec, SqueezeExciteSpec
from mnv3search.families import published
from mnv3search.latency.measured.calibration import entering_elements
from mnv3search.latency.measured.measuring import MeasuringPlan
from mnv3search.latency.measured.table_device import Statistic, TableDevice
from mnv3search.latency.runtimes.base import Image, Precision, Runtime, Session, Subject, time_in_turn
from mnv3search.layers import Unit, units

QUICK = MeasuringPlan(rounds=40, min_seconds=0, warmup=1)
REFERENCE = published("mobilenet_v3_small", resolution=32)


def variants(count: int, seed: int = 0, resolution: int = 32) -> list[Architecture]:
    """V3-Small with other kernels, widths, activations and squeeze-excites."""
    rng = np.random.default_rng(seed)

    def change(block: BlockSpec) -> BlockSpec:
        expanded = block.expanded_channels + 8 * int(rng.integers(0, 12))
        se = SqueezeExciteSpec(8 * int(rng.integers(1, 4))) if rng.random() < 0.5 else None
        activation: Activation = "relu" if rng.random() < 0.5 else "hard_swish"
        kernel = int(rng.choice((3, 5, 7)))
        return replace(block, kernel_size=kernel, expanded_channels=expanded, activation=activation, squeeze_excite=se)

    base = published("mobilenet_v3_small", resolution=resolution)
    return [base.map_blocks(change) for _ in range(count)]


def tiny(count: int, seed: int = 0) -> list[Architecture]:
    """The first five blocks of the variants."""
    return [replace(a, blocks=a.blocks[:5], head=replace(a.head, hidden_channels=None)) for a in variants(count, seed)]


def parts_of(architectures: Sequence[Architecture]) -> list[Unit]:
    """The distinct units of some networks."""
    return list(dict.fromkeys(unit for a in architectures for unit in units(a)))


def true_ms(unit: Unit) -> float:
    """A made-up machine: milliseconds of a unit inside a network."""
    spec = unit.spec
    widths = spec.expanded_channels + spec.out_channels if isinstance(spec, BlockSpec) else 100
    return 1e-4 * unit.in_size * (unit.in_channels + widths) + 0.001


def whole_ms(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
    """The same of networks, shape (n,)."""
    return np.array([sum(true_ms(unit) for unit in units(a)) for a in architectures])


def alone_ms(unit: Unit) -> float:
    """The same of a unit alone: a quarter longer, and 2 ns for each element that enters it."""
    return 1.25 * true_ms(unit) + 2e-6 * float(entering_elements([unit])[0])


class KnownRuntime:
    """Times that follow a rule, times ``drift`` of the call's number; interrupted at call ``stop_after``."""

    name = "known"
    version = "1"
    threads = 1
    precision: Precision = "fp32"
    load_average: float | None = 0.0

    def __init__(self, drift: Callable[[int], float] = lambda _: 1.0, stop_after: int | None = None) -> None:
        self.prepared: list[Subject] = []
        self.calls = 0
        self.drift, self.stop_after = drift, stop_after

    def prepare(self, subject: Subject) -> Session:
        self.prepared.append(subject)
        ms = float(whole_ms([subject])[0]) if isinstance(subject, Architecture) else alone_ms(subject)
        return KnownSession(self, ms)

    def time_in_turn(self, sessions: Sequence[Session]) -> list[float]:
        """As on another machine, so that nothing depends on what the tests' own machine does meanwhile."""
        return time_in_turn(sessions)

    @property
    def networks(self) -> list[Architecture]:
        """The networks that were prepared, in order."""
        return [subject for subject in self.prepared if isinstance(subject, Architecture)]


class KnownSession:
    """A subject that takes ``ms``."""

    def __init__(self, runtime: KnownRuntime, ms: float) -> None:
        self.runtime, self.ms = runtime, ms

    def time_once(self) -> float:
        self.runtime.calls += 1
        if self.runtime.calls == self.runtime.stop_after:
            raise KeyboardInterrupt
        return self.ms * 1e-3 * self.runtime.drift(self.runtime.calls)

    def output(self) -> Image:
        return np.ones((1, 1), dtype=np.float32)


def known_device(
    runtime: Runtime, cache_dir: Path, plan: MeasuringPlan = QUICK, statistic: Statistic = "median"
) -> TableDevice:
    """A device of a made-up machine: what it computes is not checked."""
    return TableDevice(
        runtime, cache_dir=cache_dir, plan=plan, reference=REFERENCE, statistic=statistic, check=lambda _: 0.0
    )
