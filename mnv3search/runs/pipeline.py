"""The stages of a run: block search above the target, NetAdapt down to it, the final selection, the report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.architecture import Architecture, dump_architecture, load_architecture
from mnv3search.block_search import reward, search
from mnv3search.block_search.row_latency import Feasibility, RowLatency, assess
from mnv3search.candidate import Candidate, pareto_front
from mnv3search.errors import DeviceError, RunError
from mnv3search.files import write_atomic, write_text
from mnv3search.latency.confidence import stated_errors_ms
from mnv3search.latency.model import Device
from mnv3search.latency.measured.calibration import prepare_for_space
from mnv3search.layer_search.netadapt import fastest_narrowing
from mnv3search.naming import parse_network
from mnv3search.reading import read_bounded, utf8
from mnv3search.report.pareto import shown_candidates
from mnv3search.report.summary import Judged, RunSummary, TargetVerdict
from mnv3search.runs.artifacts import RunOutcome, read_steps, write_report
from mnv3search.runs.context import Bench
from mnv3search.runs.caveats import (
    aim_note,
    doubts,
    kept_note,
    no_ranking,
    prior_score,
    repair_note,
    short_training_notes,
)
from mnv3search.runs.evaluations import published_top1, reference_networks
from mnv3search.runs.final_selection import Contenders, Contest, contest, how_it_won
from mnv3search.runs.folder import RunFolder
from mnv3search.runs.images import class_count
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.target import Aim
from mnv3search.training.progress import duration_text
from pathlib import Path
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class Bounds:
    """A space priced: its latencies by row, and its range."""

    rows: RowLatency
    feasibility: Feasibility


def bounded(bench: Bench, space: SearchSpace, aim: Aim) -> Bounds:
    """The range of ``space``, in which the aim can be met; nothing is evaluated.

    Raises:
        InfeasibleError: no network of the space meets the target with the confidence that was asked for.
    """
    bench.progress.stage("bounding the space's latency")
    rows = RowLatency(space, bench.judge.device, bench.judge.told)
    feasibility = assess(space, rows, bench.folder.settings.seed)
    aim.require(feasibility)
    return Bounds(rows, feasibility)


def block_stage(bench: Bench, space: SearchSpace, aim: Aim, bounds: Bounds) -> BlockStage:
    """Search ``space`` at (1 + slack) times what the aim allows (block search alone: at what it allows)."""
    settings, judge, progress = bench.folder.settings, bench.judge, bench.progress
    rows, feasibility = bounds.rows, bounds.feasibility
    adapts = settings.kind == "run" and settings.finalists > 0
    slack = settings.slack if adapts else 0.0
    bench.decisions.check("block_search_limit_ms", *aim.limits_range_ms(slack))
    limit_ms = bench.decisions.fix(
        "block_search_limit_ms",
        lambda: (1 + slack) * aim.search_limit_ms(space, rows, settings.seed, feasibility.fastest_ms),
    )
    progress.stage(f"block search within {limit_ms:.4g} ms", settings.trials)
    result = search(
        space, judge.device, bench.memory, limit_ms, settings.trials, settings.seed, sampler=settings.sampler,
        objectives=settings.objectives, reward_exponent=settings.reward_exponent, hard=not settings.soft,
        pruner=settings.pruner, storage=bench.folder.study, priced=rows,
        start=[space.reference], progress=lambda p: progress.advance(p.done, _standing(p), p.trials),
    )  # fmt: skip
    bench.memory.remember({c.architecture: Evaluation(c.top1, c.top1_std) for c in result.candidates})
    exponent = settings.reward_exponent if settings.soft else 0.0
    ranked = sorted(
        result.candidates, key=lambda c: (-reward(c.top1, c.latency_ms, limit_ms, exponent), c.latency_ms, c.number)
    )
    finalists = aim.best_within(ranked, settings.finalists, slack) if adapts else []
    if adapts and len(finalists) < settings.finalists:  # NetAdapt then has a little farther to go
        finalists += [c for c in ranked[: settings.finalists] if c not in finalists][
            : settings.finalists - len(finalists)
        ]
    bench.folder.note(objective=result.objective)
    notes = [f"the block search maximised {result.objective}"]
    if aim.never_binds(feasibility):
        notes.append(f"the target never binds: the slowest network of the space takes {feasibility.slowest_ms:.2f} ms")
    if result.stopped:
        notes.append(f"{result.stopped} of {result.evaluated} networks were given up while they were trained")
    return BlockStage(result.candidates, ranked, finalists, feasibility, notes)


def _standing(progress: SearchProgress) -> str:
    if progress.best_top1 is None:
        return "none within the limit yet"
    return f"best {progress.best_top1:.2f} at {progress.best_latency_ms:.2f} ms"


def whole_run(folder: RunFolder, progress: RunProgress, device: Device | None = None) -> RunOutcome:
    """Block search above the target, NetAdapt on the finalists, the best of these and of the direct candidates.

    ``device`` stands in for the one that the settings name, for a caller that has it at hand.

    Raises:
        InfeasibleError: no network of the space meets the target with the confidence that was asked for.
        MeasurementError: the device is timed, and failed.
        RunError: files that cannot be written or read.
    """
    loaded = cache(partial(load_space_subject, folder))
    bench = Bench.of(folder, progress, device, loaded)
    space = loaded()
    aim = _aim(bench, space)
    bounds = bounded(bench, space, aim)  # an evaluator may train: nothing is asked of it for a target out of reach
    _say_cost(bench, space)
    reference = _reference(bench, space)
    stage = block_stage(bench, space, aim, bounds)
    pool = Contenders(
        stage.finalists, stage.ranked, lambda: bench.candidate(stage.feasibility.fastest, "block_search", 0)
    )
    others = _others(bench, reference, aim)
    ended = contest(bench, aim, pool, [n.architecture for n in (reference, *others)])
    steps = len(ended.shown.steps) if ended.shown else 0
    unit = bench.memory.capabilities.score_name or "points of top-1"
    notes = [*stage.notes, *how_it_won(ended.best, ended.within, steps, unit)]
    return _conclude(bench, _Found(aim, reference, others, ended, notes, stage))


def search_run(folder: RunFolder, progress: RunProgress, device: Device | None = None) -> RunOutcome:
    """Block search alone, at the target; as :func:`whole_run`, which narrows nothing where no finalists are named."""
    return whole_run(folder, progress, device)


def netadapt_run(folder: RunFolder, progress: RunProgress, device: Device | None = None) -> RunOutcome:
    """NetAdapt alone, from a network to the target; as :func:`whole_run`."""
    bench = Bench.of(folder, progress, device)
    architecture = load_network_subject(folder)
    subject = folder.settings.subject
    progress.stage("pricing the seed")
    seed_ms, _ = bench.judge.latencies([architecture])[0]
    aim = bench.aim(architecture, seed_ms)
    _check_narrowing(bench, aim, architecture, seed_ms)
    reference = bench.judge.judge(subject, architecture, "reference", published_top1(subject))
    seed = bench.candidate(architecture, "reference", 0)
    others = _others(bench, reference, aim)
    pool = Contenders([seed], (), lambda: _too_slow(bench, aim, architecture, seed_ms))
    ended = contest(bench, aim, pool, [n.architecture for n in (reference, *others)])
    steps = ended.shown.steps if ended.shown else ()
    notes = [] if steps else [f"the seed already meets the target: {reference.latency_ms:.2f} ms"]
    return _conclude(bench, _Found(aim, reference, others, ended, notes))


def _aim(bench: Bench, space: SearchSpace) -> Aim:
    bench.progress.stage("pricing the space and its reference")
    prepare_for_space(space, bench.judge.device, bench.judge.told)
    return bench.aim(space.reference, bench.judge.latencies([space.reference])[0][0])


def _say_cost(bench: Bench, space: SearchSpace) -> None:
    """What the trainings of the run will take, by a few steps of the reference; of one that goes on nothing is said."""
    if not bench.memory.capabilities.trains or bench.memory.distinct:
        return
    bench.progress.stage("timing a few steps of training")
    seconds, trials = bench.memory.capabilities.seconds_each(space.reference), bench.folder.settings.trials
    if seconds is not None:
        bench.progress.note(
            f"about {duration_text(seconds)} to train a network like the reference on this machine, and up to "
            f"{duration_text(seconds * (trials + 1))} for the {trials} of the search; those that are given up take less"
        )


def _reference(bench: Bench, space: SearchSpace) -> Judged:
    bench.progress.stage("judging the reference")
    published = published_top1(space.reference_name) if space.reference_name else None
    return bench.judge.judge(space.reference_label, space.reference, "reference", published)


def _others(bench: Bench, reference: Judged, aim: Aim) -> list[Judged]:
    bench.progress.stage("pricing published networks")
    return reference_networks(bench.judge, reference, aim.target_ms)


def _check_narrowing(bench: Bench, aim: Aim, seed: Architecture, seed_ms: float) -> None:
    """Refuse what NetAdapt would refuse after the seed was judged; a narrowing that was begun passed before.

    Raises:
        InfeasibleError: even the fastest narrowing is above the target.
    """
    limit_ms = aim.limit_of(seed)
    if seed_ms <= limit_ms or bench.folder.steps.exists():
        return
    if _fastest(bench, seed, limit_ms)[1] > limit_ms:
        _too_slow(bench, aim, seed, seed_ms)


def _too_slow(bench: Bench, aim: Aim, seed: Architecture, seed_ms: float) -> Candidate:
    """Raise why NetAdapt did not bring ``seed`` to the target.

    Raises:
        RunError: its steps were too large.
        InfeasibleError: else.
    """
    fastest, fastest_ms = _fastest(bench, seed, aim.limit_of(seed))
    if fastest_ms <= aim.limit_of(seed):
        step = bench.folder.settings.step_fraction
        raise RunError(
            f"the steps of NetAdapt ended above {aim.target_ms:g} ms, though it narrows this network to "
            f"{fastest_ms:.2f} ms: no layer that was left could be cut by a whole --step of {step:g} of the latency; "
            "begin again with a smaller one"
        )
    error = stated_errors_ms(bench.judge.device, [fastest])
    raise aim.infeasible(fastest_ms, float(error[0]), seed_ms, exact=False, narrowing=True)


def _fastest(bench: Bench, seed: Architecture, enough_ms: float) -> tuple[Architecture, float]:
    divisor = bench.folder.settings.netadapt_options().divisor
    return fastest_narrowing(seed, bench.judge.device, enough_ms, divisor, bench.judge.told)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the stages of a run found."""

    aim: Aim
    reference: Judged
    others: Sequence[Judged]
    ended: Contest
    notes: Sequence[str]
    stage: BlockStage | None = None


def _conclude(bench: Bench, found: _Found) -> RunOutcome:
    """Judge the winner and the others, write every file, and say what was found."""
    ended, judge = found.ended, bench.judge
    winner = _timed(bench, judge.judge("best", ended.best.architecture, ended.best.origin))
    lasts = {finalist: steps[-1].architecture for finalist, steps in read_steps(bench.folder.steps).items() if steps}
    finalists = [
        replace(_timed(bench, judge.judge(_name(c, i), c.architecture, c.origin)), address=_address(c, lasts))
        for i, c in enumerate(ended.attempt.contenders, start=1)
        if c.architecture != ended.best.architecture and (c.origin == "netadapt" or ended.met is not None)
    ]
    references = [_timed(bench, n) for n in (found.reference, *found.others)]
    _keep_trained(bench, winner)
    summary = _summary(bench, found, winner, references, finalists)
    bench.progress.stage("writing the report")
    write_report(bench.folder, summary)
    evaluated = bench.memory.distinct
    bench.folder.finish("finished", evaluated=evaluated, target_latency_ms=found.aim.target_ms)
    return RunOutcome(summary, references[0], evaluated, float(bench.folder.manifest["seconds"]), bench.folder)


def _timed(bench: Bench, network: Judged) -> Judged:
    """The network with its measured time beside its figures, where it was timed."""
    timed = bench.timings.known.get(network.architecture)
    return replace(network, measured_ms=timed.measured_ms, measured_error_ms=timed.error_ms) if timed else network


def _keep_trained(bench: Bench, winner: Judged) -> None:
    """Copy the winner out of the networks that the evaluator trained, so that the folder can be judged and exported."""
    trained = bench.memory.capabilities.trained_file(winner.architecture)
    if trained is None:
        bench.folder.trained.unlink(missing_ok=True)  # of a session that was stopped before it named another
    else:
        write_atomic(bench.folder.trained, partial(shutil.copyfile, trained))


def _name(contender: Candidate, place: int) -> str:
    if contender.origin == "netadapt":
        return f"finalist {contender.number + 1} after NetAdapt"
    return f"direct candidate {place}"


def _address(contender: Candidate, lasts: Mapping[int, Architecture]) -> str | None:
    """How commands name a contender after its run's folder; None where only an earlier step of its finalist is it."""
    if contender.origin == "netadapt":
        is_last = lasts.get(contender.number + 1) == contender.architecture
        return f":finalist/{contender.number + 1}" if is_last else None
    return f":{contender.number}" if contender.origin == "block_search" else None


def _verdict(found: _Found, winner: Judged) -> TargetVerdict:
    ended, aim = found.ended, found.aim
    latency_ms = winner.latency_ms if winner.measured_ms is None else winner.measured_ms
    margin = 100 * (1 - latency_ms / aim.target_ms)
    return TargetVerdict(aim.target_ms, aim.confidence, ended.met, margin, ended.timed, ended.repairs)


def _summary(
    bench: Bench, found: _Found, winner: Judged, references: Sequence[Judged], finalists: Sequence[Judged]
) -> RunSummary:
    settings, judge, aim = bench.folder.settings, bench.judge, found.aim
    candidates = list(found.stage.candidates) if found.stage else []
    front = pareto_front([*candidates, found.ended.best])
    adapted = found.ended.shown
    seed, steps = (adapted.seed, adapted.steps) if adapted else (None, ())
    shown = [candidate.architecture for group in shown_candidates(candidates, front) for candidate in group]
    shown += [step.architecture for step in steps] + ([seed.architecture] if seed else [])
    verdict = _verdict(found, winner)
    return RunSummary(
        title=f"{settings.subject} for {aim.target_ms:.4g} ms on {judge.device_name}",
        space=None if settings.kind == "netadapt" else settings.subject,
        device=judge.device_name,
        device_kind=judge.kind,
        evaluator=settings.evaluator,
        top1_estimated=bench.memory.capabilities.estimated,
        target_latency_ms=aim.target_ms,
        best=winner,
        verdict=verdict,
        references=references,
        finalists=finalists,
        candidates=candidates,
        front=front,
        seed=seed,
        steps=steps,
        notes=[*found.notes, *aim_note(verdict, winner), *repair_note(verdict), *_doubts(bench, winner)],
        manifest=bench.folder.manifest | {"seconds": bench.folder.seconds},
        latency_errors_ms=judge.errors_ms(shown),
        score=bench.memory.capabilities.score_name or prior_score(settings.evaluator, winner.architecture),
        trained=bench.folder.trained.name if bench.folder.trained.is_file() else None,
        no_ranking=_no_ranking(bench, candidates, winner),
    )


def _no_ranking(bench: Bench, candidates: Sequence[Candidate], winner: Judged) -> str | None:
    memory = bench.memory
    if not memory.capabilities.trains or memory.capabilities.score_name:
        return None
    chance = max(memory.capabilities.chance, 100 / winner.architecture.classes)
    return no_ranking([(c.top1, c.top1_std) for c in candidates], chance, bench.folder.settings.evaluator)


def _doubts(bench: Bench, winner: Judged) -> list[str]:
    settings = bench.folder.settings
    trained = short_training_notes(settings) if bench.memory.capabilities.trains else ()
    kept = kept_note(bench.folder.path) if bench.folder.trained.is_file() else ()
    return [*doubts(settings.evaluator, winner), *trained, *kept]
