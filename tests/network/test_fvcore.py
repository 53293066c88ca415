"""Multiply-adds equal, to the integer, those that fvcore counts in the traced network."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.families import NETWORKS, parse_network
from mnv3search.network.build import fvcore_madds
from mnv3search.space import load_space, space_names
from strategies import architectures

SAMPLES_PER_SPACE = 10


@pytest.mark.parametrize(
    "name", [*sorted(NETWORKS), "mobilenet_v3_large@0.75", "mobilenet_v3_small@0.75", "mobilenet_v2@1.4/96"]
)
def test_published_networks(name: str) -> None:
    architecture = parse_network(name)
    assert count(architecture).madds == fvcore_madds(architecture)


@settings(max_examples=20)
@given(architectures())
def test_any_architecture(architecture: Architecture) -> None:
    assert count(architecture).madds == fvcore_madds(architecture)


@pytest.mark.slow
@pytest.mark.parametrize("name", space_names())
def test_random_architectures_of_every_space(name: str) -> None:
    for architecture in load_space(name).sample(SAMPLES_PER_SPACE, seed=11):
        assert count(architecture).madds == fvcore_madds(architecture), str(architecture)
