"""The stages of a run: block search above the target, NetAdapt down to it, the winner, the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mnv3search.accuracy.registry import load_evaluator
from mnv3search.candidate import Candidate, pareto_front
from mnv3search.errors import InfeasibleError, RunError
from mnv3search.latency.target import parse_target
from mnv3search.layer_search import NetAdaptResult, Step, netadapt
from mnv3search.report.picture import shown_candidates
from mnv3search.report.summary import Judged, RunSummary
from mnv3search.runs.artifacts import write_report
from mnv3search.runs.blocks import BlockStage, block_stage
from mnv3search.runs.doubts import doubts, measured_verdict
from mnv3search.runs.evaluations import LoggingEvaluator, RememberingEvaluator
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.judging import Judge, published_top1
from mnv3search.runs.outcome import RunOutcome
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.records import read_steps, write_steps
from mnv3search.runs.references import reference_networks
from mnv3search.runs.subject import load_network_subject, load_space_subject
from mnv3search.runs.winner import choose_winner

if TYPE_CHECKING:
    from mnv3search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class _Bench:
    """What every stage of one run works with."""

    folder: RunFolder
    judge: Judge
    memory: RememberingEvaluator
    logged: LoggingEvaluator
    progress: RunProgress
    started: float

    @staticmethod
    def of(folder: RunFolder, progress: RunProgress) -> _Bench:
        memory = RememberingEvaluator(load_evaluator(folder.settings.evaluator))
        logged = LoggingEvaluator(memory, folder.path / "evaluations.jsonl")
        judge = Judge.of(folder.device, logged, progress)
        return _Bench(folder, judge, memory, logged, progress, time.monotonic())


def whole_run(folder: RunFolder, progress: RunProgress) -> RunOutcome:
    """Block search at (1 + slack) · target, NetAdapt on the finalists, the better of these and the best direct one.

    Raises:
        InfeasibleError: no network of the space meets the target.
        RunError: files that cannot be written or read.
    """
    bench = _Bench.of(folder, progress)
    space = load_space_subject(folder)
    reference = _reference(bench, space)
    target_ms = parse_target(folder.settings.target).milliseconds(reference.latency_ms)
    stage = block_stage(bench.folder, space, bench.judge, bench.memory, target_ms, progress)
    adapted = _adapt(bench, stage.finalists, target_ms, may_fall_short=True)
    best, notes = choose_winner(stage, adapted, target_ms)
    shown = adapted[best.number] if best.origin == "netadapt" else next(iter(adapted), None)
    finalists = [
        bench.judge.judge(f"finalist {i + 1} after NetAdapt", result.final.architecture, "netadapt")
        for i, result in enumerate(adapted)
        if result.reached and result.final.architecture != best.architecture
    ]
    return _conclude(bench, _Found(target_ms, reference, best, notes, stage, shown, finalists))


def search_run(folder: RunFolder, progress: RunProgress) -> RunOutcome:
    """Block search alone, at the target."""
    bench = _Bench.of(folder, progress)
    space = load_space_subject(folder)
    reference = _reference(bench, space)
    target_ms = parse_target(folder.settings.target).milliseconds(reference.latency_ms)
    stage = block_stage(bench.folder, space, bench.judge, bench.memory, target_ms, progress)
    best, notes = choose_winner(stage, [], target_ms)
    return _conclude(bench, _Found(target_ms, reference, best, notes, stage))


def netadapt_run(folder: RunFolder, progress: RunProgress) -> RunOutcome:
    """NetAdapt alone, from a network to the target."""
    bench = _Bench.of(folder, progress)
    architecture = load_network_subject(folder)
    subject = folder.settings.subject
    progress.stage("pricing the seed")
    reference = bench.judge.judge(subject, architecture, "reference", published_top1(subject))
    target_ms = parse_target(folder.settings.target).milliseconds(reference.latency_ms)
    seed = Candidate(
        architecture, _known(reference.top1), reference.top1_std, reference.latency_ms, reference.madds,
        reference.parameters, "reference", 0,
    )  # fmt: skip
    result = _adapt(bench, [seed], target_ms)[0]
    if not result.reached:
        raise InfeasibleError(target_ms, result.final.latency_ms, reference.latency_ms, exact=False, narrowing=True)
    notes = [] if result.steps else [f"the seed already meets the target: {reference.latency_ms:.2f} ms"]
    return _conclude(bench, _Found(target_ms, reference, result.final, notes, adapted=result))


def _reference(bench: _Bench, space: SearchSpace) -> Judged:
    bench.progress.stage("pricing the reference")
    published = published_top1(space.reference_name) if space.reference_name else None
    return bench.judge.judge(space.reference_label, space.reference, "reference", published)


def _known(top1: float | None) -> float:
    if top1 is None:
        raise RunError("NetAdapt needs an evaluator: it chooses by accuracy")
    return top1


def _adapt(
    bench: _Bench, seeds: Sequence[Candidate], target_ms: float, *, may_fall_short: bool = False
) -> list[NetAdaptResult]:
    """NetAdapt on each of ``seeds``; one that cannot reach the target ends the run unless it ``may_fall_short``."""
    recorded = read_steps(bench.folder.steps)
    results = []
    for index, seed in enumerate(seeds):
        earlier = recorded.get(index + 1, [])
        steps = recorded.setdefault(index + 1, [])
        whole = max(seed.latency_ms - target_ms, 1e-9)
        bench.progress.stage(f"NetAdapt {index + 1} of {len(seeds)}", 100)

        def keep(step: Step, steps: list[Step] = steps, seed: Candidate = seed, whole: float = whole) -> None:
            steps.append(step)
            write_steps(bench.folder.steps, recorded)
            done = min(100, round(100 * (seed.latency_ms - step.latency_ms) / whole))
            bench.progress.advance(done, f"{step.latency_ms:.2f} ms  top-1 {step.top1:.2f}  {step.change}")

        try:
            result = netadapt(
                seed.architecture, bench.judge.device, bench.logged, target_ms,
                options=bench.folder.settings.netadapt_options(), resume=list(earlier), on_step=keep,
            )  # fmt: skip
        except InfeasibleError:
            if not may_fall_short:
                raise
            result = NetAdaptResult(seed, (), seed, reached=False, evaluated=0)
        results.append(result)
    write_steps(bench.folder.steps, recorded)
    return results


@dataclass(frozen=True, slots=True)
class _Found:
    """What the stages of a run found; ``adapted`` is the NetAdapt whose steps the report shows."""

    target_ms: float
    reference: Judged
    best: Candidate
    notes: Sequence[str]
    stage: BlockStage | None = None
    adapted: NetAdaptResult | None = None
    finalists: Sequence[Judged] = ()


def _conclude(bench: _Bench, found: _Found) -> RunOutcome:
    """Judge and time the winners, write every file, and say what was found."""
    judge = bench.judge
    winner = judge.judge("best", found.best.architecture, found.best.origin)
    bench.progress.stage("pricing published networks")
    others = reference_networks(judge, found.reference, found.target_ms)
    winner, reference, *rest = judge.measured([winner, found.reference, *found.finalists, *others])
    finalists, references = rest[: len(found.finalists)], [reference, *rest[len(found.finalists) :]]
    summary = _summary(bench, found, winner, references, finalists)
    bench.progress.stage("writing the report")
    write_report(bench.folder, summary)
    evaluated, seconds = bench.memory.distinct, time.monotonic() - bench.started
    bench.folder.finish("finished", seconds, evaluated=evaluated, target_latency_ms=found.target_ms)
    return RunOutcome(summary, reference, evaluated, float(bench.folder.manifest["seconds"]), bench.folder)


def _summary(
    bench: _Bench, found: _Found, winner: Judged, references: Sequence[Judged], finalists: Sequence[Judged]
) -> RunSummary:
    settings, judge = bench.folder.settings, bench.judge
    candidates = list(found.stage.candidates) if found.stage else []
    front = pareto_front([*candidates, found.best])
    seed, steps = (found.adapted.seed, found.adapted.steps) if found.adapted else (None, ())
    shown = [candidate.architecture for group in shown_candidates(candidates, front) for candidate in group]
    shown += [step.architecture for step in steps] + ([seed.architecture] if seed else [])
    return RunSummary(
        title=f"{settings.subject} for {found.target_ms:.4g} ms on {judge.device_name}",
        space=None if settings.kind == "netadapt" else settings.subject,
        device=judge.device_name,
        device_kind=judge.kind,
        evaluator=settings.evaluator,
        top1_estimated=bench.memory.estimated,
        target_latency_ms=found.target_ms,
        best=winner,
        references=references,
        finalists=finalists,
        candidates=candidates,
        front=front,
        seed=seed,
        steps=steps,
        notes=[
            *found.notes,
            *measured_verdict(winner, finalists, found.target_ms),
            *doubts(settings.evaluator, winner),
        ],
        manifest=bench.folder.manifest | {"seconds": bench.folder.seconds_with(time.monotonic() - bench.started)},
        latency_errors_ms=judge.errors_ms(shown),
    )
