"""The stages of a run: block search above the target, NetAdapt down to it, the final selection, the report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.architecture import Architecture, dump_architecture, load_architecture
from mnv3search.block_search import reward, search
from mnv3search.block_search.row_latency import Feasibility, RowLatency, assess
from mnv3search.candidate import Candidate, pareto_front
from mnv3search.errors import RunError
from mnv3search.files import write_atomic, write_text
from mnv3search.latency.confidence import stated_errors_ms
from mnv3search.latency.measured.calibration import prepare_for_space
from mnv3search.latency.model import Device
from mnv3search.layer_search.netadapt import fastest_narrowing
from mnv3search.naming import parse_network
from mnv3search.report.pareto import shown_candidates
from mnv3search.report.summary import RunSummary, ScoredNetwork, TargetVerdict
from mnv3search.runs.artifacts import REPORT, RunOutcome, read_steps, write_report
from mnv3search.runs.caveats import (
    caveats,
    confidence_note,
    kept_note,
    no_ranking,
    prior_score,
    repair_note,
    short_training_notes,
)
from mnv3search.runs.context import RunContext
from mnv3search.runs.evaluations import published_top1, reference_networks
from mnv3search.runs.final_selection import FinalSelection, Selected, how_it_won
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.images import class_count
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.target import LatencyConstraint
from mnv3search.training.progress import duration_text

if TYPE_CHECKING:
    from mnv3search.block_search import SearchProgress
    from mnv3search.space import SearchSpace


def load_space_subject(folder: RunFolder) -> SearchSpace:
    """The run's space, from the copy in its folder; its networks take the classes of the run's images."""
    from mnv3search.space import load_space, parse_space, space_text

    copy = folder.path / "space.yaml"
    if not copy.exists():
        load_space(folder.settings.subject)
        write_text(copy, space_text(folder.settings.subject))
    space = parse_space(space_text(copy), Path(folder.settings.subject).stem, str(copy))
    classes = class_count(folder)
    return space if classes is None else with_classes(space, classes)


def with_classes(space: SearchSpace, classes: int) -> SearchSpace:
    """``space`` with networks of so many classes, its reference too."""
    if classes == space.skeleton.classes:
        return space
    return replace(
        space, skeleton=replace(space.skeleton, classes=classes), reference=space.reference.with_classes(classes),
        reference_name=None,
        reference_label=f"{space.reference_label.split(' (', maxsplit=1)[0]} (for {classes} classes)",
    )  # fmt: skip


def load_network_subject(folder: RunFolder) -> Architecture:
    """The run's seed network, from the copy in its folder, with the classes of the run's images."""
    copy = folder.path / "seed.json"
    if not copy.exists():
        write_text(copy, dump_architecture(parse_network(folder.settings.subject)))
    network, classes = load_architecture(copy), class_count(folder)
    return network if classes is None else network.with_classes(classes)


@dataclass(frozen=True, slots=True)
class BlockStage:
    """What the block search gave.

    Attributes:
        candidates: every evaluated network.
        ranked: the same, best first.
        finalists: the best within (1 + slack) times the limit of each, best first, for NetAdapt; empty for block search
            alone.
        feasibility: the space's range; its fastest network is within the target.
    """

    candidates: Sequence[Candidate]
    ranked: Sequence[Candidate]
    finalists: Sequence[Candidate]
    feasibility: Feasibility
    notes: Sequence[str]


def block_stage(
    context: RunContext, space: SearchSpace, constraint: LatencyConstraint, rows: RowLatency, feasibility: Feasibility
) -> BlockStage:
    """Search ``space`` at (1 + slack) times what the constraint allows (block search alone: at what it allows)."""
    settings, progress = context.folder.settings, context.progress
    adapts = settings.kind == "run" and settings.finalists > 0
    slack = settings.slack if adapts else 0.0
    context.pinned.check("block_search_limit_ms", *constraint.limits_range_ms(slack))
    limit_ms = context.pinned.pin(
        "block_search_limit_ms",
        lambda: (1 + slack) * constraint.search_limit_ms(space, rows, settings.seed, feasibility.fastest_ms),
    )
    progress.stage(f"block search within {limit_ms:.4g} ms", settings.trials)
    result = search(
        space, context.scorer.device, context.cache, limit_ms, settings.trials, settings.seed, sampler=settings.sampler,
        objectives=settings.objectives, reward_exponent=settings.reward_exponent, hard=not settings.soft,
        pruner=settings.pruner, storage=context.folder.study, priced=rows,
        start=[space.reference], progress=lambda p: progress.advance(p.done, _standing(p), p.trials),
    )  # fmt: skip
    context.cache.remember({c.architecture: Evaluation(c.top1, c.top1_std) for c in result.candidates})
    exponent = settings.reward_exponent if settings.soft else 0.0
    ranked = sorted(
        result.candidates, key=lambda c: (-reward(c.top1, c.latency_ms, limit_ms, exponent), c.latency_ms, c.number)
    )
    finalists = constraint.best_within(ranked, settings.finalists, slack) if adapts else []
    if adapts and len(finalists) < settings.finalists:  # NetAdapt then has a little farther to go
        finalists += [c for c in ranked[: settings.finalists] if c not in finalists][
            : settings.finalists - len(finalists)
        ]
    context.folder.note(objective=result.objective)
    notes = [f"the block search maximised {result.objective}"]
    if constraint.never_binds(feasibility):
        notes.append(f"the target never binds: the slowest network of the space takes {feasibility.slowest_ms:.2f} ms")
    if result.stopped:
        notes.append(f"{result.stopped} of {result.evaluated} networks were given up while they were trained")
    return BlockStage(result.candidates, ranked, finalists, feasibility, notes)


def _standing(progress: SearchProgress) -> str:
    if progress.best_top1 is None:
        return "none within the limit yet"
    return f"best {progress.best_top1:.2f} at {progress.best_latency_ms:.2f} ms"


def stages(folder: RunFolder, progress: RunProgress, device: Device | None = None) -> RunOutcome:
    """Every stage of the run of ``folder``; ``device`` stands in for the one that its settings name."""
    if folder.settings.kind == "netadapt":
        return netadapt_stages(RunContext.of(folder, progress, device))
    space = cache(partial(load_space_subject, folder))
    return space_stages(RunContext.of(folder, progress, device, space), space())


def space_stages(context: RunContext, space: SearchSpace) -> RunOutcome:
    """Block search above the target, NetAdapt on the finalists, the best of these and of the direct candidates."""
    context.progress.stage("pricing the space and its reference")
    prepare_for_space(space, context.scorer.device, context.scorer.on_progress)
    constraint = context.constraint(space.reference, context.scorer.latencies([space.reference])[0][0])
    context.progress.stage("bounding the space's latency")
    rows = RowLatency(space, context.scorer.device, context.scorer.on_progress)
    feasibility = assess(space, rows, context.folder.settings.seed)
    constraint.require(feasibility)  # before anything is evaluated: an evaluator may train
    _report_cost(context, space)
    context.progress.stage("scoring the reference")
    published = published_top1(space.reference_name) if space.reference_name else None
    reference = context.scorer.score(space.reference_label, space.reference, "reference", published)
    stage = block_stage(context, space, constraint, rows, feasibility)
    others = _others(context, reference, constraint)
    selected = FinalSelection(
        context, constraint, stage.finalists, stage.ranked,
        lambda: context.scorer.candidate(stage.feasibility.fastest, "block_search", 0),
        [n.architecture for n in (reference, *others)],
    ).select()  # fmt: skip
    steps = len(selected.shown.steps) if selected.shown else 0
    unit = context.cache.capabilities.score_name or "points of top-1"
    notes = [*stage.notes, *how_it_won(selected.best, selected.within, steps, unit)]
    return _conclude(context, _Found(constraint, reference, others, selected, notes, stage))


def netadapt_stages(context: RunContext) -> RunOutcome:
    """NetAdapt alone, from a network to the target."""
    architecture = load_network_subject(context.folder)
    subject = context.folder.settings.subject
    context.progress.stage("pricing the seed")
    seed_ms, _ = context.scorer.latencies([architecture])[0]
    constraint = context.constraint(architecture, seed_ms)
    _check_narrowing(context, constraint, architecture, seed_ms)
    reference = context.scorer.score(subject, architecture, "reference", published_top1(subject))
    seed = context.scorer.candidate(architecture, "reference", 0)
    others = _others(context, reference, constraint)
    selected = FinalSelection(
        context, constraint, [seed], (), lambda: _too_slow(context, constraint, architecture, seed_ms),
        [n.architecture for n in (reference, *others)],
    ).select()  # fmt: skip
    steps = selected.shown.steps if selected.shown else ()
    notes = [] if steps else [f"the seed already meets the target: {reference.latency_ms:.2f} ms"]
    return _conclude(context, _Found(constraint, reference, others, selected, notes))


def _report_cost(context: RunContext, space: SearchSpace) -> None:
    """What the trainings of the run will take, by a few steps of the reference; of one that goes on nothing is said."""
    if not context.cache.capabilities.trains or context.cache.distinct:
        return
    context.progress.stage("timing a few steps of training")
    seconds, trials = context.cache.capabilities.seconds_each(space.reference), context.folder.settings.trials
    if seconds is not None:
        context.progress.note(
            f"about {duration_text(seconds)} to train a network like the reference on this machine, and up to "
            f"{duration_text(seconds * (trials + 1))} for the {trials} of the search; those that are given up take less"
        )


def _others(context: RunContext, reference: ScoredNetwork, constraint: LatencyConstraint) -> list[ScoredNetwork]:
    context.progress.stage("pricing published networks")
    return reference_networks(context.scorer, reference, constraint.target_ms)


def _check_narrowing(context: RunContext, constraint: LatencyConstraint, seed: Architecture, seed_ms: float) -> None:
    """Refuse what NetAdapt would refuse after the seed was scored; a narrowing that was begun passed before."""
    limit_ms = constraint.limit_of(seed)
    if seed_ms <= limit_ms or context.folder.steps.exists():
        return
    if _fastest(context, seed, limit_ms)[1] > limit_ms:
        _too_slow(context, constraint, seed, seed_ms)


def _too_slow(context: RunContext, constraint: LatencyConstraint, seed: Architecture, seed_ms: float) -> Candidate:
    """Raise why NetAdapt did not bring ``seed`` to the target: its steps were too large, or it is infeasible."""
    fastest, fastest_ms = _fastest(context, seed, constraint.limit_of(seed))
    if fastest_ms <= constraint.limit_of(seed):
        step = context.folder.settings.step_fraction
        raise RunError(
            f"the steps of NetAdapt ended above {constraint.target_ms:g} ms, though it narrows this network to "
            f"{fastest_ms:.2f} ms: no layer that was left could be cut by a whole --step of {step:g} of the latency; "
            "begin again with a smaller one"
        )
    error = stated_errors_ms(context.scorer.device, [fastest])
    raise constraint.infeasible(fastest_ms, float(error[0]), seed_ms, exact=False, narrowing=True)


def _fastest(context: RunContext, seed: Architecture, enough_ms: float) -> tuple[Architecture, float]:
    divisor = context.folder.settings.netadapt_options().divisor
    return fastest_narrowing(seed, context.scorer.device, enough_ms, divisor, context.scorer.on_progress)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the stages of a run found."""

    constraint: LatencyConstraint
    reference: ScoredNetwork
    others: Sequence[ScoredNetwork]
    selected: Selected
    notes: Sequence[str]
    stage: BlockStage | None = None


def _conclude(context: RunContext, found: _Found) -> RunOutcome:
    """Score the winner and the others, write every file, and say what was found."""
    selected, scorer = found.selected, context.scorer
    winner = _timed(context, scorer.score("best", selected.best.architecture, selected.best.origin))
    lasts = {finalist: steps[-1].architecture for finalist, steps in read_steps(context.folder.steps).items() if steps}
    finalists = [
        replace(_timed(context, scorer.score(_name(c, i), c.architecture, c.origin)), address=_address(c, lasts))
        for i, c in enumerate(selected.attempt.candidates, start=1)
        if c.architecture != selected.best.architecture and (c.origin == "netadapt" or selected.met is not None)
    ]
    references = [_timed(context, n) for n in (found.reference, *found.others)]
    _keep_trained(context, winner)
    summary = _summary(context, found, winner, references, finalists)
    if context.folder.lacks(*REPORT):
        context.progress.stage("writing the report")
        write_report(context.folder, summary)
    evaluated = context.cache.distinct
    context.folder.finish("finished", evaluated=evaluated, target_latency_ms=found.constraint.target_ms)
    return RunOutcome(summary, references[0], evaluated, float(context.folder.manifest["seconds"]), context.folder)


def _timed(context: RunContext, network: ScoredNetwork) -> ScoredNetwork:
    """The network with its measured time among its figures, where it was timed."""
    timed = context.timings.known.get(network.architecture)
    return replace(network, measured_ms=timed.ms, measured_error_ms=timed.error_ms) if timed else network


def _keep_trained(context: RunContext, winner: ScoredNetwork) -> None:
    """Copy the winner out of the networks that the evaluator trained, so that commands take the folder as a RUN."""
    trained = context.cache.capabilities.trained_file(winner.architecture)
    if trained is None and not context.folder.finished:
        context.folder.best.unlink(missing_ok=True)  # of a session that was stopped before it named another
    elif trained is not None and context.folder.lacks(context.folder.best.name):
        write_atomic(context.folder.best, partial(shutil.copyfile, trained))


def _name(candidate: Candidate, position: int) -> str:
    if candidate.origin == "netadapt":
        return f"finalist {candidate.number + 1} after NetAdapt"
    return f"direct candidate {position}"


def _address(candidate: Candidate, lasts: Mapping[int, Architecture]) -> str | None:
    """How commands name a candidate after its run's folder; None where only an earlier step of its finalist is it."""
    if candidate.origin == "netadapt":
        is_last = lasts.get(candidate.number + 1) == candidate.architecture
        return f":finalist/{candidate.number + 1}" if is_last else None
    return f":{candidate.number}" if candidate.origin == "block_search" else None


def _verdict(found: _Found, winner: ScoredNetwork) -> TargetVerdict:
    selected, constraint = found.selected, found.constraint
    latency_ms = winner.latency_ms if winner.measured_ms is None else winner.measured_ms
    margin = 100 * (1 - latency_ms / constraint.target_ms)
    return TargetVerdict(
        constraint.target_ms, constraint.confidence, selected.met, margin, selected.timed, selected.repairs
    )


def _summary(
    context: RunContext,
    found: _Found,
    winner: ScoredNetwork,
    references: Sequence[ScoredNetwork],
    finalists: Sequence[ScoredNetwork],
) -> RunSummary:
    settings, scorer, constraint = context.folder.settings, context.scorer, found.constraint
    candidates = list(found.stage.candidates) if found.stage else []
    front = pareto_front([*candidates, found.selected.best])
    adapted = found.selected.shown
    seed, steps = (adapted.seed, adapted.steps) if adapted else (None, ())
    shown = [candidate.architecture for group in shown_candidates(candidates, front) for candidate in group]
    shown += [step.architecture for step in steps] + ([seed.architecture] if seed else [])
    verdict = _verdict(found, winner)
    return RunSummary(
        title=f"{settings.subject} for {constraint.target_ms:.4g} ms on {scorer.device.name}",
        space=None if settings.kind == "netadapt" else settings.subject,
        device=scorer.device.name,
        device_kind=scorer.device.kind,
        evaluator=settings.evaluator,
        top1_estimated=context.cache.capabilities.estimated,
        target_latency_ms=constraint.target_ms,
        best=winner,
        verdict=verdict,
        references=references,
        finalists=finalists,
        candidates=candidates,
        front=front,
        seed=seed,
        steps=steps,
        notes=[*found.notes, *confidence_note(verdict, winner), *repair_note(verdict), *_caveats(context, winner)],
        manifest=context.folder.manifest | {"seconds": context.folder.seconds},
        latency_errors_ms=scorer.errors_ms(shown),
        score=context.cache.capabilities.score_name or prior_score(settings.evaluator, winner.architecture),
        trained=context.folder.best.name if context.folder.best.is_file() else None,
        no_ranking=_no_ranking(context, candidates, winner),
    )


def _no_ranking(context: RunContext, candidates: Sequence[Candidate], winner: ScoredNetwork) -> str | None:
    can = context.cache.capabilities
    if not can.trains or can.score_name:
        return None
    chance = max(can.chance, 100 / winner.architecture.classes)
    return no_ranking([(c.top1, c.top1_std) for c in candidates], chance, context.folder.settings.evaluator)


def _caveats(context: RunContext, winner: ScoredNetwork) -> list[str]:
    settings = context.folder.settings
    trained = short_training_notes(settings) if context.cache.capabilities.trains else ()
    kept = kept_note(context.folder.path) if context.folder.best.is_file() else ()
    return [*caveats(settings.evaluator, winner), *trained, *kept]
