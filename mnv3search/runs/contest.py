"""Who wins a run: finalists narrowed to the target, then timed whole where the device can be, and repaired if need be.

The device's prediction chooses who is timed; the times choose who wins. Where none of the timed is within the target,
or better ones than the best that is have missed it, the prediction is off by what was timed over what was predicted:
NetAdapt goes on to limits that allow for it, and the new ones are timed as well. Where the best of them leaves a part
of the target unused, better networks nearer to it are timed too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate
from mnv3search.layer_search import NetAdaptResult
from mnv3search.runs.aim import Aim
from mnv3search.runs.bench import Bench
from mnv3search.runs.narrowing import Narrowing, attempted, narrowed, widened
from mnv3search.runs.winner import best_of, closest, passing, repaired_limit_ms, typical_limit_ms

REPAIRS = 2
WORTH_POINTS = 0.1  # a network that missed is repaired where it is so much better in top-1 than the best that did not
NEARER = 2
UNUSED = 0.03  # of the target: where the winner leaves more, networks nearer to it are timed too, NEARER times at most
TIMED = 6  # so many networks at least, NetAdapt's among them, are timed where so many are within the target


@dataclass(frozen=True, slots=True)
class Attempt:
    """Networks that are predicted within the target, and the NetAdapts that led to some of them, by finalist."""

    contenders: Sequence[Candidate]
    results: dict[int, NetAdaptResult] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contest:
    """How a contest ended.

    Attributes:
        best: the winner; where none was timed within the target, the closest.
        attempt: the one that the winner is of.
        within: all contenders that are within the target.
        met: whether the winner was timed within the target; None where the device cannot be timed.
        repairs: how often the search went on because none was, or better ones were not.
        timed: how many contenders were timed.
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
class Contenders:
    """Whom a contest draws on.

    Attributes:
        seeds: what NetAdapt narrows, in the order of the finalists.
        ranked: direct candidates, best first.
        spare: gives one that is surely predicted within the target, where no other is; or raises why there is none.
    """

    seeds: Sequence[Candidate]
    ranked: Sequence[Candidate]
    spare: Callable[[], Candidate]


def contest(bench: Bench, aim: Aim, pool: Contenders, beside: Sequence[Architecture]) -> Contest:
    """The best of ``pool`` within the target; ``beside`` are timed with them, for the reader to compare.

    Raises:
        InfeasibleError: there is no contender, and no spare one either.
        RunError: steps or times that cannot be written.
    """
    narrowing = Narrowing(bench, pool.seeds)
    attempt = _first(bench, aim, pool, narrowing)
    if not bench.timings.possible:
        return Contest(best_of(attempt.contenders), attempt, attempt.contenders)
    attempts, within, repairs = [attempt], _timed(bench, aim, attempt, beside), 0
    worth = 0.0 if bench.memory.score_name else WORTH_POINTS  # a score's unit is no point
    while repairs < REPAIRS and (missed := _worth_repair(attempt, within, worth)):
        repairs += 1
        attempt = _repair(bench, aim, pool, narrowing, attempts, missed, within)
        if not attempt.contenders:
            break
        attempts.append(attempt)
        within = within + _timed(bench, aim, attempt, beside)
    for number in range(1, NEARER + 1):
        nearer = _nearer(bench, aim, pool, attempts, within, number)
        if not nearer.contenders:
            break
        attempts.append(nearer)
        within = within + _timed(bench, aim, nearer, beside)
    everyone = [c for a in attempts for c in a.contenders]
    best = best_of(within) if within else closest(everyone, bench.timings.known, aim.z)
    won = next(a for a in attempts if best in a.contenders)
    return Contest(best, won, within, bool(within), repairs, len(everyone))


def _timed(bench: Bench, aim: Aim, attempt: Attempt, beside: Sequence[Architecture]) -> list[Candidate]:
    """The contenders of ``attempt`` that are within the target when they are timed."""
    found = bench.timings.of([c.architecture for c in attempt.contenders], beside)
    for contender, timed in zip(attempt.contenders, found, strict=True):
        bench.timings.check(timed, contender.latency_ms)
    return passing(attempt.contenders, bench.timings.known, aim.target_ms, aim.z)


def _worth_repair(attempt: Attempt, within: Sequence[Candidate], worth: float) -> list[Candidate]:
    """Who missed the target but would win by ``worth`` if it had not."""
    enough = max((c.top1 for c in within), default=float("-inf")) + worth
    return [c for c in attempt.contenders if c not in within and c.top1 > enough]


def _first(bench: Bench, aim: Aim, pool: Contenders, narrowing: Narrowing) -> Attempt:
    """Every finalist narrowed until it is within the target by its own error, and the best direct candidates."""
    results: dict[int, NetAdaptResult] = {}
    for index in range(len(pool.seeds)):
        result = attempted(partial(narrowing.first, index, aim))
        if result is not None and result.reached and aim.holds(result.final):
            results[index] = result
    adapted = narrowed(results, pool.seeds)
    wanted = max(1, TIMED - len(adapted)) if bench.timings.possible else 1
    found = _distinct([*aim.best_within(pool.ranked, wanted), *adapted])
    found = found or [pool.spare()]
    if pool.seeds:
        narrowing.save()
    return Attempt(found, results)


def _repair(
    bench: Bench, aim: Aim, pool: Contenders, narrowing: Narrowing, attempts: Sequence[Attempt],
    missed: Sequence[Candidate], within: Sequence[Candidate],
) -> Attempt:  # fmt: skip
    """Finalists that missed narrowed on, each by what it itself was timed at, and direct candidates by what is typical.

    Only what could win is taken up: who is better than the best ``within``.
    """
    last, times, number = attempts[-1], bench.timings.known, len(attempts)
    results: dict[int, NetAdaptResult] = {}
    for index, before in last.results.items():
        (contender,) = narrowed({index: before}, pool.seeds)
        if contender not in missed:
            continue
        limit = partial(
            repaired_limit_ms, contender, times[contender.architecture], aim.target_ms, aim.z, number
        )  # fmt: skip
        result = attempted(partial(narrowing.to, index, limit, f"repair_{number}"))
        if result is not None and result.reached:
            results[index] = result
    adapted = narrowed(results, pool.seeds)
    direct_ms = typical_limit_ms(last.contenders, times, aim.target_ms, aim.z, number)
    known = {c.architecture for attempt in attempts for c in attempt.contenders}
    least = max((c.top1 for c in within), default=float("-inf"))
    direct = [c for c in pool.ranked if c.latency_ms <= direct_ms and c.top1 > least and c.architecture not in known]
    found = _distinct([*direct[: max(1, TIMED - len(adapted))], *adapted])
    return Attempt([c for c in found if c.top1 > least], results)


def _nearer(
    bench: Bench, aim: Aim, pool: Contenders, attempts: Sequence[Attempt], within: Sequence[Candidate], number: int
) -> Attempt:
    """Better networks nearer the target, where the best ``within`` it leaves more than :data:`UNUSED` of it unused.

    They are direct candidates and earlier steps of NetAdapt, as slow as what was timed says of the prediction.
    """
    times = bench.timings.known
    if not within or times[best_of(within).architecture].upper_ms(aim.z) > (1 - UNUSED) * aim.target_ms:
        return Attempt([])
    known = {c.architecture for attempt in attempts for c in attempt.contenders}
    limit_ms = typical_limit_ms([c for a in attempts for c in a.contenders], times, aim.target_ms, aim.z, number)
    found = [widened(result, limit_ms) for attempt in attempts for result in attempt.results.values()]
    indices = [index for attempt in attempts for index in attempt.results]
    results = {index: result for index, result in zip(indices, found, strict=True) if result is not None}
    direct = [c for c in pool.ranked if c.latency_ms <= limit_ms][:TIMED]
    better = [
        c for c in _distinct([*narrowed(results, pool.seeds), *direct])
        if c.top1 > best_of(within).top1 and c.architecture not in known
    ]  # fmt: skip
    return Attempt(better[:TIMED], results)


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    """One of each architecture, the first."""
    found: dict[Architecture, Candidate] = {}
    for candidate in candidates:
        found.setdefault(candidate.architecture, candidate)
    return list(found.values())
