"""What a pruning came to: its figures before and after, what a reader must know of them, and the files it leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnv3search.architecture import dump_architecture
from mnv3search.cost import count
from mnv3search.files import write_text
from mnv3search.latency.confidence import LEAST_CONFIDENCE
from mnv3search.layer_search.trained import TrainedNetAdaptResult
from mnv3search.report.pruning import Point, PruningPlot, draw_pruning, write_pruning_steps
from mnv3search.report.summary import percent
from mnv3search.runs.folder import PruningFolder
from mnv3search.runs.images import PruningData
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.settings import PruningSettings
from mnv3search.runs.target import PruningTarget
from mnv3search.runs.timings import Latency

if TYPE_CHECKING:
    from pandas import DataFrame

    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.evaluation import Metrics
    from mnv3search.training.trained import TrainedNetwork


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Where the steps led.

    Attributes:
        narrowed: the seed and the steps.
        number: the step that is the result, 0 for the seed: the first within the target.
        latency: of its network: whole where the device can be timed.
        met: whether that is within the target.
        repairs: how often the steps went on because a whole time missed the target.
        limit_ms: what its latency must come to, its relative error kept, to be within the target with the confidence
            asked for.
        stuck_ms: the cut of a step that no layer could make, where the steps ended for that; else None.
    """

    narrowed: TrainedNetAdaptResult
    number: int
    latency: Latency
    met: bool
    repairs: int
    limit_ms: float
    stuck_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """One network's figures.

    Attributes:
        top1, top1_std: percent of the images of the last evaluation, and one binomial standard deviation.
        val_top1: percent of the validation images.
    """

    name: str
    latency: Latency
    top1: float
    top1_std: float
    val_top1: float
    madds: int
    parameters: int

    def to_mapping(self) -> dict[str, object]:
        """As the result's JSON has it."""
        return {
            "name": self.name, "top1": self.top1, "top1_std": self.top1_std, "val_top1": self.val_top1,
            **self.latency.to_mapping(), "madds": self.madds, "parameters": self.parameters,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class PruningOutcome:
    """What a pruning found.

    Attributes:
        folder: where everything is; its ``best.safetensors`` is the result.
        before, after: the trained network and the result.
        baselines: other networks that were asked for.
        trajectory: the steps.
        target_ms, met: the target, and whether the result is within it with the confidence asked for.
        evaluated_on: ``test images`` or ``validation images``.
        unseen: whether the network is known not to have learned from the images that scored the proposals.
        trained_images: that the proposals' fine-tunes saw, repeats counted.
        notes: sentences for the reader.
    """

    folder: PruningFolder
    before: Figures
    after: Figures
    baselines: Sequence[Figures]
    trajectory: Trajectory
    target_ms: float
    evaluated_on: str
    unseen: bool
    trained_images: int
    notes: Sequence[str]

    @property
    def seconds(self) -> float:
        """Of all sessions."""
        return float(self.folder.manifest["seconds"])

    @property
    def heading(self) -> str:
        """What it came to, in a few words."""
        steps, within = self.trajectory.narrowed.steps, f"{self.target_ms:.4g} ms on {self.folder.settings.device}"
        by = "" if self.unseen or not steps else "; proposals scored on images that it may have learned from"
        if not self.met:
            return f"Not pruned to {within}: the target is missed{by}"
        return f"Pruned to {within}{by}" if self.trajectory.number else f"Within {within} as it is: nothing was pruned"

    @property
    def met(self) -> bool:
        """Whether the result is within the target with the confidence asked for."""
        return self.trajectory.met

    def to_frame(self) -> DataFrame:
        """A row a network: the trained one, the result and the baselines, with top-1 in percent and milliseconds."""
        import pandas as pd

        return pd.DataFrame([figures.to_mapping() for figures in (self.before, self.after, *self.baselines)])

    def to_mapping(self) -> Mapping[str, object]:
        """What ``--json`` prints and ``result.json`` holds."""
        return {
            "feasible": True,
            "target": {
                "latency_ms": self.target_ms,
                "confidence": self.folder.settings.confidence,
                "limit_ms": self.trajectory.limit_ms,
                "met": self.met,
                "repairs": self.trajectory.repairs,
            },
            "before": self.before.to_mapping(),
            "after": self.after.to_mapping(),
            "baselines": [figures.to_mapping() for figures in self.baselines],
            "judged_by": self.evaluated_on,
            "held_out_images": self.trajectory.narrowed.seed.images,
            "held_out_unseen": self.unseen,
            "steps": self.trajectory.number,
            "steps_tried": len(self.trajectory.narrowed.steps),
            "trained_images": self.trained_images,
            "seconds": self.seconds,
            "out": str(self.folder.path),
            "notes": list(self.notes),
        }


def conclude(
    folder: PruningFolder, target: PruningTarget, data: PruningData, trajectory: Trajectory,
    networks: tuple[TrainedNetwork, TrainedNetwork, TrainedNetwork], progress: RunProgress,
) -> PruningOutcome:  # fmt: skip
    """Evaluate the seed, the result and the baselines, and write every file.

    ``networks`` are the seed, the last step's network, and that after its training.
    """
    seed, narrowed, ended = networks
    everyone = [("before", seed), ("after", ended), *data.baselines]
    latencies = target.latencies([trained.architecture for _, trained in everyone], [seed.architecture])
    figures = [
        _figures(name, trained, data, ms, progress) for (name, trained), ms in zip(everyone, latencies, strict=True)
    ]
    before, after = figures[0], replace(figures[1], latency=trajectory.latency)
    outcome = PruningOutcome(
        folder, before, after, figures[2:], trajectory, target.target_ms, data.evaluated_on, data.unseen,
        sum(s.trained for s in trajectory.narrowed.steps),
        _notes(folder.settings, trajectory, target.target_ms, before, after, data, untrained=narrowed is ended),
    )  # fmt: skip
    files = ("steps.csv", "best.safetensors", "network.json", "netadapt.png", "netadapt.svg")
    if folder.lacks(*files):
        _write(folder, target, outcome, ended)
    folder.finish(
        "finished", target_ms=target.target_ms, met=trajectory.met, steps=trajectory.number, held_out_unseen=data.unseen
    )
    if folder.lacks("result.json"):
        folder.write_json("result.json", outcome.to_mapping())
    return outcome


def _figures(name: str, trained: TrainedNetwork, data: PruningData, latency: Latency, progress: RunProgress) -> Figures:
    from mnv3search.training.evaluation import evaluate_network

    def evaluated(images: LabelledImages) -> Metrics:
        progress.stage(f"evaluating {_short(name)}, images", len(images))
        return evaluate_network(
            trained.network, images, trained.preprocessing, batch_size=64, progress=lambda n, _: progress.advance(n)
        )

    found = evaluated(data.final_images)
    val = found.top1 if data.final_images is data.splits.val else evaluated(data.splits.val).top1
    counts = count(trained.architecture)
    share = found.top1 / 100
    std = 100 * math.sqrt(share * (1 - share) / found.images)
    return Figures(_short(name), latency, found.top1, std, val, counts.madds, counts.parameters)


def _short(name: str) -> str:
    path = Path(name)
    if path.name == "best.safetensors":
        return path.parent.name
    return path.stem if path.suffix in (".safetensors", ".json") else path.name


def _write(folder: PruningFolder, target: PruningTarget, outcome: PruningOutcome, ended: TrainedNetwork) -> None:
    from mnv3search.training.trained import save_trained

    write_pruning_steps(folder.path / "steps.csv", outcome.trajectory.narrowed.steps)
    facts: dict[str, Any] = {
        **ended.facts, "val_accuracy": outcome.after.val_top1, "pruned_from": folder.settings.run,
        "target_ms": outcome.target_ms, "device": target.device.name, **outcome.after.latency.to_mapping(),
    }  # fmt: skip
    if outcome.evaluated_on == "test images":
        facts["test_accuracy"] = outcome.after.top1
    save_trained(folder.best, replace(ended, facts=facts))
    write_text(folder.path / "network.json", dump_architecture(ended.architecture))
    draw_pruning(_picture(target, outcome), folder.path / "netadapt.png", folder.path / "netadapt.svg")


def _picture(target: PruningTarget, outcome: PruningOutcome) -> PruningPlot:
    narrowed, scale = outcome.trajectory.narrowed, target.scale
    path = [Point("", narrowed.seed_latency_ms * scale, narrowed.seed.top1, narrowed.seed.top1_std)]
    path += [Point(str(s.step.number), s.step.latency_ms * scale, s.step.top1, s.step.top1_std) for s in narrowed.steps]
    how = "whole networks timed, steps by their layers" if target.timed else "estimated"
    limit_ms, confidence, limit = outcome.trajectory.limit_ms, outcome.folder.settings.confidence, None
    if _is_lower(limit_ms, outcome.target_ms):
        limit = (limit_ms, f"limit {limit_ms:.4g} ms, {percent(confidence)} sure of the target")
    return PruningPlot(
        f"NetAdapt of {_short(outcome.folder.settings.run)} to {outcome.target_ms:.4g} ms"
        f"{'' if outcome.met else ': missed'}",
        path,
        [_point(outcome.before), _point(outcome.after)],
        [_point(figures) for figures in outcome.baselines],
        outcome.target_ms,
        f"ms on {target.device.name} ({how})",
        outcome.evaluated_on,
        limit,
    )


def _point(figures: Figures) -> Point:
    return Point(figures.name, figures.latency.ms, figures.top1, figures.top1_std)


def _notes(
    settings: PruningSettings, trajectory: Trajectory, target_ms: float, before: Figures, after: Figures,
    data: PruningData, *, untrained: bool,
) -> list[str]:  # fmt: skip
    """Sentences for the reader; ``untrained``: the last step's network is the result, without a last training."""
    steps, seed, limit_ms = trajectory.narrowed.steps, trajectory.narrowed.seed, trajectory.limit_ms
    if not steps and trajectory.met:
        return [f"the network already meets the target: {before.latency.ms:.3f} ms; it is kept as it is"]
    said = [] if trajectory.met else [_missed(settings, trajectory, target_ms, after)]
    if settings.confidence != LEAST_CONFIDENCE and _is_lower(limit_ms, target_ms):
        said.append(
            f"{percent(settings.confidence)} confidence by the latency's own error makes the limit {limit_ms:.3f} ms, "
            f"lower than the target of {target_ms:.3f} ms; --confidence 0.5 takes the target itself as the limit"
        )
    if steps:
        stds = [found.step.top1_std or 0.0 for found in steps]
        least, most = f"±{min(stds):.2f}", f"±{max(stds):.2f}"
        close = sum(step.rivals > 0 for step in steps)
        said.append(
            f"proposals were scored on {seed.images:,} training images that none of their fine-tunes saw: top-1 is "
            f"known to {least if least == most else f'{least} to {most}'} points there, and in {close} of {len(steps)} "
            "steps another proposal was within that of the winner"
        )
    if steps and not data.unseen:
        said.append(
            "the network itself may have learned from these images, so that the steps' top-1 is too high and their "
            f"choice less sure: mnv3search train --held-out {settings.held_out:g} leaves them out for this"
        )
    if trajectory.number < len(steps):
        said.append(
            f"timed whole, step {trajectory.number} of {len(steps)} is within the target already: it is the result, "
            "and the others were not needed"
        )
    if data.splits.test is None:
        said.append("the validation images also chose the epoch of the last training: its top-1 is a little high")
    if steps and untrained and settings.finish == "none":
        said.append("no long fine-tune followed (--finish none); mnv3search train can do it")
    return said


def _missed(settings: PruningSettings, trajectory: Trajectory, target_ms: float, after: Figures) -> str:
    """Why the result is not within the target, and what would bring it there."""
    limit_ms = trajectory.limit_ms
    bound = f"the limit of {limit_ms:.3f} ms" if _is_lower(limit_ms, target_ms) else f"{target_ms:.3f} ms"
    came = f"the target is missed: the steps ended at {after.latency.ms:.3f} ms, above {bound}"
    if trajectory.stuck_ms is not None:
        smaller = f"{settings.step_fraction / 2:.2g}"
        return (
            f"{came}, because no layer that is left could be cut by the {trajectory.stuck_ms:.3g} ms that a step asked "
            f"for then; that is not as far as narrowing can go: begin again with a smaller --step, such as {smaller}"
        )
    if trajectory.repairs:
        times = "once" if trajectory.repairs == 1 else f"{trajectory.repairs} times"
        return (
            f"{came}, though they went on {times} with what whole times said of the prices; ask for a lower "
            "--target-latency to have it narrow further, or begin with a faster network"
        )
    return f"{came}; begin again with a larger --step"


def _is_lower(limit_ms: float, target_ms: float) -> bool:
    """Whether a limit is lower than the target by so much that a reader should see both."""
    return limit_ms < 0.995 * target_ms
