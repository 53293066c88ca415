"""The published networks have the parameters and multiply-adds that their frameworks give them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision

from mnv3search.cost.counts import count
from mnv3search.families import parse_network

GOLDENS = {
    # name: parameters, multiply-adds of convolutions and linear layers at 224 with 1000 classes
    "mobilenet_v3_large": (5_483_032, 216_589_760),
    "mobilenet_v3_large@0.75": (3_993_528, 154_560_624),
    "mobilenet_v3_large@0.75:torchvision": (3_377_576, None),
    "mobilenet_v3_large_minimalistic": (3_924_288, 209_136_704),
    "mobilenet_v3_large_reduced_tail": (2_569_352, None),
    "mobilenet_v3_large_xiaolai": (3_955_916, 252_827_488),
    "mobilenet_v3_small": (2_542_856, 56_510_400),
    "mobilenet_v3_small@0.75": (2_041_872, 43_399_344),
    "mobilenet_v3_small_minimalistic": (2_044_736, 52_288_448),
    "mobilenet_v3_small_reduced_tail": (1_099_672, None),
    "mobilenet_v3_small_xiaolai": (2_509_748, 60_061_344),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "mobilenet_v1": (4_231_976, 568_740_352),
    "mnasnet_a1": (3_887_038, 311_579_072),
    "mnasnet_b1": (4_383_312, 314_415_872),
    "mnasnet_small": (2_030_264, 68_339_184),
    "fbnet_c": (5_572_200, 384_960_160),
    "single_path_nas": (4_421_616, 333_467_072),
    "efficientnet_lite0": (4_652_008, 385_187_552),
    "efficientnet_b0": (5_288_548, 385_814_752),
}
TORCHVISION: list[tuple[str, str, dict[str, Any]]] = [
    ("mobilenet_v3_large", "mobilenet_v3_large", {}),
    ("mobilenet_v3_large_reduced_tail", "mobilenet_v3_large", {"reduced_tail": True}),
    ("mobilenet_v3_small", "mobilenet_v3_small", {}),
    ("mobilenet_v3_small_reduced_tail", "mobilenet_v3_small", {"reduced_tail": True}),
    *((f"mobilenet_v3_large@{w}:torchvision", "mobilenet_v3_large", {"width_mult": w}) for w in (0.35, 0.75, 1.25)),
    *((f"mobilenet_v3_small@{w}:torchvision", "mobilenet_v3_small", {"width_mult": w}) for w in (0.5, 0.75, 1.5)),
    *((f"mobilenet_v2@{w}", "mobilenet_v2", {"width_mult": w}) for w in (0.35, 0.5, 0.75, 1.0, 1.4)),
    ("mnasnet_b1", "mnasnet1_0", {}),
    ("efficientnet_b0", "efficientnet_b0", {}),
]


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_counts(name: str) -> None:
    parameters, madds = GOLDENS[name]
    counts = count(parse_network(name))
    assert counts.parameters == parameters
    if madds is not None:
        assert counts.madds == madds


@pytest.mark.parametrize(("name", "builder", "options"), TORCHVISION)
def test_parameters_are_those_of_torchvision(name: str, builder: str, options: dict[str, Any]) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, builder)(weights=None, **options)
    assert count(parse_network(name)).parameters == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        # the tables of the first preprint, counted by hand from its rows; its text prints 217 and 66
        ("mobilenet_v3_large_preprint", 245.6),
        ("mobilenet_v3_small_preprint", 57.1),
        # the papers' own figures
        ("mobilenet_v3_large", 217),
        ("mobilenet_v3_small", 57),
        ("mobilenet_v2", 301),
        ("mobilenet_v1", 569),
        ("mobilenet_v1_fanrencli", 569),
    ],
)
def test_millions_of_multiply_adds_as_printed(name: str, millions: float) -> None:
    assert count(parse_network(name)).madds / 1e6 == pytest.approx(millions, abs=0.5 if millions >= 100 else 0.6)


def test_biases_and_expansions_of_the_keras_re_implementations() -> None:
    """V2 with biases (one a convolution's channel) and an expansion in the first block: 32·32 + 2·32 more."""
    plain, keras = count(parse_network("mobilenet_v2")), count(parse_network("mobilenet_v2_fanrencli"))
    channels = sum(layer.out_channels for layer in keras.layers if layer.norm)
    assert keras.parameters == plain.parameters + 32 * 32 + 2 * 32 + channels
    assert keras.madds == plain.madds + 32 * 32 * 112 * 112
