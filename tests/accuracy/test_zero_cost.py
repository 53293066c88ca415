"""Scores of untrained networks against truths that can be computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnv3search.accuracy.zero_cost import (
    SCORES,
    ZeroCost,
    feature_maps,
    gradient_norm,
    noise,
    synflow,
    untrained_network,
    zen,
    zero_cost,
)
from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.cost import count
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.families import published
from mnv3search.network.build import MobileNetwork, blank_network, build_network, undrawn_network
from mnv3search.training.data.images import LabelledImages

# a 1×1 stem and one separable block without activation after its projection: small enough to be done by hand
TINY = Architecture(
    StemSpec(2, kernel_size=1, stride=1, activation="relu"),
    (BlockSpec(1, 2, 2, activation="relu", shortcut="none"),),
    HeadSpec(None, hidden_channels=None),
    resolution=2,
    classes=2,
)
SMALL = published("mobilenet_v3_small", 0.35, 32).with_classes(10)


def with_weights(architecture: Architecture, *weights: Sequence[float]) -> MobileNetwork:
    """The network in training mode with these convolutions and linear layers, in order."""
    network = untrained_network(architecture, 0, "training")
    layers = [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    with torch.no_grad():
        for layer, values in zip(layers, weights, strict=True):
            layer.weight.copy_(torch.tensor(values).reshape(layer.weight.shape))
    return network


def deeper(architecture: Architecture) -> Architecture:
    """The same network with another of its last block."""
    return replace(architecture, blocks=(*architecture.blocks, architecture.blocks[-1]))


def test_feature_maps_are_those_of_the_network_s_own_forward_pass() -> None:
    network = untrained_network(published("mobilenet_v3_small", 0.35, 32), 0, "training").eval()
    images = noise(2, 32, 0)
    maps = feature_maps(network, images, lambda module, maps: module(maps))
    seen: list[Tensor] = []
    handle = network.head.feature.register_forward_hook(lambda *given: seen.append(given[2]))  # type: ignore[union-attr]
    with torch.no_grad():
        network(images)
    handle.remove()
    assert torch.equal(maps.detach(), seen[0])


def test_untrained_networks_are_those_that_training_starts_from() -> None:
    mine, theirs = untrained_network(SMALL, 3, "training"), build_network(SMALL)
    for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        if a.dim() > 1 and a.numel() > 500:
            assert float(a.detach().std()) == pytest.approx(float(b.detach().std()), rel=0.15), name
        elif a.dim() == 1:
            assert torch.equal(a, b), name


def test_a_network_that_is_built_without_a_draw_is_set_all_over_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    torch.use_deterministic_algorithms(True)  # memory that is not set then holds NaN
    try:
        unset, made = undrawn_network(SMALL), untrained_network(SMALL, 3, "training").state_dict()
    finally:
        torch.use_deterministic_algorithms(False)
    assert bool(unset.stem.conv.weight.isnan().all())
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in MobileNetwork(SMALL).state_dict().items():
        assert made[name].isfinite().all(), name
        assert (made[name].shape, made[name].dtype) == (tensor.shape, tensor.dtype)
        if "norm" in name:
            assert torch.equal(made[name], tensor), name


def test_a_seed_gives_a_network_and_another_gives_another() -> None:
    first, again, other = (untrained_network(SMALL, seed, "gaussian").stem.conv.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_synflow_of_a_chain_is_its_summed_output_for_each_layer() -> None:
    # |stem| maps (1, 1, 1) to (6, 3); depthwise to (12, 9); projection to (21, 33); pooled; logits 54 and 21
    network = with_weights(TINY, [1, -2, 3, 1, 1, -1], [2, -3], [1, 1, -2, 1], [1, 1, -1, 0])
    # by homogeneity each of the four layers carries the whole sum
    assert synflow(network, 2) == pytest.approx(math.log10(4 * (54 + 21)), abs=1e-12)


def test_synflow_counts_a_residual_s_branch_for_what_flows_through_it() -> None:
    tied = replace(TINY, blocks=(replace(TINY.blocks[0], shortcut="identity"),))
    network = with_weights(tied, [1, -2, 3, 1, 1, -1], [2, -3], [1, 1, -2, 1], [1, 1, -1, 0])
    # maps are (27, 36), logits 63 and 27: 90 passes stem and classifier, 75 of it the two layers of the block
    assert synflow(network, 2) == pytest.approx(math.log10(2 * 90 + 2 * 75), abs=1e-12)


def test_synflow_does_not_overflow_with_depth() -> None:
    block = BlockSpec(3, 64, 16, expansion="always", shortcut="none")
    deep = Architecture(StemSpec(16, stride=1), (block,) * 160, HeadSpec(None), resolution=8, classes=2)
    network = untrained_network(deep, 0, "gaussian")
    assert 320 < synflow(network, 8) < 1000


class Noise:
    """Images of random pixels."""

    name = "noise"

    def read(self, file: str) -> NDArray[np.uint8]:
        return np.random.default_rng(int(file)).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def images_of_noise() -> LabelledImages:
    files = tuple(str(number) for number in range(60))
    return LabelledImages(Noise(), files, np.arange(60) % 10, tuple("abcdefghij"))


def test_a_score_that_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnv3search.accuracy.zero_cost.untrained_network", lambda network, *_: blank_network(network))
    with pytest.raises(EvaluatorError, match="cannot order"):
        ZeroCost("gradient_norm").evaluate([SMALL])


def test_real_images_are_looked_at() -> None:
    real, unreal = (ZeroCost("gradient_norm", data=data).evaluate([SMALL]) for data in (images_of_noise(), None))
    assert real != unreal
    assert real == ZeroCost("gradient_norm", data=images_of_noise()).evaluate([SMALL])


def test_zen_of_a_linear_network_is_its_change_and_its_spread() -> None:
    network = with_weights(TINY, [2, 0, 0, 0, 2, 0], [3, 3], [5, 0, 0, 5], [1, 0, 0, 1])
    images, others = noise(64, 2, 0).abs(), noise(64, 2, 1)
    # norms undo the scales of the weights, and the score puts them back: 2 × 3 × 5 times the unscaled network's
    plain = with_weights(TINY, [1, 0, 0, 0, 1, 0], [1, 1], [1, 0, 0, 1], [1, 0, 0, 1])
    gained = zen(network, images, others) - zen(plain, images, others)
    assert gained == pytest.approx(math.log(2 * 3 * 5), abs=0.02)  # eps of the norms


def test_zen_sees_neither_residuals_nor_gates() -> None:
    gated = SMALL.map_blocks(lambda block: replace(block, squeeze_excite=SqueezeExciteSpec(8), shortcut="identity"))
    bare = SMALL.map_blocks(lambda block: replace(block, squeeze_excite=None, shortcut="none"))
    first, second = untrained_network(gated, 0, "gaussian"), untrained_network(bare, 0, "gaussian")
    second.load_state_dict({name: first.state_dict()[name] for name in second.state_dict()})
    images, others = noise(4, 32, 0), noise(4, 32, 1)
    assert zen(first, images, others) == zen(second, images, others)


def test_synflow_sees_residuals_and_no_gates() -> None:
    gated = SMALL.map_blocks(lambda block: replace(block, squeeze_excite=SqueezeExciteSpec(8)))
    bare = SMALL.map_blocks(lambda block: replace(block, squeeze_excite=None))
    apart = bare.map_blocks(lambda block: replace(block, shortcut="none"))
    first, second, third = (untrained_network(network, 0, "gaussian") for network in (gated, bare, apart))
    second.load_state_dict({name: first.state_dict()[name] for name in second.state_dict()})
    third.load_state_dict(second.state_dict())
    assert synflow(first, 32) == (with_residuals := synflow(second, 32))
    assert with_residuals > synflow(third, 32)


def test_gradient_norm_is_the_sum_of_the_layers_norms() -> None:
    network, images, labels = untrained_network(SMALL, 0, "training"), noise(4, 32, 0), torch.arange(4)
    torch.autograd.backward(torch.nn.functional.cross_entropy(network(images), labels))
    weights = [m.weight for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    truth = sum(float(weight.grad.norm()) for weight in weights if weight.grad is not None)
    fresh = untrained_network(SMALL, 0, "training")
    assert gradient_norm(fresh, images, labels) == pytest.approx(math.log10(truth), rel=1e-4)


@pytest.mark.parametrize("score", ["zen", "synflow", "parameters", "madds"])
def test_a_deeper_network_scores_higher(score: str) -> None:
    small, large = ZeroCost(score).evaluate([SMALL, deeper(deeper(SMALL))])
    assert large.top1 > small.top1


def test_counts_are_their_logarithms() -> None:
    (madds,), (parameters,) = ZeroCost("madds").evaluate([SMALL]), ZeroCost("parameters").evaluate([SMALL])
    assert madds.top1 == pytest.approx(math.log10(count(SMALL).madds), abs=1e-6)
    assert parameters.top1 == pytest.approx(math.log10(count(SMALL).parameters), abs=1e-6)
    assert madds.top1_std is None


def test_repeats_average_draws() -> None:
    ones = [ZeroCost("zen", seed=seed, images=4).evaluate([SMALL])[0].top1 for seed in (0, 1)]
    (mean,) = ZeroCost("zen", repeats=2, images=4).evaluate([SMALL])
    assert mean.top1 == pytest.approx(sum(ones) / 2, abs=1e-5)


def test_options_are_read() -> None:
    asked = zero_cost("zen,images=8,resolution=16,seed=2").evaluate([SMALL])
    assert asked == ZeroCost("zen", images=8, resolution=16, seed=2).evaluate([SMALL])
    assert asked != zero_cost("zen,images=8,resolution=16,seed=3").evaluate([SMALL])


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", EvaluatorError, "zen"),
        ("zn", UnknownNameError, "zen"),
        ("naswot,images=4", UnknownNameError, "known are gradient_norm, madds, parameters, synflow, zen"),
        ("zen,image=3", UnknownNameError, "images"),
        ("zen,images=0", EvaluatorError, "from 2 to 512"),
        ("zen,images=-4", EvaluatorError, "integer"),
        ("zen,images", EvaluatorError, "integer"),
        ("zen,images=8,images=9", EvaluatorError, "twice"),
        ("zen,resolution=1e3", EvaluatorError, "integer"),
    ],
)
def test_what_cannot_be_meant_is_said(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        zero_cost(text)


def test_scores_have_names_and_are_no_predictions() -> None:
    for name in SCORES:
        evaluator = ZeroCost(name)
        assert evaluator.capabilities.score_name
        assert not evaluator.capabilities.estimated


def test_a_dead_network_scores_no_finite_figure_and_raises_nothing() -> None:
    network = blank_network(published("mobilenet_v3_small", 0.5, 32))
    score = gradient_norm(network, torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]))
    assert score == -math.inf
