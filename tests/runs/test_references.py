"""Published networks beside a run's winner."""

from __future__ import annotations

from collections.abc import Sequence

from mnv3search.accuracy.evaluator import Capabilities, Evaluation
from mnv3search.architecture import Architecture
from mnv3search.families import published
from mnv3search.latency.devices import load_device
from mnv3search.runs.evaluations import Scorer, reference_networks


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
    scorer = Scorer(load_device("pixel1"), evaluator)
    reference = scorer.score("mobilenet_v3_small", published("mobilenet_v3_small"), "reference")
    shown = reference_networks(scorer, reference, reference.latency_ms)
    assert {"mobilenet_v3_small@0.75", "mobilenet_v2@0.35"} <= {network.name for network in shown}
    assert all(reference.latency_ms / 2 <= network.latency_ms <= 2 * reference.latency_ms for network in shown)
    assert evaluator.asked == [reference.architecture, *(network.architecture for network in shown)]
