"""What a reader must know before believing a figure: what the target asked for, where a prediction is no accuracy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

from mnv3search.accuracy.prior import IMAGENET_CLASSES, PUBLISHED, RECIPES, ImagenetPrior, recipe_of
from mnv3search.architecture import Architecture
from mnv3search.latency.confidence import LEAST_CONFIDENCE
from mnv3search.report.summary import ScoredNetwork, TargetVerdict, percent
from mnv3search.runs.settings import RunSettings


def caveats(evaluator: str, best: ScoredNetwork) -> Sequence[str]:
    """Sentences on a prior: what it predicts where that is not the usual, and a winner unlike what it was fitted to."""
    recipe = recipe_of(evaluator)
    if recipe is None:
        return ()
    said = []
    if recipe != PUBLISHED:
        said.append(
            f"top-1 is a predicted {RECIPES[recipe]}, and is comparable with no other; --evaluator prior predicts "
            "networks as they are published"
        )
    outside = ImagenetPrior(recipe=recipe).outside_range(best.architecture)
    if outside:
        said.append(
            "the winner lies outside the networks that the prior was fitted to, so its top-1 is an extrapolation: "
            + ", ".join(map(str, outside))
        )
    return said


def prior_score(evaluator: str, architecture: Architecture) -> str | None:
    """What the prior's answer is called where it is no accuracy: it knows ImageNet's classes alone."""
    classes = architecture.classes
    return None if recipe_of(evaluator) is None or classes == IMAGENET_CLASSES else f"prior's score, {classes} classes"


def no_ranking(scores: Sequence[tuple[float, float | None]], chance: float, evaluator: str) -> str | None:
    """Why the networks of a run that trained them cannot be put in an order; None where they can.

    Args:
        scores: top-1 of each in percent, and one standard deviation where it is stated.
        chance: the top-1 of a network that always gives the most frequent class.
        evaluator: with its options, for the remedy.
    """
    if len(scores) < 2:
        return None
    values, known = [top1 for top1, _ in scores], [(top1, std) for top1, std in scores if std]
    best, best_std = max(scores)
    every = f"the {len(scores)} networks"
    at_random = NormalDist().inv_cdf(1 - 0.05 / len(scores))  # what the best of so many reaches by luck
    if best <= chance + at_random * (best_std or 0.0):
        why = f"of {every} the best has {best:.1f} %, which is not above chance ({chance:.1f} %)"
    elif best == min(values):
        why = f"{every} all have {best:.1f} %"
    elif len(known) == len(scores) and _scatter(known) <= _chi_square(len(known) - 1):
        noise = statistics.fmean(std for _, std in known)
        why = f"{every} have {min(values):.1f} to {best:.1f} %, which is within their own noise (±{noise:.1f})"
    else:
        return None
    return (
        f"{why}; the network that is named is as good as drawn from them. More epochs ({evaluator.partition(':')[0]}"
        ":epochs=…), more images to learn from and to be scored on, or several trainings of each (seeds=…) would help"
    )


def _scatter(known: Sequence[tuple[float, float]]) -> float:
    """The scores' squared distances from their weighted mean, each in its own deviations."""
    weights = [1 / std**2 for _, std in known]
    mean = sum(w * top1 for w, (top1, _) in zip(weights, known, strict=True)) / sum(weights)
    return sum(w * (top1 - mean) ** 2 for w, (top1, _) in zip(weights, known, strict=True))


def _chi_square(freedom: int) -> float:
    """The 95 % point of chi-square, by Wilson and Hilferty (1931)."""
    part = 2 / (9 * freedom)
    return freedom * (1 - part + NormalDist().inv_cdf(0.95) * math.sqrt(part)) ** 3


def confidence_note(verdict: TargetVerdict, best: ScoredNetwork) -> Sequence[str]:
    """Why the winner of a device that cannot be timed is predicted below the target, and how to have it nearer."""
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
    """Where the winner is, as it was trained to be scored."""
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
