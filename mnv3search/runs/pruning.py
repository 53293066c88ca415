"""Prune a trained network to a latency, as NetAdapt was published: the stages, what they write, and how they resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mnv3search.errors import InfeasibleError, WeightsError
from mnv3search.latency.model import Device
from mnv3search.layer_search.journal import TrainedStep
from mnv3search.layer_search.proposals import Plan
from mnv3search.layer_search.scoring import Score, Workers, fresh_network, workers_for
from mnv3search.layer_search.trained import TrainedNetAdaptResult, netadapt_trained
from mnv3search.report.pruning import write_pruning_steps
from mnv3search.runs.folder import PruningFolder
from mnv3search.runs.images import PruningData, pruning_data, scanned_images, session_images
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.pruning_journal import FolderJournal
from mnv3search.runs.pruning_outcome import PruningOutcome, Trajectory, conclude
from mnv3search.runs.settings import PruningSettings
from mnv3search.runs.target import MAX_REPAIRS, PruningTarget
from mnv3search.runs.timings import Latency
from mnv3search.training.progress import duration_text, rate_text

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

MOST_TIMED = 24  # networks of one session: the last steps, among which the first that is fast enough is


def opened(settings: PruningSettings, progress: RunProgress) -> tuple[TrainedNetwork, PruningData]:
    """The network that a pruning begins with, and its images: what is wrong with them is said before a folder is."""
    from mnv3search.training.trained import check_weights, load_trained, with_weights

    weights = settings.weights
    # first: what is not there, or does not fit, is said before the images are scanned
    seed = load_trained(settings.run) if weights is None else None
    baselines = _baselines(settings)
    if weights is not None:
        check_weights(settings.run, weights)
    splits = scanned_images(settings.data, progress)
    seed = seed or with_weights(settings.run, weights or "", splits.train.classes)
    return seed, pruning_data(splits, settings, seed, baselines)


def reopened(folder: PruningFolder, progress: RunProgress) -> tuple[TrainedNetwork, PruningData]:
    """The same of a pruning that goes on: the network is the folder's copy, and the images must be the same."""
    from mnv3search.training.trained import load_trained

    if not folder.seed.is_file():
        raise WeightsError(
            f"{folder.seed} is missing, so this pruning cannot go on; begin anew from the trained network"
        )
    seed, baselines = load_trained(folder.seed), _baselines(folder.settings)
    splits = session_images(folder, progress)
    return seed, pruning_data(splits, folder.settings, seed, baselines)


def _baselines(settings: PruningSettings) -> list[tuple[str, TrainedNetwork]]:
    from mnv3search.training.trained import load_trained

    return [(name, load_trained(name)) for name in settings.baselines]


def pruning_stages(
    folder: PruningFolder, progress: RunProgress, device: Device | None, workers: int | None,
    begun: tuple[TrainedNetwork, PruningData] | None,
) -> PruningOutcome:  # fmt: skip
    """NetAdapt's steps down to the target, the training at the end, and the report.

    ``begun`` is what :func:`opened` gave; None in a folder that is resumed. An infeasible target is an error before
    anything is trained.
    """
    seed, data = begun or reopened(folder, progress)
    target = PruningTarget(folder, seed.architecture, progress, device)
    journal = FolderJournal(folder.path, seed)
    reported = ProposalProgress(folder.settings, data, progress)
    short = folder.settings.short_term()
    with workers_for(seed, data.learn, data.held_out, short, workers, reported.images) as scoring:
        trajectory = _Narrowing(folder, target, journal, scoring, progress, reported).to_target()
    narrowed = journal.network(trajectory.number)
    ended = end_training(folder, narrowed, data, progress) if trajectory.number else narrowed
    return conclude(folder, target, data, trajectory, (seed, narrowed, ended), progress)


@dataclass(frozen=True, slots=True)
class _Narrowing:
    """Steps down to the target by price, then on where a whole time shows that the price was too low."""

    folder: PruningFolder
    target: PruningTarget
    journal: FolderJournal
    workers: Workers
    progress: RunProgress
    reported: ProposalProgress

    def to_target(self) -> Trajectory:
        target = self.target
        try:
            narrowed = self._to(target.limit_ms())
        except InfeasibleError as error:
            raise target.infeasible(error) from None
        while True:
            found = self._latency(narrowed.steps)
            unneeded = not narrowed.steps and narrowed.reached
            met = target.met(found) or (unneeded and found.ms <= target.target_ms)
            if met or not target.timed or not narrowed.reached or target.repairs == MAX_REPAIRS:
                break
            limit = target.repaired_limit_ms(narrowed.latency_ms, found)
            self.progress.note(f"timed at {found.ms:.3f} ms, above {target.target_ms:.3f} ms: narrowing on")
            try:
                narrowed = self._to(limit)
            except InfeasibleError:
                break  # the closest that there is stays the result, and is said to miss the target
        number, latency = self._first_within(narrowed.steps) if met and narrowed.steps else (len(narrowed.steps), found)
        return Trajectory(
            narrowed, number, latency, met, target.repairs, target.limit_of(latency), self._stuck_ms(narrowed)
        )

    def _stuck_ms(self, narrowed: TrainedNetAdaptResult) -> float | None:
        """The cut that no layer could make, where the steps ended for want of a proposal; else None."""
        plan = self.journal.plan(len(narrowed.steps) + 1)
        return None if narrowed.reached or plan is None or plan.proposals else plan.required_ms * self.target.scale

    def _first_within(self, steps: Sequence[TrainedStep]) -> tuple[int, Latency]:
        """The first step whose network is within the target, and its latency: by whole times, where there are any.

        Small networks are often faster than their layers sum to, so that steps by price go further than they must.
        """
        late = steps[-MOST_TIMED:] if self.target.timed else steps[-1:]
        seed = self.journal.network(0).architecture
        times = self.target.latencies([found.step.architecture for found in late], baselines=[seed])
        return next((f.step.number, t) for f, t in zip(late, times, strict=True) if self.target.met(t))

    def _latency(self, steps: Sequence[TrainedStep]) -> Latency:
        seed = self.journal.network(0).architecture
        last = steps[-1].step.architecture if steps else seed
        return self.target.latencies([last], baselines=[seed])[0]

    def _to(self, limit_ms: float) -> TrainedNetAdaptResult:
        def on_plan(number: int, plan: Plan, latency_ms: float) -> None:
            seed, before = self.journal.seed(), self.journal.network(number - 1)
            assert seed is not None
            self.reported.planned(
                number, plan, len(self.journal.scores(number)), seed[1], latency_ms - limit_ms, self.workers, before,
                seed[0],
            )  # fmt: skip

        def on_step(step: TrainedStep) -> None:
            found = step.step
            write_pruning_steps(self.folder.path / "steps.csv", self.journal.steps())
            self.progress.note(
                f"step {found.number}: {found.change}, {found.latency_ms:.3f} ms, held-out top-1 {found.top1:.2f} "
                f"±{found.top1_std:.2f} %"
            )

        self.reported.begin(scored=self.journal.seed() is not None)
        return netadapt_trained(
            self.journal, self.target.device, limit_ms, self.workers, options=self.folder.settings.netadapt_options(),
            on_plan=on_plan, on_proposal=self.reported.proposal, on_step=on_step, on_pricing=self.reported.pricing,
        )  # fmt: skip


class ProposalProgress:
    """Counts the images of all processes that were learned from and scored on, and those still expected."""

    def __init__(self, settings: PruningSettings, data: PruningData, progress: RunProgress) -> None:
        from mnv3search.training.evaluation import CALIBRATION_IMAGES

        short = settings.short_term()
        self._settings, self._options, self._progress = settings, settings.netadapt_options(), progress
        self._steps, self._batch = short.steps, min(short.batch_size, len(data.learn))
        self._scored = len(data.held_out)
        self._calibrated = min(len(data.learn), CALIBRATION_IMAGES) if short.steps else 0
        self._seen, self._total, self._detail = 0, 0, ""
        self._said = False

    def images(self, count: int) -> None:
        """So many more were learned from or scored on."""
        self._seen += count
        self._report()

    def pricing(self, done: int, total: int, what: str) -> None:
        """What a device reports that measures layers."""
        self._progress.advance(self._seen, f"{what}: {done} of {total}", self._total or None)

    def begin(self, *, scored: bool) -> None:
        """The steps begin, or go on to a lower limit; the network itself is ``scored``, or is to be."""
        self._said = False
        if scored:
            self._stage("planning NetAdapt's next step", None)
        else:
            self._stage("scoring the network, images", self._scored)

    def planned(
        self, number: int, plan: Plan, known: int, seed_ms: float, missing_ms: float,
        workers: Workers, before: TrainedNetwork, seed: Score,
    ) -> None:  # fmt: skip
        """Step ``number`` is about to score all but ``known`` of its plan; at first, say what all steps cost."""
        steps = max(1, self._options.most_steps(seed_ms, number - 1, missing_ms))
        proposals = len(plan.proposals) * steps - known
        each = self._steps * self._batch + self._calibrated + self._scored
        if not self._said:
            self._said = True
            self._say_cost(plan, steps, proposals, workers, before, seed)
            self._stage("NetAdapt, images", proposals * each)
        self._total = self._seen + proposals * each
        self._detail = f"step {number} of {steps + number - 1} at most: {known} of {len(plan.proposals)} proposals"
        self._report()

    def proposal(self, number: int, scored: int, count: int, best: Score) -> None:
        """One more is scored."""
        last = self._detail.partition(":")[0]
        self._detail = f"{last}: {scored} of {count} proposals, best top-1 {best.top1:.2f} ±{best.top1_std:.2f}"
        self._report()

    def _say_cost(
        self, plan: Plan, steps: int, proposals: int, workers: Workers, before: TrainedNetwork, seed: Score
    ) -> None:
        self._progress.stage("timing a few steps of a proposal's fine-tune")
        learned, scoring = self._steps * self._batch, seed.images / max(seed.seconds, 1e-9)
        training = workers.speed(before) if self._steps else scoring
        scoring = max(scoring, training)  # few images, scored as the first of a process, tell too little
        seconds = learned / training + (self._calibrated + self._scored) / scoring
        rates = f"{rate_text(training)} and {rate_text(scoring)} images/s"
        ways = "one after the other" if workers.count == 1 else f"{workers.count} at a time"
        self._progress.note(
            f"NetAdapt takes up to {steps} steps of about {len(plan.proposals)} proposals, each trained on {learned:,} "
            f"images ({self._steps} steps of {self._batch}) and scored on {self._scored:,}: at {rates}, {ways}, about "
            f"{duration_text(proposals * seconds / workers.count)}; fewer --steps, a smaller --held-out or "
            "a larger --step take less"
        )
        if len(plan.proposals) == 1:
            fraction = self._settings.step_fraction
            self._progress.note(
                f"only one layer can be cut by the {plan.required_ms:.3g} ms that a step of {fraction:g} asks for, so "
                f"there is nothing to choose from: a smaller --step, such as {fraction / 4:.2g}, gives more proposals"
            )

    def _stage(self, name: str, total: int | None) -> None:
        self._seen, self._total, self._detail = 0, total or 0, ""
        self._progress.stage(name, total)

    def _report(self) -> None:
        self._progress.advance(self._seen, self._detail, max(self._total, self._seen))


def end_training(
    folder: PruningFolder, narrowed: TrainedNetwork, data: PruningData, progress: RunProgress
) -> TrainedNetwork:
    """``narrowed`` after the training that the settings ask for, resumed where one was begun.

    All training images are learned from, the held-out ones too; the best epoch is chosen by the validation images. A
    long fine-tune that made the network worse by these is not taken.
    """
    settings = folder.settings
    if settings.finish == "none":
        return narrowed
    from mnv3search.training.evaluation import evaluate_network
    from mnv3search.training.loop import train_network
    from mnv3search.training.steps import plain_copy

    recipe = settings.finishing_recipe(narrowed.architecture.resolution, len(data.splits.train))
    folder.finishing.mkdir(exist_ok=True)
    scratch = settings.finish == "scratch"
    what = "training from scratch" if scratch else "long fine-tune"
    progress.stage(f"{what} by {recipe.name} in batches of {recipe.batch_size}")
    network = fresh_network(narrowed.architecture, settings.seed) if scratch else plain_copy(narrowed.network)
    result = train_network(
        network, data.splits, recipe, preprocessing=narrowed.preprocessing, seed=settings.seed, folder=folder.finishing,
        resume=(folder.finishing / "last.safetensors").is_file(), progress=progress,
    )  # fmt: skip
    trained = replace(result.trained, facts={**result.trained.facts, "finish_images": result.images})
    if not scratch:
        val = data.splits.val
        progress.stage("evaluating the network before its long fine-tune, images", len(val))
        before = evaluate_network(
            narrowed.network, val, narrowed.preprocessing, batch_size=64, progress=lambda n, _: progress.advance(n)
        ).top1
        if before > max(record.val_top1 for record in result.history):
            progress.note(f"the long fine-tune did not improve on {before:.2f} % of the validation images: left away")
            return narrowed
    return trained
