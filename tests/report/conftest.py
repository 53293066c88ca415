"""A run as a search would leave it: true architectures and counts, a toy accuracy and a toy latency."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.architecture import Architecture
from mnv3search.blocks import BlockSpec
from mnv3search.candidate import Candidate, pareto_front
from mnv3search.cost import count
from mnv3search.families import published
from mnv3search.layer_search import netadapt
from mnv3search.report.summary import RunSummary, ScoredNetwork

REFERENCES = {"mobilenet_v3_large": 75.2, "mobilenet_v2": 72.0, "mnasnet_a1": 75.2, "mobilenet_v3_large@0.75": 73.3}


class ToyLatency:
    """Proportional to MAdds and activations; about 51 ms for V3-Large."""

    def latency_ms(self, architectures: list[Architecture]) -> NDArray[np.float64]:
        found = [count(a) for a in architectures]
        return np.array([c.madds / 6.2e6 + c.activations / 2.8e5 + 0.3 for c in found])


class ToyEvaluator:
    """Grows with the logarithm of MAdds and parameters; larger kernels and squeeze-excite help a little."""

    def evaluate(self, architectures: list[Architecture]) -> list[Evaluation]:
        return [Evaluation(_toy_top1(a), 0.4 + 0.02 * (count(a).madds % 7)) for a in architectures]


def _toy_top1(architecture: Architecture) -> float:
    counts = count(architecture)
    extra: float = sum(0.03 * (b.kernel_size - 3) + 0.12 * bool(b.squeeze_excite) for b in architecture.blocks)
    return 74.3 + 4.6 * math.log(counts.madds / 216.6e6) + 1.3 * math.log(counts.parameters / 5.5e6) + extra


def _parse(name: str) -> Architecture:
    base, _, width = name.partition("@")
    return published(base, float(width or 1))


def scored(name: str, architecture: Architecture, origin: str, published_top1: float | None = None) -> ScoredNetwork:
    answer, latency = ToyEvaluator().evaluate([architecture])[0], float(ToyLatency().latency_ms([architecture])[0])
    counts = count(architecture)
    return ScoredNetwork(
        name, architecture, answer.top1, answer.top1_std, latency, 0.031 * latency + 0.2, counts.madds,
        counts.parameters, origin, published_top1,
    )  # fmt: skip


def _perturbed(rng: random.Random) -> Architecture:
    base = published("mobilenet_v3_large")

    def change(block: BlockSpec) -> BlockSpec:
        if block.stride == 1 and rng.random() < 0.5:
            return block
        expanded = max(8, int(block.expanded_channels * rng.choice((0.5, 0.75, 1.0, 1.25, 1.5))) // 8 * 8)
        kernel = rng.choice((3, 5, 7))
        return replace(block.resized(8, expanded, block.out_channels), kernel_size=kernel)

    return base.map_blocks(change)


def candidates(number: int, limit_ms: float) -> list[Candidate]:
    rng = random.Random(7)
    found: list[Candidate] = []
    while len(found) < number:
        architecture = _perturbed(rng)
        network = scored("", architecture, "block_search")
        if network.latency_ms <= limit_ms:
            found.append(
                Candidate(
                    architecture, network.top1 or 0.0, network.top1_std, network.latency_ms, network.madds,
                    network.parameters, "block_search", len(found),
                )
            )  # fmt: skip
    return found


def make_summary(number: int = 400, target: float = 50.0) -> RunSummary:
    found = candidates(number, 1.1 * target)
    front = pareto_front(found)
    result = netadapt(front[-1].architecture, ToyLatency(), ToyEvaluator(), target)  # type: ignore[arg-type]
    best = scored("best", result.final.architecture, "netadapt")
    errors = {c.architecture: 0.031 * c.latency_ms + 0.2 for c in [*found, result.seed]}
    errors |= {step.architecture: 0.031 * step.latency_ms + 0.2 for step in result.steps}
    return RunSummary(
        title=f"mnv3_large for {target:g} ms on pixel1",
        space="mnv3_large",
        device="pixel1",
        device_kind="estimated",
        evaluator="ImagenetPrior",
        top1_estimated=True,
        target_latency_ms=target,
        best=best,
        references=[scored(name, _parse(name), "reference", top1) for name, top1 in REFERENCES.items()],
        finalists=[scored(f"finalist {i}", c.architecture, "netadapt") for i, c in enumerate(front[-3:-1], 2)],
        candidates=found,
        front=front,
        seed=result.seed,
        steps=result.steps,
        notes=["NetAdapt's network beats the best direct candidate within the target by 0.12 points (predicted)."],
        manifest={
            "command": "mnv3search run --space mnv3_large --target-latency 50ms --seed 0",
            "versions": {"mnv3search": "0.1.0", "python": "3.11.9", "optuna": "5.0.0"},
            "hardware": {"cpu": "AMD EPYC 7B13", "cores": 2},
            "seeds": [0],
            "seconds": {"block search": 71.2, "netadapt": 9.8},
        },
        latency_errors_ms=errors,
    )


@pytest.fixture(scope="session")
def summary() -> RunSummary:
    return make_summary()


@pytest.fixture(scope="session")
def make() -> Callable[..., RunSummary]:
    return make_summary
