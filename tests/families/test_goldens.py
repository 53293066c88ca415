"""The published networks have the parameters and multiply-adds that their frameworks give them."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import torch
import torchvision

from mnv3search.architecture import dump_architecture, parse_architecture
from mnv3search.cost import count
from mnv3search.families import parse_network
from mnv3search.graph import network_graph
from mnv3search.network.build import build_network

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


@pytest.mark.parametrize(
    ("name", "parameters", "with_running_statistics", "madds"),
    [  # of the author's own networks, run in Keras
        ("mobilenet_v1_fanrencli", 4_231_976, 4_253_864, 568_740_352),
        ("mobilenet_v2_fanrencli", 3_504_872, 3_538_984, 300_774_272),
        ("mobilenet_v3_small_fanrencli", 2_543_598, 2_555_742, None),
    ],
)
def test_counts_of_the_keras_re_implementations(
    name: str, parameters: int, with_running_statistics: int, madds: int | None
) -> None:
    found = count(parse_network(name))
    with torch.device("meta"):
        network = build_network(parse_network(name))
    running = sum(b.numel() for key, b in network.named_buffers() if "running" in key)
    assert (found.parameters, found.parameters + running) == (parameters, with_running_statistics)
    assert madds in (None, found.madds)


def test_form_of_the_keras_v2() -> None:
    """A pixel of zeros on every side at stride 2, no first expansion, one bias, eps 1e-3, Keras' momentum 0.999."""
    architecture = parse_network("mobilenet_v2_fanrencli")
    assert parse_architecture(dump_architecture(architecture)) == architecture
    assert architecture.norm_eps == 1e-3
    assert architecture.norm_momentum == pytest.approx(1 - 0.999)
    network = build_network(architecture).eval()
    assert "blocks.0.expansion" not in dict(network.named_modules())
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(conv.bias is None for conv in convolutions)
    assert network.head.classifier.bias is not None
    image, stem = torch.randn(1, 3, 64, 64), convolutions[0]
    padded = torch.nn.functional.conv2d(torch.nn.functional.pad(image, (1, 1, 1, 1)), stem.weight, stride=2)
    assert torch.allclose(stem(image), padded, atol=1e-6)
    nodes = onnx.load_from_string(network_graph(architecture)).graph.node
    attributes = [{a.name: list(a.ints) for a in node.attribute} for node in nodes if node.op_type == "Conv"]
    strided = [found["pads"] for found in attributes if found["strides"] == [2, 2]]
    assert strided == [[1, 1, 1, 1]] * 5
