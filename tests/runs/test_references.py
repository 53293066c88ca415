"""Published networks beside a run's winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import Capabilities, Evaluation
from mnv3search.architecture import Architecture
from mnv3search.families import published
from mnv3search.latency.devices import load_device
from mnv3search.latency.model import LatencyKind
from mnv3search.runs.evaluations import Scorer, reference_networks


class Training:
    """An evaluator that is dear to ask."""

    capabilities = Capabilities(trains=True)

    def __init__(self) -> None:
        self.asked: list[Architecture] = []

    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        self.asked += architectures
        return [Evaluation(50.0) for _ in architectures]


class Priced:
    """A device that takes a given time for each published network."""

    name = "board"
    kind: LatencyKind = "estimated"

    def __init__(self, ms: Mapping[Architecture, float]) -> None:
        self.ms = ms

    def latency_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([self.ms.get(a, 1_000.0) for a in architectures])

    def latency_error_ms(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.zeros(len(architectures))


LARGE, SMALL = published("mobilenet_v3_large"), published("mobilenet_v3_small")


def test_the_references_are_those_from_half_to_twice_the_target_without_the_reference_itself() -> None:
    ms = {
        SMALL: 49.9,  # under half of 100 ms
        published("mobilenet_v3_small", 0.75): 50.0,  # half of it, to the millisecond
        published("mobilenet_v2"): 200.0,  # twice
        published("mobilenet_v2", 0.75): 200.1,
        published("mnasnet_a1"): 120.0,
        LARGE: 100.0,  # the reference
    }
    scorer = Scorer(Priced(ms), Training())
    reference = scorer.score("mobilenet_v3_large", LARGE, "reference")
    shown = reference_networks(scorer, reference, 100.0)
    assert [network.name for network in shown] == ["mobilenet_v3_small@0.75", "mobilenet_v2", "mnasnet_a1"]
    assert [network.latency_ms for network in shown] == [50.0, 200.0, 120.0]
    assert [network.published_top1 for network in shown] == [65.4, 72.0, 75.2]


@pytest.mark.parametrize("changed", [LARGE.with_classes(10), LARGE.with_resolution(160)], ids=["classes", "pixels"])
def test_elsewhere_than_on_imagenet_no_published_network_is_shown(changed: Architecture) -> None:
    scorer = Scorer(Priced({published("mobilenet_v2"): 100.0}), Training())
    assert reference_networks(scorer, scorer.score("mine", changed, "reference"), 100.0) == []


def test_only_networks_that_are_shown_are_evaluated() -> None:
    evaluator = Training()
    scorer = Scorer(load_device("pixel1"), evaluator)
    reference = scorer.score("mobilenet_v3_small", published("mobilenet_v3_small"), "reference")
    shown = reference_networks(scorer, reference, reference.latency_ms)
    assert {"mobilenet_v3_small@0.75", "mobilenet_v2@0.35"} <= {network.name for network in shown}
    assert all(reference.latency_ms / 2 <= network.latency_ms <= 2 * reference.latency_ms for network in shown)
    assert evaluator.asked == [reference.architecture, *(network.architecture for network in shown)]
