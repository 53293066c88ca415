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
    named = {name if width == 1.0 else f"{name}@{width:g}": published(name, width) for name, width in _BESIDE}
    named = {label: network for label, network in named.items() if network != reference.architecture}
    latencies = [ms for ms, _ in judge.latencies(list(named.values()))]  # an evaluator may train: it is asked last
    return [
        judge.judge(label, network, "reference", published_top1(label))
        for (label, network), ms in zip(named.items(), latencies, strict=True)
        if target_ms / NEAR <= ms <= target_ms * NEAR
    ]
