"""Weights taken out of trained networks, norms folded in: the graph that they make computes what the network does."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from randomised_weights import randomise

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec
from mnv3search.errors import WeightsError
from mnv3search.graph import INPUT_NAME, network_graph, network_weights
from mnv3search.network.build import build_network
from mnv3search.network.folded import folded_network, folded_weights
from strategies import architectures

TINY = Architecture(StemSpec(4), (BlockSpec(3, 8, 4, 1),), HeadSpec(8), resolution=8, classes=3)


@settings(max_examples=12)
@given(architectures(), st.integers(0, 3))
def test_the_graph_of_folded_weights_computes_what_the_network_does(architecture: Architecture, seed: int) -> None:
    network, side = build_network(architecture), architecture.resolution
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))
    randomise(network, images, seed)
    weights = folded_weights(network)
    assert {name: values.shape for name, values in weights.items()} == {
        name: values.shape for name, values in network_weights(architecture).items()
    }
    with torch.inference_mode():
        truth = network.double()(images.double()).numpy()
    session = onnxruntime.InferenceSession(
        network_graph(architecture, weights=weights), providers=["CPUExecutionProvider"]
    )
    found = np.concatenate([session.run(None, {INPUT_NAME: image[None].numpy()})[0] for image in images])
    assert np.abs(found - truth).max() <= 1e-3 * np.sqrt(np.mean(truth**2))


@given(architectures(max_blocks=2), st.integers(0, 3))
@settings(max_examples=6)
def test_folding_undoes_loading(architecture: Architecture, seed: int) -> None:
    weights = network_weights(architecture, seed)
    found = folded_weights(folded_network(architecture, seed))
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-7, atol=0)


def test_a_norm_folds_into_weight_and_bias_by_hand() -> None:
    network = build_network(TINY).eval()
    norm = network.stem.norm
    with torch.no_grad():
        network.stem.conv.weight.fill_(2.0)
        norm.weight.fill_(3.0)
        norm.bias.fill_(0.5)
        norm.running_mean.fill_(4.0)  # type: ignore[union-attr]
        norm.running_var.fill_(0.25 - norm.eps)  # type: ignore[union-attr]
    weights = folded_weights(network)
    np.testing.assert_allclose(weights["stem.conv.weight"], 12.0, rtol=1e-6)  # 2 · 3 / √0.25
    np.testing.assert_allclose(weights["stem.conv.bias"], -23.5, rtol=1e-6)  # 0.5 - 4 · 3 / √0.25
    assert weights["stem.conv.weight"].dtype == np.float32


def test_a_weight_that_is_not_finite_is_refused() -> None:
    network = build_network(TINY).eval()
    with torch.no_grad():
        network.head.classifier.bias[1] = float("nan")
    with pytest.raises(WeightsError, match=r"head.classifier.bias is not finite once its norm is folded in"):
        folded_weights(network)
