"""The latency target of runs and prunings: milliseconds pinned once, and whether networks meet them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.architecture import Architecture
from mnv3search.block_search.row_latency import Feasibility, RowLatency
from mnv3search.candidate import Candidate
from mnv3search.errors import InfeasibleError, RunError
from mnv3search.files import write_text
from mnv3search.latency.confidence import LEAST_CONFIDENCE, limits_ms, probability_within, stated_errors_ms, z_of
from mnv3search.latency.devices import load_device
from mnv3search.latency.measured.calibration import MIN_NETWORKS
from mnv3search.latency.measured.whole_networks import busy_sentence
from mnv3search.latency.model import CalibratedOnNetworks, Device, LatencyModel, parse_target
from mnv3search.layer_search.netadapt import latencies_ms
from mnv3search.layer_search.trained import CALIBRATION_NETWORKS, random_narrowings
from mnv3search.reading import read_json
from mnv3search.records import LATENCY_MS, UNREADABLE, Record
from mnv3search.runs.evaluations import Scorer
from mnv3search.runs.folder import PruningFolder
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.timings import Latency, Timings

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace

MAX_BYTES = 1_000_000
TARGET = "target_ms"
MAX_RATIO_TO_TARGET = 100.0  # from the target, as a factor, that any limit of a search or a narrowing is
REMEDY = "put it right, or remove the file: what it pins is then worked out anew"
ASKED_AT_ONCE = 64
MAX_ERRORS_ASKED = 8_192  # errors cost much more than latencies: so many of the best are asked for theirs, and no more
SAMPLED_ROWS, SAMPLED_NETWORKS, NEAR_TARGET = 4_096, 64, 64
INCLUSIVE_QUANTILE = 0.1
ROUNDING = 1e-9
MAX_MARGIN_RATIO = 10.0  # of a latency to its limit: a few stated errors are less than that
MAX_TIMED_RATIO = 10.0  # of measured to predicted latency of the reference of a relative target
MAX_REPAIRS = 2  # of a pruning whose result was timed above the target


class PinnedValues:
    """Named milliseconds in ``decisions.json``: each is computed when it is first asked for, and then kept.

    A device that is calibrated anew in each session prices a network a little differently; a resumed run must not
    drift with it from what it began.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read_pinned(path)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def pin(self, name: str, compute: Callable[[], float]) -> float:
        """The value of this name in milliseconds; ``compute`` is called where it is not yet known."""
        if name not in self._known:
            self._known[name] = float(compute())
            write_text(self._path, json.dumps(self._known, indent=1) + "\n")
        return self._known[name]

    def check(self, name: str, low: float, high: float) -> None:
        """Raise RunError where the value of this name is known, and not within what can have been pinned."""
        known = self._known.get(name, low)
        if not low <= known <= high:
            raise RunError(
                f"{self._path} is damaged: {name} is {known:g}; what was asked makes it {low:g}"
                + (f" to {high:g}" if high > low else "")
                + f"; {REMEDY}"
            )


def _read_pinned(path: Path) -> dict[str, float]:
    try:
        record = Record(read_json(path, MAX_BYTES, os.O_NOFOLLOW))
        found = {name: record.number(name, *LATENCY_MS) for name in record.names()}
        if (target := found.get(TARGET)) is not None:
            for name in found:
                record.number(name, target / MAX_RATIO_TO_TARGET, target * MAX_RATIO_TO_TARGET)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    except UNREADABLE as error:
        raise RunError(f"{path} is damaged: {error}; {REMEDY}") from None
    return found


@dataclass(frozen=True, slots=True)
class LatencyConstraint:
    """A target in milliseconds, and the confidence with which networks must be within it by their own errors.

    ``confidence`` is from 0.5, where the latency itself must be within the target, to below 1.
    """

    device: LatencyModel
    target_ms: float
    confidence: float

    @property
    def z(self) -> float:
        """Deviations that a latency must stay below the target."""
        return z_of(self.confidence)

    def limits_range_ms(self, slack: float = 0.0) -> tuple[float, float]:
        """The least and the most that networks' latencies can be limited to, (1 + ``slack``) times higher."""
        return self.target_ms / MAX_MARGIN_RATIO, (1 + slack) * self.target_ms * (1 + ROUNDING)

    def limit_of(self, architecture: Architecture) -> float:
        """What the network's latency must come to, in milliseconds, if its relative error stays as it is."""
        return float(limits_ms(self.device, [architecture], self.target_ms, self.confidence)[0])

    def error_of(self, architecture: Architecture) -> float:
        """One stated deviation in milliseconds; 0 where none counts."""
        return float(stated_errors_ms(self.device, [architecture])[0]) if self.z else 0.0

    def met(self, latency_ms: float, error_ms: float) -> bool:
        """Whether a latency and its error are within the target."""
        return latency_ms + self.z * error_ms <= self.target_ms * (1 + ROUNDING)

    def holds(self, network: Candidate) -> bool:
        """Whether the network is within the target by its own error."""
        return self.met(network.latency_ms, self.error_of(network.architecture))

    def best_within(self, ranked: Sequence[Candidate], count: int, slack: float = 0.0) -> list[Candidate]:
        """The first ``count`` of ``ranked`` that are within (1 + slack) times the limit of each, in their order."""
        near = [c for c in ranked if c.latency_ms <= (1 + slack) * self.target_ms]
        if self.z == 0:
            return near[:count]
        found: list[Candidate] = []
        for first in range(0, min(len(near), MAX_ERRORS_ASKED), ASKED_AT_ONCE):
            if len(found) >= count:
                break
            some = near[first : first + ASKED_AT_ONCE]
            latency = np.array([c.latency_ms for c in some])
            error = stated_errors_ms(self.device, [c.architecture for c in some])
            fits = latency + self.z * error <= (1 + slack) * self.target_ms
            found += [c for c, fit in zip(some, fits, strict=True) if fit]
        return found[:count]

    def search_limit_ms(self, space: SearchSpace, rows: RowLatency, seed: int, fastest_ms: float) -> float:
        """The target less the margin of the space's surer networks near it: what a block search is bounded by.

        The margin is the lower tenth of a seeded sample's, so that hardly a network is lost that is within the target
        by its own error; each is asked for that before it is named.
        """
        if self.z == 0 or not hasattr(self.device, "latency_error_ms"):
            return self.target_ms
        sampled = space.sample_indices(
            SAMPLED_ROWS if rows.exact else SAMPLED_NETWORKS, np.random.default_rng([seed, 1])
        )
        latency = rows.of_rows(sampled)
        near = np.argsort(np.abs(latency - self.target_ms), kind="stable")[:NEAR_TARGET]
        errors = stated_errors_ms(self.device, space.architectures(sampled[near]))
        relative = float(np.quantile(errors / latency[near], INCLUSIVE_QUANTILE))
        return max(self.target_ms / (1 + self.z * relative), fastest_ms)

    def require(self, bounds: Feasibility) -> None:
        """Raise InfeasibleError where even the space's fastest network is not within the target by its own error."""
        error = self.error_of(bounds.fastest)
        if not self.met(bounds.fastest_ms, error):
            raise self.infeasible(bounds.fastest_ms, error, bounds.slowest_ms, exact=bounds.exact)

    def infeasible(
        self, fastest_ms: float, error_ms: float, slowest_ms: float, *, exact: bool, narrowing: bool = False
    ) -> InfeasibleError:
        """The error of a target that even the fastest network, of that error, does not meet."""
        feasible = math.floor(100 * probability_within(fastest_ms, error_ms, self.target_ms)) / 100
        return InfeasibleError(
            self.target_ms, fastest_ms, slowest_ms, exact=exact, narrowing=narrowing,
            needed_ms=fastest_ms + self.z * error_ms,
            feasible_confidence=feasible if LEAST_CONFIDENCE <= feasible < self.confidence else None,
        )  # fmt: skip

    def never_binds(self, bounds: Feasibility) -> bool:
        """Whether even the space's slowest network is within the target."""
        return self.met(bounds.slowest_ms, self.error_of(bounds.slowest))


def run_constraint(
    text: str, confidence: float, pinned: PinnedValues, timings: Timings, reference: Architecture, reference_ms: float
) -> LatencyConstraint:
    """The constraint of a run whose target is written ``text``, pinned in milliseconds.

    A relative target is a factor times the latency of the reference: ``reference_ms`` by the latency model, or measured
    end to end where the device can be timed. It is fixed then; an error of that measurement is not the candidates'.
    """
    target = parse_target(text)

    def milliseconds() -> float:
        measured = target.relative and timings.possible
        return target.milliseconds(timings.alone(reference).ms if measured else reference_ms)

    expected, apart = target.milliseconds(reference_ms), MAX_TIMED_RATIO if target.relative else 1.0
    pinned.check(TARGET, expected / apart, expected * apart)
    return LatencyConstraint(timings.device, pinned.pin(TARGET, milliseconds), confidence)


class PruningTarget:
    """The target of one pruning, and whether networks meet it.

    A relative target is relative to the seed: to its whole time where the device can be timed. The steps are priced by
    the device's sum over units, whose error is much the same for all narrowings of one network; so prices are scaled
    to the seed's whole time, and the result is timed whole.

    ``seed_ms`` is the price of the network that is pruned, ``scale`` its whole time over that, or 1.
    """

    def __init__(self, folder: PruningFolder, seed: Architecture, progress: RunProgress, device: Device | None) -> None:
        self.device = device or load_device(folder.device)
        scorer = Scorer(self.device, progress=progress)
        if sentence := busy_sentence(self.device):
            progress.note(sentence)
        self._seed = seed
        self._pinned = PinnedValues(folder.pinned)
        self._timings = Timings(scorer, folder.measured)
        progress.stage("pricing the network")
        _calibrate(self.device, seed)
        self.seed_ms = self._pinned.pin(
            "seed_priced_ms", lambda: latencies_ms(self.device, [seed], scorer.on_progress)[0]
        )
        self.scale = 1.0
        if self.timed:
            whole = self._pinned.pin("seed_measured_ms", lambda: self._timings.alone(seed).ms)
            self.scale = whole / self.seed_ms
        target = parse_target(folder.settings.target)
        target_ms = self._pinned.pin(TARGET, lambda: target.milliseconds(self.seed_ms * self.scale))
        self.constraint = LatencyConstraint(self.device, target_ms, folder.settings.confidence)

    @property
    def target_ms(self) -> float:
        """Milliseconds."""
        return self.constraint.target_ms

    @property
    def timed(self) -> bool:
        """Whether whole networks can be timed here and now."""
        return self._timings.possible

    def first_limit_ms(self) -> float:
        """What the steps' prices must come to at first."""
        return self._pinned.pin(
            _limit(1), lambda: self.target_ms / self.scale if self.timed else self.constraint.limit_of(self._seed)
        )

    def infeasible(self, found: InfeasibleError) -> InfeasibleError:
        """``found``, which speaks of prices alone, in terms of the target and of the confidence that was asked for."""
        fastest_ms, z = found.fastest_ms * self.scale, self.constraint.z
        room = self.target_ms / (self.first_limit_ms() * self.scale)  # 1 and z relative errors
        error_ms = fastest_ms * (room - 1) / z if z else 0.0
        return self.constraint.infeasible(
            fastest_ms, error_ms, found.slowest_ms * self.scale, exact=False, narrowing=True
        )

    @property
    def repairs(self) -> int:
        """How often a lower limit was set, in this session or an earlier one."""
        return sum(_limit(number + 2) in self._pinned for number in range(MAX_REPAIRS))

    def limit_ms(self) -> float:
        """The limit that the steps go down to now: the last that was set."""
        first = self.first_limit_ms()
        return first if not self.repairs else self._pinned.pin(_limit(self.repairs + 1), lambda: first)

    def repaired_limit_ms(self, price_ms: float, found: Latency) -> float:
        """A lower limit, for a network of this price that took ``found``.

        What a millisecond of price saves of the whole is read from the seed and this network; it is halved at most.
        """
        over_ms = found.upper_ms(self.constraint.z) - self.target_ms
        saved = (self.seed_ms * self.scale - found.ms) / max(self.seed_ms - price_ms, 1e-9)
        wanted = price_ms - over_ms / saved if saved > 0 else price_ms / 2
        return self._pinned.pin(_limit(self.repairs + 2), lambda: min(max(wanted, price_ms / 2), price_ms * (1 - 1e-6)))

    def latencies(self, networks: Sequence[Architecture], baselines: Sequence[Architecture] = ()) -> list[Latency]:
        """Each timed whole with ``baselines`` in one session, or priced where the device cannot be timed."""
        if self.timed:
            return self._timings.of(networks, baselines)
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
        return self.target_ms / (1 + self.constraint.z * found.error_ms / found.ms)

    def met(self, found: Latency) -> bool:
        """Whether a latency and its error are within the target with the confidence that was asked for."""
        return self.constraint.met(found.ms, found.error_ms)


def _calibrate(device: Device, seed: Architecture) -> None:
    """Let a device that fits its sum over layers do so on narrowings of this very network."""
    like = dict.fromkeys([seed, *random_narrowings(seed, CALIBRATION_NETWORKS - 1)])
    if isinstance(device, CalibratedOnNetworks) and len(like) >= MIN_NETWORKS:
        device.calibrate_for(list(like))


def _limit(number: int) -> str:
    return f"limit_{number}_ms"
