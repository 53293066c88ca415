"""NetAdapt: narrow a network layer by layer until it meets a latency target.

Sources: NetAdapt (Yang et al. 2018, arXiv:1804.03230) and its use in MobileNetV3 (Howard et al. 2019, section 4.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mnv3search.accuracy.evaluator import Evaluator, check_evaluator, checked_evaluations
from mnv3search.architecture import Architecture, check_architecture
from mnv3search.candidate import Candidate, Origin
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
from mnv3search.layer_search.proposals import (
    SELECTION_RULES,
    STEM,
    Plan,
    Proposal,
    SelectionRule,
    Site,
    narrow,
    narrowest,
    selection_value,
    sites,
)
from mnv3search.layer_search.result import NetAdaptResult, Step, Steps
from mnv3search.layers import units
from mnv3search.records import real, whole

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
        if self.selection not in SELECTION_RULES:
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

    def cut_ms(self, seed_latency_ms: float, done: int, missing_ms: float) -> float:
        """The same, but no more than is missing; a floor keeps rounding from asking for a cut of nothing."""
        return max(min(self.required_ms(seed_latency_ms, done), missing_ms), 1e-9 * seed_latency_ms)

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

    Every step evaluates, for each site that can be narrowed, the widest network that is at least δ faster, and keeps
    one of them; the last step asks for no more than is missing.

    Args:
        architecture: the seed.
        latency: any latency model; its answers are milliseconds.
        evaluator: any accuracy evaluator.
        target_latency_ms: above 0.
        options: δ, decay, selection rule, divisor.
        resume: the steps of an earlier, interrupted call with the same arguments; it goes on after the last of them.
        on_step: called after each step.
        on_pricing: progress of a latency model that must measure units first.

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
    answer = checked_evaluations(evaluator, [architecture])[0]
    seed_ms = latencies_ms(latency, [architecture], on_pricing)[0]
    seed = _candidate(architecture, answer.top1, answer.top1_std, seed_ms, "reference", 0)
    check_reachable(architecture, seed_ms, latency, target_latency_ms, options, on_pricing)
    steps, evaluated = list(resume), 1
    last: Step | Candidate = steps[-1] if steps else seed
    while last.latency_ms > target_latency_ms and len(steps) < MAX_STEPS:
        required = options.cut_ms(seed_ms, len(steps), last.latency_ms - target_latency_ms)
        plan = plan_step(last.architecture, last.latency_ms, latency, required, options.divisor, on_pricing)
        if not plan.proposals:
            break
        last = _next_step(plan, last, evaluator, options.selection)
        evaluated += len(plan.proposals)
        steps.append(last)
        if on_step is not None:
            on_step(last)
    final = seed
    if steps:
        end = steps[-1]
        final = _candidate(end.architecture, end.top1, end.top1_std, end.latency_ms, "netadapt", end.number)
    return NetAdaptResult(seed, Steps(steps), final, final.latency_ms <= target_latency_ms, evaluated)


def _candidate(
    architecture: Architecture, top1: float, top1_std: float | None, latency_ms: float, origin: Origin, number: int
) -> Candidate:
    counts = count(architecture)
    return Candidate(architecture, top1, top1_std, latency_ms, counts.madds, counts.parameters, origin, number)


def _next_step(plan: Plan, last: Step | Candidate, evaluator: Evaluator, rule: SelectionRule) -> Step:
    """The proposal that ``rule`` prefers after ``last``; of equals the first."""
    answers = checked_evaluations(evaluator, [proposal.architecture for proposal in plan.proposals])
    before = (last.top1, last.latency_ms)
    values = [
        selection_value(rule, answer.top1, proposal.latency_ms, before)
        for proposal, answer in zip(plan.proposals, answers, strict=True)
    ]
    chosen = values.index(max(values))
    number = last.number + 1 if isinstance(last, Step) else 1
    return plan.step(number, chosen, answers[chosen].top1, answers[chosen].top1_std, before)


def plan_step(
    architecture: Architecture, latency_ms: float, latency: LatencyModel, required_ms: float, divisor: int,
    progress: Progress | None = None,
) -> Plan:  # fmt: skip
    """For each site of a network of ``latency_ms`` the widest narrowing that is at least ``required_ms`` faster."""
    return Plan(required_ms, tuple(widest_within(architecture, latency, latency_ms - required_ms, divisor, progress)))


def widest_within(
    architecture: Architecture, latency: LatencyModel, limit_ms: float, divisor: int, progress: Progress | None = None
) -> list[Proposal]:
    """For each site the widest narrowing that takes at most ``limit_ms``; none where no width does.

    Latency over width is a staircase and may rise where channels go (some runtimes are slower at odd multiples of 8
    than at the next even one), so no width is passed over. Widths are tried from the widest on, twice as many in each
    round, for all sites at once, so a model that measures is asked for few networks, in few batches.
    """
    waiting = {site: site.widths(divisor) for site in sites(architecture)}
    waiting = _can_fit(architecture, latency, limit_ms, waiting)
    found: dict[Site, Proposal] = {}
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
                found[site] = Proposal(site.kind, site.describe(width), network, latency_ms)
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

    return {site: tried for site, tried in known.items() if least_ms(site, tried[-1]) <= limit_ms * (1 + 1e-9)}


def latencies_ms(
    latency: LatencyModel, architectures: Sequence[Architecture], progress: Progress | None = None
) -> list[float]:
    """Milliseconds of each; a model that measures prepares all units first, and reports to ``progress``."""
    parts = list(dict.fromkeys(part for a in architectures for part in units(a)))
    if isinstance(latency, Preparable):
        latency.prepare(parts, progress)
    return [float(value) for value in checked_latencies(latency, architectures)]


def check_reachable(
    architecture: Architecture, seed_ms: float, latency: LatencyModel, target_ms: float, options: NetAdaptOptions,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Raises where no narrowing of a network of ``seed_ms`` is found that meets the target, or δ decays too fast."""
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
