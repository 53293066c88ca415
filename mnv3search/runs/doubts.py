"""What a reader must know before believing a figure: what was aimed at, where a prediction is no accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mnv3search.latency.confidence import LEAST_CONFIDENCE
from mnv3search.report.summary import Judged, TargetVerdict
from mnv3search.report.wording import percent
from mnv3search.runs.settings import RunSettings

PRIOR = "prior"
IMAGENET_CLASSES = 1000
SMALLEST_KNOWN_RESOLUTION, LARGEST_KNOWN_RESOLUTION = 96, 256


def doubts(evaluator: str, best: Judged) -> Sequence[str]:
    """Sentences on a prior that is asked of networks unlike those that it was fitted to."""
    architecture = best.architecture
    known = SMALLEST_KNOWN_RESOLUTION <= architecture.resolution <= LARGEST_KNOWN_RESOLUTION
    if evaluator != PRIOR or (architecture.classes == IMAGENET_CLASSES and known):
        return ()
    return (
        f"the prior was fitted to ImageNet networks of {IMAGENET_CLASSES} classes at {SMALLEST_KNOWN_RESOLUTION} to "
        f"{LARGEST_KNOWN_RESOLUTION} px: for {architecture.classes} classes at {architecture.resolution} px its top-1 "
        "is no accuracy, at best an order",
    )


def aim_note(verdict: TargetVerdict, best: Judged) -> Sequence[str]:
    """Why the winner of a device that cannot be timed is predicted below the target, and how to aim at it instead."""
    if verdict.met is not None or verdict.confidence == LEAST_CONFIDENCE or not best.latency_error_ms:
        return ()
    return (
        f"the search kept {percent(verdict.confidence)} confidence of the target by each network's own latency error "
        "and so aimed lower; --confidence 0.5 aims at the prediction itself",
    )


def repair_note(verdict: TargetVerdict) -> Sequence[str]:
    """How often the sum of blocks had to be corrected by what was timed whole."""
    if not verdict.repairs:
        return ()
    times = "once" if verdict.repairs == 1 else f"{verdict.repairs} times"
    return (
        f"timed whole, the first finalists or the better of them missed the target: the search went on {times} with "
        "what their times said of the prediction",
    )


def kept_note(folder: Path) -> Sequence[str]:
    """Where the winner stands as it was trained to be judged."""
    return (
        f"best.safetensors is the winner as that short training left it: mnv3search evaluate {folder}, predict and "
        "export take the folder",
    )


def short_training_notes(settings: RunSettings) -> Sequence[str]:
    """What the accuracies of an evaluator that trains are, and why such a run did not narrow its finalists."""
    notes = [
        f"top-1 is what {settings.evaluator} measured on held-out images after a short training of each network: lower "
        "than a full training gives; mnv3search train best.json --data … trains the winner",
    ]
    if settings.kind == "run" and settings.finalists == 0:
        notes.append(
            "NetAdapt was left out: each of its steps would train some twenty networks; --finalists 1 --step 0.1 asks "
            "for it, and mnv3search netadapt on the trained winner narrows it with its weights"
        )
    return notes
