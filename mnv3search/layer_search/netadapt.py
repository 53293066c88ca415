"""NetAdapt: narrow a network layer by layer until it meets a latency target.

Sources: NetAdapt (Yang et al. 2018, arXiv:1804.03230) and its use in MobileNetV3 (Howard et al. 2019, section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mnv3search.accuracy.evaluator import Evaluator, check_evaluator, checked_evaluations
from mnv3search.architecture import Architecture, check_architecture
from mnv3search.candidate import Candidate
from mnv3search.cost import count
from mnv3search.errors import InfeasibleError, Mnv3SearchError
from mnv3search.latency.model import (
    LatencyModel,
    Preparable,
    Progress,
    UnitLatencyModel,
    check_latency_model,
    checked_latencies,
    checked_target,
)
from mnv3search.layer_search.proposals import STEM, Site, narrow, narrowest, sites
from mnv3search.layer_search.result import NetAdaptResult, Step, Steps
from mnv3search.layers import units
from mnv3search.records import real, whole

SelectionRule = Literal["ratio", "accuracy"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A narrowed network with its figures.

    Attributes:
        change: what was narrowed, in words.
        top1, top1_std: percent; the deviation is None where the evaluator states none.
        latency_ms: of the whole network.
    """

    architecture: Architecture
    kind: str
    change: str
    top1: float
    top1_std: float | None
    latency_ms: float


def by_ratio(proposals: Sequence[Proposal], top1: float, latency_ms: float) -> Proposal:
    """The largest ΔAcc / |ΔLat| (MobileNetV3, section 4.2); of equals the first."""
    return max(proposals, key=lambda p: (p.top1 - top1) / (latency_ms - p.latency_ms))


def by_accuracy(proposals: Sequence[Proposal], top1: float, latency_ms: float) -> Proposal:
    """The most accurate (NetAdapt, Yang et al. 2018); of equals the first."""
    return max(proposals, key=lambda p: p.top1)


SELECTION_RULES: Mapping[SelectionRule, Callable[[Sequence[Proposal], float, float], Proposal]] = MappingProxyType(
    {"ratio": by_ratio, "accuracy": by_accuracy}
)


MAX_STEPS = 2_000
WIDER = 3  # widths above the narrowest that are tried where that is too slow: stairs are of 16 or 32 channels


@dataclass(frozen=True, slots=True)
class NetAdaptOptions:
    """How NetAdapt steps.

    Attributes:
        step_fraction: δ, the least cut of a step as a share of the seed's latency (paper: 0.01).
        decay: δ's factor from one step to the next (MobileNetV3: 1; NetAdapt's code: 0.96 with δ 0.025).
        selection: ``ratio`` (largest ΔAcc/|ΔLat|) or ``accuracy`` (most accurate proposal).
        divisor: widths are multiples of it.

    Raises:
        Mnv3SearchError: a value out of its range.
    """

    step_fraction: float = 0.01
    decay: float = 1.0
    selection: SelectionRule = "ratio"
    divisor: int = 8

    def __post_init__(self) -> None:
        step_fraction, decay, divisor = real(self.step_fraction), real(self.decay), whole(self.divisor)
        if step_fraction is None or not 0 < step_fraction < 1:
            raise Mnv3SearchError(
                f"step fraction {self.step_fraction!r} must be above 0 and below 1; the paper uses 0.01"
            )
        if decay is None or not 0 < decay <= 1:
            raise Mnv3SearchError(f"decay {self.decay!r} must be above 0 and at most 1")
        if self.selection not in tuple(SELECTION_RULES):
            raise Mnv3SearchError(f"selection {self.selection!r} must be one of {', '.join(SELECTION_RULES)}")
        if divisor is None or not 1 <= divisor <= 1024:
            raise Mnv3SearchError(f"divisor {self.divisor!r} must be an integer from 1 to 1024")
        for name, value in (("step_fraction", step_fraction), ("decay", decay), ("divisor", divisor)):
            object.__setattr__(self, name, value)  # of numpy's numbers, Python's

    @property
    def reach(self) -> float:
        """What endless steps sum to, as a share of the seed's latency."""
        return math.inf if self.decay == 1 else self.step_fraction / (1 - self.decay)

    def required_ms(self, seed_latency_ms: float, done: int) -> float:
        """The cut that step ``done`` + 1 must make, in milliseconds."""
        return self.step_fraction * seed_latency_ms * self.decay**done

    def most_steps(self, seed_latency_ms: float, done: int, missing_ms: float) -> int:
        """How many steps after ``done`` take away ``missing_ms`` where each cuts no more than it must."""
        steps = 0
        while missing_ms > 1e-9 * seed_latency_ms and steps < MAX_STEPS:
            missing_ms -= self.required_ms(seed_latency_ms, done + steps)
            steps += 1
        return steps


def netadapt(
    architecture: Architecture,
    latency: LatencyModel,
    evaluator: Evaluator,
    target_latency_ms: float,
    *,
    options: NetAdaptOptions | None = None,
    resume: Sequence[Step] = (),
    on_step: Callable[[Step], None] | None = None,
    on_pricing: Progress | None = None,
) -> NetAdaptResult:
    """Narrow ``architecture`` to ``target_latency_ms``.

    Every step evaluates, for each place that can be narrowed, the widest network that is at least δ faster, and keeps
    one of them; the last step asks for no more than is missing.

    Args:
        architecture: the seed.
        latency: any latency model; its answers are milliseconds.
        evaluator: any accuracy evaluator.
        target_latency_ms: above 0.
        options: δ, decay, selection rule, divisor.
        resume: the steps of an earlier, interrupted call with the same arguments; it goes on after the last of them.
        on_step: called after each step.
        on_pricing: told how far a latency model is that must measure units first.

    Raises:
        ArchitectureError: ``architecture`` is none, or a list.
        TargetError: the target is not a positive, finite number.
        InfeasibleError: even the fastest narrowing that was found is above the target.
        DeviceError: no latency model, a latency that is not positive and finite, or not one for each network.
        Mnv3SearchError: δ decays so fast that its steps cannot sum to the cut that is needed.
    """
    target_latency_ms = checked_target(target_latency_ms)
    check_architecture(architecture)
    check_latency_model(latency)
    check_evaluator(evaluator)
    options = options or NetAdaptOptions()
    seed = _evaluated(architecture, latency, evaluator, on_pricing)
    check_reachable(seed.architecture, seed.latency_ms, latency, target_latency_ms, options, on_pricing)
    loop = _Loop(seed, latency, evaluator, target_latency_ms, options, list(resume), on_pricing)
    while loop.latency_ms > target_latency_ms and len(loop.steps) < MAX_STEPS:
        step = loop.next_step()
        if step is None:
            break
        loop.steps.append(step)
        if on_step is not None:
            on_step(step)
    return loop.result()


@dataclass(slots=True)
class _Loop:
    """The state between steps: all of it follows from the seed and the steps."""

    seed: Candidate
    latency: LatencyModel
    evaluator: Evaluator
    target_latency_ms: float
    options: NetAdaptOptions
    steps: list[Step]
    on_pricing: Progress | None
    evaluated: int = 1

    @property
    def _last(self) -> Step | Candidate:
        return self.steps[-1] if self.steps else self.seed

    @property
    def latency_ms(self) -> float:
        return self._last.latency_ms

    def next_step(self) -> Step | None:
        last, done = self._last, len(self.steps)
        required = self.options.required_ms(self.seed.latency_ms, done)
        # the floor keeps rounding from asking for a cut of nothing
        required = max(min(required, last.latency_ms - self.target_latency_ms), 1e-9 * self.seed.latency_ms)
        proposals = self._proposals(last, required)
        if not proposals:
            return None
        kept = SELECTION_RULES[self.options.selection](proposals, last.top1, last.latency_ms)
        return Step(
            done + 1, kept.kind, kept.change, kept.architecture, kept.top1, kept.top1_std, kept.latency_ms,
            kept.top1 - last.top1, kept.latency_ms - last.latency_ms, len(proposals), required,
        )  # fmt: skip

    def _proposals(self, last: Step | Candidate, required: float) -> list[Proposal]:
        found = widest_within(
            last.architecture, self.latency, last.latency_ms - required, self.options.divisor, self.on_pricing
        )
        evaluations = checked_evaluations(self.evaluator, [narrowed for _, _, narrowed, _ in found])
        self.evaluated += len(found)
        return [
            Proposal(narrowed, site.kind, site.describe(width), answer.top1, answer.top1_std, latency_ms)
            for (site, width, narrowed, latency_ms), answer in zip(found, evaluations, strict=True)
        ]

    def result(self) -> NetAdaptResult:
        final = self.seed
        if self.steps:
            last = self.steps[-1]
            counts = count(last.architecture)
            final = Candidate(
                last.architecture, last.top1, last.top1_std, last.latency_ms, counts.madds, counts.parameters,
                "netadapt", last.number,
            )  # fmt: skip
        return NetAdaptResult(
            self.seed, Steps(self.steps), final, final.latency_ms <= self.target_latency_ms, self.evaluated
        )


def widest_within(
    architecture: Architecture, latency: LatencyModel, limit_ms: float, divisor: int, progress: Progress | None = None
) -> list[tuple[Site, int, Architecture, float]]:
    """For each site the widest narrowing that takes at most ``limit_ms``: (site, width, network, milliseconds).

    Latency over width is a staircase and may rise where channels go (some runtimes are slower at odd multiples of 8
    than at the next even one), so no width is passed over. Widths are tried from the widest on, twice as many in each
    round, for all sites side by side, so a model that measures is asked for few networks, in few batches.
    """
    waiting = {site: site.widths(divisor) for site in sites(architecture)}
    waiting = _can_fit(architecture, latency, limit_ms, waiting)
    found: dict[Site, tuple[Site, int, Architecture, float]] = {}
    order, batch = list(waiting), 1
    while waiting:
        tried = [
            (site, width, narrow(architecture, site, width))
            for site, widths in waiting.items()
            for width in widths[:batch]
        ]
        latencies = latencies_ms(latency, [network for _, _, network in tried], progress)
        for (site, width, network), latency_ms in zip(tried, latencies, strict=True):
            if latency_ms <= limit_ms and site not in found:
                found[site] = (site, width, network, latency_ms)
        waiting = {s: rest for s, widths in waiting.items() if s not in found and (rest := widths[batch:])}
        batch *= 2
    return [found[site] for site in order if site in found]


def _can_fit(
    architecture: Architecture, latency: LatencyModel, limit_ms: float, widths: Mapping[Site, tuple[int, ...]]
) -> dict[Site, tuple[int, ...]]:
    """Those sites whose narrowing could meet the limit if the units that it changes took no time at all."""
    known = {site: tried for site, tried in widths.items() if tried}
    if not isinstance(latency, UnitLatencyModel):
        return known
    parts, fixed_ms = units(architecture), float(latency.fixed_ms)
    prices = [float(ms) for ms in latency.unit_latency_ms(parts)]

    def least_ms(site: Site, width: int) -> float:
        kept = zip(parts, units(narrow(architecture, site, width)), prices, strict=True)
        return fixed_ms + sum(ms for before, after, ms in kept if before == after)

    out_of_reach = {site for site, tried in known.items() if least_ms(site, tried[-1]) > limit_ms * (1 + 1e-9)}
    return {site: tried for site, tried in known.items() if site not in out_of_reach}


def latencies_ms(
    latency: LatencyModel, architectures: Sequence[Architecture], progress: Progress | None = None
) -> list[float]:
    """Milliseconds of each; a model that measures is told first what it will be asked for, and tells ``progress``.

    Raises:
        DeviceError: a latency that is not positive and finite, or not one for each network.
    """
    parts = list(dict.fromkeys(part for a in architectures for part in units(a)))
    if isinstance(latency, Preparable):
        latency.prepare(parts, progress)
    return [float(value) for value in checked_latencies(latency, architectures)]


def _evaluated(
    architecture: Architecture, latency: LatencyModel, evaluator: Evaluator, progress: Progress | None
) -> Candidate:
    answer = checked_evaluations(evaluator, [architecture])[0]
    counts = count(architecture)
    return Candidate(
        architecture, answer.top1, answer.top1_std, latencies_ms(latency, [architecture], progress)[0], counts.madds,
        counts.parameters, "reference", 0,
    )  # fmt: skip


def check_reachable(
    architecture: Architecture, seed_ms: float, latency: LatencyModel, target_ms: float, options: NetAdaptOptions,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Whether narrowing ``architecture``, which takes ``seed_ms``, can come to ``target_ms``.

    Raises:
        InfeasibleError: even the fastest narrowing found is above the target; it carries the fastest and the slowest.
        Mnv3SearchError: δ decays so fast that its steps cannot sum to the cut that is needed.
    """
    missing = seed_ms - target_ms
    if missing <= 0:
        return
    _, least = fastest_narrowing(architecture, latency, target_ms, options.divisor, progress)
    if least > target_ms:
        raise InfeasibleError(target_ms, least, seed_ms, exact=False, narrowing=True)
    reach_ms = options.reach * seed_ms
    if reach_ms < missing:
        raise Mnv3SearchError(
            f"steps of {options.step_fraction:g} of the seed's latency with decay {options.decay:g} sum to "
            f"{reach_ms:.2f} ms, but {missing:.2f} ms must go; raise the step or the decay"
        )


def fastest_narrowing(
    architecture: Architecture, latency: LatencyModel, enough_ms: float, divisor: int, progress: Progress | None = None
) -> tuple[Architecture, float]:
    """The narrowest network and its milliseconds, or a slightly wider one that is faster; ends at ``enough_ms``.

    One site of the narrowest network after another is widened while that saves time.
    """
    network = narrowest(architecture, divisor)
    least = latencies_ms(latency, [network], progress)[0]
    while least > enough_ms:
        wider = [
            narrow(network, site, width) for site in sites(network) for width in _wider(architecture, site, divisor)
        ]
        latencies = latencies_ms(latency, wider, progress)
        if not wider or min(latencies) >= least:
            break
        least = min(latencies)
        network = wider[latencies.index(least)]
    return network, least


def _wider(seed: Architecture, site: Site, divisor: int) -> range:
    """The next widths above a site's, up to the seed's."""
    top = min(
        seed.stem.out_channels if member == STEM
        else seed.blocks[member].expanded_channels if site.kind == "expansion"
        else seed.blocks[member].out_channels
        for member in site.members
    )  # fmt: skip
    return range(site.channels + divisor, min(top, site.channels + WIDER * divisor) + 1, divisor)
