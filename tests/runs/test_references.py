"""Published networks beside a run's winner."""

from __future__ import annotations

from collections.abc import Sequence

from mnv3search.accuracy.evaluator import Capabilities, Evaluation
from mnv3search.architecture import Architecture
from mnv3search.families import published
from mnv3search.runs.evaluations import Judge, reference_networks
from mnv3search.runs.progress import SilentProgress


class Training:
    """An evaluator that is dear to ask."""

    capabilities = Capabilities(trains=True)

    def __init__(self) -> None:
        self.asked: list[Architecture] = []

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        self.asked += architectures
        return [Evaluation(50.0) for _ in architectures]


def test_only_networks_that_are_shown_are_evaluated() -> None:
    evaluator = Training()
    judge = Judge.of("pixel1", evaluator, SilentProgress())
    reference = judge.judge("mobilenet_v3_small", published("mobilenet_v3_small"), "reference")
    shown = reference_networks(judge, reference, reference.latency_ms)
    assert {"mobilenet_v3_small@0.75", "mobilenet_v2@0.35"} <= {network.name for network in shown}
    assert all(reference.latency_ms / 2 <= network.latency_ms <= 2 * reference.latency_ms for network in shown)
    assert evaluator.asked == [reference.architecture, *(network.architecture for network in shown)]
