"""What a pruning came to: its figures before and after, what a reader must know of them, and the files it leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from mnv3search.architecture import dump_architecture
from mnv3search.cost import count
from mnv3search.files import write_text
from mnv3search.latency.confidence import LEAST_CONFIDENCE
from mnv3search.layer_search.trained import Narrowed
from mnv3search.report.pruning import Point, PruningPicture, draw_pruning, write_pruning_steps
from mnv3search.report.summary import percent
from mnv3search.runs.folder import PruningFolder
from mnv3search.runs.images import PruningData
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.target import Latency, PruningAim
from pathlib import Path
from typing import Any, TYPE_CHECKING

if TYPE_CHECKING:
    from mnv3search.runs.settings import PruningSettings
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.evaluation import Metrics
    from mnv3search.training.trained import TrainedNetwork

def heading(walked: Walked, target_ms: float, where: str, *, unseen: bool) -> str:
    """What a pruning came to, in a few words; ``unseen``: by images that the network had not learned from."""
    by = "" if unseen or not walked.narrowed.steps else "; proposals scored on images that it may have learned from"
    if not walked.met:
        return f"Not pruned to {target_ms:.4g} ms on {where}: the target is missed{by}"
    if not walked.number:
        return f"Within {target_ms:.4g} ms on {where} as it is: nothing was pruned"
    return f"Pruned to {target_ms:.4g} ms on {where}{by}"


def notes(
    settings: PruningSettings, aim: PruningAim, walked: Walked, before: Figures, after: Figures, data: PruningData, *,
    untrained: bool,
) -> list[str]:  # fmt: skip
    """Sentences for the reader; ``untrained``: the last step's network is the result, without a last training."""
    steps, seed = walked.narrowed.steps, walked.narrowed.seed
    if not steps and walked.met:
        return [f"the network already meets the target: {before.latency.ms:.3f} ms; it is kept as it is"]
    said = [] if walked.met else [_missed(settings, aim, walked, after)]
    said += _confidence(aim, settings.confidence, walked)
    if steps:
        said.append(
            f"proposals were judged on {seed.images:,} training images that none of their fine-tunes saw: top-1 is "
            f"known to {_deviations(walked)} points there, and {_rivals(walked)}"
        )
    if steps and not data.unseen:
        said.append(
            "the network itself may have learned from these images, so that the steps' top-1 is too high and their "
            f"choice less sure: mnv3search train --held-out {settings.held_out:g} leaves them out for this"
        )
    if walked.number < len(steps):
        said.append(
            f"timed whole, step {walked.number} of {len(steps)} is within the target already: it is the result, and "
            "the others were not needed"
        )
    if data.splits.test is None:
        said.append("the validation images also chose the epoch of the last training: its top-1 is a little high")
    if steps and untrained and settings.finish == "none":
        said.append("no long fine-tune followed (--finish none); mnv3search train can do it")
    return said


def _missed(settings: PruningSettings, aim: PruningAim, walked: Walked, after: Figures) -> str:
    """Why the result is not within the target, and what would bring it there."""
    came = f"the target is missed: the steps ended at {after.latency.ms:.3f} ms, above {_bound(aim, walked)}"
    if walked.stuck_ms is not None:
        smaller = f"{settings.step_fraction / 2:.2g}"
        return (
            f"{came}, because no layer that is left could be cut by the {walked.stuck_ms:.3g} ms that a step asked for "
            f"then; that is not as far as narrowing can go: begin again with a smaller --step, such as {smaller}"
        )
    if walked.repairs:
        return (
            f"{came}, though they went on {_times(walked.repairs)} with what whole times said of the prices; ask "
            "for a lower --target-latency to have it narrow further, or begin with a faster network"
        )
    return f"{came}; begin again with a larger --step"


def _bound(aim: PruningAim, walked: Walked) -> str:
    limit_ms = walked.limit_ms
    return f"{aim.target_ms:.3f} ms" if not lower(limit_ms, aim.target_ms) else f"the limit of {limit_ms:.3f} ms"


def lower(limit_ms: float, target_ms: float) -> bool:
    """Whether a limit is lower than the target by so much that a reader should see both."""
    return limit_ms < 0.995 * target_ms


def _confidence(aim: PruningAim, confidence: float, walked: Walked) -> list[str]:
    """Why the steps aimed below the target, and how to aim at it instead."""
    if confidence == LEAST_CONFIDENCE or not lower(walked.limit_ms, aim.target_ms):
        return []
    return [
        f"{percent(confidence)} confidence by the latency's own error makes the limit {walked.limit_ms:.3f} ms, lower "
        f"than the target of {aim.target_ms:.3f} ms; --confidence 0.5 aims at the target itself"
    ]


def _deviations(walked: Walked) -> str:
    """Of the proposals that were kept, each by its own top-1."""
    stds = [found.step.top1_std or 0.0 for found in walked.narrowed.steps]
    least, most = f"±{min(stds):.2f}", f"±{max(stds):.2f}"
    return least if least == most else f"{least} to {most}"


def _rivals(walked: Walked) -> str:
    steps = walked.narrowed.steps
    close = sum(step.rivals > 0 for step in steps)
    return f"in {close} of {len(steps)} steps another proposal was within that of the winner"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


@dataclass(frozen=True, slots=True)
class Walked:
    """Where the steps led.

    Attributes:
        narrowed: the seed and the steps.
        number: the step that is the result, 0 for the seed: the first within the target.
        latency: of its network: whole where the device can be timed.
        met: whether that is within the target.
        repairs: how often the steps went on because a whole time missed the target.
        limit_ms: what its latency must come to, its relative error kept, to be within the target with the confidence
            asked for.
        stuck_ms: the cut of a step that no place could make, where the steps ended for that; else None.
    """

    narrowed: Narrowed
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
        top1, top1_std: percent of the images that judge, and one binomial standard deviation.
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
        folder: where everything stands; its ``best.safetensors`` is the result.
        before, after: the trained network and the result.
        beside: other networks that were asked for.
        walked: the steps.
        target_ms, met: the target, and whether the result is within it with the confidence asked for.
        judged_by: ``test images`` or ``validation images``.
        unseen: whether the network is known not to have learned from the images that scored the proposals.
        trained_images: that the proposals' fine-tunes saw, repeats counted.
        notes: sentences for the reader.
    """

    folder: PruningFolder
    before: Figures
    after: Figures
    beside: Sequence[Figures]
    walked: Walked
    target_ms: float
    judged_by: str
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
        return heading(self.walked, self.target_ms, self.folder.settings.device, unseen=self.unseen)

    @property
    def met(self) -> bool:
        """Whether the result is within the target with the confidence asked for."""
        return self.walked.met

    def to_mapping(self) -> Mapping[str, object]:
        """What ``--json`` prints and ``result.json`` holds."""
        return {
            "feasible": True,
            "target": {
                "latency_ms": self.target_ms,
                "confidence": self.folder.settings.confidence,
                "limit_ms": self.walked.limit_ms,
                "met": self.met,
                "repairs": self.walked.repairs,
            },
            "before": self.before.to_mapping(),
            "after": self.after.to_mapping(),
            "beside": [figures.to_mapping() for figures in self.beside],
            "judged_by": self.judged_by,
            "held_out_images": self.walked.narrowed.seed.images,
            "held_out_unseen": self.unseen,
            "steps": self.walked.number,
            "steps_tried": len(self.walked.narrowed.steps),
            "trained_images": self.trained_images,
            "seconds": self.seconds,
            "out": str(self.folder.path),
            "notes": list(self.notes),
        }


def conclude(
    folder: PruningFolder, aim: PruningAim, data: PruningData, walked: Walked,
    networks: tuple[TrainedNetwork, TrainedNetwork, TrainedNetwork], progress: RunProgress,
) -> PruningOutcome:  # fmt: skip
    """Judge the seed, the result and what is beside them, and write every file.

    Args:
        folder: of the pruning.
        aim: target and device.
        data: images, and the networks beside.
        walked: the steps.
        networks: the seed, the last step's network, and that after its training.
        progress: told of it.

    Raises:
        RunError: a file cannot be written.
    """
    seed, narrowed, ended = networks
    everyone = [("before", seed), ("after", ended), *data.beside]
    latencies = aim.latencies([trained.architecture for _, trained in everyone], [seed.architecture])
    figures = [
        _figures(name, trained, data, ms, progress) for (name, trained), ms in zip(everyone, latencies, strict=True)
    ]
    before, after = figures[0], replace(figures[1], latency=walked.latency)
    steps = walked.narrowed.steps
    outcome = PruningOutcome(
        folder, before, after, figures[2:], walked, aim.target_ms, data.judged_by, data.unseen, sum(s.trained for s in steps),
        notes(folder.settings, aim, walked, before, after, data, untrained=narrowed is ended),
    )  # fmt: skip
    _write(folder, aim, outcome, ended)
    folder.finish("finished", target_ms=aim.target_ms, met=walked.met, steps=walked.number, held_out_unseen=data.unseen)
    folder.write_json("result.json", outcome.to_mapping())
    return outcome


def _figures(
    name: str, trained: TrainedNetwork, data: PruningData, latency: Latency, progress: RunProgress
) -> Figures:
    from mnv3search.training.evaluation import evaluate_network

    def judged(images: LabelledImages) -> Metrics:
        progress.stage(f"judging {_short(name)}, images", len(images))
        return evaluate_network(
            trained.network, images, trained.preprocessing, batch_size=64, progress=lambda n, _: progress.advance(n)
        )

    found = judged(data.judging)
    val = found.top1 if data.judging is data.splits.val else judged(data.splits.val).top1
    counts = count(trained.architecture)
    share = found.top1 / 100
    std = 100 * math.sqrt(share * (1 - share) / found.images)
    return Figures(_short(name), latency, found.top1, std, val, counts.madds, counts.parameters)


def _short(name: str) -> str:
    path = Path(name)
    if path.name == "best.safetensors":
        return path.parent.name
    return path.stem if path.suffix in (".safetensors", ".json") else path.name


def _write(folder: PruningFolder, aim: PruningAim, outcome: PruningOutcome, ended: TrainedNetwork) -> None:
    from mnv3search.training.trained import save_trained

    write_pruning_steps(folder.path / "steps.csv", outcome.walked.narrowed.steps)
    latency = outcome.after.latency
    facts: dict[str, Any] = {
        **ended.facts, "val_accuracy": outcome.after.val_top1, "pruned_from": folder.settings.run,
        "target_ms": outcome.target_ms, "device": aim.device.name, **latency.to_mapping(),
    }  # fmt: skip
    if outcome.judged_by == "test images":
        facts["test_accuracy"] = outcome.after.top1
    save_trained(folder.best, replace(ended, facts=facts))
    write_text(folder.path / "network.json", dump_architecture(ended.architecture))
    draw_pruning(_picture(aim, outcome), folder.path / "netadapt.png", folder.path / "netadapt.svg")


def _picture(aim: PruningAim, outcome: PruningOutcome) -> PruningPicture:
    narrowed = outcome.walked.narrowed
    path = [Point("", narrowed.seed_latency_ms * aim.tied, narrowed.seed.top1, narrowed.seed.top1_std)]
    path += [
        Point(str(s.step.number), s.step.latency_ms * aim.tied, s.step.top1, s.step.top1_std) for s in narrowed.steps
    ]
    how = "whole networks timed, steps by their layers" if aim.timed else "estimated"
    return PruningPicture(
        f"NetAdapt of {_short(outcome.folder.settings.run)} to {outcome.target_ms:.4g} ms"
        f"{'' if outcome.met else ': missed'}",
        path,
        [_point(outcome.before), _point(outcome.after)],
        [_point(figures) for figures in outcome.beside],
        outcome.target_ms,
        f"ms on {aim.device.name} ({how})",
        outcome.judged_by,
        _limit(outcome),
    )


def _limit(outcome: PruningOutcome) -> tuple[float, str] | None:
    """The limit that the confidence sets, where it is lower than the target, and its name."""
    limit_ms, confidence = outcome.walked.limit_ms, outcome.folder.settings.confidence
    if not lower(limit_ms, outcome.target_ms):
        return None
    return limit_ms, f"limit {limit_ms:.4g} ms, {percent(confidence)} sure of the target"


def _point(figures: Figures) -> Point:
    return Point(figures.name, figures.latency.ms, figures.top1, figures.top1_std)
