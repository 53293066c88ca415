"""What the reader of a pruning must know: how sure its figures are, what its steps aimed at, why it missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnv3search.latency.confidence import LEAST_CONFIDENCE
from mnv3search.report.summary import percent

if TYPE_CHECKING:
    from mnv3search.runs.pruning_aim import PruningAim
    from mnv3search.runs.pruning_data import PruningData
    from mnv3search.runs.pruning_outcome import Figures, Walked
    from mnv3search.runs.pruning_settings import PruningSettings


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
