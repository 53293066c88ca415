"""What a reader must know before believing a figure: how a measurement came out, where a prediction is no accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from mnv3search.report.summary import Judged

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


def measured_verdict(best: Judged, finalists: Sequence[Judged], target_ms: float) -> Sequence[str]:
    """Whether the winner met the target when it was timed whole on this machine; nothing where it was not timed.

    Where it missed, the finalists that met it are named: the winner was chosen by the table's sum, not by these times.
    """
    if best.measured_ms is None:
        return ()
    spread = f" ±{best.measured_error_ms:.2f}" if best.measured_error_ms is not None else ""
    gap = 100 * (best.measured_ms / target_ms - 1)
    verdict = "meets the target" if gap <= 0 else f"misses the target by {gap:.1f} %"
    said = [f"timed whole on this machine the best takes {best.measured_ms:.2f}{spread} ms: it {verdict}"]
    if gap > 0:
        met = [f"{n.name} ({n.measured_ms:.2f} ms)" for n in finalists if n.measured_ms and n.measured_ms <= target_ms]
        said.append(f"timed whole, these meet it: {', '.join(met)}" if met else "timed whole, no finalist meets it")
    return said
