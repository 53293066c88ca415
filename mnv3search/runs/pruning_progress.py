"""What a pruning's proposals cost, said before they are trained, and how far they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnv3search.layer_search.trained_proposals import Plan, Score
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.pruning_data import PruningData
from mnv3search.runs.pruning_settings import PruningSettings
from mnv3search.training.progress import duration_text, rate_text

if TYPE_CHECKING:
    from mnv3search.layer_search.trained_workers import Workers
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
