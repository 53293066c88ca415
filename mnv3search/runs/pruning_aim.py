"""What a pruning aims at: a latency by the device, tied to whole networks timed where the device can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mnv3search.architecture import Architecture
from mnv3search.errors import InfeasibleError
from mnv3search.latency.confidence import (
    LEAST_CONFIDENCE,
    limits_ms,
    probability_within,
    stated_errors_ms,
    z_of,
)
from mnv3search.latency.devices import load_device
from mnv3search.latency.measured.busy import busy_sentence
from mnv3search.latency.measured.calibration import MIN_NETWORKS
from mnv3search.latency.model import CalibratedOnNetworks, Device, WholeMeasurer
from mnv3search.latency.target import parse_target
from mnv3search.layer_search.loop import latencies_ms
from mnv3search.layer_search.trained_calibration import CALIBRATION_NETWORKS, random_narrowings
from mnv3search.runs.decisions import Decisions
from mnv3search.runs.judging import Judge
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.pruning_folder import PruningFolder
from mnv3search.runs.timings import Timed, Timings

MOST_REPAIRS = 2


@dataclass(frozen=True, slots=True)
class Latency:
    """A network's latency in milliseconds, one standard deviation of it, and whether it was timed whole."""

    ms: float
    error_ms: float | None
    measured: bool

    def to_mapping(self) -> dict[str, object]:
        """As the result's JSON has it."""
        return {"latency_ms": self.ms, "latency_error_ms": self.error_ms, "measured": self.measured}


class PruningAim:
    """The target of one pruning, and how networks are held to it.

    A relative target is relative to the seed: to its whole time where the device can be timed. The steps are priced by
    the device's sum over units, whose error is much the same for all narrowings of one network; so prices are tied to
    the seed's whole time, and the result is timed whole.
    """

    def __init__(self, folder: PruningFolder, seed: Architecture, progress: RunProgress, device: Device | None) -> None:
        self.device = device or load_device(folder.device)
        judge = Judge.by(self.device, None, progress)
        if sentence := busy_sentence(self.device):
            progress.note(sentence)
        self._seed = seed
        self._confidence = folder.settings.confidence
        self._target = parse_target(folder.settings.target)
        self._decisions = Decisions(folder.path / "decisions.json")
        self._timings = Timings(judge, folder.path / "measured.jsonl")
        progress.stage("pricing the network")
        _calibrate(self.device, seed)
        self.seed_ms = self._decisions.fix("seed_priced_ms", lambda: latencies_ms(self.device, [seed], judge.told)[0])
        self.tied = 1.0
        if self.timed:
            whole = self._decisions.fix("seed_measured_ms", lambda: self._timings.alone(seed).measured_ms)
            self.tied = whole / self.seed_ms
        self.target_ms = self._decisions.fix("target_ms", lambda: self._target.milliseconds(self.seed_ms * self.tied))

    @property
    def timed(self) -> bool:
        """Whether whole networks can be timed here and now."""
        return isinstance(self.device, WholeMeasurer)

    @property
    def z(self) -> float:
        """Deviations that a latency must stay below the target."""
        return z_of(self._confidence)

    def first_limit_ms(self) -> float:
        """What the steps' prices must come to at first."""
        if self.timed:
            return self._decisions.fix(_limit(1), lambda: self.target_ms / self.tied)
        return self._decisions.fix(
            _limit(1), lambda: float(limits_ms(self.device, [self._seed], self.target_ms, self._confidence)[0])
        )

    def infeasible(self, found: InfeasibleError) -> InfeasibleError:
        """``found``, which speaks of prices alone, in terms of the target and of the confidence that was asked for."""
        fastest_ms = found.fastest_ms * self.tied
        room = self.target_ms / (self.first_limit_ms() * self.tied)  # 1 and z relative errors
        error_ms = fastest_ms * (room - 1) / self.z if self.z else 0.0
        feasible = math.floor(100 * probability_within(fastest_ms, error_ms, self.target_ms)) / 100
        return InfeasibleError(
            self.target_ms, fastest_ms, found.slowest_ms * self.tied, exact=False, narrowing=True,
            needed_ms=fastest_ms * room,
            feasible_confidence=feasible if LEAST_CONFIDENCE <= feasible < self._confidence else None,
        )  # fmt: skip

    @property
    def repairs(self) -> int:
        """How often a lower limit was set, in this session or an earlier one."""
        return sum(_limit(number + 2) in self._decisions for number in range(MOST_REPAIRS))

    def limit_ms(self) -> float:
        """The limit that the steps go down to now: the last that was set."""
        first = self.first_limit_ms()
        return first if not self.repairs else self._decisions.fix(_limit(self.repairs + 1), lambda: first)

    def repaired_limit_ms(self, price_ms: float, found: Latency) -> float:
        """A lower limit, for a network of this price that took ``found``.

        What a millisecond of price saves of the whole is read from the seed and this network; it is halved at most.
        """
        over_ms = found.ms + self.z * (found.error_ms or 0.0) - self.target_ms
        saved = (self.seed_ms * self.tied - found.ms) / max(self.seed_ms - price_ms, 1e-9)
        wanted = price_ms - over_ms / saved if saved > 0 else price_ms / 2
        return self._decisions.fix(
            _limit(self.repairs + 2), lambda: min(max(wanted, price_ms / 2), price_ms * (1 - 1e-6))
        )

    def latencies(self, networks: Sequence[Architecture], beside: Sequence[Architecture] = ()) -> list[Latency]:
        """Each timed whole with ``beside`` in one session, or priced where the device cannot be timed."""
        if self.timed:
            return [_of(timed) for timed in self._timings.of(networks, beside)]
        errors = stated_errors_ms(self.device, networks)
        return [
            Latency(ms, float(error), measured=False)
            for ms, error in zip(latencies_ms(self.device, networks), errors, strict=True)
        ]

    def limit_of(self, found: Latency) -> float:
        """What a latency must come to, its relative error kept, to be within the target with the confidence asked for.

        Where networks are priced, not timed, that is what the steps go down to.
        """
        if not self.timed:
            return self.first_limit_ms()
        return self.target_ms / (1 + self.z * (found.error_ms or 0.0) / found.ms)

    def met(self, found: Latency) -> bool:
        """Whether a latency and its error are within the target with the confidence that was asked for."""
        return found.ms + self.z * (found.error_ms or 0.0) <= self.target_ms * (1 + 1e-9)


def _of(timed: Timed) -> Latency:
    return Latency(timed.measured_ms, timed.error_ms, measured=True)


def _calibrate(device: Device, seed: Architecture) -> None:
    """Let a device that fits its sum over layers do so on narrowings of this very network."""
    like = dict.fromkeys([seed, *random_narrowings(seed, CALIBRATION_NETWORKS - 1)])
    if isinstance(device, CalibratedOnNetworks) and len(like) >= MIN_NETWORKS:
        device.calibrate_for(list(like))


def _limit(number: int) -> str:
    return f"limit_{number}_ms"
