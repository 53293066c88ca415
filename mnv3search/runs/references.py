"""Which published networks stand beside a run's winner."""

from __future__ import annotations

from mnv3search.families import published
from mnv3search.report.summary import Judged
from mnv3search.runs.judging import Judge, published_top1

_BESIDE = (
    ("mobilenet_v3_large", 1.0), ("mobilenet_v3_large", 0.75), ("mobilenet_v3_small", 1.0),
    ("mobilenet_v3_small", 0.75), ("mobilenet_v2", 1.0), ("mobilenet_v2", 0.75), ("mobilenet_v2", 0.35),
    ("mnasnet_a1", 1.0), ("mnasnet_small", 1.0),
)  # fmt: skip
NEAR = 2.0


def reference_networks(judge: Judge, reference: Judged, target_ms: float) -> list[Judged]:
    """Published networks within a factor of two of the target, by the run's evaluator and latency model.

    Only for ImageNet's input and classes: elsewhere the published networks are others, and the space's own reference
    stands alone. The reference itself is left out.
    """
    if (reference.architecture.resolution, reference.architecture.classes) != (224, 1000):
        return []
    found = []
    for name, width in _BESIDE:
        label = name if width == 1.0 else f"{name}@{width:g}"
        architecture = published(name, width)
        if architecture == reference.architecture:
            continue
        judged = judge.judge(label, architecture, "reference", published_top1(label))
        if target_ms / NEAR <= judged.latency_ms <= target_ms * NEAR:
            found.append(judged)
    return found
