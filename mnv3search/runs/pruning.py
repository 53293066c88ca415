"""Prune a trained network to a latency, as NetAdapt was published: the stages, what they write, and how they resume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from mnv3search.errors import DataError, InfeasibleError, WeightsError
from mnv3search.files import held
from mnv3search.latency.model import Device
from mnv3search.layer_search.trained import Narrowed, netadapt_trained
from mnv3search.layer_search.journal import TrainedStep
from mnv3search.layer_search.scoring import Plan, Score, fresh_network
from mnv3search.layer_search.scoring import Workers, workers_for
from mnv3search.report.pruning import write_pruning_steps
from mnv3search.runs.folder import IMAGES_KEY, PruningFolder
from mnv3search.runs.images import (
    PruningData,
    check_beside,
    check_classes,
    check_same,
    identity,
    load_beside,
    pruning_data,
)
from mnv3search.runs.progress import RunProgress, SilentProgress
from mnv3search.runs.pruning_journal import FolderJournal
from mnv3search.runs.pruning_outcome import PruningOutcome, Walked, conclude
from mnv3search.runs.settings import PruningSettings
from mnv3search.runs.target import Latency, MOST_REPAIRS, PruningAim
from mnv3search.training.data.open_data import absolute_data, open_data
from mnv3search.training.progress import duration_text, rate_text
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork

class ProposalProgress:
    """Counts images, those learned from and those that judge, of all processes; and those that are still expected."""

    def __init__(self, settings: PruningSettings, data: PruningData, progress: RunProgress) -> None:
        from mnv3search.training.evaluation import IMAGES

        short = settings.short_term()
        self._settings, self._options, self._progress = settings, settings.netadapt_options(), progress
        self._steps, self._batch = short.steps, min(short.batch_size, len(data.learn))
        self._judged, self._calibrated = len(data.held), min(len(data.learn), IMAGES) if short.steps else 0
        self._seen, self._total, self._detail = 0, 0, ""
        self._said = False

    def images(self, count: int) -> None:
        """So many more were learned from or judged."""
        self._seen += count
        self._tell()

    def pricing(self, done: int, total: int, what: str) -> None:
        """What a device reports that measures layers."""
        self._progress.advance(self._seen, f"{what}: {done} of {total}", self._total or None)

    def begin(self, *, judged: bool) -> None:
        """The steps begin, or go on to a lower limit; the network itself is ``judged``, or is to be."""
        self._said = False
        if judged:
            self._stage("planning NetAdapt's next step", None)
        else:
            self._stage("judging the network, images", self._judged)

    def planned(
        self, number: int, plan: Plan, known: int, seed_ms: float, missing_ms: float,
        workers: Workers, before: TrainedNetwork, seed: Score,
    ) -> None:  # fmt: skip
        """Step ``number`` is about to score all but ``known`` of its plan; at first, say what all steps cost."""
        steps = max(1, self._options.most_steps(seed_ms, number - 1, missing_ms))
        proposals = len(plan.proposals) * steps - known
        each = self._steps * self._batch + self._calibrated + self._judged
        if not self._said:
            self._said = True
            self._say_cost(plan, steps, proposals, workers, before, seed)
            self._stage("NetAdapt, images", proposals * each)
        self._total = self._seen + proposals * each
        self._detail = f"step {number} of {steps + number - 1} at most: {known} of {len(plan.proposals)} proposals"
        self._tell()

    def proposal(self, number: int, scored: int, count: int, best: Score) -> None:
        """One more is scored."""
        last = self._detail.partition(":")[0]
        self._detail = f"{last}: {scored} of {count} proposals, best top-1 {best.top1:.2f} ±{best.top1_std:.2f}"
        self._tell()

    def _say_cost(
        self, plan: Plan, steps: int, proposals: int, workers: Workers, before: TrainedNetwork, seed: Score
    ) -> None:
        self._progress.stage("timing a few steps of a proposal's fine-tune")
        learned, judging = self._steps * self._batch, seed.images / max(seed.seconds, 1e-9)
        training = workers.speed(before) if self._steps else judging
        judging = max(judging, training)  # few images, judged as the first of a process, tell too little
        seconds = learned / training + (self._calibrated + self._judged) / judging
        rates = f"{rate_text(training)} and {rate_text(judging)} images/s"
        ways = "one after the other" if workers.count == 1 else f"{workers.count} at a time"
        self._progress.note(
            f"NetAdapt takes up to {steps} steps of about {len(plan.proposals)} proposals, each trained on {learned:,} "
            f"images ({self._steps} steps of {self._batch}) and judged on {self._judged:,}: at {rates}, {ways}, about "
            f"{duration_text(proposals * seconds / workers.count)}; fewer --steps, a smaller --held-out or a larger --step "
            "take less"
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

    def _tell(self) -> None:
        self._progress.advance(self._seen, self._detail, max(self._total, self._seen))


def end_training(
    folder: PruningFolder, narrowed: TrainedNetwork, data: PruningData, progress: RunProgress
) -> TrainedNetwork:
    """``narrowed`` after the training that the settings ask for, resumed where one was begun.

    All training images are learned from, the held-out ones too; the best epoch is chosen by the validation images. A
    long fine-tune that made the network worse by these is not taken.

    Raises:
        TrainingError, DataError: the training failed; it can be resumed.
        KeyboardInterrupt: Ctrl-C, with its state saved.
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
        progress.stage("judging the network before its long fine-tune, images", len(val))
        before = evaluate_network(
            narrowed.network, val, narrowed.preprocessing, batch_size=64, progress=lambda n, _: progress.advance(n)
        ).top1
        if before > max(record.val_top1 for record in result.history):
            progress.note(f"the long fine-tune did not improve on {before:.2f} % of the validation images: left away")
            return narrowed
    return trained


MOST_TIMED = 24  # networks of one session: the last steps, among which the first that is fast enough is


def prune(
    settings: PruningSettings, out: Path | None = None, *,
    device: Device | None = None, workers: int | None = None, progress: RunProgress | None = None,
) -> PruningOutcome:  # fmt: skip
    """Prune a trained network in a new folder, as the command line does.

    The folder's ``best.safetensors`` is the result, so the folder is a RUN for every command that takes one.

    Args:
        settings: what is asked.
        out: the folder; ``runs/<date>-<run>-pruned-<target>`` where not given.
        device: stands in for the one that ``settings`` names.
        workers: processes that score proposals; None for one a GPU, or a core. The result does not depend on it.
        progress: told of every stage.

    Raises:
        InfeasibleError: no narrowing meets the target; raised before anything is trained, and no folder is left.
        Mnv3SearchError: anything else that the user can mend.
        KeyboardInterrupt: Ctrl-C; :func:`resume_pruning` goes on at the proposal that was under way.
    """
    from mnv3search.training.trained import load_trained

    if out is not None:
        PruningFolder.check_free(out)  # before the images are looked at, which can take minutes
    progress = progress or SilentProgress()
    seed = None if settings.weights is not None else load_trained(Path(settings.run))
    seed, data = _open(settings, seed, progress)  # before there is a folder, so that bad images leave none
    folder = PruningFolder.create(out, settings, seed, identity(data.splits))
    return work_on(folder, progress, data, device=device, workers=workers)


def resume_pruning(
    path: Path, *, data: str | None = None,
    device: Device | None = None, workers: int | None = None, progress: RunProgress | None = None,
) -> PruningOutcome:  # fmt: skip
    """Go on with the pruning of a folder, as :func:`prune` began it; to the same result.

    Args:
        path: its folder.
        data: where the images are now, if they have moved.
        device: stands in for the one that the settings name.
        workers: processes that score proposals.
        progress: told of every stage.

    Raises:
        RunError: no pruning, or a damaged one.
        Mnv3SearchError: anything else that the user can mend.
    """
    folder = PruningFolder.open(path)
    if data is not None:
        folder.settings = replace(folder.settings, data=absolute_data(data))
    return work_on(folder, progress or SilentProgress(), None, device=device, workers=workers)


def work_on(
    folder: PruningFolder,
    progress: RunProgress,
    data: PruningData | None,
    *,
    device: Device | None,
    workers: int | None,
) -> PruningOutcome:
    """One session on ``folder``, which no other process may work on meanwhile; without ``data`` one that resumes.

    Raises:
        RunError: another process holds the folder.
        Mnv3SearchError: as the stages raise it.
    """
    with held(folder.path):
        try:
            with folder.closing_notes():
                if data is None:
                    folder.continued()
                return _stages(folder, progress, data, device, workers)
        except InfeasibleError:
            if data is not None:
                folder.discard()
            raise


def _stages(
    folder: PruningFolder, progress: RunProgress, data: PruningData | None, device: Device | None, workers: int | None
) -> PruningOutcome:
    seed = _seed(folder)
    data = data or _open_again(folder, seed, progress)
    aim = PruningAim(folder, seed.architecture, progress, device)
    journal = FolderJournal(folder.path, seed)
    told = ProposalProgress(folder.settings, data, progress)
    with workers_for(seed, data.learn, data.held, folder.settings.short_term(), workers, told.images) as scoring:
        walked = _Walk(folder, aim, journal, scoring, progress, told).to_target()
    narrowed = journal.network(walked.number)
    ended = end_training(folder, narrowed, data, progress) if walked.number else narrowed
    return conclude(folder, aim, data, walked, (seed, narrowed, ended), progress)


def _open(
    settings: PruningSettings, seed: TrainedNetwork | None, progress: RunProgress
) -> tuple[TrainedNetwork, PruningData]:
    """The network and its images; without ``seed`` the network is given its weights from elsewhere."""
    from mnv3search.training.trained import check_weights, with_weights

    weights = settings.weights or ""
    # first: what is not there, or does not fit, is said before the images are looked at
    beside = load_beside(settings.beside)
    if seed is None:
        check_weights(settings.run, weights)
    progress.stage("reading the images")
    splits = open_data(settings.data, progress=lambda done, total: progress.advance(done, "images", total))
    seed = seed or with_weights(settings.run, weights, splits.train.classes)
    check_classes(splits, settings.data, seed)
    check_beside(beside, seed)
    data = pruning_data(splits, settings.held_out, settings.images, seed.facts.get("held_out"))
    return seed, replace(data, beside=beside)


def _open_again(folder: PruningFolder, seed: TrainedNetwork, progress: RunProgress) -> PruningData:
    """The images of an earlier session, which must be the same.

    Raises:
        DataError: they are not where they were.
        RunError: they are others.
    """
    where, known = folder.settings.data, folder.manifest.get(IMAGES_KEY)
    try:
        _, data = _open(folder.settings, seed, progress)
    except DataError as error:
        raise DataError(f"{error}; if the images moved: {folder.command_to_resume} --data WHERE") from None
    if known is not None:  # older releases noted none
        check_same(known, identity(data.splits), where)
    if folder.manifest["settings"]["data"] != where:
        folder.note(settings=folder.settings.to_mapping())  # a later session finds them there
    return data


def _seed(folder: PruningFolder) -> TrainedNetwork:
    from mnv3search.training.trained import load_trained

    if not folder.seed.is_file():
        raise WeightsError(
            f"{folder.seed} is missing, so this pruning cannot go on; begin anew from the trained network"
        )
    return load_trained(folder.seed)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Steps down to the target by price, then on where a whole time shows that the price was too low."""

    folder: PruningFolder
    aim: PruningAim
    journal: FolderJournal
    workers: Workers
    progress: RunProgress
    told: ProposalProgress

    def to_target(self) -> Walked:
        """Raises what :func:`~mnv3search.layer_search.trained.netadapt_trained` raises."""
        try:
            narrowed = self._to(self.aim.limit_ms())
        except InfeasibleError as error:
            raise self.aim.infeasible(error) from None
        while True:
            found = self._latency(narrowed.steps)
            unneeded = not narrowed.steps and narrowed.reached
            met = self.aim.met(found) or (unneeded and found.ms <= self.aim.target_ms)
            if met or not self.aim.timed or not narrowed.reached or self.aim.repairs == MOST_REPAIRS:
                break
            limit = self.aim.repaired_limit_ms(narrowed.latency_ms, found)
            self.progress.note(f"timed at {found.ms:.3f} ms, above {self.aim.target_ms:.3f} ms: narrowing on")
            try:
                narrowed = self._to(limit)
            except InfeasibleError:
                break  # the closest that there is stays the result, and is said to miss the target
        number, latency = self._first_within(narrowed.steps) if met and narrowed.steps else (len(narrowed.steps), found)
        return Walked(
            narrowed, number, latency, met, self.aim.repairs, self.aim.limit_of(latency), self._stuck_ms(narrowed)
        )

    def _stuck_ms(self, narrowed: Narrowed) -> float | None:
        """The cut that no place could make, where the steps ended for want of a proposal; else None."""
        plan = self.journal.plan(len(narrowed.steps) + 1)
        return None if narrowed.reached or plan is None or plan.proposals else plan.required_ms * self.aim.tied

    def _first_within(self, steps: Sequence[TrainedStep]) -> tuple[int, Latency]:
        """The first step whose network is within the target, and its latency: by whole times, where there are any.

        Small networks are often faster than their layers sum to, so that the walk by prices goes further than it must.
        """
        late = steps[-MOST_TIMED:] if self.aim.timed else steps[-1:]
        seed = self.journal.network(0).architecture
        times = self.aim.latencies([found.step.architecture for found in late], beside=[seed])
        return next((f.step.number, t) for f, t in zip(late, times, strict=True) if self.aim.met(t))

    def _latency(self, steps: Sequence[TrainedStep]) -> Latency:
        seed = self.journal.network(0).architecture
        last = steps[-1].step.architecture if steps else seed
        return self.aim.latencies([last], beside=[seed])[0]

    def _to(self, limit_ms: float) -> Narrowed:
        def on_plan(number: int, plan: Plan, latency_ms: float) -> None:
            seed, before = self.journal.seed(), self.journal.network(number - 1)
            assert seed is not None
            self.told.planned(
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

        self.told.begin(judged=self.journal.seed() is not None)
        return netadapt_trained(
            self.journal, self.aim.device, limit_ms, self.workers, options=self.folder.settings.netadapt_options(),
            on_plan=on_plan, on_proposal=self.told.proposal, on_step=on_step, on_pricing=self.told.pricing,
        )  # fmt: skip
