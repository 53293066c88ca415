"""The final selection of a run: finalists narrowed to the target, timed whole where possible, repaired if need be.

The device's prediction chooses who is timed; the times choose who wins. Where none of the timed is within the target,
or better ones than the best that is have missed it, the prediction is off by what was timed over what was predicted:
NetAdapt goes on to limits that allow for it, and the new ones are timed as well. Where the best of them leaves a part
of the target unused, better networks nearer to it are timed too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate
from mnv3search.cost import count
from mnv3search.errors import InfeasibleError, RunError
from mnv3search.layer_search import NetAdaptResult, Step, Steps, netadapt
from mnv3search.runs.artifacts import read_steps, write_steps
from mnv3search.runs.context import RunContext
from mnv3search.runs.target import LatencyConstraint
from mnv3search.runs.timings import Latency

REPAIR_MARGIN = 0.005
"""How far below the target a repair's limit is, as a share, each time: one session of timing differs from the next."""

MAX_RETRIES = 4
"""How often a finalist is narrowed on because its own error is larger than its seed's."""
MAX_PRICE_RATIO = 2.0
"""How far apart, as a factor, a device prices a network in two sessions, between which it was calibrated anew."""
MAX_REPAIRS = 2
MIN_TOP1_GAIN = 0.1  # a network that missed is repaired where it is so much better in top-1 than the best that did not
MAX_EXTRA_ROUNDS = 2
MAX_UNUSED_SHARE = 0.03  # of the target: where the winner leaves more unused, networks nearer to it are timed too
MIN_TIMED = 6  # so many networks at least, NetAdapt's among them, are timed where so many are within the target

Times = Mapping[Architecture, Latency]


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """The highest top-1; of equals the direct candidate, which is the simpler network, then the faster one."""
    return max(candidates, key=lambda c: (c.top1, c.origin == "block_search", -c.latency_ms))


def passing(candidates: Sequence[Candidate], times: Times, target_ms: float, z: float) -> list[Candidate]:
    """Those whose measured time and ``z`` of its deviations are within the target."""
    return [c for c in candidates if times[c.architecture].upper_ms(z) <= target_ms]


def closest(candidates: Sequence[Candidate], times: Times, z: float) -> Candidate:
    """The one that misses the target by least."""
    return min(candidates, key=lambda c: times[c.architecture].upper_ms(z))


def repaired_limit_ms(candidate: Candidate, timed: Latency, target_ms: float, z: float, attempt: int) -> float:
    """What a network must be predicted at to be timed within the target, its measured over predicted time as it was.

    Twice the ``z`` deviations are taken off: those of this time and those of the next; and for each
    attempt, from 1, :data:`REPAIR_MARGIN`.
    """
    return candidate.latency_ms * target_ms / timed.upper_ms(2 * z) * (1 - REPAIR_MARGIN * attempt)


def typical_limit_ms(candidates: Sequence[Candidate], times: Times, target_ms: float, z: float, attempt: int) -> float:
    """The same for networks that were not timed, by the median of those that were."""
    return statistics.median(repaired_limit_ms(c, times[c.architecture], target_ms, z, attempt) for c in candidates)


def how_it_won(best: Candidate, within: Sequence[Candidate], steps: int, unit: str = "points of top-1") -> list[str]:
    """What the reader should know of how ``best`` won among those ``within`` the target; ``unit`` of accuracy."""
    narrowed = max((c.top1 for c in within if c.origin == "netadapt"), default=None)
    direct = max((c.top1 for c in within if c.origin == "block_search"), default=None)
    notes = []
    if narrowed is not None and direct is not None:
        notes.append(_margin(narrowed - direct, best.top1_std, unit))
    if best.origin == "netadapt":
        taken = "1 step" if steps == 1 else f"{steps} steps"
        notes.append(f"the winner is finalist {best.number + 1} of the block search, narrowed in {taken}")
    return notes


def _margin(margin: float, top1_std: float | None, unit: str) -> str:
    if margin == 0:
        return "NetAdapt found nothing better within the target than the best direct candidate"
    names = ["NetAdapt's best", "the best direct candidate"]
    first, second = names if margin > 0 else names[::-1]
    sure = f"; one deviation is {top1_std:.2f}" if top1_std is not None else ""
    return f"{first} beats {second} within the target by {abs(margin):.2f} {unit}{sure}"


class Narrowing:
    """NetAdapt on the finalists of one run; a finalist narrowed once goes on from where it stands."""

    def __init__(self, context: RunContext, seeds: Sequence[Candidate]) -> None:
        self._context = context
        self._seeds = seeds
        self._steps = read_steps(context.folder.steps, context.cache.capabilities.range)
        self._check_prices()

    def _check_prices(self) -> None:
        """Raise RunError where the latency of a step is none that the device could have stated, in whatever session."""
        steps = [step for found in self._steps.values() for step in found]
        prices = self._context.scorer.latencies([step.architecture for step in steps]) if steps else []
        for step, (price_ms, _) in zip(steps, prices, strict=True):
            if not price_ms / MAX_PRICE_RATIO <= step.latency_ms <= price_ms * MAX_PRICE_RATIO:
                raise RunError(
                    f"{self._context.folder.steps} is damaged: step {step.number} is said to take "
                    f"{step.latency_ms:g} ms, and the device takes {price_ms:g} ms for its network; "
                    "restore the file, or remove it"
                )

    def first(self, index: int, constraint: LatencyConstraint) -> NetAdaptResult:
        """Finalist ``index``, from 0, narrowed until it is within the target by its own error."""
        seed = self._seeds[index]

        def limit() -> float:
            found = constraint.limit_of(seed.architecture)
            alone = self._context.folder.settings.kind == "netadapt"
            for again in range(MAX_RETRIES):
                result = self._to(index, found, lenient=again > 0 or not alone)
                own = constraint.limit_of(result.final.architecture)
                if not result.reached or result.final.latency_ms <= own:
                    break
                found = min(own, found)
            return found

        self._context.pinned.check(f"finalist_{index + 1}_first_limit_ms", *constraint.limits_range_ms())
        return self.to(index, limit, "first")

    def to(self, index: int, limit_ms: Callable[[], float], name: str) -> NetAdaptResult:
        """Finalist ``index`` narrowed to a limit, which is pinned under ``name``."""
        pinned_ms = self._context.pinned.pin(f"finalist_{index + 1}_{name}_limit_ms", limit_ms)
        return self._to(index, pinned_ms, lenient=True)

    def _to(self, index: int, limit_ms: float, *, lenient: bool) -> NetAdaptResult:
        """``lenient``: steps that cannot sum to the cut are this limit's infeasibility, not the run's fault."""
        context, seed = self._context, self._seeds[index]
        least_ms = seed.latency_ms * (1 - context.folder.settings.netadapt_options().reach)
        if lenient and limit_ms < least_ms:
            raise InfeasibleError(limit_ms, least_ms, seed.latency_ms, exact=False, narrowing=True)
        steps = self._steps.setdefault(index + 1, [])
        whole, called = max(seed.latency_ms - limit_ms, 1e-9), context.cache.capabilities.score_name or "top-1"
        context.progress.stage(f"NetAdapt of network {index + 1} of {len(self._seeds)} to {limit_ms:.4g} ms, %", 100)

        def way() -> int:
            return min(100, round(100 * (seed.latency_ms - steps[-1].latency_ms) / whole)) if steps else 0

        def keep(step: Step) -> None:
            steps.append(step)
            write_steps(context.folder.steps, self._steps)
            context.progress.advance(way(), f"{step.latency_ms:.2f} ms  {called} {step.top1:.2f}  {step.change}")

        return netadapt(
            seed.architecture, context.scorer.device, context.logged, limit_ms,
            options=context.folder.settings.netadapt_options(), resume=_up_to(steps, limit_ms), on_step=keep,
            on_pricing=lambda done, total, what: context.progress.advance(way(), f"{what}: {done} of {total}"),
        )  # fmt: skip

    def save(self) -> None:
        """Write the table of steps, also where there are none."""
        if self._context.folder.lacks("netadapt.csv"):
            write_steps(self._context.folder.steps, self._steps)


def _up_to(steps: Sequence[Step], limit_ms: float) -> list[Step]:
    """The steps that lead to ``limit_ms``: later ones were made for a lower limit."""
    within = next((i for i, step in enumerate(steps) if step.latency_ms <= limit_ms), len(steps))
    return list(steps[: within + 1])


def narrowed(results: dict[int, NetAdaptResult], seeds: Sequence[Candidate]) -> list[Candidate]:
    """The networks that NetAdapt ended with, each numbered by its finalist; one that needed no step is its seed."""
    return [replace(result.final, number=index) if result.steps else seeds[index] for index, result in results.items()]


def widened(result: NetAdaptResult, limit_ms: float) -> NetAdaptResult | None:
    """A narrowing up to its first step within ``limit_ms``; None where that is the seed or the end."""
    last = next((i for i, step in enumerate(result.steps) if step.latency_ms <= limit_ms), None)
    if last is None or last + 1 == len(result.steps) or result.seed.latency_ms <= limit_ms:
        return None
    step = result.steps[last]
    counts = count(step.architecture)
    final = replace(
        result.final, architecture=step.architecture, top1=step.top1, top1_std=step.top1_std,
        latency_ms=step.latency_ms, madds=counts.madds, parameters=counts.parameters, number=step.number,
    )  # fmt: skip
    return replace(result, steps=Steps(result.steps[: last + 1]), final=final)


def attempted(narrow: Callable[[], NetAdaptResult]) -> NetAdaptResult | None:
    """What ``narrow`` gives; None where the limit is out of the finalist's reach."""
    try:
        return narrow()
    except InfeasibleError:
        return None


@dataclass(frozen=True, slots=True)
class Attempt:
    """Networks that are predicted within the target, and the NetAdapts that led to some of them, by finalist."""

    candidates: Sequence[Candidate]
    results: dict[int, NetAdaptResult] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Selected:
    """What the final selection came to.

    Attributes:
        best: the winner; where none was timed within the target, the closest.
        attempt: the one that the winner is of.
        within: all candidates that are within the target.
        met: whether the winner was timed within the target; None where the device cannot be timed.
        repairs: how often the search went on because none was, or better ones were not.
        timed: how many candidates were timed.
    """

    best: Candidate
    attempt: Attempt
    within: Sequence[Candidate]
    met: bool | None = None
    repairs: int = 0
    timed: int = 0

    @property
    def shown(self) -> NetAdaptResult | None:
        """The NetAdapt whose steps a report shows: the winner's, else the first finalist's."""
        results = self.attempt.results
        if self.best.origin == "netadapt":
            return results[self.best.number]
        return next(iter(results.values()), None)


@dataclass(frozen=True, slots=True)
class FinalSelection:
    """The final selection of one run.

    Attributes:
        seeds: what NetAdapt narrows, in the order of the finalists.
        ranked: direct candidates, best first.
        fallback: gives one that is surely predicted within the target, where no other is; or raises why there is none.
        baselines: timed with the candidates, for the reader to compare.
    """

    context: RunContext
    constraint: LatencyConstraint
    seeds: Sequence[Candidate]
    ranked: Sequence[Candidate]
    fallback: Callable[[], Candidate]
    baselines: Sequence[Architecture]

    def select(self) -> Selected:
        """The best within the target; InfeasibleError where there is no candidate, and no fallback."""
        narrowing = Narrowing(self.context, self.seeds)
        attempt = self._first(narrowing)
        if not self.context.timings.possible:
            return Selected(best_of(attempt.candidates), attempt, attempt.candidates)
        attempts, within, repairs = [attempt], self._timed_within(attempt), 0
        worth = 0.0 if self.context.cache.capabilities.score_name else MIN_TOP1_GAIN  # a score's unit is no point
        while repairs < MAX_REPAIRS and (missed := _worth_repair(attempt, within, worth)):
            repairs += 1
            attempt = self._repair(narrowing, attempts, missed, within)
            if not attempt.candidates:
                break
            attempts.append(attempt)
            within = within + self._timed_within(attempt)
        for number in range(1, MAX_EXTRA_ROUNDS + 1):
            nearer = self._nearer(attempts, within, number)
            if not nearer.candidates:
                break
            attempts.append(nearer)
            within = within + self._timed_within(nearer)
        everyone = [c for a in attempts for c in a.candidates]
        best = best_of(within) if within else closest(everyone, self._times, self.constraint.z)
        won = next(a for a in attempts if best in a.candidates)
        return Selected(best, won, within, bool(within), repairs, len(everyone))

    @property
    def _times(self) -> Times:
        return self.context.timings.known

    def _timed_within(self, attempt: Attempt) -> list[Candidate]:
        """The candidates of ``attempt`` that are within the target when they are timed."""
        timings = self.context.timings
        found = timings.of([c.architecture for c in attempt.candidates], self.baselines)
        for candidate, timed in zip(attempt.candidates, found, strict=True):
            timings.check(timed, candidate.latency_ms)
        return passing(attempt.candidates, self._times, self.constraint.target_ms, self.constraint.z)

    def _limit_ms(self, candidates: Sequence[Candidate], number: int) -> float:
        return typical_limit_ms(candidates, self._times, self.constraint.target_ms, self.constraint.z, number)

    def _first(self, narrowing: Narrowing) -> Attempt:
        """Every finalist narrowed until it is within the target by its own error, and the best direct candidates."""
        results: dict[int, NetAdaptResult] = {}
        for index in range(len(self.seeds)):
            result = attempted(partial(narrowing.first, index, self.constraint))
            if result is not None and result.reached and self.constraint.holds(result.final):
                results[index] = result
        adapted = narrowed(results, self.seeds)
        wanted = max(1, MIN_TIMED - len(adapted)) if self.context.timings.possible else 1
        found = _distinct([*self.constraint.best_within(self.ranked, wanted), *adapted])
        found = found or [self.fallback()]
        if self.seeds:
            narrowing.save()
        return Attempt(found, results)

    def _repair(
        self, narrowing: Narrowing, attempts: Sequence[Attempt], missed: Sequence[Candidate],
        within: Sequence[Candidate],
    ) -> Attempt:  # fmt: skip
        """Finalists that missed narrowed on, each by what it was timed at, and direct candidates by what is typical.

        Only what could win is considered: who is better than the best ``within``.
        """
        last, number = attempts[-1], len(attempts)
        target_ms, z = self.constraint.target_ms, self.constraint.z
        results: dict[int, NetAdaptResult] = {}
        for index, before in last.results.items():
            (candidate,) = narrowed({index: before}, self.seeds)
            if candidate not in missed:
                continue
            limit = partial(
                repaired_limit_ms, candidate, self._times[candidate.architecture], target_ms, z, number
            )  # fmt: skip
            result = attempted(partial(narrowing.to, index, limit, f"repair_{number}"))
            if result is not None and result.reached:
                results[index] = result
        adapted, direct_ms = narrowed(results, self.seeds), self._limit_ms(last.candidates, number)
        known = _known(attempts)
        least = max((c.top1 for c in within), default=float("-inf"))
        direct = [
            c for c in self.ranked if c.latency_ms <= direct_ms and c.top1 > least and c.architecture not in known
        ]
        found = _distinct([*direct[: max(1, MIN_TIMED - len(adapted))], *adapted])
        return Attempt([c for c in found if c.top1 > least], results)

    def _nearer(self, attempts: Sequence[Attempt], within: Sequence[Candidate], number: int) -> Attempt:
        """Better networks nearer the target, where the best ``within`` leaves too much of it unused.

        They are direct candidates and earlier steps of NetAdapt, as slow as what was timed says of the prediction.
        """
        if not within:
            return Attempt([])
        best = best_of(within)
        if (
            self._times[best.architecture].upper_ms(self.constraint.z)
            > (1 - MAX_UNUSED_SHARE) * self.constraint.target_ms
        ):
            return Attempt([])
        limit_ms = self._limit_ms([c for a in attempts for c in a.candidates], number)
        results = {
            index: wider
            for attempt in attempts
            for index, result in attempt.results.items()
            if (wider := widened(result, limit_ms)) is not None
        }
        direct = [c for c in self.ranked if c.latency_ms <= limit_ms][:MIN_TIMED]
        known = _known(attempts)
        better = [
            c for c in _distinct([*narrowed(results, self.seeds), *direct])
            if c.top1 > best.top1 and c.architecture not in known
        ]  # fmt: skip
        return Attempt(better[:MIN_TIMED], results)


def _known(attempts: Sequence[Attempt]) -> set[Architecture]:
    return {c.architecture for attempt in attempts for c in attempt.candidates}


def _worth_repair(attempt: Attempt, within: Sequence[Candidate], worth: float) -> list[Candidate]:
    """Who missed the target but would win by ``worth`` if it had not."""
    enough = max((c.top1 for c in within), default=float("-inf")) + worth
    return [c for c in attempt.candidates if c not in within and c.top1 > enough]


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One of each architecture, the first."""
    found: dict[Architecture, Candidate] = {}
    for candidate in candidates:
        found.setdefault(candidate.architecture, candidate)
    return list(found.values())
