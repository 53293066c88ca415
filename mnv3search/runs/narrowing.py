"""The NetAdapt stage of a run: finalists taken down to limits, step by step, each step kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mnv3search.candidate import Candidate
from mnv3search.cost import count
from mnv3search.errors import InfeasibleError, RunError
from mnv3search.layer_search import NetAdaptResult, Step, Steps, netadapt
from mnv3search.runs.aim import Aim
from mnv3search.runs.bench import Bench
from mnv3search.runs.records import read_steps, write_steps

MORE_TIMES = 4
"""How often a finalist is narrowed on because its own error is larger than its seed's."""
FARTHEST_PRICED = 2.0
"""How far apart, as a factor, a device prices a network in two sessions, between which it was calibrated anew."""


class Narrowing:
    """NetAdapt on the finalists of one run; a finalist narrowed once goes on from where it stands."""

    def __init__(self, bench: Bench, seeds: Sequence[Candidate]) -> None:
        self._bench = bench
        self._seeds = seeds
        self._steps = read_steps(bench.folder.steps, bench.memory.range)
        self._check_prices()

    def _check_prices(self) -> None:
        """Refuse steps whose latencies are none that the device could have stated, in whatever session.

        Raises:
            RunError: there is one.
        """
        steps = [step for found in self._steps.values() for step in found]
        prices = self._bench.judge.latencies([step.architecture for step in steps]) if steps else []
        for step, (price_ms, _) in zip(steps, prices, strict=True):
            if not price_ms / FARTHEST_PRICED <= step.latency_ms <= price_ms * FARTHEST_PRICED:
                raise RunError(
                    f"{self._bench.folder.steps} is damaged: step {step.number} is said to take {step.latency_ms:g} ms, "
                    f"and the device takes {price_ms:g} ms for its network; restore the file, or remove it"
                )

    def first(self, index: int, aim: Aim) -> NetAdaptResult:
        """Finalist ``index``, from 0, narrowed until it is within the target by its own error.

        Raises:
            InfeasibleError: even its narrowest form is not.
        """
        seed = self._seeds[index]

        def limit() -> float:
            found = aim.limit_of(seed.architecture)
            alone = self._bench.folder.settings.kind == "netadapt"
            for again in range(MORE_TIMES):
                result = self._to(index, found, lenient=again > 0 or not alone)
                own = aim.limit_of(result.final.architecture)
                if not result.reached or result.final.latency_ms <= own:
                    break
                found = min(own, found)
            return found

        self._bench.decisions.check(f"finalist_{index + 1}_first_limit_ms", *aim.limits_range_ms())
        return self.to(index, limit, "first")

    def to(self, index: int, limit_ms: Callable[[], float], name: str) -> NetAdaptResult:
        """Finalist ``index`` narrowed to a limit, which is fixed once under ``name``.

        Raises:
            InfeasibleError: even its narrowest form is above it.
        """
        fixed_ms = self._bench.decisions.fix(f"finalist_{index + 1}_{name}_limit_ms", limit_ms)
        return self._to(index, fixed_ms, lenient=True)

    def _to(self, index: int, limit_ms: float, *, lenient: bool) -> NetAdaptResult:
        """``lenient``: steps that cannot sum to the cut are this limit's infeasibility, not the run's fault."""
        bench, seed = self._bench, self._seeds[index]
        least_ms = seed.latency_ms * (1 - bench.folder.settings.netadapt_options().reach)
        if lenient and limit_ms < least_ms:
            raise InfeasibleError(limit_ms, least_ms, seed.latency_ms, exact=False, narrowing=True)
        steps = self._steps.setdefault(index + 1, [])
        whole, called = max(seed.latency_ms - limit_ms, 1e-9), bench.memory.score_name or "top-1"
        bench.progress.stage(f"NetAdapt of network {index + 1} of {len(self._seeds)} to {limit_ms:.4g} ms, %", 100)

        def way() -> int:
            return min(100, round(100 * (seed.latency_ms - steps[-1].latency_ms) / whole)) if steps else 0

        def keep(step: Step) -> None:
            steps.append(step)
            write_steps(bench.folder.steps, self._steps)
            bench.progress.advance(way(), f"{step.latency_ms:.2f} ms  {called} {step.top1:.2f}  {step.change}")

        return netadapt(
            seed.architecture, bench.judge.device, bench.logged, limit_ms,
            options=bench.folder.settings.netadapt_options(), resume=_up_to(steps, limit_ms), on_step=keep,
            on_pricing=lambda done, total, what: bench.progress.advance(way(), f"{what}: {done} of {total}"),
        )  # fmt: skip

    def save(self) -> None:
        """Write the table of steps, also where there are none."""
        write_steps(self._bench.folder.steps, self._steps)


def _up_to(steps: Sequence[Step], limit_ms: float) -> list[Step]:
    """The steps that lead to ``limit_ms``: later ones were made for a lower limit."""
    within = next((i for i, step in enumerate(steps) if step.latency_ms <= limit_ms), len(steps))
    return list(steps[: within + 1])


def narrowed(results: dict[int, NetAdaptResult], seeds: Sequence[Candidate]) -> list[Candidate]:
    """The networks that NetAdapt ended with, each numbered by its finalist; one that needed no step is its seed."""
    return [replace(result.final, number=index) if result.steps else seeds[index] for index, result in results.items()]


def widened(result: NetAdaptResult, limit_ms: float) -> NetAdaptResult | None:
    """The part of a narrowing that ends at the first step within ``limit_ms``; None where that is the seed or the end."""
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
